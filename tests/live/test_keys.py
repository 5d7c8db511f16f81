"""Who may call, over real sockets and with the SDKs' own ways of sending a key."""

from __future__ import annotations

from pathlib import Path

import anthropic
import httpx
import openai
import pytest

from gateway.access import key_edits as keys
from tests.live.conftest import MESSAGES, Running, Start


@pytest.fixture
async def guarded(start: Start, tmp_path: Path) -> tuple[Running, str]:
    """A gateway with one key, and the key."""
    path = tmp_path / "keys.yaml"
    key = keys.create(path, "alice")
    return await start(auth={"keys_file": str(path)}), key


async def test_good_key_opens_every_route(guarded: tuple[Running, str]) -> None:
    gateway, key = guarded

    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
        answer = await client.chat.completions.create(model="gemma", messages=MESSAGES)  # type: ignore[arg-type]
        listed = [model.id async for model in client.models.list()]

    assert answer.choices[0].message.content == "abc"
    assert listed == ["gemma"]


@pytest.mark.parametrize("key", ["sk-wrong", "sk-gemma-0000000000-nonsense", "none"])
async def test_bad_key_is_openais_authentication_error(guarded: tuple[Running, str], key: str) -> None:
    gateway, _ = guarded

    async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key=key, max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError) as chat:
            await client.chat.completions.create(model="gemma", messages=MESSAGES)  # type: ignore[arg-type]
        with pytest.raises(openai.AuthenticationError):
            await client.models.list()

    assert chat.value.code == "invalid_api_key"
    assert gateway.engine.requests == []


async def test_key_in_x_api_key_is_good_for_anthropics_sdk_and_a_bad_one_is_its_error(
    guarded: tuple[Running, str],
) -> None:
    gateway, key = guarded
    options = {"base_url": gateway.url, "max_retries": 0}

    async with anthropic.AsyncAnthropic(api_key="wrong", **options) as client:  # type: ignore[arg-type]
        with pytest.raises(anthropic.AuthenticationError) as refusal:
            await client.messages.create(model="gemma", max_tokens=4, messages=MESSAGES)  # type: ignore[arg-type]
    response = await gateway.client.post("/v1/messages", json={"model": "gemma"}, headers={"x-api-key": key})

    assert response.status_code == 200
    assert refusal.value.body == {
        "type": "error",
        "error": {"type": "authentication_error", "message": refusal.value.body["error"]["message"]},  # type: ignore[index]
    }


async def test_no_key_is_a_401_before_the_body_is_read(guarded: tuple[Running, str]) -> None:
    gateway, _ = guarded

    response = await gateway.client.post("/v1/chat/completions", content=b"not even json")

    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"


async def test_open_gateway_takes_any_key(start: Start) -> None:
    gateway = await start()

    answers = [await gateway.client.get("/v1/models", headers=h) for h in ({}, {"authorization": "Bearer anything"})]

    assert [answer.status_code for answer in answers] == [httpx.codes.OK] * 2
