"""Keeps as many pods of a rendered Deployment as are wanted, and replaces them, as its controller does."""

from __future__ import annotations

import asyncio
import itertools
import math
import os
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tests.helm.kubelet import Pod, Service, Template
from tests.helm.rendering import Object


class Deployment:
    """The controller: as many pods as are wanted, and a rolling restart by the rendered strategy."""

    def __init__(self, rendered: Object, template: Template, service: Service) -> None:
        self.pods: list[Pod] = []
        self._replicas = int(rendered["spec"]["replicas"])
        self._strategy = rendered["spec"]["strategy"]["rollingUpdate"]
        self._template = template
        self._service = service
        self._addresses = _addresses()
        self._new()

    def _new(self) -> None:
        """The generation of pods that is wanted begins anew."""
        self._old = self._live()
        self._step()

    def _live(self) -> list[Pod]:
        return [pod for pod in self.pods if not pod.deleted.is_set()]

    def _step(self) -> bool:
        """Starts and deletes what may be; whether all is as it should be."""
        old = [pod for pod in self._old if not pod.deleted.is_set()]
        live = self._live()
        most = self._replicas + _share(self._strategy["maxSurge"], self._replicas, math.ceil)
        least = self._replicas - _share(self._strategy["maxUnavailable"], self._replicas, math.floor)
        for _ in range(min(self._replicas - (len(live) - len(old)), most - len(live))):
            self.pods.append(Pod(self._template, next(self._addresses), self._service))
        spare = sum(pod.ready for pod in live) - least
        for pod in old[: max(0, spare)]:
            pod.deleted.set()
        return not old and len(live) == self._replicas and all(pod.ready for pod in live)

    async def settle(self, seconds: float) -> None:
        """Waits until all pods are there that should be, ready, and in the Service, and all others have ended."""
        async with asyncio.timeout(seconds):
            while not self._step() or not all(pod.address in self._service.addresses for pod in self._live()):
                assert not any(pod.task.done() for pod in self._live()), self.pods
                await asyncio.sleep(0.05)
            await asyncio.gather(*(pod.task for pod in self.pods if pod.deleted.is_set()))

    async def restart(self, seconds: float) -> None:
        """As `kubectl rollout restart` and `kubectl rollout status`, until the old pods have ended."""
        self._new()
        await self.settle(seconds)

    async def aclose(self) -> None:
        """Kills what is left."""
        for pod in self.pods:
            pod.task.cancel()
        await asyncio.gather(*(pod.task for pod in self.pods), return_exceptions=True)


def _share(number: int | str, of: int, rounded: Callable[[float], int]) -> int:
    """Pods, which may be given in per cent."""
    return number if isinstance(number, int) else rounded(int(number.removesuffix("%")) / 100 * of)


def _addresses() -> Iterator[str]:
    """Addresses of loopback that no other test uses: each pod has one, and so all may have the same ports."""
    high, low = divmod(os.getpid() % 62_500, 250)
    return (f"127.{high + 1}.{low}.{number}" for number in itertools.count(2))


@asynccontextmanager
async def deployed(
    rendered: Object, objects: Sequence[Object], folder: Path, seconds: float
) -> AsyncIterator[tuple[Deployment, Service]]:
    """A Deployment whose pods are all ready within so many seconds, and the Service in front of it."""
    service = Service()
    template = Template(rendered["spec"]["template"]["spec"], objects, folder)
    deployment = Deployment(rendered, template, service)
    try:
        await deployment.settle(seconds)
        yield deployment, service
    finally:
        await deployment.aclose()
