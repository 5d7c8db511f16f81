"""The models that a caller sees are those that it may use."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from anthropic.pagination import SyncPage
from anthropic.types import ModelInfo
from fastapi import FastAPI
from openai.types import Model

from gateway.access.callers import Caller
from gateway.api import handlers, models
from gateway.api.call import Fields
from gateway.catalog import Catalog
from gateway.errors import AuthenticationError
from gateway.settings import Grant, ModelSettings

CREATED = 1_767_225_600
ALL = Caller("1", "all")
FEW = Caller("2", "few", Grant(models=("g*", "secret")))

MODELS: dict[str, dict[str, Any]] = {
    "g": {"family": "gemma3", "max_model_len": 8192, "modalities": ["image", "text"]},
    "other/h": {"family": "gemma3n", "max_model_len": 4096, "modalities": ["audio", "text"]},
    "law": {"base": "g", "served_name": "law-v2", "owned_by": "us"},
    "gpt": {"targets": [{"model": "law"}]},
    "both": {"targets": [{"model": "g"}, {"model": "other/h"}]},
    "secret": {"hidden": True},
    "old": {"deprecated": {"since": "2020-01-01", "sunset": "2020-06-30", "successor": "g"}},
    "leaving": {"deprecated": {"since": "9999-01-01"}},
    "*": {"served_name": "g"},
}
LISTED = ["g", "other/h", "law", "gpt", "both", "old", "leaving"]


def catalog(tree: dict[str, dict[str, Any]]) -> Catalog:
    return Catalog({name: ModelSettings.model_validate(model) for name, model in tree.items()})


async def by_key(headers: Fields, peer: str | None) -> Caller:
    assert peer is not None
    callers = {b"Bearer all": ALL, b"Bearer few": FEW}
    caller = callers.get(headers.get(b"authorization", b""))
    if caller is None:
        raise AuthenticationError("No API key was provided.")
    return caller


def client(catalogs: list[Catalog], key: str = "all", **headers: str) -> httpx.AsyncClient:
    """A client of the routes over the last of the catalogs."""
    app = FastAPI()
    app.include_router(models.router(by_key, lambda: catalogs[-1], CREATED))
    handlers.install(app)
    known = {"authorization": f"Bearer {key}", **headers}
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway", headers=known)


@pytest.fixture
def catalogs() -> list[Catalog]:
    return [catalog(MODELS)]


async def names(reader: httpx.AsyncClient) -> list[str]:
    return [model["id"] for model in (await reader.get("/v1/models")).json()["data"]]


async def test_everything_but_hidden_names_and_the_catch_all_is_listed(catalogs: list[Catalog]) -> None:
    assert await names(client(catalogs)) == LISTED


async def test_caller_sees_only_what_it_may_use(catalogs: list[Catalog]) -> None:
    assert await names(client(catalogs, "few")) == ["g", "gpt"]


@pytest.mark.parametrize("path", ["/v1/models", "/v1/models/g"])
async def test_unknown_caller_is_refused(catalogs: list[Catalog], path: str) -> None:
    response = await client(catalogs, "wrong").get(path)

    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"


@pytest.mark.parametrize(
    ("key", "method", "path", "status", "kind"),
    [
        ("wrong", "GET", "/v1/models", 401, "authentication_error"),
        ("wrong", "GET", "/v1/models/g", 401, "authentication_error"),
        ("few", "GET", "/v1/models/law", 404, "not_found_error"),
        ("all", "GET", "/v1/unknown", 404, "not_found_error"),
        ("all", "POST", "/v1/models", 405, "api_error"),
    ],
)
async def test_anthropic_client_gets_errors_in_its_own_shape(
    catalogs: list[Catalog], key: str, method: str, path: str, status: int, kind: str
) -> None:
    openai = await client(catalogs, key).request(method, path)
    anthropic = await client(catalogs, key, **{"anthropic-version": "2023-06-01"}).request(method, path)

    message = openai.json()["error"]["message"]
    assert (openai.status_code, anthropic.status_code) == (status, status)
    assert anthropic.json() == {"type": "error", "error": {"type": kind, "message": message}}
    assert anthropic.headers.get("www-authenticate") == openai.headers.get("www-authenticate")


async def test_one_model_is_described_as_in_the_list(catalogs: list[Catalog]) -> None:
    reader = client(catalogs)
    listed = (await reader.get("/v1/models")).json()

    assert listed["object"] == "list"
    assert [(await reader.get(f"/v1/models/{name}")).json() for name in LISTED] == listed["data"]
    assert listed["data"][0] == {
        "id": "g",
        "object": "model",
        "created": CREATED,
        "owned_by": "google",
        "max_model_len": 8192,
        "family": "gemma3",
        "modalities": ["text", "image"],
        "root": "g",
        "parent": None,
        "deprecation": None,
    }


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("law", {"root": "law", "parent": "g", "family": "gemma3", "max_model_len": 8192, "owned_by": "us"}),
        ("gpt", {"root": "law", "parent": "g", "family": "gemma3", "max_model_len": 8192, "owned_by": "google"}),
        ("both", {"root": None, "parent": None, "modalities": ["text"], "max_model_len": 4096}),
        ("secret", {"root": "secret", "max_model_len": None}),
        ("old", {"deprecation": {"since": "2020-01-01", "sunset": "2020-06-30", "successor": "g"}}),
        ("leaving", {"deprecation": {"since": "9999-01-01", "sunset": None, "successor": None}}),
    ],
)
async def test_card_tells_what_the_name_stands_for(
    catalogs: list[Catalog], name: str, expected: dict[str, object]
) -> None:
    card = (await client(catalogs).get(f"/v1/models/{name}")).json()

    assert {field: card[field] for field in expected} == expected


@pytest.mark.parametrize("name", ["other/h", "law", "unknown", "*"])
async def test_what_the_caller_may_not_use_is_as_if_it_were_not_there(catalogs: list[Catalog], name: str) -> None:
    response = await client(catalogs, "few").get(f"/v1/models/{name}")

    assert response.status_code == 404
    assert response.json()["error"]["code"] == "model_not_found"
    assert response.json()["error"]["message"] == f"The model '{name}' does not exist. Available: g, gpt."


async def test_new_catalog_is_shown_at_once(catalogs: list[Catalog]) -> None:
    reader = client(catalogs)
    before = await names(reader)
    catalogs.append(catalog({"new": {}}))

    assert (before, await names(reader)) == (LISTED, ["new"])


async def test_description_names_both_routes() -> None:
    paths = (await client([]).get("/openapi.json")).json()["paths"]

    assert set(paths) == {"/v1/models", "/v1/models/{model}"}


async def test_openai_client_understands_the_list(catalogs: list[Catalog]) -> None:
    listed = (await client(catalogs).get("/v1/models")).json()["data"]

    assert [Model.model_validate(card).id for card in listed] == LISTED


async def test_anthropic_client_gets_the_list_it_expects(catalogs: list[Catalog]) -> None:
    reader = client(catalogs, **{"anthropic-version": "2023-06-01"})
    answer = (await reader.get("/v1/models")).json()
    page = SyncPage[ModelInfo].model_validate(answer)

    assert [model.id for model in page.data] == LISTED
    assert not page.has_next_page()
    assert (answer["first_id"], answer["last_id"], answer["has_more"]) == ("g", "leaving", False)
    assert [(await reader.get(f"/v1/models/{name}")).json() for name in LISTED] == answer["data"]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("g", ("active", None, None, 8192)),
        ("old", ("deprecated", "2020-01-01T00:00:00Z", "2020-06-30T00:00:00Z", None)),
        ("leaving", ("active", None, None, None)),
    ],
)
async def test_anthropic_client_is_told_where_a_model_is_in_its_life(
    catalogs: list[Catalog], name: str, expected: tuple[str | int | None, ...]
) -> None:
    card = (await client(catalogs, **{"anthropic-version": "1"}).get(f"/v1/models/{name}")).json()
    model = ModelInfo.model_validate(card)

    assert (model.type, model.display_name, model.created_at.timestamp()) == ("model", name, CREATED)
    fields = ("lifecycle", "deprecated_at", "retires_at", "max_input_tokens")
    assert tuple(card[field] for field in fields) == expected


async def test_anthropic_client_that_may_use_nothing_gets_an_empty_page() -> None:
    answer = (await client([catalog({})], **{"anthropic-version": "1"}).get("/v1/models")).json()

    assert answer == {"data": [], "has_more": False, "first_id": None, "last_id": None}
