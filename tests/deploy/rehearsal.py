"""Builds and runs a target of the Dockerfile without Docker: its very steps, in folders made by debootstrap."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.deploy.dockerfile import Instruction, Stage

#: What Debian's slim images leave out, besides the copyright files, and the lists that every image leaves out.
SLIM = ("usr/share/doc", "usr/share/man", "usr/share/locale", "usr/share/info", "usr/share/lintian")
LISTS = ("var/lib/apt/lists", "var/cache/apt")

#: What this machine's pip needs to reach its index: the image's build may have to go the same way.
PIP = ("PIP_CERT", "PIP_INDEX_URL", "PIP_DEFAULT_TIMEOUT", "PIP_DISABLE_PIP_VERSION_CHECK", "HTTPS_PROXY", "HTTP_PROXY")

SEARCH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def unable() -> str | None:
    """Why images cannot be rehearsed on this machine; None: they can."""
    if os.geteuid() != 0:
        return "only root may change root"
    missing = [tool for tool in ("debootstrap", "unshare", "chroot", "mount") if shutil.which(tool) is None]
    if missing:
        return f"not installed here: {', '.join(missing)}"
    allowed = subprocess.run(["unshare", "--mount", "true"], check=False).returncode == 0
    return None if allowed else "mounts are not allowed here"


def debian(folder: Path, suite: str) -> None:
    """Installs Debian as its slim image has it. Takes a minute, and the machine's mirror."""
    subprocess.run(["debootstrap", "--variant=minbase", suite, str(folder)], check=True, stdout=subprocess.DEVNULL)
    for name in SLIM:
        for path in (folder / name).rglob("*"):
            if path.is_file() and path.name != "copyright":
                path.unlink()
    _clear(folder)


def _clear(root: Path) -> None:
    """Downloads of apt, which Docker's Debian images are set up not to keep."""
    for name in LISTS:
        shutil.rmtree(root / name)
        (root / name).mkdir()
    (root / "var/cache/apt/archives/partial").mkdir(parents=True)
    (root / "var/lib/apt/lists/partial").mkdir(parents=True)


@dataclass
class Build:
    """Builds stages in `folder`, each a folder of its own, from a `context` of files."""

    stages: Mapping[str, Stage]
    context: Path
    folder: Path
    base: Path
    """What stands for images that are no stage."""

    def stage(self, name: str) -> Path:
        """The folder of the stage, built with what it stands on unless that is there."""
        root = self.folder / name
        if root.exists():
            return root
        stage = self.stages[name]
        for needed in (stage.base, *(copy.flags().get("from", "") for copy in stage.all("COPY"))):
            if needed in self.stages:
                self.stage(needed)
        parent = self.folder / stage.base if stage.base in self.stages else self.base
        subprocess.run(["cp", "--archive", str(parent), str(root)], check=True)
        self._run_steps(stage, root)
        return root

    def _directory(self, base: str) -> str:
        """Where a stage on this one starts."""
        stage = self.stages.get(base)
        if stage is None:
            return "/"
        return stage.last("WORKDIR").text if stage.all("WORKDIR") else self._directory(stage.base)

    def _run_steps(self, stage: Stage, root: Path) -> None:
        environment: dict[str, str] = {}
        directory = self._directory(stage.base)
        for step in stage.instructions:
            if step.name == "ENV":
                environment |= step.pairs()
            elif step.name == "WORKDIR":
                directory = step.text
                _inside(root, directory).mkdir(parents=True, exist_ok=True)
            elif step.name == "COPY":
                self._copy(step, root, directory)
            elif step.name == "RUN":
                _shell(root, directory, step.text, environment)
        _clear(root)

    def _copy(self, step: Instruction, root: Path, directory: str) -> None:
        stage = step.flags().get("from")
        source = self.folder / stage if stage else self.context
        *names, target = (word for word in step.words() if not word.startswith("--"))
        destination = _inside(root, str(Path(directory) / target))
        for name in names:
            _copy_one(source / name.lstrip("/"), destination, into=target.endswith("/"))


def _copy_one(source: Path, destination: Path, *, into: bool) -> None:
    """As COPY does: of a folder the contents, of a file itself."""
    if source.is_dir():
        shutil.copytree(source, destination, symlinks=True, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.pyc"))
        return
    file = destination / source.name if into or destination.is_dir() else destination
    file.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy2(source, file)


def _inside(root: Path, path: str) -> Path:
    return root / path.lstrip("/")


def _shell(root: Path, directory: str, command: str, environment: Mapping[str, str]) -> None:
    pip = {name: os.environ[name] for name in PIP if name in os.environ}
    lent = {"/etc/resolv.conf": "/etc/resolv.conf", "/etc/hosts": "/etc/hosts"}
    if "PIP_CERT" in pip:
        # Not where Debian has its own, which a step may write.
        lent[pip["PIP_CERT"]] = pip["PIP_CERT"] = "/run/lent/certificates.pem"
    result = subprocess.run(
        _unshared([*_lend(root, lent), f"exec chroot {root} /bin/sh -c {shlex.quote(f'cd {directory} && {command}')}"]),
        env={"PATH": SEARCH, "DEBIAN_FRONTEND": "noninteractive", **pip, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    shutil.rmtree(root / "run/lent", ignore_errors=True)
    if result.returncode:
        raise RuntimeError(f"{command}\n{result.stdout[-2000:]}\n{result.stderr[-2000:]}")


def _lend(root: Path, lent: Mapping[str, str]) -> Iterator[str]:
    """Mounts files of this machine for the time of one step."""
    yield f"mount -t proc proc {root}/proc"
    for path, name in lent.items():
        place = _inside(root, name)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.touch()
        yield f"mount --bind {path} {place}"


def _unshared(commands: Iterable[str]) -> list[str]:
    """The commands as root with mounts and processes of their own, which end with them."""
    options = ["--mount", "--pid", "--fork", "--kill-child"]
    return ["unshare", *options, "/bin/sh", "-ec", "\n".join(commands)]


@contextmanager
def running(
    root: Path, stage: Stage, user: str, mounts: Mapping[Path, str], log: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """The image's entry point with its default arguments: as `user`, without any privilege, its root read-only.

    Of this machine it has the network and the files in `mounts`, also read-only; /tmp and /dev/shm are its own memory.
    """
    with log.open("wb") as output:
        process = subprocess.Popen(
            _unshared(_container(root, stage, user, mounts)), env=dict(stage.environment), stdout=output, stderr=output
        )
        try:
            yield process
        finally:
            # The first process inside, with which all others end. Having changed its user it outlives the one out here.
            for child in children(process.pid):
                os.kill(child, signal.SIGKILL)
            process.kill()
            process.wait()


def children(pid: int) -> list[int]:
    """The processes that this one has started."""
    try:
        return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def _container(root: Path, stage: Stage, user: str, mounts: Mapping[Path, str]) -> Iterator[str]:
    yield f"mount --bind {root} {root}"
    for path, place in mounts.items():
        target = _inside(root, place)
        target.mkdir(parents=True, exist_ok=True)
        yield f"mount --bind {path} {target}"
    yield f"mount -o remount,bind,ro {root}"
    yield f"mount -t tmpfs -o mode=1777 tmpfs {root}/tmp"  # noqa: S108
    yield f"mount -t tmpfs -o mode=1777 tmpfs {root}/dev/shm"  # noqa: S108
    yield f"mount -t proc proc {root}/proc"
    yield "exec " + shlex.join(inside(root, user, [*stage.last("ENTRYPOINT").words(), *stage.last("CMD").words()]))


def inside(root: Path, user: str, command: Sequence[str]) -> list[str]:
    """The command in the image as this user and group, with no capability and none to be had."""
    ids = [f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    rights = ["--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"]
    # By its path: the image's own search path is set, which has no place for it.
    return [shutil.which("chroot") or "chroot", str(root), "/usr/bin/setpriv", *ids, *rights, *command]


def bytes_of(folder: Path) -> int:
    """What its files hold; a file with several names counts once."""
    stats = [path.lstat() for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()]
    return sum({(stat.st_dev, stat.st_ino): stat.st_size for stat in stats}.values())
