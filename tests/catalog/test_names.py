"""Model names lead to engines."""

from __future__ import annotations

import pytest

from gateway.catalog import Catalog
from gateway.errors import InvalidRequestError, ModelNotFoundError
from gateway.settings import ModelSettings

MODELS = {"small": ModelSettings(), "big": ModelSettings(engine="gpu", served_name="google/gemma-4-31B-it")}
CATCH_ALL = {"*": ModelSettings(served_name="small")}
HIDDEN = {"secret": ModelSettings(hidden=True)}


def names(catalog: Catalog) -> list[str]:
    return [choice.alias for choice in catalog.listed()]


def test_alias_leads_to_its_engine_and_served_name() -> None:
    catalog = Catalog(MODELS)
    small, big = catalog.resolve("small").route(0), catalog.resolve("big").route(0)

    assert (small.alias, small.target, small.engine, small.served_name) == ("small", "small", "default", "small")
    assert (big.alias, big.target, big.engine, big.served_name) == ("big", "big", "gpu", "google/gemma-4-31B-it")


def test_catch_all_takes_every_other_name_and_none_but_is_not_listed() -> None:
    catalog = Catalog(MODELS | CATCH_ALL)

    assert [catalog.resolve(name).alias for name in ("ignore", "", None, "big")] == ["*", "*", "*", "big"]
    assert names(catalog) == ["small", "big"]


def test_unknown_name_is_a_404_that_lists_the_known_ones() -> None:
    with pytest.raises(ModelNotFoundError, match=r"^The model 'other' does not exist\. Available: small, big\.$"):
        Catalog(MODELS).resolve("other")


def test_unknown_name_is_told_neither_hidden_names_nor_those_the_caller_may_not_use() -> None:
    with pytest.raises(ModelNotFoundError, match=r"Available: big\.$"):
        Catalog(MODELS | HIDDEN).resolve("other", lambda alias: alias != "small")

    with pytest.raises(ModelNotFoundError, match=r"Available: none\.$"):
        Catalog(MODELS | HIDDEN).resolve("other", lambda _: False)


def test_404_stays_short_whatever_the_name_and_however_many_there_are() -> None:
    catalog = Catalog({f"m{number}": ModelSettings() for number in range(1000)})

    with pytest.raises(ModelNotFoundError, match=r", m29, and more \(see GET /v1/models\)\.$") as refusal:
        catalog.resolve("x" * 1_000_000)

    assert len(refusal.value.message) < 400


def test_missing_name_is_a_400_on_model() -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        Catalog(MODELS).resolve(None)

    assert (refusal.value.status, refusal.value.param) == (400, "model")


def test_hidden_name_is_used_and_described_but_not_listed() -> None:
    catalog = Catalog(MODELS | HIDDEN)

    assert names(catalog) == ["small", "big"]
    assert catalog.resolve("secret") is catalog.described("secret")


@pytest.mark.parametrize("name", ["*", "other", "small"])
def test_neither_the_catch_all_nor_what_the_caller_may_not_use_is_described(name: str) -> None:
    catalog = Catalog(MODELS | CATCH_ALL)

    with pytest.raises(ModelNotFoundError, match=r"does not exist\. Available: big\.$"):
        catalog.described(name, lambda alias: alias != "small")
