"""The commands of `gemma-gateway keys`: what they understand and what they print."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from gateway.access import key_edits, key_files, key_secret, key_words
from gateway.settings import Endpoint, Grant, Limits, Modality

Command = Callable[..., None]

#: In Kubernetes: RFC 1123's names, of a Secret (with dots) and of a namespace.
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LABEL = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")

#: Of a span: 99999 days are 273 years.
_MOST_DIGITS = 5

UNITS = {"d": timedelta(days=1), "h": timedelta(hours=1), "m": timedelta(minutes=1)}


def span(text: str) -> timedelta:
    """`90d`, `12h` or `30m` as a span of time. Raises click.BadParameter."""
    match = re.fullmatch(r"0*([0-9]+)([dhm])", text)
    if match is None:
        raise click.BadParameter("must be a number of days, hours or minutes, such as 90d, 12h or 30m.")
    if len(match[1]) > _MOST_DIGITS:
        raise click.BadParameter(f"is too long; the longest is {'9' * _MOST_DIGITS}{match[2]}.")
    return int(match[1]) * UNITS[match[2]]


def lifetime(_: click.Context, __: click.Parameter, text: str | None) -> timedelta | None:
    """A span that is not empty, or None where none was given."""
    if text is None:
        return None
    if not (given := span(text)):
        raise click.BadParameter("must be longer than nothing, such as 90d, 12h or 30m.")
    return given


def overlap(_: click.Context, __: click.Parameter, text: str) -> timedelta:
    """A span, which may be empty."""
    return span(text)


def pairs(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> dict[str, str]:
    """`team=x` and the like as a mapping."""
    split = [text.partition("=") for text in given]
    if wrong := [name for name, sign, _ in split if not sign or not name]:
        raise click.BadParameter(f"{wrong[0]!r} is no NAME=VALUE, such as team=search.")
    names = [name for name, _, _ in split]
    if twice := [name for name in names if names.count(name) > 1]:
        raise click.BadParameter(f"{twice[0]!r} is given twice; give it once.")
    return {name: value for name, _, value in split}


def matching(pattern: re.Pattern[str]) -> Callable[..., str | None]:
    """Refuses names that Kubernetes would refuse."""

    def check(_: click.Context, __: click.Parameter, name: str | None) -> str | None:
        if name is not None and pattern.fullmatch(name) is None:
            raise click.BadParameter(f"{name!r} is no name in Kubernetes: lower-case letters, digits and dashes.")
        return name

    return check


def grant_options(command: Command) -> Command:
    """Adds the options that restrict a key. What is not given is not restricted."""
    count = click.IntRange(min=1)
    for option in (
        click.option("--priority", type=click.IntRange(-1000, 1000), default=0, help="Lower numbers go first."),
        click.option("--max-in-flight", type=count, help="Requests at once."),
        click.option("--tokens-per-day", type=count, help="Tokens in and out in any 24 hours."),
        click.option("--tokens-per-minute", type=count, help="Tokens in and out in any 60 seconds."),
        click.option("--requests-per-minute", type=count, help="Requests in any 60 seconds."),
        click.option(
            "--modality",
            "modalities",
            multiple=True,
            type=click.Choice([kind.value for kind in Modality]),
            help="What requests may contain beside text; `text` for nothing else. May be repeated.",
        ),
        click.option(
            "--endpoint",
            "endpoints",
            multiple=True,
            type=click.Choice([endpoint.value for endpoint in Endpoint]),
            metavar="PATH",
            help="A route that may be used, such as /v1/chat/completions. May be repeated.",
        ),
        click.option("--model", "models", multiple=True, help="A model, or a pattern: 'gemma-*'. May be repeated."),
    ):
        command = option(command)
    return command


def grant_of(
    models: tuple[str, ...],
    endpoints: tuple[str, ...],
    modalities: tuple[str, ...],
    priority: int,
    **limits: int | None,
) -> Grant:
    """What those options grant."""
    return Grant(
        models=models or None,
        endpoints=frozenset(map(Endpoint, endpoints)) or None,
        modalities=frozenset(map(Modality, modalities)) or None,
        limits=Limits(**limits),
        priority=priority,
    )


@click.group(name="keys")
def keys() -> None:
    """Make, restrict, list, rotate, revoke and verify API keys. Only their SHA-256 is stored."""


key_file = click.option(
    "--file",
    "path",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The key file, as --keys-file gets it.",
)
key_id = click.argument("key_id", metavar="ID")


def expires_in(default: str) -> Callable[[Command], Command]:
    """The option for a lifetime."""
    return click.option(
        "--expires-in", callback=lifetime, metavar="90d|12h|30m", help=f"Lifetime.  [default: {default}]"
    )


@keys.command()
@key_file
@click.option("--name", required=True, help="Whose key it is: a person, a team, a program.")
@expires_in("no end")
@grant_options
@click.option("--metadata", multiple=True, callback=pairs, metavar="NAME=VALUE", help="To remember. May be repeated.")
def create(path: Path, name: str, expires_in: timedelta | None, metadata: dict[str, str], **options: Any) -> None:
    """Make a key and print it, this once. The key alone goes to standard output.

    \b
    gemma-gateway keys create --file keys.yaml --name alice --expires-in 90d \\
      --model 'gemma-*' --requests-per-minute 60 --metadata team=search
    """
    key = key_edits.create(path, name, grant_of(**options), expires_in, metadata)
    click.echo(f"A key for {name}. Keep it now: only its hash is in {path}.", err=True)
    click.echo(key)


@keys.command(name="list")
@key_file
@click.option("--json", "as_json", is_flag=True, help="A JSON list instead of a table, for programs.")
def list_keys(path: Path, as_json: bool) -> None:
    """Show each key: whose it is, until when it is valid, and what it may do. No secrets, no hashes."""
    records, now = key_files.read(path).keys, datetime.now(UTC)
    if as_json:
        click.echo(json.dumps([key_words.details(record, now) for record in records], indent=2, ensure_ascii=False))
    else:
        click.echo(key_words.table(records, now))


@keys.command()
@key_file
@key_id
@click.option(
    "--overlap",
    callback=overlap,
    default="24h",
    show_default=True,
    metavar="24h|30m|0h",
    help="How long the old secret stays valid beside the new one. 0h: it has leaked.",
)
@expires_in("as before")
def rotate(path: Path, key_id: str, overlap: timedelta, expires_in: timedelta | None) -> None:
    """Give the key with that ID a new secret and print it, this once. Id, name and rights stay.

    \b
    gemma-gateway keys rotate --file keys.yaml 0a1b2c3d4e --overlap 7d --expires-in 90d
    """
    rotated = key_edits.rotate(path, key_id, overlap, expires_in)
    for line in key_words.rotation(rotated, path):
        click.echo(line, err=True)
    click.echo(rotated.key)


@keys.command()
@key_file
@key_id
def revoke(path: Path, key_id: str) -> None:
    """Remove the key with that ID from the file. A running gateway refuses it within two seconds of the change."""
    record = key_edits.revoke(path, key_id)
    click.echo(f"Revoked {record.id} ({record.name}).")


@keys.command()
@key_file
def verify(path: Path) -> None:
    """Tell what a key is and may do. Exit status 0: valid; 1: not.

    The key is read from standard input, or asked for: on the command line it would stay in the shell's history.
    """
    if sys.stdin.isatty():
        key = click.prompt("Key", hide_input=True, err=True)
    else:
        # As the gateway reads a header: any bytes will do.
        key = sys.stdin.buffer.readline(16384).decode("latin-1")
    now = datetime.now(UTC)
    verified = key_edits.verify(key.strip(), path, now)
    click.echo(key_words.verdict(verified, now), err=not verified.valid)
    click.get_current_context().exit(0 if verified.valid else 1)


@keys.command()
@key_file
@click.option("--name", default="gemma-keys", show_default=True, callback=matching(_NAME), help="The Secret's name.")
@click.option("--namespace", callback=matching(_LABEL), help="Its namespace.  [default: kubectl's]")
def secret(path: Path, name: str, namespace: str | None) -> None:
    """Print a Kubernetes Secret with the file in it, as YAML. There are only hashes in it.

    \b
    gemma-gateway keys secret --file keys.yaml | kubectl apply --server-side -f -
    """
    click.echo(key_secret.manifest(path, name, namespace), nl=False)
