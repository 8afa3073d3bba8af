"""What a model's JSON schema allows at a path of some data: which fields, which kinds, which values, in plain words."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import BaseModel

Path = tuple[str | int, ...]
Node = Mapping[str, Any]

MISSING: Any = object()
"""Stands for data that is not there."""


def value_at(data: Any, path: Path) -> Any:
    """The value at a path, or ``MISSING``."""
    for part in path:
        inside = isinstance(data, Mapping) if isinstance(part, str) else isinstance(data, list)
        try:
            data = data[part] if inside else MISSING
        except (KeyError, IndexError):
            return MISSING
    return data


class Allowed:
    """The schema of a model, walked together with the data, because a ``kind`` decides what is allowed beside it."""

    def __init__(self, model: type[BaseModel]) -> None:
        self._root: Node = model.model_json_schema()

    def data_path(self, loc: Iterable[str | int], data: Any) -> Path:
        """A pydantic location without the union tags that it holds."""
        nodes, value = [self._root], data
        path: Path = ()
        for part in loc:
            union = self._union(nodes)
            if union and self._is_tag(union, part, value):
                by_kind = union.get("discriminator", {}).get("mapping", {}).get(part)
                nodes = [self._resolve({"$ref": by_kind})] if by_kind else self._expand([union], value)
                continue
            if not isinstance(value, Mapping | list):
                # A validator has read a short form: the fault is told about what was written.
                break
            nodes = self._children(nodes, part, value)
            value = value_at(value, (part,))
            path = (*path, part)
        return path

    def fields(self, path: Path, data: Any) -> tuple[str, ...]:
        """Names of the fields that the mapping at a path may have."""
        nodes = self._expand(self._at(path, data), value_at(data, path))
        return tuple(dict.fromkeys(name for node in nodes for name in node.get("properties", ())))

    def kinds(self, path: Path, data: Any) -> tuple[str, ...]:
        """Names of the kinds that the mapping at a path may have; without a kind field, its alternative first keys."""
        names: list[str] = []
        for node in map(self._resolve, self._at(path, data)):
            for member in [node, *map(self._resolve, node.get("anyOf", ()))]:
                mapping = member.get("discriminator", {}).get("mapping")
                if mapping is not None:
                    names.extend(mapping)
                elif "oneOf" in member:
                    names.extend(self._resolve(variant).get("required", ["?"])[0] for variant in member["oneOf"])
        return tuple(names)

    def choices(self, path: Path, data: Any) -> tuple[Any, ...]:
        """The literals allowed at a path."""
        nodes = self._expand(self._at(path, data), MISSING)
        literals = [node.get("enum", [node["const"]] if "const" in node else []) for node in nodes]
        return tuple(value for values in literals for value in values)

    def description(self, path: Path, data: Any) -> str:
        """What is allowed at a path, as the object of "must be ...", e.g. "an integer of at least 1"."""
        return self._any_of(self._expand(self._at(path, data), MISSING))

    def places(self, name: str) -> list[str]:
        """Dotted paths of all fields of this name, anywhere, nearest to the top first."""
        found: list[str] = []
        level: list[tuple[str, Node, frozenset[str]]] = [("", self._root, frozenset())]
        while level:
            below = []
            for prefix, node, seen in level:
                for member in self._expand([node], MISSING):
                    title = str(member.get("title"))
                    if title in seen:
                        continue
                    for key, child in member.get("properties", {}).items():
                        if key == name:
                            found.append(prefix + key)
                        below.append((f"{prefix}{key}.", child, seen | {title}))
            level = below
        return list(dict.fromkeys(found))

    def _at(self, path: Path, data: Any) -> list[Node]:
        nodes, value = [self._root], data
        for part in path:
            nodes, value = self._children(nodes, part, value), value_at(value, (part,))
        return nodes

    def _children(self, nodes: list[Node], part: str | int, value: Any) -> list[Node]:
        found = []
        for node in self._expand(nodes, value):
            if isinstance(part, str):
                other = node.get("additionalProperties")
                child = node.get("properties", {}).get(part, other if isinstance(other, Mapping) else None)
            else:
                first = node.get("prefixItems", [])
                child = first[part] if part < len(first) else node.get("items")
            if isinstance(child, Mapping):
                found.append(child)
        return found

    def _resolve(self, node: Node) -> Node:
        while "$ref" in node:
            node = self._root["$defs"][str(node["$ref"]).rsplit("/", 1)[-1]]
        return node

    def _union(self, nodes: list[Node]) -> Node | None:
        """The union that pydantic puts a tag into the location for: every one but "x or null"."""
        if len(nodes) != 1:
            return None
        node = self._resolve(nodes[0])
        if "oneOf" in node:
            return node
        members = [self._resolve(member) for member in node.get("anyOf", ())]
        others = [member for member in members if member.get("type") != "null"]
        if len(others) == 1:
            return self._union(others)
        return node if others else None

    def _is_tag(self, union: Node, part: str | int, value: Any) -> bool:
        """Whether a part of a location below a union is a tag: a validator that runs before it leaves the tag out."""
        if "discriminator" in union:
            return part in union["discriminator"]["mapping"]
        if "oneOf" in union:
            return True
        is_key = isinstance(value, Mapping) and part in value
        return not is_key and not self._children([union], part, value)

    def _expand(self, nodes: Iterable[Node], value: Any) -> list[Node]:
        """The alternatives of unions, fewer where the value's kind, keys or type decide between them."""
        found: list[Node] = []
        for node in map(self._resolve, nodes):
            members = node.get("oneOf") or node.get("anyOf")
            if not members:
                found.append(node)
                continue
            discriminator = node.get("discriminator", {})
            kind = value_at(value, (discriminator.get("propertyName", "kind"),))
            mapping = discriminator.get("mapping", {})
            if isinstance(kind, str) and kind in mapping:
                found.append(self._resolve({"$ref": mapping[kind]}))
            else:
                found.extend(_fitting(self._expand(members, value), value))
        return found

    def _any_of(self, nodes: list[Node]) -> str:
        """Every integer is a number."""
        numbers = any(node.get("type") == "number" for node in nodes)
        told = [node for node in nodes if not (numbers and node.get("type") == "integer")]
        return " or ".join(dict.fromkeys(self._words(node) for node in told))

    def _words(self, node: Node) -> str:
        if "const" in node:
            return _plain(node["const"])
        if "enum" in node:
            return f"one of {', '.join(map(_plain, node['enum']))}"
        match node.get("type"):
            case "integer":
                return "an integer" + _bounds(node)
            case "number":
                return "a number" + _bounds(node)
            case "boolean":
                return "true or false"
            case "string":
                return "text"
            case "null":
                return "null"
            case "array":
                return self._list_words(node)
            case "object":
                names = list(node.get("properties", ()))
                shown = ", ".join(names[:6]) + (", ..." if len(names) > 6 else "")
                return (
                    "a mapping"
                    + _count(node, "Properties", "entry", "entries")
                    + (f" with fields such as {shown}" if shown else "")
                )
            case _:
                return "plain data"

    def _list_words(self, node: Node) -> str:
        items = node.get("prefixItems") or [node.get("items", {})]
        each = self._any_of(self._expand(items, MISSING))
        if "prefixItems" in node:
            return f"a list of {len(items)} entries, each {each}"
        counted = _count(node, "Items", "entry", "entries")
        return f"a list{counted}" + (f", each {each}" if each != "plain data" else "")


def _fitting(nodes: list[Node], value: Any) -> list[Node]:
    """Those alternatives that the type, then the keys of a value fit; all of them if none does."""
    if value is MISSING:
        return nodes
    json_type = "object" if isinstance(value, Mapping) else "array" if isinstance(value, list) else None
    typed = [node for node in nodes if node.get("type") == json_type] if json_type else []
    if json_type == "object":
        keyed = [node for node in typed if any(name in value for name in node.get("required", ()))]
        return keyed[:1] or typed or nodes
    return typed or nodes


def _plain(value: Any) -> str:
    return {None: "null", True: "true", False: "false"}.get(value, str(value)) if not _is_number(value) else str(value)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _bounds(node: Node) -> str:
    words = []
    for key, text in (
        ("minimum", "at least"),
        ("exclusiveMinimum", "more than"),
        ("maximum", "at most"),
        ("exclusiveMaximum", "less than"),
    ):
        if key in node:
            words.append(f"{text} {node[key]:g}" if abs(node[key]) < 1e6 else f"{text} {node[key]}")
    if "multipleOf" in node:
        words.append(f"a multiple of {node['multipleOf']}")
    return f" of {' and '.join(words)}" if words else ""


def _count(node: Node, what: str, one: str, many: str) -> str:
    low, high = node.get(f"min{what}"), node.get(f"max{what}")
    if low is not None and high is not None:
        return f" of {low} to {high} {many}" if low != high else f" of {low} {one if low == 1 else many}"
    if low is not None:
        return f" of at least {low} {one if low == 1 else many}"
    return f" of at most {high} {one if high == 1 else many}" if high is not None else ""
