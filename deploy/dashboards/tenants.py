"""The Tenants: what each key asks for, gets and uses."""

from __future__ import annotations

from deploy.dashboards.grafana import Dashboard, Panel, Query, Row, or_zero, rate
from deploy.dashboards.variables import GATEWAYS, KEY, KEYS, MODEL, MODELS, NAMESPACE

_TOKENS = "gemma_gateway_tokens_total"
_REQUESTS = "gemma_gateway_key_requests_total"
_BOTH = f'{MODELS}, key=~"$key"'
_CACHED = rate(_TOKENS, f'{_BOTH}, kind="cached"', "key")
_PROMPT = rate(_TOKENS, f'{_BOTH}, kind="prompt"', "key")


def _most(series: str, where: str) -> str:
    """The ten keys with most in the time that is shown."""
    return f"topk(10, sum by (key) (increase({series}{{{where}}}[$__range])))"


_MOST = Row(
    100,
    "Who uses most, in the time shown",
    [
        Panel(
            1,
            "Tokens",
            "The ten keys with most tokens, prompts and answers together.",
            "short",
            [Query(_most(_TOKENS, f'{_BOTH}, kind=~"prompt|completion"'), "{{key}}")],
            kind="bargauge",
        ),
        Panel(
            2,
            "Requests",
            "The ten keys with most requests.",
            "short",
            [Query(_most(_REQUESTS, KEYS), "{{key}}")],
            kind="bargauge",
        ),
        Panel(
            3,
            "Refused",
            "The ten keys with most requests refused: by limits, by what the key may not do, or as the request is"
            " wrong.",
            "short",
            [Query(or_zero(_most(_REQUESTS, f'{KEYS}, outcome="refused"'), "key"), "{{key}}")],
            kind="bargauge",
        ),
    ],
)

_REQUESTS_ROW = Row(
    101,
    "Requests",
    [
        Panel(
            10,
            "Requests by key",
            "A second. Tokens of a provider are counted together, by its name; `other` are the keys beyond"
            " usage.max_keys_in_metrics, `anonymous` those without one. Names of keys: gemma-gateway keys list.",
            "reqps",
            [Query(rate(_REQUESTS, KEYS, "key"), "{{key}}")],
            width=12,
            stack=True,
        ),
        Panel(
            11,
            "How they ended",
            "complete; refused (4xx); aborted (the client left); failed (5xx, or an error within the stream).",
            "reqps",
            [Query(rate(_REQUESTS, KEYS, "outcome"), "{{outcome}}")],
            width=12,
            stack=True,
        ),
        Panel(
            12,
            "Failed, by key",
            "Requests a second that failed by our fault. One key alone: look at what it sends.",
            "reqps",
            [Query(or_zero(rate(_REQUESTS, f'{KEYS}, outcome="failed"', "key"), "key"), "{{key}}")],
        ),
        Panel(
            13,
            "Refused, by key",
            "Requests a second that were refused. A client that sends again at once, in spite of Retry-After, shows"
            " here.",
            "reqps",
            [Query(or_zero(rate(_REQUESTS, f'{KEYS}, outcome="refused"', "key"), "key"), "{{key}}")],
        ),
        Panel(
            14,
            "Limits reached, by model",
            "429 a second, by model and by what was limited. Whose limit it was is in the log and in `x-ratelimit-…`"
            " headers.",
            "reqps",
            [
                Query(
                    or_zero(rate("gemma_gateway_rate_limited_total", MODELS, "model, kind"), "model"),
                    "{{model}} {{kind}}",
                )
            ],
        ),
    ],
)

_TOKENS_ROW = Row(
    102,
    "Tokens",
    [
        Panel(
            20,
            "Answers, by key",
            "Tokens a second that engines generated for each key. This is what costs most.",
            "short",
            [Query(rate(_TOKENS, f'{_BOTH}, kind="completion"', "key"), "{{key}}")],
            stack=True,
        ),
        Panel(
            21,
            "Prompts, by key",
            "Tokens a second of the prompts, media and cached ones included.",
            "short",
            [Query(rate(_TOKENS, f'{_BOTH}, kind="prompt"', "key"), "{{key}}")],
            stack=True,
        ),
        Panel(
            22,
            "By model",
            "Tokens a second of the chosen keys, by model.",
            "short",
            [Query(rate(_TOKENS, f'{_BOTH}, kind=~"prompt|completion"', "model, kind"), "{{model}} {{kind}}")],
            stack=True,
        ),
        Panel(
            23,
            "Media and cached tokens",
            "How many of the prompts' tokens a second stand for images, clips and videos, or were in the prefix cache.",
            "short",
            [Query(or_zero(rate(_TOKENS, f'{_BOTH}, kind!~"prompt|completion"', "kind"), "kind"), "{{kind}}")],
            width=12,
        ),
        Panel(
            24,
            "Cached share of the prompts, by key",
            "A key whose requests share no beginning has none. Isolation of tenants (cache_salt) keeps keys from"
            " sharing.",
            "percentunit",
            [
                Query(
                    or_zero(
                        f"{_CACHED} / ({_PROMPT} > 0)",
                        "key",
                    ),
                    "{{key}}",
                )
            ],
            width=12,
            top=1,
        ),
    ],
)

_WHOLE = Row(
    103,
    "All of them",
    [
        Panel(
            30,
            "Keys that are counted by themselves",
            "Keys with requests since the gateways began. Near usage.max_keys_in_metrics the next ones are counted as"
            " `other`.",
            "short",
            [Query(f"count(count by (key) ({_REQUESTS}{{{GATEWAYS}}}))", "keys")],
            kind="stat",
            height=5,
        ),
    ],
)

TENANTS = Dashboard(
    "gemma-tenants",
    "Gemma / Tenants",
    "What each key asks for, gets and uses. The usage log (docs/usage.md) has every request, for bills.",
    [NAMESPACE, KEY, MODEL],
    [_MOST, _REQUESTS_ROW, _TOKENS_ROW, _WHOLE],
)
