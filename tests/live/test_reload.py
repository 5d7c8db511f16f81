"""Keys and configuration change while requests run: nothing is lost, and what is wrong is not taken over."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.access import key_edits
from tests.fake_engine import Received, completion
from tests.live.conftest import Running, Start


async def ready(gateway: Running) -> dict[str, Any]:
    """What /readyz says."""
    transport = httpx.ASGITransport(app=gateway.gateway.admin)
    async with httpx.AsyncClient(transport=transport, base_url="http://admin") as client:
        return {**(await client.get("/readyz")).json()}


async def until_status(gateway: Running, key: str, status: int) -> float:
    """Seconds until requests with a key get that status."""
    started = time.monotonic()
    async with asyncio.timeout(5):
        while (await gateway.chat(key)).status_code != status:
            await asyncio.sleep(0.02)
    return time.monotonic() - started


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    key_edits.create(tmp_path / "keys.yaml", "first")
    return tmp_path / "keys.yaml"


async def test_made_and_revoked_keys_take_effect_within_two_seconds(start: Start, keys: Path) -> None:
    gateway = await start(auth={"keys_file": str(keys)})

    key = key_edits.create(keys, "new")
    made = await until_status(gateway, key, 200)
    key_edits.revoke(keys, key)
    revoked = await until_status(gateway, key, 401)

    assert made < 2
    assert revoked < 2
    assert gateway.metric("gemma_gateway_reloads_total", what="keys", outcome="ok") == 2


async def test_broken_key_file_keeps_the_last_good_keys_and_is_told(start: Start, keys: Path) -> None:
    key = key_edits.create(keys, "good")
    gateway = await start(auth={"keys_file": str(keys)})
    good = keys.read_text()

    keys.write_text(good + "- id: [broken")
    await gateway.until(lambda: gateway.gateway.keys.fault is not None)
    meanwhile, told = await gateway.chat(key), await ready(gateway)
    keys.write_text(good)
    await gateway.until(lambda: gateway.gateway.keys.fault is None)

    assert meanwhile.status_code == 200
    assert told["status"] == "ready"
    assert "keys.yaml" in told["keys"]
    assert gateway.metric("gemma_gateway_reloads_total", what="keys", outcome="error") == 1
    assert (await ready(gateway))["keys"] == "ok"


async def test_keys_in_a_mounted_secret_change_with_kubernetes_swap_of_its_folder(start: Start, tmp_path: Path) -> None:
    """As the kubelet does: the files are links into `..data`, a link to a folder that is replaced as a whole."""
    mount = tmp_path / "mount"
    old, new = mount / "..2026_1", mount / "..2026_2"
    old.mkdir(parents=True)
    new.mkdir()
    before, after = key_edits.create(old / "keys.yaml", "old"), key_edits.create(new / "keys.yaml", "new")
    (mount / "..data").symlink_to(old.name)
    (mount / "keys.yaml").symlink_to("..data/keys.yaml")
    gateway = await start(auth={"keys_directory": str(mount)})
    assert (await gateway.chat(before)).status_code == 200

    (mount / "..tmp").symlink_to(new.name)
    (mount / "..tmp").rename(mount / "..data")

    assert await until_status(gateway, after, 200) < 2
    assert (await gateway.chat(before)).status_code == 401


async def test_no_request_with_a_valid_key_is_refused_while_keys_change_fifty_times(start: Start, keys: Path) -> None:
    stable = key_edits.create(keys, "stable")
    rotated = key_edits.create(keys, "rotated")
    gateway = await start(auth={"keys_file": str(keys)})
    valid, over = [rotated], asyncio.Event()
    statuses: list[int] = []

    async def use() -> None:
        while not over.is_set():
            statuses.extend([(await gateway.chat(stable)).status_code, (await gateway.chat(valid[-1])).status_code])

    users = [asyncio.create_task(use()) for _ in range(3)]
    for number in range(50):
        fresh = key_edits.rotate(keys, rotated).key
        key_edits.revoke(keys, key_edits.create(keys, f"passing {number}"))
        # The secret before stays valid for a while, so that whoever uses it has the time to change.
        await gateway.gateway.keys.look()
        valid.append(fresh)
        await asyncio.sleep(0.02)
    over.set()
    await asyncio.gather(*users)

    assert len(statuses) > 50
    assert set(statuses) == {200}


async def test_changed_configuration_is_taken_over_while_a_request_runs_by_the_old_one(start: Start) -> None:
    gateway = await start()
    go_on = asyncio.Event()
    normal = gateway.engine.behaviour

    async def wait(request: Received, writer: asyncio.StreamWriter) -> None:
        await go_on.wait()
        await normal(request, writer)

    gateway.engine.behaviour = wait
    running = asyncio.create_task(gateway.chat())
    await gateway.until(lambda: gateway.engine.running == 1)
    gateway.engine.behaviour = completion()

    gateway.configure(models={"gemma": {"served_name": "changed"}, "added": {}})
    await gateway.until(lambda: "added" in gateway.gateway.settings.models)
    later, added = await gateway.chat(), await gateway.chat(model="added")
    go_on.set()

    assert (await running).status_code == 200
    assert [later.status_code, added.status_code] == [200, 200]
    assert [r.json()["model"] for r in gateway.engine.requests] == ["served", "changed", "added"]
    assert gateway.metric("gemma_gateway_reloads_total", what="configuration", outcome="ok") == 1
    await gateway.idle()


INVALID: dict[str, tuple[dict[str, Any], str]] = {
    "unknown key": ({"models": {"gemma": {"sevred_name": "x"}}}, "models.gemma.sevred_name"),
    "unknown engine": ({"models": {"gemma": {"engine": "none"}}}, "no engine 'none'"),
    "other port": ({"server": {"port": 1}, "models": {"more": {}}}, "server.port cannot change"),
    "missing keys": ({"auth": {"keys_file": "/nowhere/keys.yaml"}, "models": {"more": {}}}, "/nowhere/keys.yaml"),
    "usage log without a folder": ({"usage": {"file": "/nowhere/usage.jsonl"}, "models": {"more": {}}}, "/nowhere"),
}


@pytest.mark.parametrize(("sections", "reason"), INVALID.values(), ids=INVALID.keys())
async def test_invalid_configuration_is_refused_as_a_whole_with_the_reason(
    start: Start, sections: dict[str, Any], reason: str
) -> None:
    gateway = await start()

    gateway.configure(**sections)
    await gateway.until(lambda: gateway.gateway.configuration.fault is not None)

    assert reason in (await ready(gateway))["configuration"]
    assert (await gateway.chat()).status_code == 200
    assert list(gateway.gateway.settings.models) == ["gemma"]
    assert gateway.metric("gemma_gateway_reloads_total", what="configuration", outcome="error") == 1
    assert gateway.metric("gemma_gateway_reload_healthy", what="configuration") == 0
    gateway.configure()
    await gateway.until(lambda: gateway.gateway.configuration.fault is None)


async def test_engine_that_is_added_serves_at_once_and_one_that_is_removed_is_let_go_of(start: Start) -> None:
    gateway = await start(engines={"other": {"probe_seconds": 60}})
    address = gateway.engines["other"].url

    gateway.configure(engines={"third": {"url": address}}, models={"third": {"engine": "third"}})
    await gateway.until(lambda: "third" in gateway.gateway.engines)
    answer = await gateway.chat(model="third")
    states = (await ready(gateway))["engines"]
    gateway.configure()
    await gateway.until(lambda: "third" not in gateway.gateway.engines)

    assert answer.status_code == 200
    assert states == {"default": "ready", "other": "ready", "third": "ready"}
    assert gateway.metric("gemma_gateway_engine_ready", engine="third") == 0


async def test_limits_that_change_keep_what_was_counted(start: Start) -> None:
    gateway = await start(quotas={"total": {"requests_per_minute": 3}})
    before = [(await gateway.chat()).status_code for _ in range(3)]

    gateway.configure(quotas={"total": {"requests_per_minute": 5}})
    await gateway.until(lambda: gateway.gateway.settings.quotas.total.requests_per_minute == 5)
    after = [(await gateway.chat()).status_code for _ in range(3)]

    assert (before, after) == ([200, 200, 200], [200, 200, 429])


async def test_file_that_goes_and_comes_back_changes_nothing(start: Start) -> None:
    gateway = await start()
    text = gateway.config.read_text()

    gateway.config.unlink()
    await gateway.until(lambda: gateway.gateway.configuration.fault is not None)
    meanwhile = await gateway.chat()
    gateway.config.write_text(text)
    await gateway.until(lambda: gateway.gateway.configuration.fault is None)

    assert [meanwhile.status_code, (await gateway.chat()).status_code] == [200, 200]
