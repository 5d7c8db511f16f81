"""Runs rendered pods as processes: volumes, probes, signals and the end, as the kubelet of a node does."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.helm.rendering import Object, of_kind

#: Looks of a probe where a cluster has one, so that tests need not wait for the next. It fails after as long as there.
LOOKS = 10
#: From a pod's deletion, or its not being ready, until no node sends it connections any more, in seconds.
SPREADING = 0.5


def command(container: Object) -> list[str]:
    """What the container runs, with the Python and the commands that the tests have."""
    tools = Path(sys.executable).parent
    words = [str(word) for word in (*container["command"], *container["args"])]
    return [str(tools / words[0]), *words[1:]]


@dataclass
class Service:
    """The pods that get connections, and who is told when they change."""

    addresses: list[str] = field(default_factory=list)
    told: list[Callable[[list[str]], None]] = field(default_factory=list)

    def put(self, address: str, ready: bool) -> None:
        """Takes a pod up, or off; either may be so already."""
        if ready != (address in self.addresses):
            self.addresses = [each for each in (*self.addresses, address) if ready or each != address]
            for tell in self.told:
                tell(self.addresses)


@dataclass(frozen=True)
class Template:
    """A pod's template and the objects that its volumes come from; `folder` is what all pods' files are below."""

    spec: Object
    objects: Sequence[Object]
    folder: Path

    @property
    def container(self) -> Object:
        """The only one."""
        (found,) = self.spec["containers"]
        return dict(found)

    @property
    def pause(self) -> float:
        """Seconds of the preStop hook, which has to be a sleep."""
        hook = self.container.get("lifecycle", {}).get("preStop", {"sleep": {"seconds": 0}})
        return float(hook["sleep"]["seconds"])

    @property
    def grace(self) -> float:
        """Seconds from the deletion to SIGKILL."""
        return float(self.spec["terminationGracePeriodSeconds"])

    def port(self, name: str | int) -> int:
        """A port by its name."""
        ports = {port["name"]: port["containerPort"] for port in self.container["ports"]}
        return int(ports.get(name, name))

    async def start(self, address: str) -> asyncio.subprocess.Process:
        """The container's process, which listens at an address of its own. Its log is a file of that name."""
        root = self.folder / address
        mounts = {each["mountPath"]: self._mounted(each["name"], root) for each in self.container["volumeMounts"]}
        adapt = _adapter({path: local for path, (local, files) in mounts.items() if files}, address)
        for local, files in mounts.values():
            local.mkdir(parents=True)
            for name, text in files.items():
                (local / name).write_text(adapt(text))
        given = {each["name"]: str(each["value"]) for each in self.container["env"] if "value" in each}
        homes = {name: str(mounts[value][0]) if value in mounts else value for name, value in given.items()}
        with (self.folder / f"{address}.log").open("wb") as log:
            words = [adapt(word) for word in command(self.container)]
            return await asyncio.create_subprocess_exec(
                *words, env=os.environ | homes, stdout=log, stderr=log, start_new_session=True
            )

    def _mounted(self, name: str, root: Path) -> tuple[Path, dict[str, str]]:
        """Where a volume is, and its files."""
        (volume,) = (each for each in self.spec["volumes"] if each["name"] == name)
        sources = volume.get("projected", {}).get("sources", [volume])
        return root / name, {name: text for source in sources for name, text in self._files(source).items()}

    def _files(self, source: Object) -> dict[str, str]:
        if "configMap" in source:
            return dict(self._object("ConfigMap", source["configMap"]["name"])["data"])
        if "secret" in source:
            data = self._object("Secret", source["secret"]["name"])["stringData"]
            return {item["path"]: data[item["key"]] for item in source["secret"]["items"]}
        return {}

    def _object(self, kind: str, name: str) -> Object:
        (found,) = (each for each in of_kind(self.objects, kind) if each["metadata"]["name"] == name)
        return found


def _adapter(mounts: Mapping[str, Path], address: str) -> Callable[[str], str]:
    """Puts the local folders in place of the mounted ones, and the pod's address in place of all addresses."""
    places = {path: str(local) for path, local in mounts.items()} | {"0.0.0.0": address}  # noqa: S104 - to be replaced
    longest = sorted(places, key=len, reverse=True)
    pattern = re.compile("|".join(map(re.escape, longest)))
    return lambda text: pattern.sub(lambda found: places[found[0]], text)


class Pod:
    """One process from its creation to its end. `ready` is what its readiness probe says; `code` how it ended."""

    def __init__(self, template: Template, address: str, service: Service) -> None:
        self.address = address
        self.ready = False
        self.deleted = asyncio.Event()
        self.killed_for: str | None = None
        self.code: int | None = None
        self._template = template
        self._service = service
        self._child: asyncio.subprocess.Process | None = None
        self.task = asyncio.create_task(self._run())

    def __repr__(self) -> str:
        return f"{self.address} ready={self.ready} code={self.code} killed_for={self.killed_for}"

    async def _run(self) -> None:
        child = self._child = await self._template.start(self.address)
        probing, ending = asyncio.create_task(self._probe()), asyncio.create_task(self._end(child))
        try:
            self.code = await child.wait()
            await self._spread()
        finally:
            for task in (probing, ending):
                task.cancel()
            self._kill("the test's end")
            await child.wait()
            self._service.put(self.address, ready=False)

    async def _end(self, child: asyncio.subprocess.Process) -> None:
        """What the kubelet does once the pod is deleted; that it is, spreads meanwhile."""
        await self.deleted.wait()
        async with asyncio.TaskGroup() as group:
            group.create_task(self._spread())
            group.create_task(self._stop(child))

    async def _stop(self, child: asyncio.subprocess.Process) -> None:
        await asyncio.sleep(self._template.pause)
        child.terminate()
        await asyncio.sleep(self._template.grace - self._template.pause)
        self._kill("the end of its grace period")

    async def _spread(self) -> None:
        """Nodes hear late that it gets no more connections, also if it has ended meanwhile."""
        await asyncio.sleep(SPREADING)
        self._service.put(self.address, ready=False)

    def _kill(self, reason: str) -> None:
        if self._child is not None and self._child.returncode is None:
            self.killed_for = reason
            # The container with all that is in it.
            os.killpg(self._child.pid, signal.SIGKILL)

    # Probes

    async def _probe(self) -> None:
        async for good in self._verdicts("startupProbe"):
            if good:
                break
            self._kill("startupProbe")
        async with asyncio.TaskGroup() as group:
            group.create_task(self._stay_alive())
            group.create_task(self._tell_readiness())

    async def _stay_alive(self) -> None:
        async for good in self._verdicts("livenessProbe"):
            if not good and not self.deleted.is_set():
                self._kill("livenessProbe")

    async def _tell_readiness(self) -> None:
        async for good in self._verdicts("readinessProbe"):
            if self.deleted.is_set():
                return
            self.ready = good
            if not good:
                await asyncio.sleep(SPREADING)
            self._service.put(self.address, good)

    async def _verdicts(self, name: str) -> AsyncIterator[bool]:
        """What a probe says again and again, from when it is sure for the first time."""
        probe = self._template.container[name]
        good = bad = 0
        while True:
            good, bad = (good + 1, 0) if await self._look(probe) else (0, bad + 1)
            if good >= probe.get("successThreshold", 1) or bad >= probe["failureThreshold"] * LOOKS:
                yield good > 0
            await asyncio.sleep(probe["periodSeconds"] / LOOKS)

    async def _look(self, probe: Object) -> bool:
        wanted = probe["httpGet"]
        with suppress(OSError, TimeoutError):
            async with asyncio.timeout(probe["timeoutSeconds"]):
                status = await _status(self.address, self._template.port(wanted["port"]), wanted["path"])
                return 200 <= status < 400
        return False


async def _status(host: str, port: int, path: str) -> int:
    """The status of an answer. Raises OSError."""
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
        words = (await reader.readline()).split(b" ")
        return int(words[1]) if len(words) > 1 else 0
    finally:
        writer.close()
