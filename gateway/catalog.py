"""Which model a request means: from the name that a client uses to an engine and the engine's name for the model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from gateway.errors import InvalidRequestError, ModelNotFoundError
from gateway.settings import ModelSettings

CATCH_ALL = "*"


@dataclass(frozen=True, slots=True)
class Route:
    """Where a request goes. `alias` is the configured name, `*` for the catch-all: safe as a metric's label."""

    alias: str
    engine: str
    served_name: str
    model: ModelSettings


class Catalog:
    """The configured models."""

    def __init__(self, models: Mapping[str, ModelSettings]) -> None:
        self._routes = {alias: _route(alias, model) for alias, model in models.items()}
        self._catch_all = self._routes.get(CATCH_ALL)

    def resolve(self, name: str | None) -> Route:
        """The route for the model a request names.

        Raises InvalidRequestError without a name (unless there is a catch-all), ModelNotFoundError for an unknown one.
        """
        route = self._routes.get(name or "", self._catch_all)
        if route is not None:
            return route
        if not name:
            raise InvalidRequestError("You must provide a 'model'.", param="model")
        known = ", ".join(route.alias for route in self)
        raise ModelNotFoundError(f"The model '{name[:100]}' does not exist. Available: {known}.", param="model")

    def __iter__(self) -> Iterator[Route]:
        """The routes that /v1/models shows: all but the catch-all."""
        return (route for alias, route in self._routes.items() if alias != CATCH_ALL)


def _route(alias: str, model: ModelSettings) -> Route:
    served = model.served_name or alias
    return Route(alias, model.engine, served, model)
