"""Replicas by EndpointSlices, from a real server that speaks the Kubernetes API."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from gateway.errors import ConfigurationError
from gateway.settings.engines import KubernetesSettings
from gateway.upstream.discovery import cluster
from gateway.upstream.discovery.slices import BySlices
from tests.access.provider import certify
from tests.upstream.discovery.kubernetes_api import Api, endpoint, endpoint_slice, kubernetes_api
from tests.upstream.discovery.told import eventually, running

ONE, TWO, THREE = (f"http://10.0.0.{n}:8000" for n in (1, 2, 3))


@pytest_asyncio.fixture
async def api() -> AsyncIterator[Api]:
    async with kubernetes_api() as served:
        served.slices["a"] = endpoint_slice("a", endpoint("10.0.0.1"))
        yield served


def by_slices(api: Api, **settings: str | int) -> BySlices:
    chosen = KubernetesSettings.model_validate({"service": "engine", "namespace": "models", **settings})
    return BySlices(chosen, lambda: cluster.connect(api.configuration()), shortest_pause=0.01)


async def test_replicas_are_told_at_first_and_as_they_come_and_go(api: Api) -> None:
    async with running(by_slices(api)) as told:
        await told.until(ONE)
        await eventually(lambda: api.watched)
        api.put(endpoint_slice("b", endpoint("10.0.0.2")))
        await told.until(ONE, TWO)
        api.put(endpoint_slice("a", endpoint("10.0.0.3"), endpoint("10.0.0.1", ready=False)))
        await told.until(TWO, THREE)
        api.delete("a")
        await told.until(TWO)

    assert (api.lists, api.watches) == (1, 1)


async def test_only_slices_of_the_service_are_asked_for_and_watched_from_the_version_of_the_list(api: Api) -> None:
    async with running(by_slices(api)):
        await eventually(lambda: api.watched)

    listed, watched = api.asked
    assert listed["labelSelector"] == watched["labelSelector"] == "kubernetes.io/service-name=engine"
    assert (watched["resourceVersion"], watched["timeoutSeconds"]) == ("100", "300")


async def test_without_a_namespace_it_is_the_gateways_own(api: Api) -> None:
    settings = KubernetesSettings(service="engine")

    async with running(BySlices(settings, lambda: cluster.connect(api.configuration()))) as told:
        await told.until(ONE)


@pytest.mark.parametrize("ending", ["reset", "gone-event", "gone-status", "nonsense"])
async def test_watch_that_ends_is_followed_by_a_fresh_list(
    api: Api, ending: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(by_slices(api)) as told:
        await told.until(ONE)
        await eventually(lambda: api.watched)
        # Nobody was told of this change: only a list can.
        api.slices["a"] = endpoint_slice("a", endpoint("10.0.0.2"))
        if ending == "gone-status":
            api.refuses_watch = 410
        if ending == "gone-event":
            api.gone()
        elif ending == "nonsense":
            api.say("{nonsense")
        else:
            api.drop()
        await told.until(TWO)
        api.refuses_watch = None
        await eventually(lambda: api.watched)
        api.put(endpoint_slice("b", endpoint("10.0.0.3")))
        await told.until(TWO, THREE)

    assert ("cannot find" in caplog.text) == (ending == "nonsense")


async def test_server_that_ends_each_watch_at_once_is_watched_once_a_list(api: Api) -> None:
    api.ends_watches = True

    async with running(by_slices(api)) as told:
        await told.until(ONE)
        await eventually(lambda: api.lists > 3)

    assert api.watches <= api.lists


async def test_last_known_replicas_stay_while_the_api_fails(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "gateway")

    async with running(by_slices(api)) as told:
        await told.until(ONE)
        await eventually(lambda: api.watched)
        api.refuses = 500
        api.drop()
        asked = len(api.asked)
        await eventually(lambda: len(api.asked) > asked + 2)
        assert told.lists == [[ONE]]
        api.slices["a"] = endpoint_slice("a", endpoint("10.0.0.2"))
        api.refuses = None
        await told.until(TWO)
        await eventually(lambda: "can be found again" in caplog.text)

    assert caplog.text.count("cannot find the replicas of Kubernetes Service engine") == 1


async def test_watch_that_is_forbidden_is_said_once_with_the_role_that_is_missing(
    api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "gateway")
    api.refuses_watch = 403

    async with running(by_slices(api)) as told:
        await told.until(ONE)
        await eventually(lambda: api.lists > 3)

    assert caplog.text.count("resources [endpointslices], verbs [get, list, watch]") == 1


@pytest.mark.parametrize("wanted", ["metrics", 9000])
async def test_port_that_the_service_lacks_is_warned_of_with_those_it_has(
    api: Api, wanted: str | int, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(by_slices(api, port=wanted)) as told:
        await told.until()

    assert f"Kubernetes Service engine has no port {wanted!r} but http (8000)" in caplog.text


async def test_service_without_any_slice_is_warned_of(api: Api, caplog: pytest.LogCaptureFixture) -> None:
    api.slices = {}

    async with running(by_slices(api)) as told:
        await told.until()

    assert "has no EndpointSlices; are `service` and `namespace` right?" in caplog.text


@pytest.fixture
def account(tmp_path: Path) -> Path:
    """The files of a service account, as they lie in a Pod."""
    certify(tmp_path / "ca.crt")
    (tmp_path / "token").write_text("first")
    (tmp_path / "namespace").write_text("models")
    return tmp_path


async def test_token_of_the_service_account_is_read_again_as_it_rotates(
    account: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with kubernetes_api(account / "ca.crt") as api:
        api.token, api.slices["a"] = "first", endpoint_slice("a", endpoint("10.0.0.1"))
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(urlsplit(api.url).port))
        configuration = cluster.in_cluster(str(account))
        settings = KubernetesSettings(service="engine")

        async with running(BySlices(settings, lambda: cluster.connect(configuration), shortest_pause=0.01)) as told:
            await told.until(ONE)
            (account / "token").write_text("second")
            api.token, api.slices["a"] = "second", endpoint_slice("a", endpoint("10.0.0.2"))
            api.drop()
            await told.until(TWO)


async def test_server_that_the_clusters_authority_does_not_vouch_for_is_not_believed(
    account: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async with kubernetes_api(account / "ca.crt") as api:
        monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
        monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(urlsplit(api.url).port))
        configuration = cluster.in_cluster(str(account))
        # Another one of the same name.
        certify(account / "ca.crt")
        discovery = BySlices(KubernetesSettings(service="engine"), lambda: cluster.connect(configuration))

        async with running(discovery) as told:
            await eventually(lambda: "CERTIFICATE_VERIFY_FAILED" in caplog.text)

    assert (told.lists, api.asked) == ([], [])


def test_outside_of_a_cluster_it_is_refused_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="automountServiceAccountToken: true"):
        cluster.in_cluster(str(tmp_path))
