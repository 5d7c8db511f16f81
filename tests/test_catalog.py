"""Model names lead to engines."""

from __future__ import annotations

import pytest

from gateway.catalog import Catalog
from gateway.errors import InvalidRequestError, ModelNotFoundError
from gateway.settings import ModelSettings

MODELS = {"small": ModelSettings(), "big": ModelSettings(engine="gpu", served_name="google/gemma-4-31B-it")}
CATCH_ALL = {"*": ModelSettings(served_name="small")}


def test_alias_leads_to_its_engine_and_served_name() -> None:
    catalog = Catalog(MODELS)

    assert (catalog.resolve("small").engine, catalog.resolve("small").served_name) == ("default", "small")
    assert (catalog.resolve("big").engine, catalog.resolve("big").served_name) == ("gpu", "google/gemma-4-31B-it")


def test_catch_all_takes_every_other_name_and_none_but_is_not_listed() -> None:
    catalog = Catalog(MODELS | CATCH_ALL)

    assert [catalog.resolve(name).alias for name in ("ignore", "", None, "big")] == ["*", "*", "*", "big"]
    assert [route.alias for route in catalog] == ["small", "big"]


def test_unknown_name_is_a_404_that_lists_the_known_ones() -> None:
    with pytest.raises(ModelNotFoundError, match=r"The model 'other' does not exist\. Available: small, big\."):
        Catalog(MODELS).resolve("other")


def test_missing_name_is_a_400_on_model() -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        Catalog(MODELS).resolve(None)

    assert refusal.value.param == "model"
