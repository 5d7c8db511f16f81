"""Who used what: one record for each request, however it ends, and series by key."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from gateway.access import key_edits
from tests.fake_engine import Received, abort, begin, compact, event, reply, send
from tests.live.conftest import MESSAGES, Running, Start


async def logged(start: Start, tmp_path: Path, **sections: Any) -> tuple[Running, str, Path]:
    path, log = tmp_path / "keys.yaml", tmp_path / "usage.jsonl"
    key = key_edits.create(path, "alice")
    gateway = await start(**{"auth": {"keys_file": str(path)}, "usage": {"file": str(log)}, **sections})
    return gateway, key, log


async def records(gateway: Running, log: Path, count: int) -> list[dict[str, Any]]:
    await gateway.until(lambda: len(log.read_text().splitlines()) == count)
    return [json.loads(line) for line in log.read_text().splitlines()]


async def test_complete_request_is_recorded_with_all_that_is_known(start: Start, tmp_path: Path) -> None:
    gateway, key, log = await logged(start, tmp_path, models={"alias": {"targets": [{"model": "gemma"}]}})
    details = {"cached_tokens": 4, "multimodal_tokens": {}}
    usage = {"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": details}
    gateway.engine.behaviour = reply(compact({"usage": usage}))

    answer = await gateway.chat(key, model="alias", user="u-1")
    (record,) = await records(gateway, log, 1)

    expected = {
        "request_id": answer.headers["x-request-id"],
        "key": key.split("-")[2],
        "key_name": "alice",
        "model": "alias",
        "target": "gemma",
        "engine": "default",
        "path": "/v1/chat/completions",
        "status": 200,
        "finish": "complete",
        "prompt_tokens": 9,
        "completion_tokens": 2,
        "cached_tokens": 4,
        "user": "u-1",
    }
    assert expected.items() <= record.items()
    assert record["time"].endswith("Z")
    assert record["seconds"] > 0
    assert key not in log.read_text()


async def test_aborted_stream_is_recorded_with_an_estimate_of_what_it_used(start: Start, tmp_path: Path) -> None:
    gateway, key, log = await logged(start, tmp_path)

    async def never_ending(_: Received, writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        await send(writer, event("x") * 7)
        await asyncio.sleep(30)

    gateway.engine.behaviour = never_ending
    body = {"model": "gemma", "messages": MESSAGES, "stream": True}
    headers = {"authorization": f"Bearer {key}"}
    async with gateway.client.stream("POST", "/v1/chat/completions", json=body, headers=headers) as response:
        await anext(response.aiter_bytes())
    (record,) = await records(gateway, log, 1)

    assert (record["finish"], record["status"], record["stream"], record["estimated"]) == ("aborted", 499, True, True)
    assert record["completion_tokens"] == 7
    assert record["prompt_tokens"] > 5


async def test_aborted_answer_in_one_piece_is_no_longer_than_the_time_allows(start: Start, tmp_path: Path) -> None:
    gateway, key, log = await logged(start, tmp_path)

    async def hang(_: Received, __: asyncio.StreamWriter) -> None:
        await asyncio.sleep(30)

    gateway.engine.behaviour = hang
    request = asyncio.create_task(gateway.chat(key, max_tokens=100_000))
    await gateway.until(lambda: gateway.engine.running == 1)
    request.cancel()
    (record,) = await records(gateway, log, 1)

    assert (record["finish"], record["estimated"]) == ("aborted", True)
    assert 0 < record["completion_tokens"] < 1000


async def test_stream_whose_engine_tells_no_usage_is_estimated(start: Start, tmp_path: Path) -> None:
    gateway, key, log = await logged(start, tmp_path)

    async def silent(_: Received, writer: asyncio.StreamWriter) -> None:
        await begin(writer)
        await send(writer, event("x") * 4 + b"data: [DONE]\n\n")
        await send(writer, b"")

    gateway.engine.behaviour = silent
    await gateway.chat(key, stream=True)
    (record,) = await records(gateway, log, 1)

    assert (record["finish"], record["estimated"], record["completion_tokens"]) == ("complete", True, 5)


async def test_refused_and_failed_requests_are_recorded_without_tokens(start: Start, tmp_path: Path) -> None:
    gateway, key, log = await logged(start, tmp_path)
    await gateway.chat("sk-gemma-00-wrong")
    await gateway.chat(key, model="none")

    async def hang_up(_: Received, writer: asyncio.StreamWriter) -> None:
        abort(writer)

    gateway.engine.behaviour = hang_up
    await gateway.chat(key)
    found = await records(gateway, log, 3)

    assert [(r["finish"], r["status"], r["error"]) for r in found] == [
        ("refused", 401, "invalid_api_key"),
        ("refused", 404, "model_not_found"),
        ("failed", 502, "engine_failed"),
    ]
    assert not any("prompt_tokens" in record for record in found)


async def test_series_tell_keys_apart_up_to_a_bound(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "keys.yaml"
    keys = [key_edits.create(path, f"key {number}") for number in range(4)]
    gateway = await start(auth={"keys_file": str(path)}, usage={"max_keys_in_metrics": 2})

    for key in keys:
        await gateway.chat(key)

    ids = [key.split("-")[2] for key in keys]
    counts = [gateway.metric("gemma_gateway_key_requests_total", key=each) for each in (*ids, "other")]
    assert counts == [1, 1, 0, 0, 2]
    assert gateway.metric("gemma_gateway_tokens_total", key="other", kind="prompt") == 14


async def test_nothing_is_lost_when_the_gateway_ends(start: Start, tmp_path: Path) -> None:
    gateway, key, log = await logged(start, tmp_path)
    await asyncio.gather(*[gateway.chat(key) for _ in range(20)])

    # As the gateway's end does: what is in arrears first.
    gateway.gateway._current.accounting.flush()
    await gateway.gateway._current.parts.usage_log.aclose()  # type: ignore[union-attr]

    assert len(log.read_text().splitlines()) == 20
