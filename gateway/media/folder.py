"""Reads the files that requests may name: those inside the configured media folder, and no other."""

from __future__ import annotations

from pathlib import Path

from gateway.errors import MediaError, MediaTooLargeError


def read(folder: Path | None, name: str, max_bytes: int, setting: str = "max_bytes") -> bytes:
    """The bytes of a file inside `folder`; relative names start there, symbolic links are followed and then judged.

    Raises MediaError with one and the same text for a file that is outside, missing or unreadable, so that it
    tells nothing about what lies outside; MediaTooLargeError over `max_bytes`, naming its `setting`.
    """
    if folder is None:
        raise MediaError("local files are not served here: no media.folder is configured")
    root = folder.resolve()
    try:
        path = (root / name).resolve(strict=True)
        if not path.is_relative_to(root) or not path.is_file():
            raise MediaError("there is no such file in media.folder")
        with path.open("rb") as file:
            data = file.read(max_bytes + 1)
    except (OSError, ValueError, RuntimeError):
        raise MediaError("there is no such file in media.folder") from None
    if len(data) > max_bytes:
        raise MediaTooLargeError(f"the file is over the limit of {max_bytes} bytes (media.{setting})")
    return data
