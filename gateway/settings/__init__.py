"""The configuration: one frozen, typed tree, and the only reader of configuration files and the environment.

Sources, the first wins: command-line flags, environment variables (`GEMMA_GATEWAY_SERVER__PORT=8000`), the YAML
file given by `--config`, the defaults below. Unknown keys are refused. Units stand in the names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from gateway.errors import ConfigurationError
from gateway.settings import documents
from gateway.settings.access import (
    AuthSettings,
    Grant,
    JwtSettings,
    Limits,
    LimitSettings,
    OnFailure,
    QuotaSettings,
    StoreSettings,
    UsageSettings,
)
from gateway.settings.consistency import check_models
from gateway.settings.engines import (
    DnsSettings,
    EjectionSettings,
    EngineSettings,
    HoldSettings,
    KubernetesSettings,
    Policy,
    Records,
    RetrySettings,
    RoutingSettings,
)
from gateway.settings.environment import (
    DELIMITER,
    PREFIX,
    add_to_environment_list,
    environment,
    holds,
    set_environment_defaults,
    variable_of,
)
from gateway.settings.faults import Fault, Place, faults
from gateway.settings.fields import (
    MIB,
    Count,
    Endpoint,
    Family,
    Frozen,
    LongAudio,
    Modality,
    Port,
    Priority,
    Seconds,
    is_loopback,
)
from gateway.settings.media import MediaSettings
from gateway.settings.models import Deprecation, ModelSettings, ResponseModel, Sticky, Target
from gateway.settings.server import LogSettings, ServerSettings
from gateway.settings.tracing import TracingSettings

__all__ = [
    "MIB",
    "AuthSettings",
    "Count",
    "Deprecation",
    "DnsSettings",
    "EjectionSettings",
    "Endpoint",
    "EngineSettings",
    "Family",
    "Frozen",
    "Grant",
    "HoldSettings",
    "JwtSettings",
    "KubernetesSettings",
    "LimitSettings",
    "Limits",
    "LogSettings",
    "LongAudio",
    "MediaSettings",
    "Modality",
    "ModelSettings",
    "OnFailure",
    "Policy",
    "Port",
    "Priority",
    "QuotaSettings",
    "Records",
    "ResponseModel",
    "RetrySettings",
    "RoutingSettings",
    "Seconds",
    "ServerSettings",
    "Settings",
    "Sticky",
    "StoreSettings",
    "Target",
    "TracingSettings",
    "UsageSettings",
    "add_to_environment_list",
    "environment",
    "is_loopback",
    "load",
    "set_environment_defaults",
]


class Settings(BaseSettings):
    """The whole tree."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        env_prefix=PREFIX,
        env_nested_delimiter=DELIMITER,
        use_attribute_docstrings=True,
    )

    server: ServerSettings = ServerSettings()
    auth: AuthSettings = AuthSettings()
    engines: Mapping[str, EngineSettings] = {}
    models: Mapping[str, ModelSettings] = {}
    media: MediaSettings = MediaSettings()
    limits: LimitSettings = LimitSettings()
    quotas: QuotaSettings = QuotaSettings()
    usage: UsageSettings = UsageSettings()
    logs: LogSettings = LogSettings()
    tracing: TracingSettings = TracingSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        check_models(self.models, self.engines)
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Only what `load` has merged: the order of the sources is decided there."""
        del settings_cls, env_settings, dotenv_settings, file_secret_settings
        return (init_settings,)


def load(
    path: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    complete: Callable[[dict[str, Any]], dict[str, Any]] = dict,
) -> Settings:
    """Reads the tree from `path`, the environment and `overrides` (nested, as the file is), the last one winning.

    `complete` adds to what was read before it is checked. Raises ConfigurationError with every fault of the fields and
    the key that it is under, or the environment variable that it came by; where the fields are good, with every fault
    in how they fit together.
    """
    document = documents.read(path) if path else {}
    variables = _variables()
    above = overrides or {}
    try:
        return Settings.model_validate(complete(_merge(_merge(document, variables), above)))
    except ValidationError as error:
        found = faults(error, Settings)
        origins = [_origin(fault.place, variables, above) for fault in found]
        raise ConfigurationError(_told(path, found, origins)) from error


def _variables() -> dict[str, Any]:
    """What the environment sets, nested as the file is. Raises ConfigurationError."""
    try:
        return EnvSettingsSource(Settings, env_prefix=PREFIX, env_nested_delimiter=DELIMITER)()
    except SettingsError as fault:
        names = ", ".join(name for name in sorted(environment()) if name.upper().startswith(PREFIX))
        raise ConfigurationError(
            f"{fault.__cause__ or fault} in one of the environment variables {names}; "
            'lists and sections are written there as JSON, such as ["10.0.0.0/8"]'
        ) from fault


def _origin(place: Place, variables: Mapping[str, Any], above: Mapping[str, Any]) -> str | None:
    """The environment variable that set what stands at `place`; None where it came from elsewhere."""
    return variable_of(place) if not holds(above, place) and holds(variables, place) else None


def _told(path: Path | None, found: Sequence[Fault], origins: Sequence[str | None]) -> str:
    """One fault a line, below what it is in."""
    in_file = path is not None and None in origins
    lines = [f"configuration {path} is invalid:" if in_file else "the configuration is invalid:"]
    for fault, origin in zip(found, origins, strict=True):
        key = ".".join(map(str, fault.place))
        lines.append("  " + ": ".join(filter(None, (origin and f"environment variable {origin}", key, fault.message))))
    return "\n".join(lines)


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _merge(under, value) if isinstance(under, dict) and isinstance(value, Mapping) else value
    return merged
