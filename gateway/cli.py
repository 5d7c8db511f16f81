"""The commands: serve · gateway · engine · keys · config · demo-model."""

from __future__ import annotations

import signal
from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Any

import click
from pydantic import BaseModel

from gateway import key_commands, settings
from gateway.demo.configurations import Shape
from gateway.engine.service import MISCONFIGURED
from gateway.errors import ConfigurationError
from gateway.settings import AuthSettings, Family, LogSettings, MediaSettings, ServerSettings

#: vLLM's flags are not ours to know: they are collected as they come.
PASS_ON = {"ignore_unknown_options": True}

FILE = click.Path(path_type=Path, dir_okay=False)
FOLDER = click.Path(path_type=Path, file_okay=False)

#: The gateway's settings that have a flag: section, key, section's class. Their help is the key's own.
FLAGS: tuple[tuple[str, str, type[BaseModel]], ...] = (
    ("server", "host", ServerSettings),
    ("server", "port", ServerSettings),
    ("server", "admin_host", ServerSettings),
    ("server", "admin_port", ServerSettings),
    ("server", "drain_seconds", ServerSettings),
    ("auth", "keys_file", AuthSettings),
    ("media", "folder", MediaSettings),
    ("logs", "level", LogSettings),
    ("logs", "format", LogSettings),
)

Command = Callable[..., None]


class Operator(click.Group):
    """Prints an operator's error as it is, without a traceback, and exits with 2."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ConfigurationError as fault:
            click.echo(f"gemma-gateway: {fault}", err=True)
            ctx.exit(MISCONFIGURED)


# No -h, nor any other short option: it would bite into vLLM's, such as -dph.
@click.group(cls=Operator, context_settings={"max_content_width": 110})
@click.version_option(package_name="gemma-gateway", prog_name="gemma-gateway")
def main() -> None:
    """Serve Google's Gemma models: an OpenAI-compatible gateway in front of vLLM."""


def flag_of(section: str, key: str) -> str:
    """`--port` for server.port; sections other than server's and auth's stand in the name: `--media-folder`."""
    name = key if section in ("server", "auth") else f"{section.removesuffix('s')}_{key}"
    return "--" + name.replace("_", "-")


def gateway_flags(command: Command) -> Command:
    """Adds --config and the flags that win over it. None stands for "not given": then file or default hold."""
    for section, key, model in reversed(FLAGS):
        field = model.model_fields[key]
        default = "" if field.default is None else f"  [default: {field.default}]"
        option = click.option(
            flag_of(section, key),
            f"{section}__{key}",
            metavar=key.split("_")[-1].upper(),
            help=f"{field.description}{default}",
        )
        command = option(command)
    config = click.option("--config", type=FILE, help="YAML file of settings; flags and environment win over it.")
    return config(command)


def overrides(given: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """The flags that were given, nested as in the configuration file."""
    tree: dict[str, dict[str, Any]] = {}
    for name, value in given.items():
        if value is not None:
            section, key = name.split("__")
            tree.setdefault(section, {})[key] = value
    return tree


def supervised_by(signum: signal.Signals) -> Callable[[Command], Command]:
    """Adds the flag that a parent of ours gives: when it is gone, our group gets `signum`."""

    def hold(_: click.Context, __: click.Parameter, given: bool) -> None:
        if given:
            from gateway.engine import leash

            leash.hold(signum)

    return click.option("--supervised", is_flag=True, hidden=True, expose_value=False, callback=hold)


def model_first(_: click.Context, __: click.Parameter, model: str) -> str:
    """Refuses a flag in the model's place: with flags that only vLLM knows, its value would pass for the model."""
    if model.startswith("-"):
        raise click.UsageError(f"MODEL comes first, before flags of vLLM such as {model}.")
    return model


model_argument = click.argument("model", callback=model_first)
engine_arguments = click.argument("engine_args", nargs=-1, type=click.UNPROCESSED, metavar="[VLLM FLAGS]...")
no_warm_up = click.option("--no-warm-up", is_flag=True, help="Report ready without having answered a request first.")


@main.command(context_settings=PASS_ON)
@model_argument
@engine_arguments
@gateway_flags
@click.option("--served-model-name", help="The model's name for clients.  [default: hub id, or the directory's name]")
@click.option("--runtime-dir", type=FOLDER, help="Folder for socket and state.  [default: a temporary one]")
@no_warm_up
@supervised_by(signal.SIGTERM)
def serve(
    model: str,
    engine_args: tuple[str, ...],
    config: Path | None,
    served_model_name: str | None,
    runtime_dir: Path | None,
    no_warm_up: bool,
    **flags: Any,
) -> None:
    """Serve MODEL on this machine: an engine, and the gateway in front of it.

    MODEL is an id on the Hugging Face hub (google/gemma-3-4b-it) or a directory. Flags that are not listed here,
    and all after --, go to vLLM. Ctrl-C stops both; running requests may finish.
    """
    from gateway.engine.serve import Request, run

    request = Request(
        model=model,
        engine_args=engine_args,
        served_name=served_model_name,
        config=config,
        overrides=overrides(flags),
        runtime_dir=runtime_dir,
        warm_up=not no_warm_up,
    )
    _exit(run(request, lambda line: click.echo(line, err=True), click.echo))


@main.command()
@gateway_flags
@supervised_by(signal.SIGKILL)
def gateway(config: Path | None, **flags: Any) -> None:
    """Run the gateway alone, in front of the engines that the configuration names. Needs neither GPU nor vLLM.

    Changes of the configuration and of key files take effect while it runs, and SIGHUP has both read anew.
    """
    from gateway.app import Source, run

    _exit(run(Source(config, overrides(flags))))


@main.command(context_settings=PASS_ON)
@model_argument
@engine_arguments
@click.option("--uds", type=FILE, help="Listen on this Unix socket, and nowhere else.")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port to listen on.  [default: 8001]")
@click.option(
    "--drain-seconds",
    type=click.FloatRange(min=0),
    default=30,
    show_default=True,
    help="How long running requests may take to finish after SIGTERM.",
)
@click.option("--draft", is_flag=True, help="Speculate with the draft model that Google released for it (Gemma 4).")
@no_warm_up
@supervised_by(signal.SIGKILL)
def engine(
    model: str,
    engine_args: tuple[str, ...],
    uds: Path | None,
    host: str | None,
    port: int | None,
    drain_seconds: float,
    draft: bool,
    no_warm_up: bool,
) -> None:
    """Run one vLLM engine for MODEL, with the preset of that Gemma.

    Every flag of `vllm serve` is accepted and wins over the preset. The engine trusts whoever reaches it: keep it
    behind a gateway.
    """
    if uds is not None and (host is not None or port is not None):
        raise click.UsageError("--uds and --host/--port exclude each other.")
    if uds is None:
        host, port = host or "127.0.0.1", 8001 if port is None else port

    from gateway.engine.presets import draft_flags, revision_of
    from gateway.engine.server import run

    if draft:
        engine_args = (*draft_flags(model, revision_of(engine_args)), *engine_args)
    socket = str(uds) if uds else None
    _exit(
        run(model, engine_args, host=host, port=port, uds=socket, drain_seconds=drain_seconds, warm_up=not no_warm_up)
    )


main.add_command(key_commands.keys)


@main.group(name="config")
def config_commands() -> None:
    """Check and explain the configuration."""


@config_commands.command()
@click.argument("file", type=FILE)
def check(file: Path) -> None:
    """Say whether the gateway can start with FILE (and this environment)."""
    from gateway.app import parts

    loaded = settings.load(file)
    parts.check(loaded)
    for doubt in parts.doubts(loaded):
        click.echo(f"warning: {doubt}", err=True)
    click.echo(f"{file} is good: {len(loaded.engines)} engine(s), {len(loaded.models)} model name(s).")


@config_commands.command()
def reference() -> None:
    """Print every key with its type, default and meaning, as Markdown."""
    from gateway.reference import configuration

    click.echo(configuration(), nl=False)


def choice(kinds: type[StrEnum]) -> dict[str, Any]:
    """The arguments of an option whose values are those of an enumeration."""
    return {"type": click.Choice([member.value for member in kinds])}


@main.command(name="demo-model")
@click.argument("directory", type=FOLDER)
@click.option("--untrained", is_flag=True, help="With random weights: complete, and all it says is nonsense.")
@click.option("--family", **choice(Family), help="Untrained: which Gemma it is built like.  [default: gemma4]")
@click.option(
    "--shape", **choice(Shape), help="Untrained: which Gemma 4 it is built like: E2B, 31B, or 26B-A4B.  [default: e]"
)
@click.option("--seed", type=int, help="Untrained: of the random weights.  [default: 0]")
def demo_model(directory: Path, untrained: bool, family: str | None, shape: str | None, seed: int | None) -> None:
    """Write a small Gemma to DIRECTORY, complete. Nothing if it is there.

    It is a Gemma 4 that was trained to see, read, hear and talk a little, if this package has its weights; with
    --untrained, --family, --shape or --seed it is one with random weights.
    """
    from gateway.demo import trained
    from gateway.demo.model import write_model

    asked = untrained or (family, shape, seed) != (None, None, None)
    learnt = trained.weights_are_here() and not asked
    kind = Family(family or Family.GEMMA4)
    write_model(directory, kind, Shape(shape or Shape.E), seed or 0, trained=learnt)
    click.echo(f"{directory} holds a small {kind}, {'trained' if learnt else 'with random weights'}.")


def _exit(code: int) -> None:
    click.get_current_context().exit(code)
