"""Bytes in flight are counted while they are held, and never beyond the limit."""

from __future__ import annotations

import pytest

from gateway.errors import OverloadedError
from gateway.media.ledger import Ledger
from gateway.metrics import Metrics


def ledger(limit: int = 100) -> tuple[Ledger, Metrics]:
    metrics = Metrics()
    return Ledger(limit, metrics.media_bytes, retry_after=7), metrics


def shown(metrics: Metrics) -> float | None:
    return metrics.registry.get_sample_value("gemma_gateway_media_bytes_in_flight")


def test_all_holders_together_are_shown() -> None:
    one, metrics = ledger()
    with one.hold(10) as held:
        held.add(20)
        with one.hold() as other:
            other.add(70)
            assert (held.count, other.count, shown(metrics)) == (30, 70, 100)
        assert shown(metrics) == 30
    assert shown(metrics) == 0


def test_more_than_the_limit_is_refused_and_says_when_to_come_again() -> None:
    one, metrics = ledger()
    with one.hold(60), one.hold(30) as held:
        with pytest.raises(OverloadedError, match=r"100 bytes .*\(media\.max_bytes_in_flight\)") as fault:
            held.add(11)
        assert fault.value.retry_after == 7
        with pytest.raises(OverloadedError), one.hold(11):
            pass
        assert (held.count, shown(metrics)) == (30, 90)
        held.add(10)
    assert shown(metrics) == 0


def test_what_is_held_is_freed_when_the_block_fails() -> None:
    one, metrics = ledger()
    with pytest.raises(ZeroDivisionError), one.hold(100):
        _ = 1 / 0
    assert shown(metrics) == 0
    with one.hold(100):
        assert shown(metrics) == 100
