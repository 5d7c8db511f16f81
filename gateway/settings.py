"""The configuration: one frozen, typed tree, and the only reader of configuration files and the environment.

Sources, the first wins: command-line flags, environment variables (`GEMMA_GATEWAY_SERVER__PORT=8000`), the YAML
file given by `--config`, the defaults below. Unknown keys are refused. Units stand in the names.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from gateway.errors import ConfigurationError

MIB = 1024 * 1024

_HOST_PATTERN = re.compile(r"(\*\.)?[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")

Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Family(StrEnum):
    """The generations of Gemma, which differ in what they see and hear."""

    GEMMA3 = "gemma3"
    GEMMA3N = "gemma3n"
    GEMMA4 = "gemma4"


class Modality(StrEnum):
    """What a model takes as input."""

    TEXT = "text"
    IMAGE = "image"
    AUDIO = "audio"
    VIDEO = "video"


class LongAudio(StrEnum):
    """What becomes of a clip that is longer than the model hears at once."""

    REJECT = "reject"
    SPLIT = "split"
    TRUNCATE = "truncate"


class Frozen(BaseModel):
    """A section of the tree."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ServerSettings(Frozen):
    """Where the gateway listens, and how it stops."""

    host: str = "127.0.0.1"
    """Address of the inference API. Anything but loopback needs keys."""
    port: Port = 8000
    """Port of the inference API."""
    admin_host: str = "127.0.0.1"
    """Address of /metrics, /livez and /readyz. Never expose it to clients."""
    admin_port: Port = 9090
    """Port of /metrics, /livez and /readyz."""
    drain_seconds: Annotated[float, Field(ge=0)] = 30
    """How long running requests may take to finish after SIGTERM."""
    max_body_bytes: Count = 64 * MIB
    """Largest request body; more is a 413."""
    access_log: bool = True
    """One line for each request."""


class AuthSettings(Frozen):
    """Who may call."""

    keys_file: Path | None = None
    """YAML file of hashed keys, made by `gemma-gateway keys create`. None: open, allowed on loopback only."""
    isolate_caches: bool = True
    """Whether each key has the engine's prefix and media caches to itself. Off: equal prompts of two keys share them,
    which saves work and lets one measure whether another has sent the same."""


class EngineSettings(Frozen):
    """One engine that the gateway can reach."""

    url: str
    """`http://host:port`, or `unix:/path/to/socket`."""
    connect_seconds: Seconds = 5
    """To open a connection."""
    first_byte_seconds: Seconds = 600
    """From the request sent to the reply's headers: queueing and, when not streaming, the whole generation."""
    idle_seconds: Seconds = 120
    """The longest silence within a reply."""
    max_idle_connections: Annotated[int, Field(ge=0)] = 256
    """Connections kept open for reuse."""
    probe_seconds: Seconds = 2
    """Between two looks at the engine's /health."""

    @field_validator("url")
    @classmethod
    def _reachable(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme == "unix" and parts.path and not parts.netloc:
            return url
        if parts.scheme == "http" and parts.hostname and parts.path in ("", "/") and not parts.query:
            return url.rstrip("/")
        raise ValueError("must be http://host:port or unix:/path/to/socket")


class ModelSettings(Frozen):
    """What a model name that clients use stands for. The name `*` answers for every other name."""

    engine: str = "default"
    """Key of the engine under `engines`."""
    served_name: str | None = None
    """The engine's name for the model. None: the same as the clients'."""
    family: Family = Family.GEMMA4
    """Which Gemma it is: decides image budgets and audio limits."""
    modalities: frozenset[Modality] = frozenset({Modality.TEXT, Modality.IMAGE})
    """What it takes as input; a part of another kind is refused."""
    max_model_len: Count | None = None
    """Context length in tokens, shown by /v1/models."""
    image_budget: Literal[70, 140, 280, 560, 1120] | None = None
    """Gemma 4: soft tokens for images that ask for no number of them. None: the engine's default, 280."""
    pan_and_scan: bool = False
    """Gemma 3: whether the engine cuts images into crops (`--mm-processor-kwargs '{"do_pan_and_scan": true}'`)."""
    long_audio: LongAudio = LongAudio.REJECT
    """A clip longer than the 30 s that the model hears is refused, split at quiet points, or cut with a warning header.
    A request may choose with its field `long_audio`."""
    video_audio: bool = False
    """Whether a video's sound is sent along, as a clip after it, to a model that hears. A request may choose with its
    field `video_audio`."""


class MediaSettings(Frozen):
    """How images, audio and video that requests name are fetched and checked."""

    folder: Path | None = None
    """Folder whose files requests may name by path or file: URL. None: local paths are refused."""
    fetch: bool = True
    """Whether http(s) URLs are fetched at all."""
    allowed_hosts: tuple[str, ...] = ()
    """Hosts that may be fetched from, such as `images.example.com`, or `*.example.com` for all below. Empty: all. Names
    beyond ASCII are written as `xn--…`."""
    denied_hosts: tuple[str, ...] = ()
    """Hosts that are not fetched from, written likewise; they win. Addresses belong into `denied_networks`."""
    allowed_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Networks that may be fetched from although they are not public, such as an internal object store."""
    denied_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    """Networks that are not fetched from although they are public; they win."""
    proxy: str | None = None
    """`http://host:port` of a proxy for all fetches, http as https; it has to allow CONNECT to ports 80 and 443. It is
    told the checked address, never the name; the environment's proxies are ignored."""
    first_byte_seconds: Seconds = 10
    """Until a server's answer begins, for each hop."""
    fetch_seconds: Seconds = 20
    """For one fetch, redirects included."""
    max_redirects: Annotated[int, Field(ge=0)] = 3
    """Redirects followed, each checked anew."""
    max_fetches: Count = 64
    """Fetches at once, over all requests."""
    max_fetches_per_request: Count = 8
    """Fetches at once for one request; the rest of it waits."""
    max_bytes: Count = 32 * MIB
    """Encoded size of one image or clip."""
    max_video_bytes: Count = 64 * MIB
    """Encoded size of one video."""
    max_bytes_in_flight: Count = 512 * MIB
    """Media being fetched or decoded at once, over all requests; more get 503 with Retry-After. At least as much as
    one image, clip or video may have."""
    cache_bytes: Annotated[int, Field(ge=0)] = 256 * MIB
    """Memory for fetched and for decoded media, each, that may be wanted again. 0: nothing is kept."""
    cache_entries: Count = 4096
    """Items kept, at most, in each of the two."""
    max_parts: Count = 64
    """Media parts in one request."""
    max_images: Count = 32
    """Images in one request."""
    max_clips: Count = 32
    """Audio clips in one request, pieces of long ones counted."""
    max_videos: Count = 2
    """Videos in one request."""
    max_image_pixels: Count = 40_000_000
    """Width times height of one image, or of a video's frames, checked before it is decoded."""
    shrink_images: bool = True
    """Whether images larger than the model can use are resized here, as its processor would, and not at the engine."""
    max_audio_seconds: Seconds = 1800
    """Length of one clip, before it is split or truncated."""
    max_video_seconds: Seconds = 300
    """Length of one video."""
    max_video_frames: Annotated[int, Field(gt=0, le=32)] = 32
    """Frames that the model is shown of one video, evenly spread. Gemma 4 takes 32 at most."""
    decode_workers: Count = 2
    """Processes that decode media."""
    decode_seconds: Seconds = 20
    """For decoding one image, clip or video."""
    max_decodes_waiting: Count = 256
    """Parts that wait to be decoded, over all requests; more get 503 with Retry-After."""

    @field_validator("allowed_hosts", "denied_hosts")
    @classmethod
    def _named(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_host_pattern(host) for host in hosts)

    @field_validator("proxy")
    @classmethod
    def _plain(cls, url: str | None) -> str | None:
        parts = urlsplit(url or "http://none:1")
        beyond = parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc
        if parts.scheme == "http" and parts.hostname and parts.port and not beyond:
            return url
        raise ValueError("must be http://host:port")

    @model_validator(mode="after")
    def _roomy(self) -> MediaSettings:
        largest = max(self.max_bytes, self.max_video_bytes)
        if self.max_bytes_in_flight < largest:
            raise ValueError(f"max_bytes_in_flight must be at least {largest}, which one of the media may have")
        return self


def _host_pattern(text: str) -> str:
    """The pattern as host names are compared: lower case, no final dot."""
    pattern = text.lower().removesuffix(".")
    if not _HOST_PATTERN.fullmatch(pattern):
        raise ValueError(f"{text!r} must be such as images.example.com or *.example.com: no scheme, port or path")
    if re.fullmatch(r"[0-9]+|0x[0-9a-f]*", pattern.rpartition(".")[2]):
        raise ValueError(f"{text!r} is an address; addresses belong into allowed_networks or denied_networks")
    return pattern


class LimitSettings(Frozen):
    """How much the gateway takes on at once."""

    max_in_flight: Count = 1024
    """Inference requests at once; more get 503 with Retry-After."""
    max_pieces_at_once: Count = 4
    """Pieces of one recording, for transcriptions and translations, that the engine is asked about at once."""
    retry_after_seconds: Seconds = 2
    """What Retry-After says when the gateway or its engine is full or down."""


class LogSettings(Frozen):
    """The log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least severity that is written."""
    format: Literal["text", "json"] = "text"
    """Text for people, one JSON object a line for machines."""


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
    logs: LogSettings = LogSettings()

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        for name, model in self.models.items():
            if model.engine not in self.engines:
                known = ", ".join(sorted(self.engines)) or "none"
                raise ValueError(f"models.{name}.engine: no engine {model.engine!r} under engines (known: {known})")
            if name == "*" and model.served_name is None:
                raise ValueError("models.*.served_name: the catch-all needs the engine's model name")
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


def load(path: Path | None = None, overrides: Mapping[str, Any] | None = None) -> Settings:
    """Reads the tree from `path`, the environment and `overrides` (nested, as the file is), the last one winning.

    Raises ConfigurationError with every fault and the key it is under.
    """
    document = _read_yaml(path) if path else {}
    variables = EnvSettingsSource(Settings, env_prefix="GEMMA_GATEWAY_", env_nested_delimiter="__")
    try:
        tree = _merge(_merge(document, variables()), overrides or {})
        return Settings.model_validate(tree)
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


def is_loopback(host: str) -> bool:
    """Whether a listening address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def set_environment_defaults(defaults: Mapping[str, str]) -> None:
    """Sets environment variables that are not set yet, for libraries that read nothing else (vLLM)."""
    for name, value in defaults.items():
        os.environ.setdefault(name, value)


def add_to_environment_list(name: str, item: str) -> None:
    """Adds an item to a comma-separated environment variable, where that is set and lacks it."""
    items = os.environ.get(name, "").split(",")
    if name in os.environ and item not in items:
        os.environ[name] = ",".join([*filter(None, items), item])


def environment() -> dict[str, str]:
    """A copy of the environment, for child processes."""
    return dict(os.environ)
