"""A file of lines that is set aside when it gets too big: as `<name>.1`, that as `<name>.2`, and so on."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
from collections.abc import Iterator
from pathlib import Path

from gateway.errors import ConfigurationError

#: For the owner to write and the group to read.
_MODE = 0o640


def check(path: Path) -> None:
    """Raises ConfigurationError with the fix where such a file cannot be written; else it is there, if only empty."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ConfigurationError(
            f"there is no folder {folder} for the usage log (usage.file); make it:\n  mkdir -p {folder}"
        )
    if path.exists() and not path.is_file():
        raise ConfigurationError(f"usage.file is {path}, which is no file; give it the path of one that can be renamed")
    try:
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        os.close(_open(path))
    except OSError as fault:
        raise ConfigurationError(
            f"cannot write the usage log {path} (usage.file): {fault.strerror}; let the gateway write there, as by:\n"
            f"  chown -R {os.geteuid()} {folder}"
        ) from fault


def _open(path: Path) -> int:
    # Read, too, to see how it ends.
    return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, _MODE)


class LinesFile:
    """At most `max_files` files, of at most `max_bytes` each unless a single line is longer.

    A lock keeps others apart that write to the same file, such as a gateway's successor. For one thread.
    """

    def __init__(self, path: Path, max_bytes: int, max_files: int) -> None:
        self._path = path
        self._max_bytes = max_bytes
        self._max_files = max_files
        self._descriptor: int | None = None

    def append(self, lines: bytes) -> int:
        """Writes whole lines from the start of `lines`, as many as there is room for; how many. None: call again.

        Raises OSError, and then has written none.
        """
        with self._locked() as descriptor:
            size = _mend(descriptor)
            piece = lines[: _whole(lines, self._max_bytes - size)]
            if not piece and size:
                self._rotate()
                return 0
            return _write(descriptor, piece or lines[: lines.index(b"\n") + 1], size)

    def close(self) -> None:
        """Lets go of the file; `append` opens it again."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The file that has the name now: an operator, or another gateway, may have put it in the other's place."""
        try:
            descriptor = self._open()
            while not self._is_current(descriptor):
                self.close()
                descriptor = self._open()
            yield descriptor
        finally:
            if self._descriptor is not None:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor = _open(self._path)
        fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        return self._descriptor

    def _is_current(self, descriptor: int) -> bool:
        try:
            return os.path.samestat(self._path.stat(), os.fstat(descriptor))
        except FileNotFoundError:
            return False

    def _rotate(self) -> None:
        """Gives every file the next number, and drops those that are too many, also after their number was lowered."""
        for number in itertools.count(self._max_files - 1):
            try:
                self._numbered(number).unlink()
            except FileNotFoundError:
                break
        for number in range(self._max_files - 1, 0, -1):
            with contextlib.suppress(FileNotFoundError):
                self._numbered(number - 1).rename(self._numbered(number))

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path


def _mend(descriptor: int) -> int:
    """Ends a line that a writer was killed in, so that the next one is whole. Returns the file's size."""
    status = os.fstat(descriptor)
    if status.st_size == 0 or os.pread(descriptor, 1, status.st_size - 1) == b"\n":
        return status.st_size
    return status.st_size + os.write(descriptor, b"\n")


def _whole(lines: bytes, room: int) -> int:
    """How many bytes of `lines`, as whole lines, go into `room` bytes."""
    return len(lines) if len(lines) <= room else lines.rfind(b"\n", 0, max(0, room)) + 1


def _write(descriptor: int, lines: bytes, size: int) -> int:
    """Writes in one step, so that readers see whole lines; what a full disk took of a line is taken back."""
    written = os.write(descriptor, lines)
    whole = _whole(lines, written)
    if whole < written:
        os.ftruncate(descriptor, size + whole)
    if not whole:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    return lines.count(b"\n", 0, whole)
