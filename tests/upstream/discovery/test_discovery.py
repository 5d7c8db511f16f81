"""Which way to find replicas the configuration chooses."""

from __future__ import annotations

import subprocess
import sys

import pytest

from gateway.errors import ConfigurationError
from gateway.settings.engines import DnsSettings, EngineSettings, KubernetesSettings
from gateway.upstream.discovery import discovery
from gateway.upstream.discovery.changes import backoff, url
from gateway.upstream.discovery.names import ByDns
from tests.upstream.discovery.told import Told


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (EngineSettings(url="unix:/run/engine.sock"), ["unix:/run/engine.sock"]),
        (EngineSettings(urls=("http://b:8000", "http://a:8000")), ["http://a:8000", "http://b:8000"]),
    ],
)
async def test_replicas_that_are_named_are_told_once(settings: EngineSettings, expected: list[str]) -> None:
    told = Told()

    await discovery(settings).run(told)

    assert told.lists == [expected]


def test_dns_is_asked_where_it_is_configured() -> None:
    assert isinstance(discovery(EngineSettings(dns=DnsSettings(name="engine"))), ByDns)


def test_kubernetes_without_its_extra_is_refused_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "gateway.upstream.discovery.slices", raising=False)
    monkeypatch.setitem(sys.modules, "lightkube", None)

    with pytest.raises(ConfigurationError, match=r"pip install 'gemma-gateway\[kubernetes\]'"):
        discovery(EngineSettings(kubernetes=KubernetesSettings(service="engine")))


@pytest.mark.parametrize(
    ("settings", "unwanted"), [("url='http://a:1'", {"dns", "lightkube"}), ("dns=DnsSettings(name='a')", {"lightkube"})]
)
def test_only_the_library_of_the_way_that_is_chosen_is_imported(settings: str, unwanted: set[str]) -> None:
    program = (
        "import sys\n"
        "from gateway.settings.engines import DnsSettings, EngineSettings\n"
        "from gateway.upstream.discovery import discovery\n"
        f"discovery(EngineSettings({settings}))\n"
        f"print({unwanted} & sys.modules.keys())"
    )

    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == "set()"


def test_attempts_are_made_after_longer_and_longer_pauses() -> None:
    assert [backoff(n, 1, 10) for n in (1, 2, 3, 4, 5, 5000)] == [1, 2, 4, 8, 10, 10]


@pytest.mark.parametrize(("address", "expected"), [("10.0.0.1", "http://10.0.0.1:80"), ("::1", "http://[::1]:80")])
def test_url_of_an_address(address: str, expected: str) -> None:
    assert url(address, 80) == expected
