"""Fetchers for tests: what they may reach, what DNS tells them, whom they trust."""

from __future__ import annotations

import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from gateway.errors import GatewayError
from gateway.ledger import Ledger
from gateway.media.addresses import Address
from gateway.media.fetch import Fetcher
from gateway.metrics import Metrics
from gateway.settings import MediaSettings, Modality
from tests.media.site import Pages, Site, serve

OPEN: dict[str, Any] = {"allowed_networks": ["127.0.0.0/8"]}

#: Trusts nobody. Loading the public authorities anew for each fetcher would take most of the time of these tests.
DISTRUST = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


@dataclass(frozen=True)
class Fetching:
    """A fetcher with what it counts."""

    fetcher: Fetcher
    metrics: Metrics
    max_bytes: int

    async def get(self, url: str, modality: Modality = Modality.IMAGE, max_bytes: int | None = None) -> bytes:
        return await self.fetcher.fetch(url, modality, max_bytes or self.max_bytes)

    async def fault_of(self, url: str, **wish: Any) -> GatewayError:
        with pytest.raises(GatewayError) as fault:
            await self.get(url, **wish)
        return fault.value

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(f"gemma_gateway_media_{name}", labels) or 0

    def outcomes(self, modality: str = "image") -> dict[str, float]:
        samples = [sample for family in self.metrics.fetches.collect() for sample in family.samples]
        return {
            sample.labels["outcome"]: sample.value
            for sample in samples
            if sample.name.endswith("_total") and sample.labels["modality"] == modality
        }


def fetching(*answers: str, tls: ssl.SSLContext = DISTRUST, **settings: Any) -> Fetching:
    """A fetcher; with `answers`, DNS gives them one after the other, each a list separated by spaces."""
    parsed = MediaSettings.model_validate(settings)
    metrics = Metrics()
    ledger = Ledger(parsed.max_bytes_in_flight, metrics.media_bytes, "media.max_bytes_in_flight", "media")
    return Fetching(
        Fetcher(parsed, metrics, ledger, resolver(*answers) if answers else None, tls), metrics, parsed.max_bytes
    )


def resolver(*answers: str) -> Callable[[str, int], Awaitable[Sequence[Address]]]:
    left = list(answers)

    async def resolve(host: str, port: int) -> Sequence[Address]:
        return [ip_address(text) for text in (left.pop(0) if len(left) > 1 else left[0]).split()]

    return resolve


@asynccontextmanager
async def opened(pages: Pages, **settings: Any) -> AsyncIterator[tuple[Fetching, Site, str]]:
    """A fetcher that may reach loopback, a site there, and the site's URL without a final slash."""
    async with serve(pages) as site:
        one = fetching(**OPEN, **settings)
        yield one, site, f"http://127.0.0.1:{site.port}"
        await one.fetcher.aclose()


def certificate(folder: Path, name: str = "media.example") -> Path:
    """A new certificate for `name` with its key, in one file."""
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", f"/CN={name}", "-addext", f"subjectAltName=DNS:{name}"),
            *("-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")),
        ],
        check=True,
        capture_output=True,
    )
    file = folder / "both.pem"
    file.write_bytes((folder / "key.pem").read_bytes() + (folder / "cert.pem").read_bytes())
    return file


def server_side(file: Path, names: list[str | None]) -> ssl.SSLContext:
    """The context of a server with that certificate, which notes the names that clients ask for."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(file)
    context.sni_callback = lambda _socket, name, _context: names.append(name)
    return context
