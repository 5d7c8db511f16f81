"""The Overview: is the service well, and if not, which model and which part."""

from __future__ import annotations

from deploy.dashboards.grafana import (
    FIRING,
    Dashboard,
    Panel,
    Query,
    Row,
    or_zero,
    percentiles,
    quantile,
    rate,
    total,
)
from deploy.dashboards.variables import GATEWAYS, MODEL, MODELS, NAMESPACE

_FAILED = or_zero(rate("gemma_gateway_requests_total", f'{MODELS}, status=~"5.."', "model"), "model")
_CUT = or_zero(rate("gemma_gateway_stream_errors_total", MODELS, "model"), "model")
_VALID = rate("gemma_gateway_requests_total", f'{MODELS}, status!~"4.."')
_ALL_FAILED = rate("gemma_gateway_requests_total", f'{MODELS}, status=~"5.."')
_ALL_CUT = rate("gemma_gateway_stream_errors_total", MODELS)
_SHARE = f"(({_ALL_FAILED} or vector(0)) + ({_ALL_CUT} or vector(0))) / ({_VALID} > 0) or vector(0)"
_WAITING = (
    f"{total('gemma_gateway_requests_waiting', GATEWAYS)} + {total('gemma_gateway_engine_requests_held', GATEWAYS)}"
)

#: What came event by event.
_STREAMS = f'{MODELS}, stream="yes"'

_NOW = Row(
    100,
    "Now",
    [
        Panel(
            1,
            "Requests",
            "Inference requests a second that have ended, all gateways and models chosen.",
            "reqps",
            [Query(rate("gemma_gateway_requests_total", MODELS), "requests")],
            kind="stat",
            width=4,
            height=5,
        ),
        Panel(
            2,
            "Failed",
            "Share of requests that failed by our fault: 5xx, and streams that ended in an error. Refused requests"
            " (4xx) and clients that left are not counted. Red is ten times what the objective allows.",
            "percentunit",
            [Query(_SHARE, "failed")],
            kind="stat",
            width=4,
            height=5,
            steps=(0.001, 0.01),
        ),
        Panel(
            3,
            "Engines down",
            "Engines of which no gateway sees a healthy replica. Their models answer 503, or by fallbacks.",
            "short",
            [Query(f"sum(1 - max by (namespace, engine) (gemma_gateway_engine_ready{{{GATEWAYS}}}))", "engines")],
            kind="stat",
            width=4,
            height=5,
            steps=(1, 1),
        ),
        Panel(
            4,
            "Waiting",
            "Requests that wait in gateways: for a place, or for a replica to become ready. Those that wait in"
            " engines are on the Engine dashboard.",
            "short",
            [Query(_WAITING, "waiting")],
            kind="stat",
            width=4,
            height=5,
            steps=(10, 100),
        ),
        Panel(
            5,
            "Alerts",
            "What fires now. Each alert names its runbook under docs/runbooks and the panel to look at.",
            "short",
            [Query(or_zero(f"count by (alertname) ({FIRING})", "alertname"), "{{alertname}}")],
            kind="stat",
            width=8,
            height=5,
            steps=(1, 1),
        ),
    ],
)

_TRAFFIC = Row(
    101,
    "Traffic",
    [
        Panel(
            10,
            "Requests by model",
            "Requests a second by the name that was asked for. `unknown`: those that never got as far as a model.",
            "reqps",
            [Query(rate("gemma_gateway_requests_total", MODELS, "model"), "{{model}}")],
            stack=True,
        ),
        Panel(
            11,
            "Requests by status",
            "499: the client left. 429: a limit. 503: too many, or no engine. docs/errors.md has them all.",
            "reqps",
            [Query(rate("gemma_gateway_requests_total", MODELS, "status"), "{{status}}")],
            stack=True,
        ),
        Panel(
            12,
            "Failed by model",
            "Requests a second that failed by our fault: answered 5xx, or cut by an error within the stream.",
            "reqps",
            [Query(_FAILED, "5xx {{model}}"), Query(_CUT, "in the stream {{model}}")],
        ),
        Panel(
            13,
            "Tokens",
            "Tokens a second by model, as the engines count them. Cached and media tokens are part of the prompt's.",
            "short",
            [
                Query(rate("gemma_gateway_tokens_total", f'{MODELS}, kind="completion"', "model"), "answers {{model}}"),
                Query(rate("gemma_gateway_tokens_total", f'{MODELS}, kind="prompt"', "model"), "prompts {{model}}"),
            ],
            width=12,
        ),
        Panel(
            14,
            "In flight",
            "Requests admitted and not finished, by gateway, and the exchanges with each engine.",
            "short",
            [
                Query(total("gemma_gateway_requests_in_flight", GATEWAYS, "pod, instance"), "{{pod}} {{instance}}"),
                Query(total("gemma_gateway_engine_requests_in_flight", GATEWAYS, "engine"), "engine {{engine}}"),
            ],
            width=12,
        ),
    ],
)

_OBJECTIVES = Row(
    102,
    "Objectives",
    [
        Panel(
            20,
            "Availability: how fast the budget burns",
            "1: failures use up exactly the 30 days' budget. 14.4 over an hour: it is gone in two days, and somebody"
            " is called. Needs the chart's recording rules (prometheusRule.enabled).",
            "short",
            [
                Query(f"gemma:availability_burn:{window}{{{MODELS}}}", f"{window} {{{{model}}}}")
                for window in ("5m", "1h", "6h")
            ],
            width=9,
            steps=(6, 14.4),
        ),
        Panel(
            21,
            "First token: how fast the budget burns",
            "As on the left, for first tokens of streams that came later than 2.5 s after the request. Needs the"
            " chart's recording rules.",
            "short",
            [
                Query(f"gemma:first_token_burn:{window}{{{MODELS}}}", f"{window} {{{{model}}}}")
                for window in ("5m", "1h", "6h")
            ],
            width=9,
            steps=(6, 14.4),
        ),
        Panel(
            22,
            "Budget spent, last 3 days",
            "How fast the budgets burned in the last three days. Above 1 the objective of 30 days would be missed.",
            "short",
            [
                Query(f"gemma:availability_burn:3d{{{MODELS}}}", "availability {{model}}"),
                Query(f"gemma:first_token_burn:3d{{{MODELS}}}", "first token {{model}}"),
            ],
            kind="stat",
            width=6,
            steps=(1, 3),
        ),
    ],
)

_LATENCY = Row(
    103,
    "Latency",
    [
        Panel(
            30,
            "First token",
            "From a request's arrival at the gateway to the first token of its stream. Queue and media are part of it.",
            "s",
            percentiles("gemma_gateway_first_byte_seconds", _STREAMS),
        ),
        Panel(
            31,
            "First token by model, p95",
            "Which model is slow. All of them: look at the queue and at media. One: at its engine.",
            "s",
            [Query(quantile(0.95, "gemma_gateway_first_byte_seconds", _STREAMS, "model"), "{{model}}")],
        ),
        Panel(
            32,
            "First bytes, spread",
            "How many requests took how long, streams and answers in one piece. Two bands are these two, or two kinds"
            " of use.",
            "s",
            [Query(rate("gemma_gateway_first_byte_seconds_bucket", MODELS, "le"), "{{le}}")],
            kind="heatmap",
        ),
        Panel(
            33,
            "First token in the engine",
            "From a request's arrival at an engine to its first token. Where this is good and the left is bad, the"
            " time is lost in the gateway.",
            "s",
            percentiles("vllm:time_to_first_token_seconds", GATEWAYS),
        ),
        Panel(
            34,
            "Between tokens in the engine",
            "Time from one token of an answer to the next, in the engine. People read at about 0.1 s a token.",
            "s",
            percentiles("vllm:inter_token_latency_seconds", GATEWAYS),
        ),
        Panel(
            36,
            "Between tokens",
            "Mean time from one event of a stream to the next, by stream. Where the left is good and this is bad,"
            " clients read slowly, or the gateway has too little CPU.",
            "s",
            percentiles("gemma_gateway_token_seconds", MODELS),
        ),
        Panel(
            35,
            "Whole requests by model, p95",
            "From a request's arrival to the end of its answer. It follows the lengths of answers.",
            "s",
            [Query(quantile(0.95, "gemma_gateway_request_seconds", MODELS, "model"), "{{model}}")],
            width=24,
        ),
    ],
)

OVERVIEW = Dashboard(
    "gemma-overview",
    "Gemma / Overview",
    "Whether the service is well, and if not, which model and which part. Start here.",
    [NAMESPACE, MODEL],
    [_NOW, _TRAFFIC, _OBJECTIVES, _LATENCY],
)
