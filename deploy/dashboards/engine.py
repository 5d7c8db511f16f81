"""The Engine dashboard: vLLM's own series, by replica."""

from __future__ import annotations

from deploy.dashboards.grafana import Dashboard, Panel, Query, Row, or_zero, percentiles, quantile, rate, total
from deploy.dashboards.variables import ENGINE_NAMESPACE, ENGINES, GATEWAYS, REPLICA, SERVED

_EACH = "pod, instance"
_NAME = "{{pod}} {{instance}}"
_OURS = f"and on (job, instance) vllm:num_requests_running{{{ENGINES}}}"


def _share(hits: str, queries: str) -> str:
    """How many of the tokens or items asked for were in a cache; 0 while nothing is asked for."""
    return (
        f"{rate(hits, ENGINES, _EACH)} / ({rate(queries, ENGINES, _EACH)} > 0) or 0 * {total(queries, ENGINES, _EACH)}"
    )


_LOAD = Row(
    100,
    "Load",
    [
        Panel(
            1,
            "Running",
            "Requests in the batch of each replica. Very uneven lines: look at routing (docs/routing.md).",
            "short",
            [Query(total("vllm:num_requests_running", ENGINES, _EACH), _NAME)],
        ),
        Panel(
            2,
            "Waiting",
            "Requests that wait within each replica. More than a few for minutes: more replicas, or lower limits at"
            " the gateway.",
            "short",
            [Query(total("vllm:num_requests_waiting", ENGINES, _EACH), _NAME)],
            steps=(10, 50),
        ),
        Panel(
            3,
            "Waiting, by reason",
            "capacity: for memory or a place in the batch. deferred: for something else, such as a grammar being"
            " compiled.",
            "short",
            [Query(total("vllm:num_requests_waiting_by_reason", ENGINES, "reason"), "{{reason}}")],
            stack=True,
        ),
        Panel(
            4,
            "KV cache in use",
            "Share of the KV cache that running requests hold. Near 1 requests wait, and running ones are preempted.",
            "percentunit",
            [Query(f"max by ({_EACH}) (vllm:kv_cache_usage_perc{{{ENGINES}}})", _NAME)],
            steps=(0.8, 0.9),
            top=1,
        ),
        Panel(
            5,
            "Preemptions",
            "Running requests a second that lost their memory to others, and are computed anew. Should be 0.",
            "ops",
            [Query(rate("vllm:num_preemptions_total", ENGINES, _EACH), _NAME)],
        ),
        Panel(
            6,
            "Refused as the queue is full",
            "Requests a second that the engine refused by its own limits (max_num_queued_reqs,"
            " max_num_queued_tokens). Another replica gets them, if there is one.",
            "reqps",
            [
                Query(
                    f"sum by (reason) (rate(vllm:admission_rejections_total{{{ENGINES}}}[$__rate_interval]))",
                    "{{reason}}",
                )
            ],
        ),
        Panel(
            7,
            "Prefix cache: hits",
            "Share of the prompts' tokens that were in the KV cache already. It falls with more tenants or bad"
            " routing.",
            "percentunit",
            [Query(_share("vllm:prefix_cache_hits_total", "vllm:prefix_cache_queries_total"), _NAME)],
            top=1,
        ),
        Panel(
            8,
            "Media cache: hits",
            "Share of images, clips and videos that the engine had processed before.",
            "percentunit",
            [Query(_share("vllm:mm_cache_hits_total", "vllm:mm_cache_queries_total"), _NAME)],
            top=1,
        ),
        Panel(
            9,
            "Requests that ended",
            "A second, by reason. abort: the client left. error: a fault of the engine; look into its log.",
            "reqps",
            [Query(rate("vllm:request_success_total", ENGINES, "finished_reason"), "{{finished_reason}}")],
            stack=True,
        ),
    ],
)

_SPEED = Row(
    101,
    "Speed",
    [
        Panel(
            20,
            "First token",
            "From a request's arrival at the engine to its first token. The objective: 95 % within 2.5 s.",
            "s",
            percentiles("vllm:time_to_first_token_seconds", ENGINES),
        ),
        Panel(
            21,
            "First token by replica, p95",
            "One line above the others: that replica is ill, or gets the long prompts.",
            "s",
            [Query(quantile(0.95, "vllm:time_to_first_token_seconds", ENGINES, _EACH), _NAME)],
        ),
        Panel(
            22,
            "Between tokens",
            "Time from one token of an answer to the next. It grows with the batch, and with prompts computed beside"
            " it.",
            "s",
            percentiles("vllm:inter_token_latency_seconds", ENGINES),
        ),
        Panel(
            23,
            "Where the time goes, p95",
            "queue: until the first computation. prefill: the prompt. decode: the answer. queue large: more replicas.",
            "s",
            [
                Query(quantile(0.95, f"vllm:request_{phase}_time_seconds", ENGINES), phase)
                for phase in ("queue", "prefill", "decode")
            ],
        ),
        Panel(
            24,
            "Whole requests",
            "From arrival at the engine to the last token.",
            "s",
            percentiles("vllm:e2e_request_latency_seconds", ENGINES),
        ),
        Panel(
            25,
            "Answers",
            "Tokens a second that each replica generates.",
            "short",
            [Query(rate("vllm:generation_tokens_total", ENGINES, _EACH), _NAME)],
            stack=True,
        ),
        Panel(
            26,
            "Prompts",
            "Tokens a second of prompts, by where they came from: computed, from the prefix cache, or from another"
            " engine.",
            "short",
            [Query(rate("vllm:prompt_tokens_by_source_total", ENGINES, "source"), "{{source}}")],
            stack=True,
        ),
        Panel(
            27,
            "Length of prompts and answers",
            "Tokens, of requests that ended. Longer ones make everything else on this page slower.",
            "short",
            [
                Query(quantile(share, f"vllm:request_{kind}_tokens", ENGINES), f"{kind} p{share * 100:g}")
                for kind in ("prompt", "generation")
                for share in (0.5, 0.95)
            ],
        ),
        Panel(
            28,
            "Tokens in a step",
            "Tokens that one step of the engine computes; at max_num_batched_tokens prompts wait for each other.",
            "short",
            percentiles("vllm:iteration_tokens_total", ENGINES),
        ),
    ],
)

_PROCESS = Row(
    102,
    "The engines themselves",
    [
        Panel(
            40,
            "Up for",
            "Time since the engine's process began. It falls to 0 at a restart, and a model takes minutes to load.",
            "s",
            [Query(f"time() - process_start_time_seconds {_OURS}", _NAME)],
        ),
        Panel(
            41,
            "Answers Prometheus",
            "1 while the engine's /metrics can be read. Gaps: it restarts, or its loop is blocked.",
            "short",
            [Query(f"up and on (job, instance) last_over_time(vllm:num_requests_running{{{ENGINES}}}[1h])", _NAME)],
            top=1,
        ),
        Panel(
            42,
            "Memory of the API process",
            "Resident memory of the process that takes requests, not of the GPU workers. Media pass through it.",
            "bytes",
            [Query(f"process_resident_memory_bytes {_OURS}", _NAME)],
        ),
        Panel(
            43,
            "Seen by the gateways",
            "What befell replicas as the gateways see it, a second; by the gateway's name of the engine.",
            "ops",
            [
                Query(
                    or_zero(rate("gemma_gateway_engine_events_total", GATEWAYS, "engine, event"), "event"),
                    "{{engine}} {{event}}",
                )
            ],
            width=24,
        ),
    ],
)

ENGINE = Dashboard(
    "gemma-engine",
    "Gemma / Engine",
    "vLLM by replica: load, memory, speed. Names are those that the engines serve, not the gateway's.",
    [ENGINE_NAMESPACE, SERVED, REPLICA],
    [_LOAD, _SPEED, _PROCESS],
)
