"""What is let through to vLLM's application in each phase."""

from __future__ import annotations

import asyncio

from gateway.engine.readiness import Gate, Message, Phase, Receive, Scope, Send, respond
from gateway.engine.warmup import Probe, post
from gateway.settings import Modality

Answer = tuple[int, bytes]


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await respond(send, 200, b"vLLM")


async def ask(gate: Gate, method: str, path: str) -> tuple[int, bytes, dict[bytes, bytes]]:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    await gate({"type": "http", "method": method, "path": path}, receive, send)
    return sent[0]["status"], sent[1]["body"], dict(sent[0]["headers"])


async def test_health_says_why_the_engine_is_not_ready() -> None:
    gate = Gate(echo)
    assert (await ask(gate, "GET", "/health"))[:2] == (503, b'{"status":"warming up"}')
    gate.phase = Phase.DRAINING
    assert (await ask(gate, "GET", "/ping"))[:2] == (503, b'{"status":"draining"}')


async def test_health_is_the_engines_own_once_it_is_ready() -> None:
    gate = Gate(echo)
    gate.phase = Phase.READY
    assert (await ask(gate, "GET", "/health"))[:2] == (200, b"vLLM")


async def test_a_request_before_readiness_is_told_to_come_again() -> None:
    status, body, headers = await ask(Gate(echo), "POST", "/v1/chat/completions")
    assert status == 503
    assert b'"code":"engine_unavailable"' in body
    assert headers[b"retry-after"] == b"5"


async def test_metrics_can_be_read_at_any_time() -> None:
    assert (await ask(Gate(echo), "GET", "/metrics"))[0] == 200


async def test_a_websocket_before_readiness_is_closed() -> None:
    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "websocket.connect"}

    async def send(message: Message) -> None:
        sent.append(message)

    await Gate(echo)({"type": "websocket", "path": "/v1/realtime"}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1013, "reason": "The engine is warming up."}]


async def test_it_is_idle_when_the_last_request_is_answered_in_full() -> None:
    finish = asyncio.Event()

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await finish.wait()
        await respond(send, 200, b"")

    gate = Gate(slow)
    gate.phase = Phase.READY
    requests = [asyncio.create_task(ask(gate, "POST", "/v1/completions")) for _ in range(2)]
    await asyncio.sleep(0)
    assert repr(gate) == "<Gate ready, 2 running>"
    idle = asyncio.create_task(gate.idle())
    await asyncio.sleep(0)
    assert not idle.done()
    finish.set()
    await asyncio.wait_for(idle, 5)
    await asyncio.gather(*requests)
    assert gate.running == 0


async def test_a_request_that_fails_no_longer_counts() -> None:
    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise OSError

    gate = Gate(broken)
    gate.phase = Phase.READY
    await asyncio.gather(ask(gate, "POST", "/v1/completions"), return_exceptions=True)
    assert gate.running == 0


async def test_a_warm_up_request_goes_past_the_gate() -> None:
    assert await post(echo, Probe(Modality.TEXT, "/v1/completions", {})) == (200, b"vLLM")
