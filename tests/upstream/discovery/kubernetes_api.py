"""A real server on loopback that speaks the part of the Kubernetes API that is about EndpointSlices."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from lightkube import KubeConfig, SingleConfig
from lightkube.config.models import Cluster, User

PATH = "/apis/discovery.k8s.io/v1/namespaces/models/endpointslices"


def endpoint(address: str, *, pod: str | None = None, **conditions: bool | None) -> dict[str, Any]:
    """One that is ready unless the conditions say otherwise."""
    target = {} if pod is None else {"targetRef": {"kind": "Pod", "name": pod, "uid": pod}}
    return {"addresses": [address], "conditions": conditions} | target


def endpoint_slice(
    name: str, *endpoints: dict[str, Any], family: str = "IPv4", ports: dict[str, int] | None = None
) -> dict[str, Any]:
    """A slice of the Service `engine`, with the port `http` at 8000 unless others are told."""
    offered = {"http": 8000} if ports is None else ports
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "labels": {"kubernetes.io/service-name": "engine"}},
        "addressType": family,
        "endpoints": list(endpoints),
        "ports": [{"name": port, "port": number, "protocol": "TCP"} for port, number in offered.items()],
    }


@dataclass
class Api:
    """Serves `slices` by name.

    `refuses` is a status for all requests, `refuses_watch` one for watches. `token`: who does not bear it gets 401.
    `ends_watches`: each ends as soon as it begins. `lists` and `watches` count requests that were granted, `asked` has
    all queries.
    """

    slices: dict[str, dict[str, Any]] = field(default_factory=dict)
    refuses: int | None = None
    refuses_watch: int | None = None
    token: str | None = None
    ends_watches: bool = False
    lists: int = 0
    watches: int = 0
    asked: list[dict[str, str]] = field(default_factory=list)
    url: str = ""
    _version: int = 100
    _watchers: set[asyncio.StreamWriter] = field(default_factory=set)

    @property
    def watched(self) -> bool:
        """Whether somebody watches now."""
        return bool(self._watchers)

    def configuration(self) -> SingleConfig:
        """For a client without a service account."""
        found = KubeConfig.from_one(cluster=Cluster(server=self.url), user=User(), namespace="models").get()
        assert found is not None
        return found

    def put(self, each: dict[str, Any]) -> None:
        """Adds or changes a slice, and tells those who watch."""
        name = each["metadata"]["name"]
        kind = "MODIFIED" if name in self.slices else "ADDED"
        self.slices[name] = each
        self.event(kind, each)

    def delete(self, name: str) -> None:
        """Takes a slice away, and tells those who watch."""
        self.event("DELETED", self.slices.pop(name))

    def event(self, kind: str, thing: dict[str, Any]) -> None:
        """Tells those who watch whatever it is."""
        self._version += 1
        self.say(json.dumps({"type": kind, "object": self._dated(thing)}))

    def say(self, line: str) -> None:
        """Sends those who watch a line."""
        for watcher in self._watchers:
            watcher.write(_chunk(line.encode() + b"\n"))

    def gone(self) -> None:
        """Tells those who watch that their version is too old."""
        status = {"kind": "Status", "code": 410, "message": "too old resource version", "reason": "Expired"}
        self.say(json.dumps({"type": "ERROR", "object": status}))

    def drop(self) -> None:
        """Resets the connections of those who watch."""
        for watcher in self._watchers:
            watcher.transport.abort()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request a connection."""
        try:
            await self._answer(await reader.readuntil(b"\r\n\r\n"), writer)
            while writer in self._watchers and await reader.read(1024):
                pass
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            self._watchers.discard(writer)
            writer.close()

    async def _answer(self, head: bytes, writer: asyncio.StreamWriter) -> None:
        target = urlsplit(head.split()[1].decode())
        query = {key: values[0] for key, values in parse_qs(target.query).items()}
        self.asked.append(query)
        watch = query.get("watch") == "true"
        refusal = self._refusal(target.path, head, watch)
        if refusal:
            writer.write(_whole(refusal, {"kind": "Status", "code": refusal, "message": f"told to say {refusal}"}))
        elif watch:
            self._begin(writer)
        else:
            self.lists += 1
            items = [self._dated(each) for each in self.slices.values()]
            writer.write(_whole(200, {"metadata": {"resourceVersion": str(self._version)}, "items": items}))
        await writer.drain()

    def _refusal(self, path: str, head: bytes, watch: bool) -> int | None:
        if path != PATH:
            return 404
        if self.token is not None and f"authorization: bearer {self.token}\r\n".encode() not in head.lower():
            return 401
        return self.refuses or (self.refuses_watch if watch else None)

    def _begin(self, writer: asyncio.StreamWriter) -> None:
        self.watches += 1
        writer.write(_head(200, b"transfer-encoding: chunked"))
        if self.ends_watches:
            writer.write(_chunk(b""))
        else:
            self._watchers.add(writer)

    def _dated(self, thing: dict[str, Any]) -> dict[str, Any]:
        return thing | {"metadata": thing.get("metadata", {}) | {"resourceVersion": str(self._version)}}


def _head(status: int, more: bytes) -> bytes:
    return b"HTTP/1.1 %d Told\r\ncontent-type: application/json\r\nconnection: close\r\n%s\r\n\r\n" % (status, more)


def _whole(status: int, document: dict[str, Any]) -> bytes:
    body = json.dumps(document).encode()
    return _head(status, b"content-length: %d" % len(body)) + body


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@asynccontextmanager
async def kubernetes_api(certificate: Path | None = None) -> AsyncIterator[Api]:
    """Serves for the time of the block; by TLS where there is a certificate."""
    api, tls = Api(), None
    if certificate is not None:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(certificate)
    async with await asyncio.start_server(api.serve, "127.0.0.1", 0, ssl=tls) as server:
        port = server.sockets[0].getsockname()[1]
        api.url = f"{'http' if tls is None else 'https'}://127.0.0.1:{port}"
        yield api
        api.drop()
