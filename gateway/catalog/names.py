"""The configured names: which there are, and what each stands for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import islice

from gateway.catalog import routes
from gateway.catalog.sharing import Choice, share
from gateway.errors import InvalidRequestError, ModelNotFoundError
from gateway.settings import ModelSettings
from gateway.settings.consistency import CATCH_ALL

#: Whether a caller may use a name.
MayUse = Callable[[str], bool]

#: Names that an error lists; /v1/models has them all.
LISTED_IN_ERRORS = 30


def everything(_: str) -> bool:
    """The caller may use every name."""
    return True


class Catalog:
    """The configured models, which must be consistent. A changed configuration is a new catalog."""

    def __init__(self, models: Mapping[str, ModelSettings]) -> None:
        self._choices = {alias: _choice(alias, models) for alias in models}
        self._catch_all = self._choices.get(CATCH_ALL)

    def resolve(self, name: str | None, may_use: MayUse = everything) -> Choice:
        """What the model that a request names stands for. Whether the caller may use it is not checked here.

        Raises InvalidRequestError without a name, ModelNotFoundError for an unknown one, with the names that the
        caller may use; neither where there is a catch-all.
        """
        choice = self._choices.get(name or "", self._catch_all)
        if choice is not None:
            return choice
        if not name:
            raise InvalidRequestError("You must provide a 'model'.", param="model")
        raise self._unknown(name, may_use)

    def described(self, name: str, may_use: MayUse = everything) -> Choice:
        """The choice of that very name, hidden or not. Raises ModelNotFoundError, also where it may not be used."""
        choice = self._choices.get(name)
        if choice is None or name == CATCH_ALL or not may_use(name):
            raise self._unknown(name, may_use)
        return choice

    def listed(self, may_use: MayUse = everything) -> Iterator[Choice]:
        """What /v1/models shows to a caller: neither the catch-all nor hidden names nor what it may not use."""
        for alias, choice in self._choices.items():
            if alias != CATCH_ALL and not choice.settings.hidden and may_use(alias):
                yield choice

    def _unknown(self, name: str, may_use: MayUse) -> ModelNotFoundError:
        names = [choice.alias for choice in islice(self.listed(may_use), LISTED_IN_ERRORS + 1)]
        if len(names) > LISTED_IN_ERRORS:
            names[-1] = "and more (see GET /v1/models)"
        known = ", ".join(names) or "none"
        return ModelNotFoundError(f"The model '{name[:100]}' does not exist. Available: {known}.", param="model")


def _choice(alias: str, models: Mapping[str, ModelSettings]) -> Choice:
    model = models[alias]
    weights = [(target.model, target.weight) for target in model.targets] or [(alias, 1)]
    return share(alias, model, [(routes.build(alias, target, models), weight) for target, weight in weights])
