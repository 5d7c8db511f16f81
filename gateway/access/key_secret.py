"""The Kubernetes Secret that carries a key file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from gateway.access.key_files import read
from gateway.errors import ConfigurationError

#: https://kubernetes.io/docs/concepts/configuration/secret/#restriction-data-size
MAX_BYTES = 1024 * 1024


def manifest(path: Path, name: str, namespace: str | None = None) -> str:
    """The Secret's YAML, with the file's text as it is under `keys.yaml`.

    Raises ConfigurationError where the file cannot be read, is invalid, or is more than a Secret may hold.
    """
    read(path)
    text = path.read_text(encoding="utf-8")
    if len(text.encode()) > MAX_BYTES:
        raise ConfigurationError(
            f"{path} is over the 1 MiB that a Kubernetes Secret may hold; split it into files, one Secret each, "
            "and mount them into one folder (a projected volume) for auth.keys_directory"
        )
    metadata = {"name": name} if namespace is None else {"name": name, "namespace": namespace}
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": "Opaque",
        "stringData": {"keys.yaml": text},
    }
    return str(yaml.dump(secret, Dumper=_Dumper, sort_keys=False, allow_unicode=True))


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as such, so that a diff of the Secret is one of the file."""


def _text(dumper: yaml.SafeDumper, text: str) -> Any:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
