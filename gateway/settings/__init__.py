"""The configuration: one frozen, typed tree, and the only reader of configuration files and the environment.

Sources, the first wins: command-line flags, environment variables (`GEMMA_GATEWAY_SERVER__PORT=8000`), the YAML
file given by `--config`, the defaults below. Unknown keys are refused. Units stand in the names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from gateway.errors import ConfigurationError
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
from gateway.settings.environment import add_to_environment_list, environment, set_environment_defaults
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
from gateway.settings.models import Deprecation, EngineSettings, ModelSettings, ResponseModel, Sticky, Target
from gateway.settings.server import LogSettings, ServerSettings

__all__ = [
    "MIB",
    "AuthSettings",
    "Count",
    "Deprecation",
    "Endpoint",
    "EngineSettings",
    "Family",
    "Frozen",
    "Grant",
    "JwtSettings",
    "LimitSettings",
    "Limits",
    "LogSettings",
    "LongAudio",
    "MediaSettings",
    "Modality",
    "ModelSettings",
    "OnFailure",
    "Port",
    "Priority",
    "QuotaSettings",
    "ResponseModel",
    "Seconds",
    "ServerSettings",
    "Settings",
    "Sticky",
    "StoreSettings",
    "Target",
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
        env_prefix="GEMMA_GATEWAY_",
        env_nested_delimiter="__",
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

    `complete` adds to what was read before it is checked. Raises ConfigurationError with every fault and the key it is
    under.
    """
    document = _read_yaml(path) if path else {}
    variables = EnvSettingsSource(Settings, env_prefix="GEMMA_GATEWAY_", env_nested_delimiter="__")
    try:
        tree = _merge(_merge(document, variables()), overrides or {})
        return Settings.model_validate(complete(tree))
    except ValidationError as fault:
        lines = [f"  {'.'.join(map(str, e['loc'])) or '(root)'}: {e['msg']}" for e in fault.errors()]
        raise ConfigurationError("\n".join([f"configuration {path or '(defaults)'} is invalid:", *lines])) from fault


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        document = yaml.safe_load(path.read_text())
    except (OSError, yaml.YAMLError) as fault:
        raise ConfigurationError(f"cannot read configuration {path}: {fault}") from fault
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise ConfigurationError(f"configuration {path} must be a mapping, not {type(document).__name__}")
    return document


def _merge(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        under = merged.get(key)
        merged[key] = _merge(under, value) if isinstance(under, dict) and isinstance(value, Mapping) else value
    return merged
