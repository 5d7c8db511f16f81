"""Bytes in flight are counted while they are held, and never beyond the limit."""

from __future__ import annotations

import pytest

from gateway.errors import MediaTooLargeError, OverloadedError, PayloadTooLargeError
from gateway.ledger import Ledger
from gateway.metrics import Metrics


def ledger(limit: int = 100) -> tuple[Ledger, Metrics]:
    metrics = Metrics()
    one = Ledger(limit, metrics.media_bytes, "media.max_bytes_in_flight", "media", retry_after=7)
    return one, metrics


def bodies(limit: int) -> Ledger:
    return Ledger(
        limit,
        Metrics().body_bytes,
        "limits.max_body_bytes_in_flight",
        "request bodies",
        too_large=PayloadTooLargeError,
    )


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
        with pytest.raises(OverloadedError, match=r"100 bytes of media .*\(media\.max_bytes_in_flight\)") as fault:
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


def test_a_holder_that_alone_is_over_the_limit_is_not_told_to_come_again() -> None:
    one, metrics = ledger()
    with one.hold(60) as held:
        with pytest.raises(MediaTooLargeError, match=r"100 bytes \(media\.max_bytes_in_flight\)") as fault:
            held.add(41)
        assert (fault.value.retry_after, held.count, shown(metrics)) == (None, 60, 60)


def test_messages_name_what_is_counted_and_its_setting() -> None:
    one = bodies(100)
    one.change(60)
    with pytest.raises(OverloadedError, match=r"request bodies are in flight \(limits\.max_body_bytes_in_flight\)"):
        one.change(41)
    with pytest.raises(PayloadTooLargeError, match=r"100 bytes \(limits\.max_body_bytes_in_flight\)"):
        one.change(101)
    one.change(40)


def test_a_limit_changed_meanwhile_holds_for_what_comes_and_keeps_what_is_held() -> None:
    one, metrics = ledger()
    with one.hold(90):
        one.limit = 50
        with pytest.raises(OverloadedError, match="50 bytes"):
            one.change(1)
        assert shown(metrics) == 90
        one.limit = 200
        one.change(110)
    assert shown(metrics) == 110
