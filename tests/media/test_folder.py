"""Local files are served from the media folder and from nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import MediaError, MediaTooLargeError
from gateway.media.folder import read


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a file, a link inside, a link outside; a secret beside it."""
    folder = tmp_path / "media"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.png").write_bytes(b"inside")
    (folder / "sub/link.png").symlink_to(folder / "a.png")
    (folder / "out.png").symlink_to(tmp_path / "secret")
    (tmp_path / "secret").write_bytes(b"outside")
    (tmp_path / "media-other").mkdir()
    (tmp_path / "media-other/a.png").write_bytes(b"outside")
    return folder


@pytest.mark.parametrize("name", ["a.png", "sub/link.png", "./sub/../a.png"])
def test_a_file_inside_is_read(folder: Path, name: str) -> None:
    assert read(folder, name, 100) == b"inside"


def test_an_absolute_path_inside_is_read(folder: Path) -> None:
    assert read(folder, str(folder / "a.png"), 100) == b"inside"


@pytest.mark.parametrize(
    "name",
    [
        "../secret",
        "out.png",
        "../media-other/a.png",
        "/etc/passwd",
        "/nonexistent",
        "missing.png",
        "sub",
        "",
        "a\0.png",
        "/dev/zero",
        "/proc/self/environ",
        "x" * 5000,
    ],
)
def test_outside_and_missing_are_told_in_the_same_words(folder: Path, name: str) -> None:
    with pytest.raises(MediaError) as fault:
        read(folder, name, 100)
    assert str(fault.value) == "there is no such file in media.folder"


def test_without_a_folder_no_file_is_served(folder: Path) -> None:
    with pytest.raises(MediaError, match=r"media\.folder"):
        read(None, str(folder / "a.png"), 100)


def test_a_file_over_the_limit_is_refused(folder: Path) -> None:
    with pytest.raises(MediaTooLargeError, match="5 bytes"):
        read(folder, "a.png", 5)
