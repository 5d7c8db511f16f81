"""What is fetched and decoded, and how much of it: the section `media`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import Field, field_validator, model_validator

from gateway.settings.fields import MIB, Count, Frozen, Network, Seconds

_HOST_PATTERN = re.compile(r"(\*\.)?[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")


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
    allowed_networks: tuple[Network, ...] = ()
    """Networks that may be fetched from although they are not public, such as an internal object store."""
    denied_networks: tuple[Network, ...] = ()
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
