"""Which model a request means: from the name that a client uses to an engine and the engine's name for the model."""

from __future__ import annotations

from gateway.catalog.names import Catalog, MayUse
from gateway.catalog.routes import Route
from gateway.catalog.sharing import Choice, sticky_unit
from gateway.settings.consistency import CATCH_ALL

__all__ = ["CATCH_ALL", "Catalog", "Choice", "MayUse", "Route", "sticky_unit"]
