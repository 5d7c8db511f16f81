"""Names, canaries, fallbacks and what replies say of them, over real sockets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.access import key_edits
from gateway.settings import Grant
from tests.fake_engine import Behaviour, completion, reply
from tests.live.conftest import MESSAGES, Running, Start
from tests.media.samples import data_url, image_bytes

TWO = {"other": {"probe_seconds": 60}}
MODELS = {
    "old": {"served_name": "old-model"},
    "new": {"engine": "other", "served_name": "new-model"},
}


def served(gateway: Running, engine: str) -> int:
    return len(gateway.engines[engine].requests)


async def test_reply_carries_the_name_that_was_requested_and_a_header_the_model_that_answered(start: Start) -> None:
    gateway = await start(models={"alias": {"targets": [{"model": "gemma"}]}})

    plain = await gateway.chat(model="alias")
    stream = await gateway.chat(model="alias", stream=True)

    assert plain.json()["model"] == "alias"
    assert {json.loads(e[6:])["model"] for e in stream.text.split("\n\n") if e and "DONE" not in e} == {"alias"}
    assert [plain.headers["x-gemma-model"], stream.headers["x-gemma-model"]] == ["gemma", "gemma"]
    assert gateway.engine.requests[0].json()["model"] == "served"


async def test_reply_carries_the_engines_name_where_that_is_configured(start: Start) -> None:
    gateway = await start(models={"gemma": {"response_model": "served"}})
    assert (await gateway.chat()).json()["model"] == "served"


async def test_reply_of_the_catch_all_carries_whatever_name_the_client_used(start: Start) -> None:
    gateway = await start(models={"*": {"served_name": "served"}})
    assert (await gateway.chat(model='any "name"')).json()["model"] == 'any "name"'


async def test_text_that_looks_like_a_model_name_is_left_alone(start: Start) -> None:
    gateway = await start()
    text = 'say "model":"served"'
    body = {"model": "served", "choices": [{"message": {"content": text}}]}
    gateway.engine.behaviour = reply(json.dumps(body, separators=(",", ":")).encode())

    answer = (await gateway.chat()).json()

    assert (answer["model"], answer["choices"][0]["message"]["content"]) == ("gemma", text)


async def test_canary_gets_its_share_and_keeps_its_users(start: Start) -> None:
    canary = {"targets": [{"model": "old", "weight": 3}, {"model": "new", "weight": 1}], "sticky": "user"}
    gateway = await start(engines=TWO, models={**MODELS, "chat": canary})

    answers = {
        user: {(await gateway.chat(model="chat", user=user)).headers["x-gemma-model"] for _ in range(3)}
        for user in map(str, range(40))
    }

    assert all(len(models) == 1 for models in answers.values())
    assert 2 <= sum(models == {"new"} for models in answers.values()) <= 20
    assert served(gateway, "other") == 3 * sum(models == {"new"} for models in answers.values())


async def test_session_stays_where_it_was(start: Start) -> None:
    canary = {"targets": [{"model": "old"}, {"model": "new"}], "sticky": "session"}
    gateway = await start(engines=TWO, models={**MODELS, "chat": canary})
    headers = {"x-session-id": "one"}

    answers = [
        await gateway.client.post("/v1/chat/completions", json={"model": "chat", "messages": MESSAGES}, headers=headers)
        for _ in range(10)
    ]

    assert len({answer.headers["x-gemma-model"] for answer in answers}) == 1


UNAVAILABLE = {
    "is full": reply(b'{"error":{"message":"busy"}}', 503),
    "refuses by rate": reply(b"{}", 429),
    "is warming up": reply(b'{"error":{"message":"x","code":"engine_unavailable"}}', 503),
}


@pytest.mark.parametrize("behaviour", UNAVAILABLE.values(), ids=UNAVAILABLE.keys())
@pytest.mark.parametrize("stream", [True, False])
async def test_fallback_answers_where_the_first_engine_cannot(start: Start, behaviour: Behaviour, stream: bool) -> None:
    gateway = await start(engines=TWO, models={**MODELS, "old": {"served_name": "old-model", "fallbacks": ["new"]}})
    gateway.engine.behaviour = behaviour

    answer = await gateway.chat(model="old", stream=stream)

    assert (answer.status_code, answer.headers["x-gemma-model"]) == (200, "new")
    assert gateway.engines["other"].requests[0].json()["model"] == "new-model"
    assert (served(gateway, "default"), served(gateway, "other")) == (1, 1)
    assert gateway.metric("gemma_gateway_fallbacks_total", model="old", target="new") == 1
    await gateway.idle()


async def test_fallback_answers_where_the_first_engine_is_gone(start: Start) -> None:
    gateway = await start(engines=TWO, models={**MODELS, "old": {"fallbacks": ["new"]}})
    gateway.engine.die()

    assert (await gateway.chat(model="old")).headers["x-gemma-model"] == "new"


@pytest.mark.parametrize("status", [400, 404, 500])
async def test_fallback_is_not_asked_where_the_first_engine_refused_or_failed(start: Start, status: int) -> None:
    gateway = await start(engines=TWO, models={**MODELS, "old": {"fallbacks": ["new"]}})
    gateway.engine.behaviour = reply(b'{"error":{"message":"no"}}', status)

    answer = await gateway.chat(model="old")

    assert answer.status_code in (status, 502)
    assert served(gateway, "other") == 0


@pytest.mark.parametrize("other", [{"modalities": ["text"]}, {"family": "gemma3"}], ids=["blind", "without budgets"])
async def test_fallback_that_cannot_take_a_request_stands_in_nobodys_way(start: Start, other: dict[str, Any]) -> None:
    """It is asked first, where the engine of the model that was named is not known to be ready."""
    see = {"served_name": "old-model", "modalities": ["text", "image"], "fallbacks": ["new"]}
    gateway = await start(engines=TWO, models={"old": see, "new": {**MODELS["new"], **other}})
    gateway.gateway.engines["default"].ready = False
    picture = {"type": "image_url", "image_url": {"url": data_url(image_bytes())}}

    messages = [{"role": "user", "content": [picture]}]

    seen = await gateway.chat(model="old", messages=messages, max_soft_tokens=70)
    gateway.engine.die()
    gone = await gateway.chat(model="old", messages=messages, max_soft_tokens=70)

    assert (seen.status_code, seen.headers["x-gemma-model"]) == (200, "old")
    assert gateway.metric("gemma_gateway_fallbacks_total") == 0
    assert (gone.status_code, gone.json()["error"]["code"]) == (503, "engine_unavailable")


async def test_last_fallbacks_refusal_is_what_the_client_hears(start: Start) -> None:
    gateway = await start(engines=TWO, models={**MODELS, "old": {"fallbacks": ["new"]}})
    gateway.engine.behaviour = UNAVAILABLE["is full"]
    gateway.engines["other"].behaviour = reply(b"{}", 503, retry_after="7")

    answer = await gateway.chat(model="old")

    assert (answer.status_code, answer.headers["retry-after"]) == (503, "7")
    await gateway.idle()


async def test_defaults_fill_gaps_and_overrides_win_also_for_fields_of_the_gateways_own(start: Start) -> None:
    gateway = await start(
        models={"gemma": {"defaults": {"temperature": 0.1, "top_p": 0.5}, "overrides": {"max_tokens": 5}}}
    )

    await gateway.chat(temperature=0.9, max_tokens=100)

    got = gateway.engine.requests[0].json()
    assert (got["temperature"], got["top_p"], got["max_tokens"]) == (0.9, 0.5, 5)


async def test_deprecated_name_says_so_and_what_to_use_instead(start: Start) -> None:
    gateway = await start(
        models={
            "gemma": {"deprecated": {"since": "2026-11-01", "sunset": "2027-03-01", "successor": "next"}},
            "next": {},
        }
    )

    headers = (await gateway.chat()).headers

    assert headers["deprecation"] == "@1793491200"
    assert headers["sunset"] == "Mon, 01 Mar 2027 00:00:00 GMT"
    assert headers["link"] == '</v1/models/next>; rel="successor-version"'


async def test_models_shows_what_this_caller_may_use(start: Start, tmp_path: Path) -> None:
    keys = tmp_path / "keys.yaml"
    some, every = key_edits.create(keys, "some", Grant(models=("g*",))), key_edits.create(keys, "every")
    gateway = await start(
        auth={"keys_file": str(keys)}, models={"secret": {}, "gemma-small": {}, "gone": {"hidden": True}}
    )

    async def listed(key: str) -> list[str]:
        answer = await gateway.client.get("/v1/models", headers={"authorization": f"Bearer {key}"})
        return [model["id"] for model in answer.json()["data"]]

    hidden = await gateway.client.get("/v1/models/gone", headers={"authorization": f"Bearer {some}"})
    denied = await gateway.client.get("/v1/models/secret", headers={"authorization": f"Bearer {some}"})
    assert sorted(await listed(some)) == ["gemma", "gemma-small"]
    assert sorted(await listed(every)) == ["gemma", "gemma-small", "secret"]
    assert [hidden.status_code, denied.status_code] == [200, 404]


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/messages"])
async def test_beside_a_catch_all_names_that_may_not_be_used_are_refused_as_unknown_ones_are(
    start: Start, tmp_path: Path, path: str
) -> None:
    keys = tmp_path / "keys.yaml"
    key = key_edits.create(keys, "some", Grant(models=("gemma",)))
    long = "x" * 300
    gateway = await start(
        auth={"keys_file": str(keys)}, models={"secret": {"hidden": True}, long: {}, "*": {"served_name": "served"}}
    )

    async def message(**body: str) -> str:
        answer = await gateway.client.post(path, json=body, headers={"authorization": f"Bearer {key}"})
        assert answer.status_code == 403
        return str(answer.json()["error"]["message"])

    for name in ("secret", "unknown", "*"):
        assert await message(model=name) == f"You may not use the model '{name}'; see GET /v1/models."
    assert await message(model=long) == await message(model="x" * 200)
    assert f"'{'x' * 100}'" in await message(model=long)
    assert await message() == "You must provide a 'model' that you may use; see GET /v1/models."


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/responses", "/v1/messages"])
async def test_priority_of_the_key_goes_to_the_engine_and_clients_can_only_wait_longer(
    start: Start, tmp_path: Path, path: str
) -> None:
    keys = tmp_path / "keys.yaml"
    key = key_edits.create(keys, "batch", Grant(priority=5))
    gateway = await start(auth={"keys_file": str(keys)})
    gateway.engine.behaviour = completion()

    for wish in ({}, {"priority": -100}, {"priority": 9}):
        await gateway.client.post(path, json={"model": "gemma", **wish}, headers={"authorization": f"Bearer {key}"})

    ranks = [request.json().get("priority") for request in gateway.engine.requests]
    assert ranks == ([None, None, None] if path == "/v1/messages" else [5, 5, 9])
