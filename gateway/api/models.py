"""GET /v1/models and /v1/models/{id}: which model names a client may use."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Header
from pydantic import BaseModel

from gateway.access.keys import Access
from gateway.catalog import Catalog, Route
from gateway.errors import ModelNotFoundError
from gateway.settings import Family, Modality


class ModelCard(BaseModel):
    """OpenAI's model object; `max_model_len` as vLLM tells it, `family` and `modalities` as the catalog knows them."""

    id: str
    object: str = "model"
    created: int
    owned_by: str = "google"
    max_model_len: int | None
    family: Family
    modalities: list[Modality]


class ModelList(BaseModel):
    """OpenAI's list object."""

    object: str = "list"
    data: list[ModelCard]


def router(access: Access, catalog: Catalog, created: int) -> APIRouter:
    """The routes. `created`: Unix time in seconds that every model shows, when the gateway started."""

    def authenticate(
        authorization: Annotated[str | None, Header()] = None, x_api_key: Annotated[str | None, Header()] = None
    ) -> None:
        access.authenticate(_bytes(authorization), _bytes(x_api_key))

    def card(route: Route) -> ModelCard:
        modalities = [m for m in Modality if m in route.model.modalities]
        return ModelCard(
            id=route.alias,
            created=created,
            max_model_len=route.model.max_model_len,
            family=route.model.family,
            modalities=modalities,
        )

    routes = APIRouter(prefix="/v1/models", tags=["models"], dependencies=[Depends(authenticate)])

    @routes.get("")
    async def list_models() -> ModelList:
        """Lists the model names that can be used."""
        return ModelList(data=[card(route) for route in catalog])

    @routes.get("/{model:path}")
    async def retrieve_model(model: str) -> ModelCard:
        """Describes one model name."""
        for route in catalog:
            if route.alias == model:
                return card(route)
        raise ModelNotFoundError(f"The model '{model[:100]}' does not exist.", param="model")

    return routes


def _bytes(value: str | None) -> bytes | None:
    return None if value is None else value.encode("latin-1")
