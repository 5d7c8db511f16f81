"""How long plain text requests wait while the gateway decodes media for others.

    python -m loadtest.decoding --seconds 20 --rounds 3

One connection sends small text requests, one after the other with a pause; in every second phase two more connections
send media that have to be decoded: photos of 12 megapixels,
clips, pictures that unpack to a hundred times their size, and broken ones.
Tells the percentiles of the text requests' time in milliseconds, alone and beside the media.
"""

from __future__ import annotations

import base64
import itertools
import json
import multiprocessing
import statistics
import tempfile
import time
from io import BytesIO
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import click
import numpy as np
import soundfile
from PIL import Image

from loadtest.client import connected, exchange
from loadtest.processes import engine_command, free_port, gateway_command, running

_TEXT = json.dumps({"model": "gemma", "messages": [{"role": "user", "content": "Say hello."}]}).encode()


def _encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    target = BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def _photo() -> Image.Image:
    y, x = np.mgrid[0:3000, 0:4000]
    waves = [np.sin(x / 31) * 99 + 128, np.cos(y / 17) * 99 + 128, np.sin((x + y) / 7) * 99 + 128]
    return Image.fromarray(np.stack(waves, -1).astype(np.uint8))


def _clip() -> bytes:
    target = BytesIO()
    noise = np.random.default_rng(0).standard_normal((29 * 44_100, 2)) * 0.1
    soundfile.write(target, noise, 44_100, format="MP3")
    return target.getvalue()


def _request(kind: str, data: bytes, number: int) -> bytes:
    """A request whose data differ from every other's, so that nothing comes from a cache."""
    url = f"data:application/octet-stream;base64,{base64.b64encode(data + number.to_bytes(4, 'big')).decode()}"
    content = [{"type": kind, kind: {"url": url}}]
    return json.dumps({"model": "gemma", "messages": [{"role": "user", "content": content}]}).encode()


def _media() -> list[tuple[str, bytes]]:
    photo = _encoded(_photo(), "JPEG", quality=90)
    return [
        ("image_url", photo),
        ("audio_url", _clip()),
        ("image_url", _encoded(Image.new("RGB", (6300, 6300)), "PNG")),
        ("image_url", photo[: len(photo) // 2]),
    ]


def _send_media(port: int, media: list[tuple[str, bytes]], going: Event, over: Event) -> None:
    numbers = itertools.count(time.time_ns() & 0xFFFFFF)
    with connected(port) as connection:
        while not over.is_set():
            for kind, data in media:
                if going.wait(0.1):
                    exchange(connection, _request(kind, data, next(numbers)))


def _text_times(port: int, seconds: float) -> list[float]:
    times = []
    end = time.monotonic() + seconds
    with connected(port) as connection:
        while time.monotonic() < end:
            started = time.perf_counter()
            exchange(connection, _TEXT)
            times.append((time.perf_counter() - started) * 1000)
            time.sleep(0.003)
    return times


def _report(name: str, times: list[float]) -> None:
    cuts = statistics.quantiles(times, n=1000)
    click.echo(f"{name:10} p50 {cuts[499]:7.2f}   p99 {cuts[989]:7.2f}   p99.9 {cuts[998]:7.2f} ms   n {len(times)}")


@click.command(help=__doc__)
@click.option("--seconds", default=20.0, help="Length of each phase.")
@click.option("--rounds", default=3)
@click.option("--senders", default=2, help="Connections that send media.")
def main(seconds: float, rounds: int, senders: int) -> None:
    engine, port = free_port(), free_port()
    going, over = multiprocessing.Event(), multiprocessing.Event()
    media = _media()
    alone: list[float] = []
    beside: list[float] = []
    with (
        tempfile.TemporaryDirectory() as folder,
        running(engine_command(engine), engine),
        running(gateway_command(port, engine, Path(folder)), port),
    ):
        processes = [
            multiprocessing.Process(target=_send_media, args=(port, media, going, over)) for _ in range(senders)
        ]
        for process in processes:
            process.start()
        for _ in range(rounds):
            alone += _text_times(port, seconds)
            going.set()
            beside += _text_times(port, seconds)
            going.clear()
        over.set()
        for process in processes:
            process.join(30)
    _report("alone", alone)
    _report("beside", beside)


if __name__ == "__main__":
    main()
