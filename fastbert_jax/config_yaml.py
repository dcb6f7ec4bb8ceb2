"""Settings to YAML and back; an unknown key is refused with the nearest known one."""

from __future__ import annotations

import dataclasses
import enum
import json
import math
import reprlib
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from fastbert_jax.config import require
from fastbert_jax.errors import UserError, nearest

Schema = TypeVar("Schema")
MOST_KEYS = 10_000
SHORT = reprlib.Repr()
SHORT.maxstring = SHORT.maxother = SHORT.maxlong = 200
SHORT.maxlevel = 3


def from_dict(schema: type[Schema], values: Mapping[str, Any], *, where: str, prefix: str = "") -> Schema:
    """Build `schema` from plain values, as a YAML file holds them.

    Raises:
      UserError: an unknown key (with the nearest known one), or a value of another type or out of its range; `where`
        names the file.
    """
    if not isinstance(values, Mapping):
        found = shown(values)
        raise UserError(f"{where}: expected `key: value` lines under {prefix or 'the top level'!r}, found {found}")
    hints = typing.get_type_hints(schema)
    known = list(hints)
    settings = {}
    for key, value in values.items():
        if key not in known:
            name = key if isinstance(key, str) else shown(key)
            raise UserError(f"{where}: unknown key {shown(prefix + name)}; {nearest(name, known)}")
        settings[key] = convert(hints[key], value, where=where, key=prefix + key)
    try:
        return schema(**settings)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def convert(kind: Any, value: Any, *, where: str, key: str) -> Any:
    """A plain value, as YAML and JSON files hold it, as a setting of a type.

    Raises:
      UserError: a value of another type or out of its range; `where` and `key` name its place.
    """
    expected = f"{where}: {key}: expected "
    if isinstance(kind, type) and dataclasses.is_dataclass(kind):
        return from_dict(kind, value, where=where, prefix=key + ".")
    if isinstance(kind, types.UnionType):  # a list of names, or one of them
        kind = next(one for one in typing.get_args(kind) if (one is str) == isinstance(value, str))
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{expected}a list, found {shown(value)}")
        return tuple(convert(typing.get_args(kind)[0], item, where=where, key=key) for item in value)
    if issubclass(kind, enum.Enum):
        choices = [member.value for member in kind]
        if value not in choices:
            raise UserError(f"{expected}one of {choices}, found {shown(value)}")
        return kind(value)
    try:
        if kind is float and type(value) in (int, str):  # YAML 1.1 reads 2e-5 as text
            value = float(value)
    except (ValueError, OverflowError):
        pass
    if type(value) is not kind:
        quotes = "; put it in quotes" if kind is str and value is not None else ""
        raise UserError(f"{expected}{kind.__name__}, found {shown(value)}{quotes}")
    if problem := value_problem(value):
        raise UserError(f"{expected}{problem}, found {shown(value)}")
    return value


def value_problem(value: object) -> str | None:
    """What a setting's value must be and is not: a finite number that 64 bits hold, or text that a file can hold."""
    match value:
        case float() if not math.isfinite(value):
            return "a finite number"
        case int() if not -(2**63) <= value < 2**63:
            return "a number of at most 64 bits"
        case str() if "\0" in value:
            return "a text without null characters"
        case str():
            try:
                value.encode("utf-8", "surrogateescape")  # a path may hold bytes that are not UTF-8
            except UnicodeEncodeError:
                return "Unicode text"
    return None


def check_values(settings: Any, prefix: str = "") -> None:
    """Raise `UserError` for a number or a text in settings that no setting can have, by its option's name."""
    for field in dataclasses.fields(settings):
        value, key = getattr(settings, field.name), prefix + field.name
        if dataclasses.is_dataclass(value):
            check_values(value, "" if field.name == "settings" else f"{key}.")
            continue
        for item in value if isinstance(value, tuple) else (value,):
            problem = value_problem(item)
            require(problem is None, key, problem or "", item)


def shown(value: object) -> str:
    """A value in an error, cut where it is long or deep."""
    try:
        return SHORT.repr(value)
    except ValueError:  # a number of more digits than Python writes
        return f"a {type(value).__name__} of many digits"


def to_dict(config: Any) -> dict[str, Any]:
    """The plain values of a config, in the form `from_dict` reads: lists for tuples, the values of enums."""
    plain: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config), default=lambda member: member.value))
    return plain


class _Loader(yaml.SafeLoader):
    """Reads YAML of which no key is there twice, and no merge of others (`<<`) grows beyond `MOST_KEYS`."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """As the base class; raises `yaml.MarkedYAMLError` where a key is there twice."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        keys: set[tuple[str, str]] = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if (key.tag, key.value) in keys:
                raise yaml.MarkedYAMLError(problem=f"the key {shown(key.value)} twice", problem_mark=key.start_mark)
            keys.add((key.tag, key.value))
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        """As the base class; raises `yaml.MarkedYAMLError` beyond `MOST_KEYS` keys."""
        super().flatten_mapping(node)
        if len(node.value) > MOST_KEYS:
            raise yaml.MarkedYAMLError(problem=f"more than {MOST_KEYS} keys in one place", problem_mark=node.start_mark)


def read_yaml(path: str | Path) -> Any:
    """The values of a YAML file; None of an empty one.

    Raises:
      UserError: no such file or one that cannot be read, or no YAML.
    """
    try:
        return yaml.load(Path(path).read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        found = error.strerror if str(path) else "no path"
        raise UserError(f"expected a YAML file at {str(path)!r}, found: {found}") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: not UTF-8, or an impossible date or number
        raise UserError(f"{path}: expected YAML, found {error}") from None
    except RecursionError:
        raise UserError(f"{path}: expected YAML, found brackets that are too deep") from None


def from_yaml(schema: type[Schema], path: str | Path) -> Schema:
    """Read `schema` from a YAML file; keys left out keep their defaults.

    Raises:
      UserError: as `read_yaml`; an unknown key, a value out of its range.
    """
    values = read_yaml(path)
    return from_dict(schema, {} if values is None else values, where=str(path))


def to_yaml(config: Any) -> str:
    """The whole resolved config as YAML text."""
    values = to_dict(config)
    text = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    if yaml.safe_load(text) == values:
        return text
    return yaml.safe_dump(values, sort_keys=False)  # PyYAML loses some rare line breaks unless it escapes them
