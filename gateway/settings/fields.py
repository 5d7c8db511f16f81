"""What all sections are made of: the frozen model, units, and the kinds that several sections name."""

from __future__ import annotations

from enum import StrEnum
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

MIB = 1024 * 1024
Seconds = Annotated[float, Field(gt=0)]
Count = Annotated[int, Field(gt=0)]
Port = Annotated[int, Field(ge=0, le=65535)]
Priority = Annotated[int, Field(ge=-1000, le=1000)]


def _network(value: object) -> object:
    """The network, with an error that says the fix; pydantic's own says neither that nor what is wrong."""
    if isinstance(value, IPv4Network | IPv6Network):
        return value
    try:
        meant = ip_network(value if isinstance(value, str) else "", strict=False)
    except ValueError:
        raise ValueError(f"must be a network such as 10.0.0.0/8 or fd00::/8, not {value!r}") from None
    try:
        return ip_network(str(value))
    except ValueError:
        raise ValueError(f"{value} has host bits set; write {meant}") from None


Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]


class Frozen(BaseModel):
    """A section of the tree."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


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


class Endpoint(StrEnum):
    """The inference routes that a key may be limited to."""

    CHAT = "/v1/chat/completions"
    COMPLETIONS = "/v1/completions"
    EMBEDDINGS = "/v1/embeddings"
    RESPONSES = "/v1/responses"
    MESSAGES = "/v1/messages"
    COUNT_TOKENS = "/v1/messages/count_tokens"
    TOKENIZE = "/tokenize"
    DETOKENIZE = "/detokenize"
    TRANSCRIPTIONS = "/v1/audio/transcriptions"
    TRANSLATIONS = "/v1/audio/translations"


def is_loopback(host: str) -> bool:
    """Whether a listening address can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
