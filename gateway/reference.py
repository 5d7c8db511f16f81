"""The references under docs/, written from the code: configuration keys, metrics and presets, as Markdown."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, TypeGuard, get_args, get_origin

from pydantic import BaseModel, TypeAdapter
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from gateway.metrics import Metrics
from gateway.settings import Settings

GENERATED = "<!-- Written by `gemma-gateway config reference` and `make docs`: edit the code instead. -->"


def configuration() -> str:
    """One table for each section of the tree."""
    lines = ["# Configuration", "", GENERATED, "", (Settings.__doc__ or "").strip(), ""]
    lines += [
        "Sources, the first wins: command-line flags; environment variables, such as `GEMMA_GATEWAY_SERVER__PORT`;",
        "the YAML file given by `--config`; the defaults below. Unknown keys are refused.",
        "`gemma-gateway config check FILE` says whether a file is good.",
        "",
    ]
    for model, paths in _places().items():
        text = inspect.cleandoc(model.__doc__ or "")
        lines += [f"## {', '.join(f'`{path}`' for path in paths)}", "", text, ""]
        lines += ["| key | type | default | meaning |", "|---|---|---|---|"]
        lines += [_row(name, field) for name, field in model.model_fields.items()]
        lines.append("")
    return "\n".join(lines)


def _places() -> dict[type[BaseModel], list[str]]:
    """Where each kind of section may stand."""
    places: dict[type[BaseModel], list[str]] = {}
    for path, model in _sections("", Settings):
        places.setdefault(model, []).append(path)
    return places


def _sections(path: str, model: type[BaseModel]) -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section below `model`, each before its own sections."""
    for name, field in model.model_fields.items():
        suffix, section = _section(field)
        if section is not None:
            yield path + name + suffix, section
            yield from _sections(f"{path}{name}{suffix}.", section)


def _section(field: FieldInfo) -> tuple[str, type[BaseModel] | None]:
    """The section that a key holds, and what stands behind the key's name where it holds several."""
    kind: Any = field.annotation
    inner = next((each for each in get_args(kind) if _is_section(each)), None)
    if inner is not None:
        return ("[]" if get_origin(kind) is tuple else ".<name>") if get_origin(kind) is not UnionType else "", inner
    return "", kind if _is_section(kind) else None


def _is_section(kind: object) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _row(name: str, field: FieldInfo) -> str:
    description = (field.description or "").replace("\n", " ").replace("|", "\\|")
    return f"| `{name}` | {_type(field)} | {_default(field)} | {description} |"


def _type(field: FieldInfo) -> str:
    """The type in JSON's words."""
    suffix, section = _section(field)
    if section is not None:
        return {"[]": "list of sections", ".<name>": "sections by name"}.get(suffix, "section")
    schema = _adapter(field).json_schema()
    return _words(schema, schema.get("$defs", {}))


def _adapter(field: FieldInfo) -> TypeAdapter[Any]:
    annotation: Any = field.annotation
    return TypeAdapter(annotation)


def _words(schema: dict[str, Any], definitions: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _words(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions)
    if "anyOf" in schema:
        kinds = dict.fromkeys(_words(kind, definitions) for kind in schema["anyOf"])
        return " or ".join(kind for kind in kinds if kind != "null")
    if "enum" in schema:
        return " \\| ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_words(schema['items'], definitions)}"
    return str(schema.get("format", schema.get("type", "")))


def _default(field: FieldInfo) -> str:
    value = field.get_default()
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel) or (not value and _section(field)[1] is not None):
        return "none"
    plain = _adapter(field).dump_python(value, mode="json")
    if plain is None:
        return "none"
    return f"`{json.dumps(sorted(plain) if isinstance(plain, list) else plain)}`"


def metrics() -> str:
    """One table of all series."""
    lines = ["# Metrics", "", GENERATED, ""]
    lines += ["What `/metrics` on the admin port shows, beside the `process_` series of prometheus-client.", ""]
    lines += ["| series | type | labels | meaning |", "|---|---|---|---|"]
    own = Metrics()
    for metric in vars(own).values():
        if hasattr(metric, "describe") and not isinstance(metric, type(own.registry)):
            for family in metric.describe():
                suffix = "_total" if family.type == "counter" else ""
                labels = ", ".join(f"`{name}`" for name in metric._labelnames)  # noqa: SLF001
                lines.append(f"| `{family.name}{suffix}` | {family.type} | {labels} | {family.documentation} |")
    return "\n".join([*lines, ""])


def presets() -> str:
    """One row for each released Gemma, and the flags that a preset hands to vLLM."""
    from gateway.engine.gemmas import COMMON, DRAFT_TOKENS, SHAPES, Preset
    from gateway.engine.gpus import valid_sizes

    lines = ["# Presets", "", GENERATED, ""]
    lines += [
        "What `gemma-gateway engine MODEL` fills vLLM's own defaults with. A model is recognised by its `config.json`,",
        "or by its name where that is not at hand; its quantized variants (QAT, FP8, NVFP4, w4a16) are too. Flags",
        "given by hand win, and the engine prints what came of it.",
        "",
        "| model | parameters, billions | takes | context made for | context served | tensor-parallel sizes | draft |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, shape in SHAPES.items():
        preset = Preset(name, shape)
        sizes = ", ".join(map(str, valid_sizes(preset)))
        takes = ", ".join(sorted(shape.modalities))
        draft = f"`{preset.draft}`, {DRAFT_TOKENS[name]} tokens" if preset.draft else "none"
        row = (f"`{name}`", shape.parameters_b, takes, shape.context, preset.max_model_len, sizes, draft)
        lines.append(f"| {' | '.join(map(str, row))} |")
    lines += ["", "## Flags of every Gemma", "", *_flags(COMMON), ""]
    for name, shape in SHAPES.items():
        own = {flag: value for flag, value in Preset(name, shape).args.items() if flag not in COMMON}
        lines += [f"## Flags of `{name}`", "", *_flags(own), ""]
    return "\n".join(lines)


def _flags(arguments: Mapping[str, Any]) -> list[str]:
    return [f"- `--{flag} {value if isinstance(value, str) else _json(value)}`" for flag, value in arguments.items()]


def _json(value: Any) -> str:
    return json.dumps(dict(value) if isinstance(value, Mapping) else value)


def write(directory: Path) -> None:
    """Writes the three files into `directory`."""
    (directory / "configuration.md").write_text(configuration())
    (directory / "metrics.md").write_text(metrics())
    (directory / "presets.md").write_text(presets())
