"""Configurations: frozen dataclasses of plain numbers and of one another, to the command line and JSON and back."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import json
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import TypeAdapter, ValidationError

from vcorr.errors import UsageError


def override(config: Any, pairs: list[str]) -> Any:
    """A copy of a frozen config with ``a.b=value`` pairs applied; the field's annotation parses the value.

    Values are written as in Python or JSON; tuples with or without brackets; text without quotes. Where a group may be
    of several kinds, ``group=kind`` puts that kind's defaults in its place.

    >>> from vcorr.training.clips.cut import ClipConfig
    >>> override(ClipConfig(), ["size=64", "gaps=1,2"]).gaps
    (1, 2)

    Raises:
        UsageError: not KEY=VALUE, no such key, or a value that the key does not take.
    """
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise UsageError(pair, "is not KEY=VALUE", "write it as pairs.steps=500")
        try:
            config = _replace(config, key.strip(), key.strip().split("."), text.strip())
        except ValueError as error:
            if isinstance(error, UsageError):
                raise
            raise UsageError(pair, str(error), "give another value") from None
    return config


def _replace(config: Any, key: str, path: list[str], text: str) -> Any:
    name, rest = path[0], path[1:]
    hints = {f.name: typing.get_type_hints(type(config))[f.name] for f in dataclasses.fields(config)}
    if name not in hints:
        raise UsageError(key, "no such key", _near(name, key.split(".")[: -len(path)], config))
    value = getattr(config, name)
    if rest:
        if not dataclasses.is_dataclass(value):
            raise UsageError(key, f"{name} has no fields of its own", f"write {name}=VALUE")
        return dataclasses.replace(config, **{name: _replace(value, key, rest, text)})
    if dataclasses.is_dataclass(value):
        kinds = _kinds(hints[name])
        if text in kinds:
            return dataclasses.replace(config, **{name: kinds[text]()})
        if len(kinds) > 1:
            raise UsageError(f"{key}={text}", "no such kind", f"give one of {', '.join(kinds)}, or set {key}.FIELD")
        fields = ", ".join(f"{key}.{f.name}" for f in dataclasses.fields(value))
        raise UsageError(key, "is a group of keys", f"set one of them: {fields}")
    return dataclasses.replace(config, **{name: _parse(hints[name], text, key)})


def _kinds(annotation: Any) -> dict[str, Any]:
    """Kind -> configuration, of an annotation that names several dataclasses, each with a ``kind`` of its own."""
    members = typing.get_args(annotation)
    return {m.kind: m for m in members if dataclasses.is_dataclass(m) and hasattr(m, "kind")}


def _near(name: str, group: list[str], config: Any) -> str:
    """Advice for a key that ``config``, the group of keys asked for, does not have."""
    keys = list(flatten(config))
    ends = {k: k.split(".")[-1] for k in keys}
    close = difflib.get_close_matches(name, [*keys, *ends.values()], n=3, cutoff=0.6)
    near = [k for k in keys if ends[k] == name] + [k for c in close for k in keys if c in (k, ends[k])]
    full = [".".join([*group, k]) for k in dict.fromkeys(near or keys)]
    return f"did you mean {' or '.join(full[:3])}?" if near else f"keys: {', '.join(full)}"


def _parse(annotation: Any, text: str, key: str) -> Any:
    adapter, reason = TypeAdapter(annotation), ""
    for value in _readings(annotation, text):
        try:
            return adapter.validate_python(value)
        except ValidationError as error:
            reason = reason or _first(error)
    wanted = str(annotation) if typing.get_args(annotation) else annotation.__name__
    raise UsageError(f"{key}={text}", f"does not fit {wanted.replace('typing.', '')} ({reason})", "give another value")


def _readings(annotation: Any, text: str) -> Iterator[Any]:
    """What a value on the command line may mean, the likeliest first."""
    words = {"true": True, "false": False, "none": None, "null": None}
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        value = words.get(text.lower(), text)
    kinds = [annotation, *typing.get_args(annotation)]
    if any((typing.get_origin(kind) or kind) is tuple for kind in kinds) and value is not None:
        if isinstance(value, str):
            plain = text.strip("()[] ")
            yield tuple(part.strip() for part in plain.split(",")) if plain else ()
        else:
            yield tuple(value) if isinstance(value, (list, tuple)) else (value,)
    elif not isinstance(value, bool) or bool in kinds or any(v is value for v in kinds):  # True is no 1
        yield value
    yield text


def _first(error: ValidationError) -> str:
    """The first of pydantic's complaints, in one line, with the field it is about."""
    found = error.errors()[0]
    where = ".".join(str(part) for part in found["loc"])
    return f"{where}: {found['msg']}" if where else found["msg"]


def flatten(config: Any, prefix: str = "") -> dict[str, Any]:
    """Config as ``{"pairs.steps": 500, ...}``."""
    flat: dict[str, Any] = {}
    for f in dataclasses.fields(config):
        value = getattr(config, f.name)
        if dataclasses.is_dataclass(value):
            flat |= flatten(value, f"{prefix}{f.name}.")
        else:
            flat[f"{prefix}{f.name}"] = value
    return flat


def to_json(config: Any) -> dict[str, Any]:
    """Config as plain JSON values; ``from_json`` reads it back."""
    kind: Any = type(config)
    return typing.cast("dict[str, Any]", _adapter(kind).dump_python(config, mode="json"))


@functools.lru_cache(maxsize=64)
def _adapter(kind: type) -> TypeAdapter[Any]:
    """Takes milliseconds to make, and a training asks for several each time it saves."""
    return TypeAdapter(kind)


def from_json(kind: Any, data: Any) -> Any:
    """Config of a kind, or of one of a union of kinds, from JSON values, strictly.

    Raises:
        ValueError: an unknown field, one missing that has no default, or a value of another type.
    """
    try:
        known = TypeAdapter(kind).validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        raise ValueError(_first(error)) from None
    if extra := set(_paths(data)) - set(_paths(to_json(known))):
        raise ValueError(f"unknown fields {', '.join(sorted(extra))} of {type(known).__name__}")
    return known


def _paths(data: Any, prefix: str = "") -> list[str]:
    if not isinstance(data, dict):
        return [prefix]
    return [p for k, v in data.items() for p in _paths(v, f"{prefix}.{k}" if prefix else str(k))]
