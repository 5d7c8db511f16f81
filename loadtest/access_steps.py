"""What each step of access takes by itself, in microseconds: checking a key, finding the route, quotas, and metrics.

    python -m loadtest.access_steps --rounds 40

Each step is run many times in a row in this process, and the fastest round counts: on a machine that is shared it is
the one that was disturbed least. `quotas` is the estimate, the charge (of requests and tokens by minute for the key, or
with `--every-limit` by minute and day for the key, the model and all together), the headers that tell of it, and the
settling at the end.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import click
import uvloop

from gateway.api import routing
from gateway.api.call import Call, Flow
from gateway.api.edge import Edge
from gateway.api.estimate import estimate
from gateway.api.observation import Observation
from gateway.app import Gateway, Source
from gateway.protocol import parse
from gateway.upstream.sse import Usage
from loadtest.access import BODY, everything, write_config

_PATH = "/v1/chat/completions"
_TIMES = 500

Step = Callable[[], Awaitable[None]]


class _Nobody:
    """No connection: nothing is sent here."""

    transport: asyncio.Transport
    flow: Flow

    def general_headers(self) -> bytes:
        raise NotImplementedError

    def on_response_complete(self) -> None:
        raise NotImplementedError


def steps(edge: Edge, key: str) -> dict[str, Step]:
    """The steps by name, each for one request alike."""
    call = Call(_Nobody(), "POST", _PATH, {b"authorization": f"Bearer {key}".encode()}, None)
    call.feed(BODY)
    call.feed_end()
    request = parse(_PATH, BODY)
    seen = Observation(_PATH)
    seen.usage = Usage(prompt_tokens=300, completion_tokens=2)
    seen.status, seen.first_byte = 200, seen.started

    async def check_key() -> None:
        edge.body_now(call, seen)
        edge.bodies.change(-seen.body_bytes)

    async def find_route() -> None:
        name, user = request.get("model", str), routing.user_of(request)
        route = routing.resolve(edge.catalog, name, user, call, seen)
        routing.with_policy(request, route)
        routing.rename(route, request)

    async def quotas() -> None:
        await edge.charge(seen, estimate(request, request.text_bytes, 256))
        if seen.entry is not None:
            routing.headers(seen.route, seen)  # type: ignore[arg-type]
            seen.entry.settle(302)

    async def metrics() -> None:
        seen.entry = None
        edge.accounting.close(seen)

    return {"key": check_key, "route": find_route, "quotas": quotas, "metrics": metrics}


async def fastest(step: Step, rounds: int) -> float:
    """Microseconds of its fastest round."""
    times = []
    for _ in range(rounds):
        started = time.perf_counter()
        for _ in range(_TIMES):
            await step()
        times.append((time.perf_counter() - started) / _TIMES * 1e6)
    return min(times)


async def measure(rounds: int, every_limit: bool) -> dict[str, float]:
    """The steps of a gateway with everything on but the usage log, which is beside the point."""
    with tempfile.TemporaryDirectory() as name:
        sections, model, key = everything(Path(name))
        del sections["usage"]
        if not every_limit:
            del model["limits"]
            sections["quotas"] = {"each_key": {"requests_per_minute": 10**8, "tokens_per_minute": 10**10}}
        config = write_config(Path(name), port=1, engine=1, more=sections, model=model)
        gateway = Gateway(Source(config).load())
        gc.collect()
        gc.freeze()
        return {name: await fastest(step, rounds) for name, step in steps(gateway._current.edge, key).items()}


@click.command(help=__doc__)
@click.option("--rounds", default=40)
@click.option("--every-limit", is_flag=True, help="All nine windows, instead of the key's two by minute.")
def main(rounds: int, every_limit: bool) -> None:
    found = uvloop.run(measure(rounds, every_limit))
    for name, microseconds in {**found, "together": sum(found.values())}.items():
        click.echo(f"{name:10} {microseconds:5.1f} µs")


if __name__ == "__main__":
    main()
