"""What a request of several megabytes costs the gateway, in milliseconds of CPU, beside peers on the same machine.

    python -m loadtest.large_body --megabytes 4 --rounds 5 --peer vllm-router='vllm-router --port {port} ...'

Each round runs every proxy once, one after the other, in front of the same engine; the figures are medians over the
rounds. The body is a chat request with one picture as a data URL; the model is renamed on the way where a proxy can.
"""

from __future__ import annotations

import base64
import json
import shlex
import statistics
import tempfile
from io import BytesIO
from pathlib import Path

import click
import numpy as np
from PIL import Image

from loadtest.client import connected, exchange
from loadtest.processes import cpu_seconds, engine_command, free_port, gateway_command, running, until_calm


def picture(size: int) -> bytes:
    """A PNG of about `size` bytes, of noise, in the megapixel or so that a large token budget shows whole."""
    side = round((size / 3) ** 0.5)
    noise = np.random.default_rng(0).integers(0, 255, (side, side, 3), np.uint8)
    target = BytesIO()
    Image.fromarray(noise).save(target, "PNG", compress_level=0)
    return target.getvalue()


def body(size: int) -> bytes:
    """A chat request with a data URL of about `size` bytes."""
    url = f"data:image/png;base64,{base64.b64encode(picture(size * 3 // 4)).decode()}"
    content = [{"type": "text", "text": "What is this?"}, {"type": "image_url", "image_url": {"url": url}}]
    request = {"model": "gemma", "max_soft_tokens": 1120, "messages": [{"role": "user", "content": content}]}
    return json.dumps(request).encode()


def cost(command: list[str], port: int, data: bytes, requests: int) -> float:
    """Milliseconds of CPU per request."""
    with running(command, port) as pid, connected(port) as connection:
        statuses = {exchange(connection, data) for _ in range(3)}
        if statuses != {200}:
            raise RuntimeError(f"{command!r} answered {statuses}")
        until_calm(pid)
        started = cpu_seconds(pid)
        for _ in range(requests):
            exchange(connection, data)
        return (cpu_seconds(pid) - started) / requests * 1000


@click.command(help=__doc__)
@click.option("--megabytes", default=4.0, help="Size of the data URL.")
@click.option("--requests", default=50, help="Requests per proxy and round.")
@click.option("--rounds", default=5)
@click.option("--peer", multiple=True, help="NAME=COMMAND of another proxy, with {port} and {engine} in it.")
def main(megabytes: float, requests: int, rounds: int, peer: tuple[str, ...]) -> None:
    data = body(int(megabytes * 1e6))
    engine = free_port()
    found: dict[str, list[float]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        running(engine_command(engine), engine),
    ):
        for _ in range(rounds):
            port = free_port()
            commands = {"gateway": gateway_command(port, engine, Path(folder))}
            for name, _, command in (text.partition("=") for text in peer):
                commands[name] = shlex.split(command.format(port=port, engine=engine))
            for name, words in commands.items():
                found.setdefault(name, []).append(cost(words, port, data, requests))
    for name, figures in found.items():
        click.echo(f"{name:16} {statistics.median(figures):6.2f} ms   ({', '.join(f'{f:.2f}' for f in figures)})")


if __name__ == "__main__":
    main()
