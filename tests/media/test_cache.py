"""What is kept stays within its bounds, and what was used last stays longest."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Gauge

from gateway.media.cache import Cache


def cache(max_bytes: int = 10, max_entries: int = 3) -> tuple[Cache[str, bytes], Gauge]:
    gauge = Gauge("bytes", "Bytes kept.", registry=CollectorRegistry())
    return Cache(max_bytes, max_entries, gauge, len), gauge


def kept(one: Cache[str, bytes], *keys: str) -> list[str]:
    return [key for key in keys if one.get(key) is not None]


def value(gauge: Gauge) -> float:
    return next(iter(gauge.collect())).samples[0].value


def test_the_longest_unused_makes_room_for_bytes() -> None:
    one, gauge = cache()
    one.put("a", b"aaaa")
    one.put("b", b"bbbb")
    assert one.get("a") == b"aaaa"
    one.put("c", b"cccc")
    assert kept(one, "a", "b", "c") == ["a", "c"]
    assert (len(one), value(gauge)) == (2, 8)


def test_the_longest_unused_makes_room_for_entries() -> None:
    one, gauge = cache(max_bytes=100)
    for key in "abcd":
        one.put(key, b"x")
    assert kept(one, *"abcd") == ["b", "c", "d"]
    assert value(gauge) == 3


def test_a_value_takes_the_place_of_the_earlier_one() -> None:
    one, gauge = cache()
    one.put("a", b"aaaa")
    one.put("a", b"aa")
    assert one.get("a") == b"aa"
    assert value(gauge) == 2


def test_a_value_that_is_too_large_is_not_kept_and_neither_is_the_earlier_one() -> None:
    one, gauge = cache()
    one.put("b", b"bb")
    one.put("a", b"aaaa")
    one.put("a", b"a" * 11)
    assert kept(one, "a", "b") == ["b"]
    assert value(gauge) == 2


def test_without_bytes_nothing_is_kept() -> None:
    one, gauge = cache(max_bytes=0)
    one.put("a", b"a")
    assert (len(one), value(gauge)) == (0, 0)


def test_what_is_dropped_is_gone() -> None:
    one, gauge = cache()
    one.put("a", b"aaaa")
    one.drop("a")
    one.drop("never there")
    assert one.get("a") is None
    assert value(gauge) == 0
