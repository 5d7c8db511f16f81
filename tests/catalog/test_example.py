"""The example of names that is handed out works as its comments say."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway import settings
from gateway.catalog import Catalog, Route
from gateway.settings import Modality

EXAMPLE = Path(__file__).parents[2] / "deploy" / "examples" / "models.yaml"


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    return Catalog(settings.load(EXAMPLE).models)


def only(catalog: Catalog, name: str | None) -> Route:
    route = catalog.resolve(name).only
    assert route is not None
    return route


@pytest.mark.parametrize(
    ("name", "engine"),
    [("gpt-4o", "large"), ("gpt-4o-mini", "small"), ("gpt-5", "large"), ("whisper-1", "small"), (None, "small")],
)
def test_names_of_openai_lead_to_gemma_and_replies_still_carry_them(
    catalog: Catalog, name: str | None, engine: str
) -> None:
    route = only(catalog, name)

    assert route.engine == engine
    assert route.reply_name(name) == (f'"{name}"'.encode() if name else None)


@pytest.mark.parametrize("name", ["whisper-1", "gpt-4o-transcribe", "gpt-4o-mini-transcribe"])
def test_names_of_models_that_hear_lead_to_one_that_does(catalog: Catalog, name: str) -> None:
    assert Modality.AUDIO in only(catalog, name).model.modalities


def test_canary_gets_its_share_and_falls_back_to_the_model_it_stands_beside(catalog: Catalog) -> None:
    gemma = catalog.resolve("gemma")

    assert [gemma.route(unit).engine for unit in (0.0, 0.949, 0.951)] == ["large", "large", "next"]
    assert [route.engine for route in gemma.route(0.99).fallbacks] == ["large"]
    assert [route.engine for route in gemma.route(0).fallbacks] == ["small"]


def test_adapter_is_asked_for_by_its_engines_name(catalog: Catalog) -> None:
    support = only(catalog, "support")

    assert (support.engine, support.served_name, support.target) == ("small", "support-v3", "support")


def test_clients_are_shown_the_names_to_use(catalog: Catalog) -> None:
    listed = [choice.alias for choice in catalog.listed()]

    assert listed == ["google/gemma-4-E4B-it", "google/gemma-4-31B-it", "support", "gemma", "gemma-large"]
