"""Who sent a request, and what of it the caller may do."""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache

from gateway.errors import PermissionDeniedError
from gateway.settings import Grant, Modality

#: No restriction at all.
EVERYTHING = Grant()

#: Characters of a model's name in an error message.
_LONGEST_SHOWN = 100


@dataclass(frozen=True, slots=True)
class Caller:
    """An authenticated caller.

    `id` tells callers apart, in logs and in what is counted for each; it is no secret. `label` is for metrics: one of
    few, while there may be as many ids as a provider has users.
    """

    id: str
    name: str
    grant: Grant = EVERYTHING
    label: str = ""

    def check_endpoint(self, endpoint: str) -> None:
        """Raises PermissionDeniedError where the caller may not use that route."""
        allowed = self.grant.endpoints
        if allowed is not None and endpoint not in allowed:
            known = ", ".join(sorted(allowed)) or "none"
            raise PermissionDeniedError(
                f"You may not use {endpoint}; you may use {known}.", code="endpoint_not_allowed"
            )

    def check_model(self, alias: str, requested: str | None) -> None:
        """Raises PermissionDeniedError where the caller may not use that model; `alias` as the catalog has it.

        The error says no more than what the request calls it: which names there are must not be found out by asking.
        """
        if not self.may_use(alias):
            refused = (
                f"You may not use the model '{requested[:_LONGEST_SHOWN]}'"
                if requested
                else "You must provide a 'model' that you may use"
            )
            raise PermissionDeniedError(f"{refused}; see GET /v1/models.", param="model", code="model_not_allowed")

    def check_modality(self, modality: Modality, param: str) -> None:
        """Raises PermissionDeniedError where the caller's requests may not contain that, as the field `param` does."""
        allowed = self.grant.modalities
        if allowed is not None and modality not in allowed:
            known = ", ".join(sorted({Modality.TEXT, *allowed}))
            raise PermissionDeniedError(
                f"{param}: you may not send {modality}; you may send {known}.",
                param=param,
                code="modality_not_allowed",
            )

    def may_use(self, alias: str) -> bool:
        """Whether the caller may use that model."""
        models = self.grant.models
        return models is None or _matches(models, alias)


@lru_cache(4096)
def _matches(patterns: tuple[str, ...], alias: str) -> bool:
    return any(fnmatchcase(alias, pattern) for pattern in patterns)


#: Everybody, where the gateway is open.
ANONYMOUS = Caller("anonymous", "anonymous", label="anonymous")
