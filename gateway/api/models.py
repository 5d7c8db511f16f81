"""GET /v1/models and /v1/models/{id}: which model names a caller may use, for OpenAI's clients and Anthropic's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, time
from typing import Annotated, Literal

from fastapi import APIRouter, Header, Request
from pydantic import BaseModel

from gateway.access.callers import Caller
from gateway.api.call import Fields, fields
from gateway.catalog import Catalog, Choice
from gateway.settings import Family, Modality

Authenticate = Callable[[Fields, str | None], Awaitable[Caller]]
Version = Annotated[str | None, Header()]


class DeprecationCard(BaseModel):
    """When a name goes away, and what to use instead."""

    since: date
    sunset: date | None
    successor: str | None


class ModelCard(BaseModel):
    """OpenAI's model object; `max_model_len`, `root` and `parent` as vLLM tells them, the rest as the catalog knows.

    Of a name that several models answer it says what holds for all of them.
    """

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    max_model_len: int | None
    family: Family
    modalities: list[Modality]
    root: str | None
    """The model that answers, where the name has just one target."""
    parent: str | None
    """The model of which this is an adapter."""
    deprecation: DeprecationCard | None


class ModelList(BaseModel):
    """OpenAI's list object."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


class AnthropicModel(BaseModel):
    """Anthropic's model object, https://docs.anthropic.com/en/api/models"""

    type: Literal["model"] = "model"
    id: str
    display_name: str
    created_at: datetime
    lifecycle: Literal["active", "deprecated"]
    deprecated_at: datetime | None
    retires_at: datetime | None
    max_input_tokens: int | None


class AnthropicModelList(BaseModel):
    """Anthropic's page of models: always the only one."""

    data: list[AnthropicModel]
    has_more: Literal[False] = False
    first_id: str | None
    last_id: str | None


def _sender(request: Request) -> tuple[Fields, str | None]:
    return fields(request.scope["headers"]), request.client.host if request.client else None


def router(authenticate: Authenticate, catalog: Callable[[], Catalog], created: int) -> APIRouter:
    """The routes. `catalog`: gives the one in force; `created`: Unix time in seconds that every model shows."""

    routes = APIRouter(prefix="/v1/models", tags=["models"])

    @routes.get("")
    async def list_models(request: Request, anthropic_version: Version = None) -> ModelList | AnthropicModelList:
        """Lists the model names that can be used; to a request with `anthropic-version` as Anthropic does."""
        caller = await authenticate(*_sender(request))
        choices = list(catalog().listed(caller.may_use))
        if anthropic_version is None:
            return ModelList(data=[_card(choice, created) for choice in choices])
        data = [_anthropic_card(choice, created) for choice in choices]
        first, last = (data[0].id, data[-1].id) if data else (None, None)
        return AnthropicModelList(data=data, first_id=first, last_id=last)

    @routes.get("/{model:path}")
    async def retrieve_model(
        request: Request, model: str, anthropic_version: Version = None
    ) -> ModelCard | AnthropicModel:
        """Describes one model name; to a request with `anthropic-version` as Anthropic does."""
        caller = await authenticate(*_sender(request))
        choice = catalog().described(model, caller.may_use)
        return (_card if anthropic_version is None else _anthropic_card)(choice, created)

    return routes


def _card(choice: Choice, created: int) -> ModelCard:
    only = choice.only
    common = frozenset.intersection(*(route.model.modalities for route in choice.routes))
    deprecated = choice.settings.deprecated
    return ModelCard(
        id=choice.alias,
        created=created,
        owned_by=choice.settings.owned_by,
        max_model_len=_context(choice),
        family=choice.routes[0].model.family,
        modalities=[modality for modality in Modality if modality in common],
        root=only.target if only else None,
        parent=only.base if only else None,
        deprecation=DeprecationCard.model_validate(deprecated.model_dump()) if deprecated else None,
    )


def _anthropic_card(choice: Choice, created: int) -> AnthropicModel:
    deprecated = choice.settings.deprecated
    past = deprecated is not None and deprecated.since <= datetime.now(UTC).date()
    return AnthropicModel(
        id=choice.alias,
        display_name=choice.alias,
        created_at=datetime.fromtimestamp(created, UTC),
        lifecycle="deprecated" if past else "active",
        deprecated_at=_midnight(deprecated.since) if deprecated and past else None,
        retires_at=_midnight(deprecated.sunset) if deprecated else None,
        max_input_tokens=_context(choice),
    )


def _context(choice: Choice) -> int | None:
    """Tokens that every model of the name has room for; None where that is not known of all."""
    lengths = [route.model.max_model_len for route in choice.routes]
    known = [length for length in lengths if length is not None]
    return min(known) if len(known) == len(lengths) else None


def _midnight(day: date | None) -> datetime | None:
    return None if day is None else datetime.combine(day, time(), UTC)
