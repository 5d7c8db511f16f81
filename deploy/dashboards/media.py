"""The Gateway dashboard's row about images, clips and videos."""

from __future__ import annotations

from deploy.dashboards.grafana import Panel, Query, Row, or_zero, percentiles, quantile, rate, total
from deploy.dashboards.variables import GATEWAYS

_EACH = "pod, instance"
_NAME = "{{pod}} {{instance}}"

MEDIA = Row(
    102,
    "Media",
    [
        Panel(
            20,
            "Refused for their media",
            "Requests a second, by error code. media_unreachable and media_timeout in numbers: the way out to the"
            " network is broken. invalid_media: one client sends rubbish.",
            "reqps",
            [Query(or_zero(rate("gemma_gateway_media_errors_total", GATEWAYS, "code"), "code"), "{{code}}")],
        ),
        Panel(
            21,
            "Parts",
            "Media parts a second: passed on as they came, decoded, or known from before (cached).",
            "ops",
            [
                Query(
                    or_zero(rate("gemma_gateway_media_parts_total", GATEWAYS, "modality, outcome"), "modality"),
                    "{{modality}} {{outcome}}",
                )
            ],
            stack=True,
        ),
        Panel(
            22,
            "Time for all media of a request",
            "Fetching and decoding together; part of the time to first token. Empty while no request has media.",
            "s",
            percentiles("gemma_gateway_media_seconds", GATEWAYS),
        ),
        Panel(
            23,
            "Fetches",
            "A second, by outcome: ok, hit and revalidated (cache), joined (another request's), cancelled (the"
            " clients left), or an error code.",
            "ops",
            [
                Query(
                    or_zero(rate("gemma_gateway_media_fetches_total", GATEWAYS, "modality, outcome"), "outcome"),
                    "{{modality}} {{outcome}}",
                )
            ],
            stack=True,
        ),
        Panel(
            24,
            "Time of a fetch, p95",
            "One fetch over http(s), redirects included. It is the servers of the clients that are slow.",
            "s",
            [
                Query(
                    or_zero(quantile(0.95, "gemma_gateway_media_fetch_seconds", GATEWAYS, "modality"), "modality"),
                    "{{modality}}",
                )
            ],
        ),
        Panel(
            25,
            "Fetched",
            "Bytes a second read from servers.",
            "Bps",
            [
                Query(
                    or_zero(rate("gemma_gateway_media_fetched_bytes_total", GATEWAYS, "modality"), "modality"),
                    "{{modality}}",
                )
            ],
        ),
        Panel(
            26,
            "Time to decode, p95",
            "Decoding one part, without waiting for a worker.",
            "s",
            [
                Query(
                    or_zero(quantile(0.95, "gemma_gateway_media_decode_seconds", GATEWAYS, "modality"), "modality"),
                    "{{modality}}",
                )
            ],
        ),
        Panel(
            27,
            "At the decoders",
            "Parts that wait for a worker or are being decoded. Growing: the gateways have too few cores for their"
            " media.",
            "short",
            [Query(total("gemma_gateway_media_decodes_waiting", GATEWAYS, _EACH), _NAME)],
        ),
        Panel(
            28,
            "Memory for media",
            "Bytes being fetched or decoded, and bytes kept by the caches. At media.max_bytes_in_flight requests get"
            " 503.",
            "bytes",
            [
                Query(total("gemma_gateway_media_bytes_in_flight", GATEWAYS, _EACH), f"in work {_NAME}"),
                Query(total("gemma_gateway_media_cache_bytes", GATEWAYS, "cache"), "cache: {{cache}}"),
            ],
        ),
    ],
)
