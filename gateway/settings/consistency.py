"""Whether the models of a configuration fit together, and its engines: faults that no single field shows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from gateway.settings.engines import EngineSettings
from gateway.settings.models import ModelSettings, Sticky

#: The name that answers for every other name.
CATCH_ALL = "*"

#: What is about a model itself: names with targets, and adapters, have it from the model meant.
FACTS = ("family", "modalities", "max_model_len", "image_budget", "pan_and_scan", "long_audio", "video_audio")

#: What a request is. Set for all requests, it would answer another question than the one that was asked.
CONTENT = frozenset({"model", "messages", "input", "prompt", "stream"})

#: What engines are told by the gateway alone: to tell requests apart, whose caches to use, who comes first.
WITHHELD = frozenset({"request_id", "kv_transfer_params", "ec_transfer_params", "cache_salt", "priority"})

Models = Mapping[str, ModelSettings]
Engines = Mapping[str, EngineSettings]


def check_models(models: Models, engines: Engines) -> None:
    """Raises ValueError with every fault, one a line: the key it is under, and the fix."""
    faults = [fault for name, model in models.items() for fault in _faults(name, model, models, engines)]
    if faults:
        raise ValueError("\n".join(faults))


def _faults(name: str, model: ModelSettings, models: Models, engines: Engines) -> Iterator[str]:
    speakable = name != "" and name.isprintable()
    key = f"models.{name if speakable else repr(name)}"
    if not speakable:
        yield f"{key}: a name cannot be empty or hold control characters; choose another"
    if not model.targets and model.sticky is not Sticky.NONE:
        yield f"{key}.sticky: only a name with targets has requests to deal out; add targets or remove it"
    if model.targets:
        yield from _shared(key, name, model, models)
    elif model.base is not None:
        yield from _adapter(key, name, model, models)
    else:
        yield from _own(key, name, model, engines)
    yield from _references(f"{key}.fallbacks", name, model.fallbacks, models)
    yield from _without_targets(f"{key}.fallbacks", name, model.fallbacks, models)
    yield from _deprecation(key, name, model, models)
    yield from _fields(f"{key}.defaults", model.defaults)
    yield from _fields(f"{key}.overrides", model.overrides)


def _own(key: str, name: str, model: ModelSettings, engines: Engines) -> Iterator[str]:
    """A model of an engine."""
    if model.engine not in engines:
        yield f"{key}.engine: no engine {model.engine!r} under engines (known: {_known(engines)})"
    if name == CATCH_ALL and model.served_name is None:
        yield f"{key}.served_name: the catch-all needs the engine's model name, or targets"


def _shared(key: str, name: str, model: ModelSettings, models: Models) -> Iterator[str]:
    """A name for other names."""
    targets = [target.model for target in model.targets]
    yield from _foreign(key, model, ("engine", "served_name", "base", *FACTS), "a name with targets has those of")
    yield from _references(f"{key}.targets", name, targets, models)
    yield from _without_targets(f"{key}.targets", name, targets, models)
    if not any(target.weight for target in model.targets):
        yield f"{key}.targets: every weight is 0, so that nothing could answer; give one target a weight above 0"


def _adapter(key: str, name: str, model: ModelSettings, models: Models) -> Iterator[str]:
    """A LoRA adapter of another model."""
    base = model.base or ""
    yield from _foreign(key, model, ("engine", *FACTS), "an adapter has that of")
    yield from _references(f"{key}.base", name, (base,), models)
    yield from _without_targets(f"{key}.base", name, (base,), models)
    if base not in (name, CATCH_ALL) and base in models and models[base].base is not None:
        yield f"{key}.base: {base!r} is an adapter itself; name the model that it is made for, {models[base].base!r}"
    if model.served_name is None:
        yield f"{key}.served_name: an adapter needs the name that its engine has it under (--lora-modules NAME=PATH)"


def _foreign(key: str, model: ModelSettings, names: Sequence[str], whose: str) -> Iterator[str]:
    """Settings that would have no effect, which whoever wrote them cannot have meant."""
    for field in names:
        if field in model.model_fields_set:
            yield f"{key}.{field}: {whose} the model that answers; set it there and remove it here"


def _references(key: str, name: str, others: Sequence[str], models: Models) -> Iterator[str]:
    for other in dict.fromkeys(others):
        if other == name:
            yield f"{key}: {name!r} refers to itself; name another model"
        elif other == CATCH_ALL:
            yield f"{key}: '*' stands for every other name; name a model"
        elif other not in models:
            yield f"{key}: no model {other!r} under models (known: {_known(models)}); add it there or correct the name"
        if others.count(other) > 1:
            yield f"{key}: {other!r} stands here twice; remove one of the two"


def _without_targets(key: str, name: str, others: Sequence[str], models: Models) -> Iterator[str]:
    for other in dict.fromkeys(others):
        # `_references` has refused itself and the catch-all already.
        if other in (name, CATCH_ALL) or other not in models or not models[other].targets:
            continue
        meant = next((model for model in _stands_for(other, models) if model != name), None)
        fix = f"name one that it stands for, such as {meant!r}" if meant else "name a model without targets"
        yield f"{key}: {other!r} has targets itself; {fix}"


def _stands_for(name: str, models: Models) -> Iterator[str]:
    """The models without targets that are behind a name, over names with targets where these stand in between."""
    seen: set[str] = set()
    waiting = [name]
    while waiting:
        current = waiting.pop(0)
        if current in seen or current not in models:
            continue
        seen.add(current)
        if not models[current].targets:
            yield current
        waiting += [target.model for target in models[current].targets]


def _deprecation(key: str, name: str, model: ModelSettings, models: Models) -> Iterator[str]:
    deprecated = model.deprecated
    if deprecated is None:
        return
    if deprecated.successor is not None:
        yield from _references(f"{key}.deprecated.successor", name, (deprecated.successor,), models)
    if deprecated.sunset is not None and deprecated.sunset < deprecated.since:
        yield f"{key}.deprecated.sunset: it is before since, {deprecated.since}; choose that day or a later one"


def _fields(key: str, fields: Mapping[str, object]) -> Iterator[str]:
    for name, value in fields.items():
        if name in CONTENT:
            yield f"{key}.{name}: what a request asks cannot be set for all requests; remove it"
        elif name in WITHHELD:
            yield f"{key}.{name}: the gateway alone tells engines that; remove it"
        else:
            yield from _not_json(f"{key}.{name}", value)


def _not_json(key: str, value: object) -> Iterator[str]:
    try:
        msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as fault:
        yield f"{key}: it cannot be written as JSON ({fault}); write it as a request would have it"


def _known(names: Mapping[str, object]) -> str:
    return ", ".join(sorted(names)) or "none"
