"""Every error that a client can see: its status, type and code, and OpenAI's body for it.

Raise the most specific class; `api/handlers.py` renders it. The message names the field and the limit and
says nothing internal.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import ClassVar

import msgspec


class GatewayError(Exception):
    """The root: an unexpected fault of ours (500).

    `param` is the path of the field at fault, such as `messages[2].content[0].image_url.url`.
    `retry_after` is in seconds and becomes the Retry-After header.
    """

    status: ClassVar[int] = 500
    type: str = "server_error"
    code: str | None = None

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.code = code or type(self).code
        self.retry_after = retry_after

    def detail(self) -> dict[str, str | None]:
        """The inside of OpenAI's error object."""
        return {"message": self.message, "type": self.type, "param": self.param, "code": self.code}

    def body(self) -> bytes:
        """OpenAI's error body, `{"error": {"message", "type", "param", "code"}}`, as JSON."""
        return msgspec.json.encode({"error": self.detail()})

    def anthropic_body(self) -> bytes:
        """The same error as the Messages API shapes it."""
        kind = ANTHROPIC_TYPES.get(self.status, "api_error")
        return msgspec.json.encode({"type": "error", "error": {"type": kind, "message": self.message}})

    def headers(self) -> list[tuple[bytes, bytes]]:
        """Headers that go with the status."""
        if self.retry_after is None:
            return []
        # Rounded upwards: a client that waits so long succeeds.
        return [(b"retry-after", b"%d" % max(1, math.ceil(self.retry_after)))]


#: Status to error type, https://docs.anthropic.com/en/api/errors
ANTHROPIC_TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    422: "invalid_request_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}


class InvalidRequestError(GatewayError):
    """The request is wrong; sending it again will not help."""

    status = 400
    type = "invalid_request_error"


class MediaError(InvalidRequestError):
    """A media part cannot be decoded or is not what the model takes."""

    code = "invalid_media"


class MediaTooLargeError(MediaError):
    """A media part is over a limit on bytes, pixels, seconds or count."""

    status = 413
    code = "media_too_large"


class ShortMediaError(MediaError):
    """A clip too short to be heard at all."""


class SilentMediaError(MediaError):
    """A clip of `seconds` in which there is nothing to hear."""

    code = "silent_media"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        seconds: float = 0.0,
    ) -> None:
        super().__init__(message, param=param, code=code, retry_after=retry_after)
        self.seconds = seconds


class MediaUnreachableError(MediaError):
    """The URL of a media part was refused or could not be fetched: the caller's to mend."""

    status = 422
    code = "media_unreachable"


class MediaTimeoutError(GatewayError):
    """Fetching or decoding a media part took too long."""

    status = 504
    type = "timeout_error"
    code = "media_timeout"


class PayloadTooLargeError(InvalidRequestError):
    """The request body is over `server.max_body_bytes`."""

    status = 413
    code = "payload_too_large"


class AuthenticationError(GatewayError):
    """No key, or one that is unknown, expired or revoked."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"

    def headers(self) -> list[tuple[bytes, bytes]]:
        return [(b"www-authenticate", b"Bearer"), *super().headers()]


class PermissionDeniedError(GatewayError):
    """The key is good, but may not do this."""

    status = 403
    type = "invalid_request_error"
    code = "permission_denied"


class TooManyFailuresError(GatewayError):
    """Too many wrong keys or tokens came from where this one came from."""

    status = 429
    type = "invalid_request_error"
    code = "too_many_authentication_failures"


class RateLimitError(GatewayError):
    """A limit on requests or tokens is reached. `kind` is OpenAI's type: `requests` or `tokens`.

    `limits` are the x-ratelimit-* headers; `retry_after` is the time after which the same request is let in.
    """

    status = 429
    type = "requests"
    code = "rate_limit_exceeded"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        kind: str = "requests",
        limits: Sequence[tuple[bytes, bytes]] = (),
    ) -> None:
        super().__init__(message, param=param, code=code, retry_after=retry_after)
        self.type = kind
        self._limits = limits

    def headers(self) -> list[tuple[bytes, bytes]]:
        milliseconds = b"%d" % math.ceil((self.retry_after or 0) * 1000)
        return [*super().headers(), (b"retry-after-ms", milliseconds), *self._limits]


class QuotaTooSmallError(InvalidRequestError):
    """The request alone would take more tokens than a limit grants, so that no waiting helps."""

    code = "tokens_exceed_limit"


class NotFoundError(InvalidRequestError):
    """No such path."""

    status = 404
    code = "not_found"


class ModelNotFoundError(NotFoundError):
    """No alias or model of that name."""

    code = "model_not_found"


class MethodNotAllowedError(InvalidRequestError):
    """The path exists, for another HTTP method."""

    status = 405
    code = "method_not_allowed"


class OverloadedError(GatewayError):
    """The gateway is at its limit of requests in flight."""

    status = 503
    type = "overloaded_error"
    code = "overloaded"


class ProviderUnavailableError(GatewayError):
    """Whether a token is good cannot be told, because its provider does not say which keys it has."""

    status = 503
    type = "service_unavailable_error"
    code = "token_provider_unavailable"


class EngineOverloadedError(OverloadedError):
    """The engine's queue is full: another may have room."""


class EngineUnavailableError(GatewayError):
    """No engine can take the request now: starting, stopping, down or full."""

    status = 503
    type = "service_unavailable_error"
    code = "engine_unavailable"


class EngineFailedError(GatewayError):
    """An engine broke the exchange: closed early, or spoke nonsense."""

    status = 502
    type = "engine_error"
    code = "engine_failed"


class EngineTimeoutError(GatewayError):
    """An engine did not answer within its time."""

    status = 504
    type = "timeout_error"
    code = "engine_timeout"


class ClientDisconnectedError(Exception):
    """The client left: there is nobody to answer. Logged and counted as 499."""


class ConfigurationError(Exception):
    """A configuration that cannot run. The message is for the operator and carries the fix to paste."""
