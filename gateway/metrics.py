"""Every Prometheus series of the gateway, declared once. Labels are bounded: model names come from the catalog."""

from __future__ import annotations

from importlib.metadata import version

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

from gateway.series import Arrears, Counts, Spread

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

#: Seconds; a generation lasts from a blink to many minutes.
GENERATION_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160, 320, 640)
#: Seconds; in the queue.
WAIT_BUCKETS = (0.005, 0.025, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40)
#: Seconds; fetching and decoding.
MEDIA_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)
#: Seconds; from one event of a stream to the next.
TOKEN_BUCKETS = (0.005, 0.01, 0.015, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1, 2.5)

#: Values of labels that are there from the start, at 0: Prometheus does not see the increase of a series that is new.
SHED_REASONS = ("queue_full", "queue_deadline", "displaced")
MEDIA_CODES = ("invalid_media", "media_too_large", "silent_media", "media_unreachable", "media_timeout")
RELOADED = ("configuration", "keys")


class Metrics:
    """The series, in a registry of their own so that two gateways in one process do not mix."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        #: Asked first whenever the series are read: what is still to be counted.
        self.arrears = Arrears(registry)
        ProcessCollector(registry=registry)
        self.build = Gauge("gemma_gateway_build_info", "1, for the version that runs.", ["version"], registry=registry)
        self.requests = Counts(
            "gemma_gateway_requests",
            "Inference requests by HTTP status; 499: the client left.",
            ["path", "model", "status"],
            registry=registry,
        )
        self.key_requests = Counts(
            "gemma_gateway_key_requests",
            "Inference requests by key: complete, refused, aborted (the client left) or failed. Callers with tokens are"
            " counted by their provider; `other` are those beyond usage.max_keys_in_metrics.",
            ["key", "outcome"],
            registry=registry,
        )
        self.in_flight = Gauge(
            "gemma_gateway_requests_in_flight", "Inference requests admitted and not finished.", registry=registry
        )
        self.waiting = Gauge(
            "gemma_gateway_requests_waiting", "Inference requests that wait to be admitted.", registry=registry
        )
        self.wait_seconds = Histogram(
            "gemma_gateway_wait_seconds",
            "How long requests waited that were admitted, those that did not have to left out.",
            buckets=WAIT_BUCKETS,
            registry=registry,
        )
        self.shed = Counter(
            "gemma_gateway_requests_shed",
            "Requests refused as too many (503): queue_full, queue_deadline, or displaced by more urgent ones.",
            ["reason"],
            registry=registry,
        )
        self.rate_limited = Counter(
            "gemma_gateway_rate_limited",
            "Requests refused by a limit of a key, a model or all together (429), by what was limited.",
            ["model", "kind"],
            registry=registry,
        )
        self.authentication_failures = Counter(
            "gemma_gateway_authentication_failures",
            "Requests without a good key or token, by error code.",
            ["code"],
            registry=registry,
        )
        self.body_bytes = Gauge(
            "gemma_gateway_body_bytes_in_flight", "Bytes of request bodies held.", registry=registry
        )
        self.duration = Spread(
            "gemma_gateway_request_seconds",
            "From the request's arrival to the end of its reply.",
            ["path", "model"],
            buckets=GENERATION_BUCKETS,
            registry=registry,
        )
        self.first_byte = Spread(
            "gemma_gateway_first_byte_seconds",
            "From the request's arrival to the first bytes of the answer. stream: yes where it came event by event, and"
            " this is the time to the first token; no where it came whole.",
            ["path", "model", "stream"],
            buckets=GENERATION_BUCKETS,
            registry=registry,
        )
        self.token_seconds = Spread(
            "gemma_gateway_token_seconds",
            "Mean time from one event of a stream to the next, once for each stream; an event mostly is a token.",
            ["path", "model"],
            buckets=TOKEN_BUCKETS,
            registry=registry,
        )
        self.tokens = Counts(
            "gemma_gateway_tokens",
            "Tokens by kind: prompt, completion, and how many of the prompt were image, audio, video or cached.",
            ["key", "model", "kind"],
            registry=registry,
        )
        self.stream_errors = Counter(
            "gemma_gateway_stream_errors", "Streams that ended in an error event.", ["model"], registry=registry
        )
        self.engine_errors = Counter(
            "gemma_gateway_engine_errors",
            "Exchanges with an engine that failed, by error code.",
            ["engine", "code"],
            registry=registry,
        )
        self.fallbacks = Counter(
            "gemma_gateway_fallbacks",
            "Requests that went on to another model because the first was unavailable or overloaded.",
            ["model", "target"],
            registry=registry,
        )
        self.engine_ready = Gauge(
            "gemma_gateway_engine_ready", "1 while a replica's /health answers 200.", ["engine"], registry=registry
        )
        self.engine_events = Counter(
            "gemma_gateway_engine_events",
            "What befell an engine's replicas: retry (another got what failed there), ejected, restored, busy (429 or"
            " 503), connect_failed; and held (a request waited for a replica).",
            ["engine", "event"],
            registry=registry,
        )
        self.engine_held = Gauge(
            "gemma_gateway_engine_requests_held",
            "Requests that wait for a replica to become ready: what to scale up from zero by.",
            ["engine"],
            registry=registry,
        )
        self.engine_in_flight = Gauge(
            "gemma_gateway_engine_requests_in_flight",
            "Exchanges with an engine that have not ended.",
            ["engine"],
            registry=registry,
        )
        self.engine_replicas = Gauge(
            "gemma_gateway_engine_replicas",
            "Replicas: known, and of those usable (ready, and neither left out for failures nor full).",
            ["engine", "state"],
            registry=registry,
        )
        self.media = Histogram(
            "gemma_gateway_media_seconds",
            "Fetching and decoding all media of a request that has some.",
            buckets=MEDIA_BUCKETS,
            registry=registry,
        )
        self.media_errors = Counter(
            "gemma_gateway_media_errors",
            "Requests refused for their media, by error code.",
            ["code"],
            registry=registry,
        )
        self.media_parts = Counter(
            "gemma_gateway_media_parts",
            "Media parts by what was done with them: passed (as they came), decoded, or cached (known from before).",
            ["modality", "outcome"],
            registry=registry,
        )
        self.fetch_seconds = Histogram(
            "gemma_gateway_media_fetch_seconds",
            "One fetch over http(s), redirects included; what the cache answers is not counted.",
            ["modality"],
            buckets=MEDIA_BUCKETS,
            registry=registry,
        )
        self.fetches = Counter(
            "gemma_gateway_media_fetches",
            "Fetches by outcome: ok, hit (cache), revalidated (cache, asked anew), joined (another request's fetch),"
            " cancelled (all clients left), or an error code.",
            ["modality", "outcome"],
            registry=registry,
        )
        self.fetched_bytes = Counter(
            "gemma_gateway_media_fetched_bytes", "Bytes of bodies read from servers.", ["modality"], registry=registry
        )
        self.decode_seconds = Histogram(
            "gemma_gateway_media_decode_seconds",
            "Decoding one part, without waiting for a worker.",
            ["modality"],
            buckets=MEDIA_BUCKETS,
            registry=registry,
        )
        self.decodes_waiting = Gauge(
            "gemma_gateway_media_decodes_waiting",
            "Parts that wait for a worker or are being decoded.",
            registry=registry,
        )
        self.media_bytes = Gauge(
            "gemma_gateway_media_bytes_in_flight", "Bytes of media being fetched or decoded.", registry=registry
        )
        self.media_cache_bytes = Gauge(
            "gemma_gateway_media_cache_bytes",
            "Bytes kept by the caches: fetched, decoded.",
            ["cache"],
            registry=registry,
        )

        self.reloads = Counter(
            "gemma_gateway_reloads",
            "Changes noticed of `configuration` and `keys`: taken over (ok), or refused as they are invalid (error).",
            ["what", "outcome"],
            registry=registry,
        )
        self.reload_healthy = Gauge(
            "gemma_gateway_reload_healthy",
            "0 while `configuration` or `keys`, as they are now, are invalid and the old ones stay in force; else 1.",
            ["what"],
            registry=registry,
        )
        self.store_available = Gauge(
            "gemma_gateway_quota_store_available",
            "1 while the store that gateways count in together (quotas.store) answers; also 1 where there is none.",
            registry=registry,
        )
        self.store_failures = Counter(
            "gemma_gateway_quota_store_failures", "Exchanges with that store that failed.", registry=registry
        )
        self.jwks_healthy = Gauge(
            "gemma_gateway_jwks_healthy",
            "1 while the last reading of a token provider's keys succeeded.",
            ["provider"],
            registry=registry,
        )
        self.jwks_read = Gauge(
            "gemma_gateway_jwks_read_timestamp_seconds",
            "When a token provider's keys were last read with success (Unix time).",
            ["provider"],
            registry=registry,
        )
        self.usage_log_faults = Counter(
            "gemma_gateway_usage_log_faults",
            "Records that could not be written to the usage log when they were due.",
            registry=registry,
        )
        self._declare()

    def _declare(self) -> None:
        """Shows series before anything has happened to them."""
        self.build.labels(version("gemma-gateway")).set(1)
        for reason in SHED_REASONS:
            self.shed.labels(reason)
        for code in MEDIA_CODES:
            self.media_errors.labels(code)
        for what in RELOADED:
            self.reload_healthy.labels(what).set(1)
            for outcome in ("ok", "error"):
                self.reloads.labels(what, outcome)

    def render(self) -> bytes:
        """The exposition in Prometheus' text format."""
        return generate_latest(self.registry)
