"""Reads a YAML file into plain data and remembers the line of every path.

The YAML is that of version 1.2's core schema: ``1e-3`` is a number; ``yes``, ``on`` and dates are text; a key stands
once; tags are refused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from wmcore.errors import InputError

OVERRIDE = "--set"
LARGEST = 100_000
"""Values in one file, aliases counted wherever they stand: beyond it, a file is a mistake."""

LONGEST_INTEGER = 1000
"""Digits; Python refuses to convert much longer ones."""

_NULL = re.compile(r"null|Null|NULL|~|")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_INF = re.compile(r"[-+]?\.(inf|Inf|INF)")
_NAN = re.compile(r"\.(nan|NaN|NAN)")


@dataclass
class YamlSource:
    """Plain data and where each dotted path of it came from.

    Attributes:
        name: the file, as it was named.
        data: the mapping that it holds.
        lines: dotted path -> line, counted from 1, or ``--set`` for what an override gave.
    """

    name: str
    data: dict[str, Any]
    lines: dict[str, int | str] = field(default_factory=dict)

    def place(self, path: str) -> str:
        """``file:line`` or ``--set``, of the path or else of the nearest part of it that was written."""
        line = self._line(path)
        return line if isinstance(line, str) else f"{self.name}:{line}"

    def order(self, path: str) -> float:
        """Sorts paths as they stand in the file; overrides come last."""
        line = self._line(path)
        return math.inf if isinstance(line, str) else line

    def _line(self, path: str) -> int | str:
        while path and path not in self.lines:
            path = path.rpartition(".")[0]
        return self.lines.get(path, 1)

    def override(self, text: str, dotted_keys: Sequence[str] = ()) -> None:
        """Sets one value from ``path=value``, the value written as YAML.

        Args:
            text: for example ``trial.training.steps=100``.
            dotted_keys: paths of mappings whose keys hold dots: what follows them is one key.

        Raises:
            InputError: no ``=``, an unreadable value, or a path through something that is not a mapping.
        """
        path, equals, written = text.partition("=")
        path = path.strip()
        if not equals or not path or "" in path.split("."):
            raise InputError(
                OVERRIDE, "must have the form path=value", value=text, remedy="For example trial.training.steps=100."
            )
        value, _ = _parse(written, f"{OVERRIDE} {path}")
        node: Any = self.data
        *parents, last = self._split(path, dotted_keys)
        for index, part in enumerate(parents):
            above = ".".join(parents[: index + 1])
            if isinstance(node, dict) and part not in node:
                node[part] = {}
                self.lines[above] = OVERRIDE
            node = self._below(node, part, path, above)
        if isinstance(node, list):
            self._below(node, last, path, path)
            node[int(last)] = value
        else:
            node[last] = value
        for known in [known for known in self.lines if known.startswith(path + ".")]:
            del self.lines[known]
        self.lines[path] = OVERRIDE

    def _split(self, path: str, dotted_keys: Sequence[str]) -> list[str]:
        """The parts of a path; a key that exists and holds dots is one part."""
        rest, parts, node = path.split("."), [], self.data
        while rest:
            taken = 1
            if isinstance(node, dict):
                prefixes = [n for n in range(len(rest), 0, -1) if ".".join(rest[:n]) in node]
                whole = len(rest) if ".".join(parts) in dotted_keys else 1
                taken = prefixes[0] if prefixes else whole
            part = ".".join(rest[:taken])
            parts, rest = [*parts, part], rest[taken:]
            node = node.get(part) if isinstance(node, dict) else _item(node, part)
        return parts

    def _below(self, node: Any, part: str, path: str, above: str) -> Any:
        found = node.get(part) if isinstance(node, dict) else _item(node, part)
        if isinstance(node, list) and found is None:
            rule = f"must name an entry of a list by its number, 0 to {len(node) - 1}, and {part!r} does not"
            raise InputError(f"{OVERRIDE} {path}", rule)
        if above != path and not isinstance(found, dict | list):
            rule = f"goes through {above}, which is {found!r} and not a mapping"
            raise InputError(f"{OVERRIDE} {path}", rule, remedy=f"Set {above} as a whole.", source=self.place(above))
        return found


def read_yaml(path: Path, overrides: Sequence[str] = (), dotted_keys: Sequence[str] = ()) -> YamlSource:
    """Reads a file whose top level is a mapping, and applies ``path=value`` overrides to it.

    Raises:
        InputError: a file that cannot be read or is not such YAML, with its line; or a bad override.
    """
    data, lines = _parse(_read(path), str(path))
    if data is None:
        raise InputError(
            "the file", "is empty", source=str(path), remedy="Start from a spec that `wmsweep list` names."
        )
    if not isinstance(data, dict):
        kind = "a list" if isinstance(data, list) else "a single value"
        raise InputError("the file", f"must hold a mapping (key: value), and it holds {kind}", source=f"{path}:1")
    source = YamlSource(str(path), data, lines)
    for text in overrides:
        source.override(text, dotted_keys)
    return source


def _item(node: Any, part: str) -> Any:
    if isinstance(node, list) and part.isascii() and part.isdigit() and int(part) < len(node):
        return node[int(part)]
    return None


def _read(path: Path) -> str:
    if path.is_dir():
        raise InputError("the spec", "must be a file, and it is a folder", source=str(path))
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise _not_found(path) from None
    except OSError as error:
        raise InputError("the spec", f"cannot be read: {error.strerror}", source=str(path)) from error
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        rule = f"must be UTF-8 text, and byte {raw[error.start]:#04x} is not"
        raise InputError("the file", rule, source=f"{path}:{line}", remedy="Save it as UTF-8.") from None


def _not_found(path: Path) -> InputError:
    from sweeps.nearest import nearest_hint

    folder = path.parent
    near = nearest_hint(path.name, sorted(p.name for p in folder.glob("*.y*ml"))) if folder.is_dir() else ""
    remedy = near or "`wmsweep list` names the specs that are shipped."
    return InputError("the spec", "does not exist", source=str(path), remedy=remedy)


def _parse(text: str, name: str) -> tuple[Any, dict[str, int | str]]:
    try:
        _refuse_tags(text, name)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f"{name}:{mark.line + 1}" if mark else name
        column = f" (column {mark.column + 1})" if mark else ""
        problem = " ".join(filter(None, (error.context, error.problem)))
        remedy = "Tabs cannot indent; use spaces." if r"'\t'" in problem else ""
        raise InputError("the file", f"is not readable YAML: {problem}{column}", source=place, remedy=remedy) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise InputError("the file", f"is not readable YAML: {error.reason}", source=f"{name}:{line}") from None
    except RecursionError:
        raise InputError("the file", "is nested too deeply to be read", source=name) from None
    walk = _Walk(name)
    data = None if node is None else walk.value(node, ())
    return data, walk.lines


def _refuse_tags(text: str, name: str) -> None:
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        tag = getattr(event, "tag", None)
        if tag is not None:
            rule = f"must be plain data, and the tag {tag!r} is not"
            raise InputError("the file", rule, source=f"{name}:{event.start_mark.line + 1}", remedy="Remove the tag.")


class _Walk:
    """Turns nodes into plain data and notes the line of each path."""

    def __init__(self, name: str) -> None:
        self.name, self.lines = name, {}
        self._count = 0

    def value(self, node: Node, path: tuple[str, ...], within: tuple[Node, ...] = ()) -> Any:
        self._count += 1
        if self._count > LARGEST:
            raise self._error(node, path, f"holds more than {LARGEST} values, aliases included")
        if node in within:
            raise self._error(node, path, "contains itself through an alias")
        within = (*within, node)
        if isinstance(node, MappingNode):
            return self._mapping(node, path, within)
        if isinstance(node, SequenceNode):
            items = []
            for index, item in enumerate(node.value):
                below = (*path, str(index))
                self._note(below, item)
                items.append(self.value(item, below, within))
            return items
        assert isinstance(node, ScalarNode)
        if any("\ud800" <= character <= "\udfff" for character in node.value):
            raise self._error(node, path, r"holds half of a character (an escape \ud800 to \udfff)")
        return node.value if node.style is not None else _scalar(node.value)

    def _mapping(self, node: MappingNode, path: tuple[str, ...], within: tuple[Node, ...]) -> dict[str, Any]:
        result: dict[str, Any] = {}
        first: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = self.value(key_node, path)
            below = (*path, str(key))
            if not isinstance(key, str):
                raise self._error(key_node, below, f"is a key that is {key!r} and must be text", "Put it in quotes.")
            line = key_node.start_mark.line + 1
            if key in first:
                rule = f"stands twice in the same mapping, on lines {first[key]} and {line}"
                raise self._error(key_node, below, rule, "Remove one of the two.")
            first[key] = line
            self._note(below, key_node)
            result[key] = self.value(value_node, below, within)
        return result

    def _note(self, path: tuple[str, ...], node: Node) -> None:
        self.lines.setdefault(".".join(path), node.start_mark.line + 1)

    def _error(self, node: Node, path: tuple[str, ...], rule: str, remedy: str = "") -> InputError:
        where = ".".join(path) or "the file"
        return InputError(where, rule, source=f"{self.name}:{node.start_mark.line + 1}", remedy=remedy)


def _scalar(text: str) -> Any:
    """A plain scalar by the core schema of YAML 1.2."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if _INT.fullmatch(text) and len(text) < LONGEST_INTEGER:
        return int(text)
    if _BASE.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _INF.fullmatch(text):
        return -math.inf if text.startswith("-") else math.inf
    return math.nan if _NAN.fullmatch(text) else text
