"""Every error of access, quotas, admission and catalog as OpenAI's SDK raises it: class, code, param, headers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import openai
import pytest

from gateway.access import key_edits
from gateway.access.callers import EVERYTHING
from gateway.settings import Endpoint, Grant, Limits, Modality
from tests.fake_engine import Received, reply
from tests.live.conftest import MESSAGES, Running, Start
from tests.media.samples import data_url

IMAGE = [{"type": "image_url", "image_url": {"url": data_url(b"x", "image/png")}}]


async def hang(_: Received, __: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


Tasks = list[asyncio.Future[Any]]


async def nothing(_: Running, __: openai.AsyncOpenAI, ___: Tasks) -> None:
    """No more is needed."""


async def one_before(_: Running, client: openai.AsyncOpenAI, __: Tasks) -> None:
    await ask(client)


async def one_under_way(gateway: Running, client: openai.AsyncOpenAI, under_way: Tasks) -> None:
    gateway.engine.behaviour = hang
    under_way.append(asyncio.ensure_future(ask(client)))
    await gateway.until(lambda: gateway.engine.running == 1)


async def engine_full(gateway: Running, _: openai.AsyncOpenAI, __: Tasks) -> None:
    gateway.engine.behaviour = reply(b'{"error":{"message":"queue full"}}', 503, retry_after="7")


async def engine_gone(gateway: Running, _: openai.AsyncOpenAI, __: Tasks) -> None:
    gateway.engine.die()


async def failures(_: Running, client: openai.AsyncOpenAI, __: Tasks) -> None:
    for ___ in range(2):
        with pytest.raises(openai.AuthenticationError):
            await ask(client)


async def ask(client: openai.AsyncOpenAI, **fields: Any) -> Any:
    return await client.chat.completions.create(**{"model": "gemma", "messages": MESSAGES, **fields})


async def embed(client: openai.AsyncOpenAI) -> Any:
    return await client.embeddings.create(model="gemma", input="x")


async def look_up(client: openai.AsyncOpenAI) -> Any:
    return await client.models.retrieve("secret")


Call = Callable[[openai.AsyncOpenAI], Awaitable[Any]]


def chat(**fields: Any) -> Call:
    return lambda client: ask(client, **fields)


@dataclass(frozen=True)
class Case:
    """What is allowed and configured, what comes before, and what a call then raises."""

    raised: type[openai.APIStatusError]
    status: int
    code: str
    kind: str = "invalid_request_error"
    param: str | None = None
    words: str = ""
    headers: tuple[str, ...] = ()
    grant: Grant = EVERYTHING
    key: str | None = None
    lifetime: timedelta | None = None
    sections: dict[str, Any] = field(default_factory=dict)
    before: Callable[[Running, openai.AsyncOpenAI, Tasks], Awaitable[None]] = nothing
    call: Call = field(default_factory=chat)


def limited(**limits: int) -> Grant:
    return Grant(limits=Limits(**limits))


ONE_PLACE = {"limits": {"max_in_flight": 1, "max_queued": 0, "retry_after_seconds": 3}}
SHORT_QUEUE = {"limits": {"max_in_flight": 1, "max_queued": 5, "queue_seconds": 0.1}}
RATE = ("retry-after", "retry-after-ms", "x-request-id")
LATER = ("retry-after", "x-request-id")

CASES = {
    "wrong key": Case(
        openai.AuthenticationError,
        401,
        "invalid_api_key",
        key="sk-gemma-0000000000-wrong",
        words="Incorrect API key",
        headers=("www-authenticate", "x-request-id"),
    ),
    "foreign key": Case(openai.AuthenticationError, 401, "invalid_api_key", key="sk-proj-" + "x" * 40),
    "token of no provider": Case(openai.AuthenticationError, 401, "invalid_api_key", key="eyJhbGciOiJub25lIn0.e30.eA"),
    "expired key": Case(
        openai.AuthenticationError, 401, "invalid_api_key", lifetime=timedelta(seconds=-1), words="expired"
    ),
    "too many wrong keys": Case(
        openai.RateLimitError,
        429,
        "too_many_authentication_failures",
        key="sk-gemma-0000000000-wrong",
        sections={"auth": {"max_failures_per_minute": 2}},
        before=failures,
        headers=LATER,
    ),
    "endpoint": Case(
        openai.PermissionDeniedError,
        403,
        "endpoint_not_allowed",
        grant=Grant(endpoints=frozenset({Endpoint.CHAT})),
        call=embed,
        words="/v1/embeddings",
    ),
    "model": Case(
        openai.PermissionDeniedError,
        403,
        "model_not_allowed",
        param="model",
        grant=Grant(models=("other*",)),
        words="You may not use the model 'gemma'",
    ),
    "modality": Case(
        openai.PermissionDeniedError,
        403,
        "modality_not_allowed",
        param="messages[0].content[0]",
        grant=Grant(modalities=frozenset({Modality.AUDIO})),
        call=chat(messages=[{"role": "user", "content": IMAGE}]),
        words="you may not send image",
    ),
    "unknown model": Case(
        openai.NotFoundError, 404, "model_not_found", param="model", call=chat(model="gpt-9"), words="gemma"
    ),
    "model that may not be seen": Case(
        openai.NotFoundError,
        404,
        "model_not_found",
        param="model",
        grant=Grant(models=("gemma",)),
        call=look_up,
        sections={"models": {"secret": {}}},
    ),
    "requests per minute": Case(
        openai.RateLimitError,
        429,
        "rate_limit_exceeded",
        kind="requests",
        grant=limited(requests_per_minute=1),
        before=one_before,
        headers=(*RATE, "x-ratelimit-limit-requests", "x-ratelimit-reset-requests"),
        words="for this caller on requests per minute",
    ),
    "tokens per minute": Case(
        openai.RateLimitError,
        429,
        "rate_limit_exceeded",
        kind="tokens",
        grant=limited(tokens_per_minute=300),
        before=one_before,
        call=chat(max_tokens=278),
        headers=(*RATE, "x-ratelimit-remaining-tokens"),
        words="tokens per minute",
    ),
    "tokens per day": Case(
        openai.RateLimitError,
        429,
        "rate_limit_exceeded",
        kind="tokens",
        grant=limited(tokens_per_day=300),
        before=one_before,
        call=chat(max_tokens=278),
        headers=RATE,
        words="tokens per day",
    ),
    "requests at once": Case(
        openai.RateLimitError,
        429,
        "rate_limit_exceeded",
        kind="requests",
        grant=limited(max_in_flight=1),
        before=one_under_way,
        headers=RATE,
    ),
    "more tokens than the limit": Case(
        openai.BadRequestError,
        400,
        "tokens_exceed_limit",
        param="max_tokens",
        grant=limited(tokens_per_minute=100),
        call=chat(max_tokens=200),
    ),
    "no place and no queue": Case(
        openai.InternalServerError,
        503,
        "overloaded",
        kind="overloaded_error",
        sections=ONE_PLACE,
        before=one_under_way,
        headers=LATER,
        words="limits.max_queued",
    ),
    "waited too long": Case(
        openai.InternalServerError,
        503,
        "overloaded",
        kind="overloaded_error",
        sections=SHORT_QUEUE,
        before=one_under_way,
        headers=LATER,
        words="limits.queue_seconds",
    ),
    "bodies over the budget": Case(
        openai.InternalServerError,
        503,
        "overloaded",
        kind="overloaded_error",
        sections={"limits": {"max_body_bytes_in_flight": 500}},
        before=one_under_way,
        call=chat(user="x" * 420),
        headers=LATER,
        words="limits.max_body_bytes_in_flight",
    ),
    "engine's queue full": Case(
        openai.InternalServerError, 503, "overloaded", kind="overloaded_error", before=engine_full, headers=LATER
    ),
    "engine gone": Case(
        openai.InternalServerError,
        503,
        "engine_unavailable",
        kind="service_unavailable_error",
        before=engine_gone,
        headers=LATER,
    ),
    "store of quotas gone": Case(
        openai.InternalServerError,
        503,
        "overloaded",
        kind="overloaded_error",
        grant=limited(requests_per_minute=1),
        sections={"quotas": {"store": {"url": "redis://127.0.0.1:1/0", "on_failure": "closed"}}},
        headers=LATER,
        words="quotas.store",
    ),
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
async def test_error_is_what_openais_sdk_makes_of_it(start: Start, tmp_path: Path, case: Case) -> None:
    path = tmp_path / "keys.yaml"
    own = key_edits.create(path, "case", case.grant, case.lifetime)
    auth = {"keys_file": str(path), **case.sections.get("auth", {})}
    gateway = await start(**{**case.sections, "auth": auth})
    under_way: Tasks = []
    options: dict[str, Any] = {"base_url": f"{gateway.url}/v1", "max_retries": 0}
    async with openai.AsyncOpenAI(api_key=case.key or own, **options) as client:
        await case.before(gateway, client, under_way)
        with pytest.raises(case.raised) as caught:
            await case.call(client)
        for task in under_way:
            task.cancel()
        await asyncio.gather(*under_way, return_exceptions=True)

    error = caught.value
    assert (error.status_code, error.code, error.type, error.param) == (case.status, case.code, case.kind, case.param)
    assert case.words in error.message
    assert own not in error.message
    assert [name for name in case.headers if name not in error.response.headers] == []
    await gateway.idle()
