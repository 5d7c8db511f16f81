"""A route holds all that its requests need."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import msgspec
import pytest

from gateway.catalog import Catalog, Route
from gateway.catalog.routes import LONGEST_ECHO
from gateway.settings import Family, Limits, Modality, ModelSettings

HEARS = ["text", "audio"]


def route(name: str, **models: Mapping[str, Any]) -> Route:
    """The only route of `name`; `star` stands for `*`."""
    tree = {alias.replace("star", "*"): ModelSettings.model_validate(model) for alias, model in models.items()}
    only = Catalog(tree).resolve(name).only
    assert only is not None
    return only


def decoded(fields: Any) -> dict[str, Any]:
    return {name: msgspec.json.decode(raw) for name, raw in fields.items()}


def test_alias_has_engine_served_name_and_facts_of_its_target() -> None:
    gpt = route(
        "gpt",
        gpt={"targets": [{"model": "g"}], "limits": {"max_in_flight": 7}, "owned_by": "me"},
        g={"engine": "gpu", "served_name": "google/g", "family": "gemma3n", "modalities": HEARS, "max_model_len": 9},
    )

    assert (gpt.alias, gpt.target, gpt.base, gpt.engine, gpt.served_name) == ("gpt", "g", None, "gpu", "google/g")
    assert (gpt.model.family, gpt.model.max_model_len) == (Family.GEMMA3N, 9)
    assert gpt.model.modalities == {Modality.TEXT, Modality.AUDIO}
    assert (gpt.model.owned_by, gpt.limits) == ("me", Limits(max_in_flight=7))


def test_adapter_has_its_own_name_and_the_engine_and_facts_of_its_base() -> None:
    models: dict[str, dict[str, Any]] = {
        "g": {"engine": "gpu", "served_name": "google/g", "family": "gemma3", "long_audio": "split"},
        "law": {"base": "g", "served_name": "law-v2"},
        "lawyer": {"targets": [{"model": "law"}]},
    }
    for name in ("law", "lawyer"):
        found = route(name, **models)
        assert (found.alias, found.target, found.base) == (name, "law", "g")
        assert (found.engine, found.served_name) == ("gpu", "law-v2")
        assert (found.model.family, found.model.long_audio) == (Family.GEMMA3, "split")


def test_defaults_and_overrides_of_the_alias_win_over_the_targets() -> None:
    models: dict[str, dict[str, Any]] = {
        "gpt": {"targets": [{"model": "g"}], "defaults": {"top_p": 0.5}, "overrides": {"stop": ["a"]}},
        "g": {"defaults": {"top_p": 1, "temperature": 0.2}, "overrides": {"stop": None, "seed": 1}},
    }

    gpt, g = route("gpt", **models), route("g", **models)

    assert decoded(gpt.defaults) == {"top_p": 0.5, "temperature": 0.2}
    assert decoded(gpt.overrides) == {"stop": ["a"], "seed": 1}
    assert decoded(g.defaults) == {"top_p": 1, "temperature": 0.2}
    assert decoded(g.overrides) == {"stop": None, "seed": 1}


def test_adapter_does_not_take_over_the_defaults_of_its_base() -> None:
    law = route("law", g={"defaults": {"top_p": 1}}, law={"base": "g", "served_name": "law"})

    assert dict(law.defaults) == {}


def test_fallbacks_answer_for_the_alias_that_was_called() -> None:
    gpt = route(
        "gpt",
        gpt={"targets": [{"model": "g"}], "fallbacks": ["h"], "overrides": {"seed": 1}},
        g={"fallbacks": ["i"]},
        h={"engine": "gpu", "fallbacks": ["i"], "defaults": {"top_p": 1}},
        i={},
    )

    (h,) = gpt.fallbacks
    assert (h.alias, h.target, h.engine, h.rename, h.fallbacks) == ("gpt", "h", "gpu", b'"gpt"', ())
    assert (decoded(h.defaults), decoded(h.overrides)) == ({"top_p": 1}, {"seed": 1})


def test_alias_without_fallbacks_has_those_of_its_target() -> None:
    gpt = route("gpt", gpt={"targets": [{"model": "g"}]}, g={"fallbacks": ["h", "i"]}, h={}, i={})

    assert [(each.alias, each.target) for each in gpt.fallbacks] == [("gpt", "h"), ("gpt", "i")]


def test_model_that_failed_is_not_tried_again_as_its_own_fallback() -> None:
    gpt = route("gpt", gpt={"targets": [{"model": "g"}], "fallbacks": ["g", "h"]}, g={}, h={})

    assert [each.target for each in gpt.fallbacks] == ["h"]


def test_limits_of_alias_and_target_both_count() -> None:
    models: dict[str, dict[str, Any]] = {
        "gpt": {"targets": [{"model": "g"}], "limits": {"max_in_flight": 1}},
        "open": {"targets": [{"model": "g"}]},
        "g": {"limits": {"max_in_flight": 2}},
    }
    gpt, free, g = (route(name, **models) for name in models)

    one, two = ("gpt", Limits(max_in_flight=1)), ("g", Limits(max_in_flight=2))
    assert (gpt.limited, free.limited, g.limited) == ((one, two), (two,), (two,))


RENAMES = {
    "another name": ({"served_name": "google/g"}, b'"g"'),
    "the same name": ({}, None),
    "the engine's, as configured": ({"served_name": "google/g", "response_model": "served"}, None),
}


@pytest.mark.parametrize(("model", "expected"), RENAMES.values(), ids=RENAMES.keys())
def test_reply_is_renamed_where_the_names_differ(model: dict[str, Any], expected: bytes | None) -> None:
    g = route("g", g=model)

    assert (g.rename, g.reply_name("g")) == (expected, expected)


def test_reply_name_is_json_and_so_is_what_it_stands_for() -> None:
    odd = route('say "é"', **{'say "é"': {"served_name": "a\\b"}})

    assert odd.reply_name('say "é"') == '"say \\"é\\""'.encode()
    assert odd.rename_from == b'"model":"a\\\\b"'


ECHOES = {
    "gpt-4": b'"gpt-4"',
    'a"b': b'"a\\"b"',
    "x" * LONGEST_ECHO: b'"' + b"x" * LONGEST_ECHO + b'"',
    "served": None,
    "x" * (LONGEST_ECHO + 1): None,
    "": None,
    None: None,
}


@pytest.mark.parametrize(("requested", "expected"), ECHOES.items())
def test_catch_all_replies_with_the_clients_name_if_that_is_short(requested: str | None, expected: bytes) -> None:
    star = route("other", star={"served_name": "served"})

    assert (star.alias, star.target, star.rename) == ("*", "*", None)
    assert star.reply_name(requested) == expected


def test_catch_all_replies_with_the_engines_name_where_so_configured() -> None:
    assert route("other", star={"served_name": "s", "response_model": "served"}).reply_name("other") is None


def test_catch_all_with_a_target_replies_with_the_clients_name() -> None:
    star = route("other", star={"targets": [{"model": "g"}]}, g={"served_name": "google/g"})

    assert (star.alias, star.target, star.reply_name("other")) == ("*", "g", b'"other"')


def fields(head: bytes) -> dict[bytes, bytes]:
    """The header fields of lines."""
    return {name: value for name, _, value in (line.partition(b": ") for line in head.splitlines())}


@pytest.mark.parametrize(
    ("name", "expected"),
    [("gpt", b"google/g:1"), ("google/g:1", b"google/g:1"), ("other", b"s%20%C3%A9")],
)
def test_header_tells_the_model_that_answers_in_plain_characters(name: str, expected: bytes) -> None:
    models: dict[str, Any] = {"gpt": {"targets": [{"model": "google/g:1"}]}, "google/g:1": {}}

    assert route(name, **models, star={"served_name": "s é"}).head == b"x-gemma-model: %b\r\n" % expected


def test_deprecated_name_says_when_and_what_to_use_instead() -> None:
    going = {"since": "2026-01-01", "sunset": "2026-06-30", "successor": "google/g 2"}

    headers = fields(route("g", **{"g": {"deprecated": going}, "google/g 2": {}}).head)

    # RFC 9745: a structured date, seconds since 1970. RFC 8594: an HTTP date.
    assert headers.pop(b"deprecation") == b"@1767225600"
    assert datetime.fromtimestamp(1767225600, UTC).date() == date(2026, 1, 1)
    sunset = headers.pop(b"sunset").decode()
    assert sunset == "Tue, 30 Jun 2026 00:00:00 GMT"
    assert parsedate_to_datetime(sunset) == datetime(2026, 6, 30, tzinfo=UTC)
    assert headers == {
        b"link": b'</v1/models/google/g%202>; rel="successor-version"',
        b"x-gemma-model": b"g",
    }


def test_deprecation_of_a_target_is_no_matter_of_its_alias() -> None:
    models: dict[str, dict[str, Any]] = {
        "gpt": {"targets": [{"model": "g"}]},
        "g": {"deprecated": {"since": "2026-01-01"}},
    }

    assert list(fields(route("gpt", **models).head)) == [b"x-gemma-model"]
    assert list(fields(route("g", **models).head)) == [b"x-gemma-model", b"deprecation"]
