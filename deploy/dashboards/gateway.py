"""The Gateway: who is let in, what waits, what media cost, and what befalls its engines."""

from __future__ import annotations

from deploy.dashboards.grafana import Dashboard, Panel, Query, Row, or_zero, percentiles, quantile, rate, total
from deploy.dashboards.media import MEDIA
from deploy.dashboards.variables import GATEWAYS, MODEL, MODELS, NAMESPACE

#: Gateways by name: the pod's in Kubernetes, the address elsewhere.
_EACH = "pod, instance"
_NAME = "{{pod}} {{instance}}"
#: The processes of gateways, and not those of engines, which have the same series.
_OURS = f"and on (job, instance) gemma_gateway_requests_in_flight{{{GATEWAYS}}}"

_ACCESS = Row(
    100,
    "Who may call",
    [
        Panel(
            1,
            "Refused keys and tokens",
            "Requests a second without a good key or token, by error code. A spike from one address is somebody who"
            " guesses, or a client whose key was revoked.",
            "reqps",
            [Query(or_zero(rate("gemma_gateway_authentication_failures_total", GATEWAYS, "code"), "code"), "{{code}}")],
        ),
        Panel(
            2,
            "Refused by a limit",
            "Requests a second answered 429, by model and by what was limited: requests or tokens. The Tenants"
            " dashboard has whose.",
            "reqps",
            [
                Query(
                    or_zero(rate("gemma_gateway_rate_limited_total", MODELS, "model, kind"), "model"),
                    "{{model}} {{kind}}",
                )
            ],
        ),
        Panel(
            3,
            "Token providers: last reading",
            "How long ago the keys of each token provider were last read. It climbs while the provider cannot be"
            " reached or its certificate is bad; new keys are not known then.",
            "s",
            [
                Query(
                    or_zero(
                        f"max by (provider) (time() - gemma_gateway_jwks_read_timestamp_seconds{{{GATEWAYS}}})",
                        "provider",
                    ),
                    "{{provider}}",
                )
            ],
        ),
        Panel(
            4,
            "Token providers that fail",
            "Gateways whose last reading of a provider's keys failed.",
            "short",
            [
                Query(
                    or_zero(f"sum by (provider) (1 - gemma_gateway_jwks_healthy{{{GATEWAYS}}})", "provider"),
                    "{{provider}}",
                )
            ],
        ),
        Panel(
            5,
            "Quota store",
            "Gateways that cannot reach the store in which they count quotas together. They count alone meanwhile, or"
            " refuse, as quotas.store.on_failure says.",
            "short",
            [Query(f"sum by ({_EACH}) (1 - gemma_gateway_quota_store_available{{{GATEWAYS}}})", _NAME)],
        ),
        Panel(
            6,
            "Quota store: failed exchanges",
            "Exchanges with the store that failed, a second. A few are restarts; a steady rate is a network or a"
            " server that is too slow.",
            "ops",
            [Query(rate("gemma_gateway_quota_store_failures_total", GATEWAYS, _EACH), _NAME)],
        ),
    ],
)

_QUEUE = Row(
    101,
    "Limits and queue",
    [
        Panel(
            10,
            "In flight",
            "Requests admitted and not finished, by gateway. At limits.max_in_flight further ones wait.",
            "short",
            [Query(total("gemma_gateway_requests_in_flight", GATEWAYS, _EACH), _NAME)],
        ),
        Panel(
            11,
            "Waiting",
            "Requests that wait to be admitted. Growing: more comes in than engines finish.",
            "short",
            [Query(total("gemma_gateway_requests_waiting", GATEWAYS, _EACH), _NAME)],
            steps=(10, 100),
        ),
        Panel(
            12,
            "Time in the queue",
            "How long requests waited that had to and were admitted. Empty while nobody has to wait.",
            "s",
            percentiles("gemma_gateway_wait_seconds", GATEWAYS),
        ),
        Panel(
            13,
            "Refused as too many",
            "503 a second: queue_full, queue_deadline (waited limits.queue_seconds), displaced (more urgent ones"
            " came).",
            "reqps",
            [Query(or_zero(rate("gemma_gateway_requests_shed_total", GATEWAYS, "reason"), "reason"), "{{reason}}")],
        ),
        Panel(
            14,
            "Bodies held",
            "Bytes of request bodies in memory. At limits.max_body_bytes_in_flight further ones get 503.",
            "bytes",
            [Query(total("gemma_gateway_body_bytes_in_flight", GATEWAYS, _EACH), _NAME)],
        ),
    ],
)

_ENGINES = Row(
    103,
    "Engines, as the gateway sees them",
    [
        Panel(
            30,
            "Healthy",
            "1 while a replica of the engine answers, by gateway. 0 in one line alone: that gateway cannot reach it.",
            "short",
            [Query(f"min by (engine, {_EACH}) (gemma_gateway_engine_ready{{{GATEWAYS}}})", f"{{{{engine}}}} {_NAME}")],
            top=1,
        ),
        Panel(
            31,
            "Replicas",
            "Replicas that are known, and of those usable: ready, and neither left out for failures nor full.",
            "short",
            [Query(f"max by (engine, state) (gemma_gateway_engine_replicas{{{GATEWAYS}}})", "{{engine}} {{state}}")],
        ),
        Panel(
            32,
            "Exchanges under way",
            "Exchanges with each engine that have not ended.",
            "short",
            [Query(total("gemma_gateway_engine_requests_in_flight", GATEWAYS, "engine"), "{{engine}}")],
        ),
        Panel(
            33,
            "Held",
            "Requests that wait for a replica to become ready: while one starts, or is scaled up from zero.",
            "short",
            [Query(total("gemma_gateway_engine_requests_held", GATEWAYS, "engine"), "{{engine}}")],
        ),
        Panel(
            34,
            "What befell replicas",
            "A second: retry (another got what failed there), ejected and restored, busy (429 or 503),"
            " connect_failed, held.",
            "ops",
            [
                Query(
                    or_zero(rate("gemma_gateway_engine_events_total", GATEWAYS, "engine, event"), "event"),
                    "{{engine}} {{event}}",
                )
            ],
        ),
        Panel(
            35,
            "Failed exchanges",
            "Exchanges with an engine that failed, a second, by error code. docs/errors.md says what each means.",
            "reqps",
            [
                Query(
                    or_zero(rate("gemma_gateway_engine_errors_total", GATEWAYS, "engine, code"), "code"),
                    "{{engine}} {{code}}",
                )
            ],
        ),
        Panel(
            36,
            "Fallbacks",
            "Requests a second that another model answered, since the first was unavailable or overloaded.",
            "reqps",
            [
                Query(
                    or_zero(rate("gemma_gateway_fallbacks_total", MODELS, "model, target"), "model"),
                    "{{model}} → {{target}}",
                )
            ],
        ),
        Panel(
            37,
            "Streams cut by an error",
            "Streams a second whose status was 200 and that ended in an error event.",
            "reqps",
            [Query(or_zero(rate("gemma_gateway_stream_errors_total", MODELS, "model"), "model"), "{{model}}")],
        ),
        Panel(
            38,
            "Slow models, p95",
            "From a request's arrival to the first bytes of its answer, by model, path and whether it is streamed.",
            "s",
            [
                Query(
                    quantile(0.95, "gemma_gateway_first_byte_seconds", MODELS, "model, path, stream"),
                    "{{model}} {{path}} stream: {{stream}}",
                )
            ],
        ),
    ],
)

_PROCESS = Row(
    104,
    "The gateways themselves",
    [
        Panel(
            40,
            "CPU",
            "Cores in use. A gateway is one process on one core for its requests, and decodes media on others.",
            "short",
            [Query(f"rate(process_cpu_seconds_total[$__rate_interval]) {_OURS}", _NAME)],
        ),
        Panel(
            41,
            "Memory",
            "Resident memory of the process, without its decoders.",
            "bytes",
            [Query(f"process_resident_memory_bytes {_OURS}", _NAME)],
        ),
        Panel(
            42,
            "Open files",
            "Sockets and files, as a share of how many the process may have. At 1 no connection is taken any more.",
            "percentunit",
            [Query(f"process_open_fds / process_max_fds {_OURS}", _NAME)],
            steps=(0.7, 0.9),
            top=1,
        ),
        Panel(
            43,
            "Up for",
            "Time since the process began. It falls to 0 at a restart.",
            "s",
            [Query(f"time() - process_start_time_seconds {_OURS}", _NAME)],
        ),
        Panel(
            44,
            "Changes taken over, and refused",
            "Changes of the configuration and of keys within ten minutes. error: it is invalid, and the old one stays."
            " And gateways for which that is so now.",
            "short",
            [
                Query(
                    or_zero(
                        f"sum by (what, outcome) (increase(gemma_gateway_reloads_total{{{GATEWAYS}}}[10m]))", "what"
                    ),
                    "{{what}} {{outcome}}",
                ),
                Query(f"sum by (what) (1 - gemma_gateway_reload_healthy{{{GATEWAYS}}})", "{{what}} invalid now"),
            ],
        ),
        Panel(
            45,
            "Usage log: late or lost",
            "Records a second that could not be written when they were due. The bills lack them if it goes on.",
            "ops",
            [Query(rate("gemma_gateway_usage_log_faults_total", GATEWAYS, _EACH), _NAME)],
        ),
        Panel(
            46,
            "Versions",
            "Gateways by version. Two at a time are an upgrade under way, or one that got stuck.",
            "short",
            [Query(f"count by (version) (gemma_gateway_build_info{{{GATEWAYS}}})", "{{version}}")],
            stack=True,
        ),
    ],
)

GATEWAY = Dashboard(
    "gemma-gateway",
    "Gemma / Gateway",
    "Who is let in, what waits, what media cost, and what befalls the engines, as the gateways see it.",
    [NAMESPACE, MODEL],
    [_ACCESS, _QUEUE, MEDIA, _ENGINES, _PROCESS],
)
