"""Spec: the frozen, strict base of everything that a user can choose.

A spec is plain data with bounds. Its canonical JSON (sorted keys, no spaces) is its identity: two specs are the same
exactly if their content hashes are.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, Self

from pydantic import BaseModel, ConfigDict


class Spec(BaseModel):
    """Frozen pydantic model that refuses unknown keys, coerced types and non-finite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Self:
        """Validates plain data (as YAML or JSON gives it) strictly: ``"3"`` is not 3 and 3.0 is not 3.

        Raises:
            pydantic.ValidationError: with one entry per fault.
        """
        return cls.model_validate_json(json.dumps(data), strict=True)

    def canonical_json(self) -> str:
        """Every field, defaults included, with sorted keys and no spaces."""
        return canonical_json(self.model_dump(mode="json"))

    def content_hash(self) -> str:
        """16 hexadecimal digits of the SHA-256 of the canonical JSON."""
        return content_hash(self.model_dump(mode="json"))


def canonical_json(data: Any) -> str:
    """JSON with sorted keys and no spaces; NaN and infinity raise ``ValueError``."""
    return json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False, ensure_ascii=True)


def content_hash(data: Any) -> str:
    """16 hexadecimal digits of the SHA-256 of plain data in canonical JSON."""
    return hashlib.sha256(canonical_json(data).encode()).hexdigest()[:16]


def get_path(data: Mapping[str, Any], path: str) -> Any:
    """The value at a dotted path of nested mappings. Raises ``KeyError`` with the part that is missing."""
    value: Any = data
    for part in path.split("."):
        if not isinstance(value, Mapping) or part not in value:
            raise KeyError(part)
        value = value[part]
    return value


def with_paths(data: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """A deep copy of ``data`` in which each dotted path of ``values`` is set (missing mappings are made); a whole
    mapping before what lies inside it."""
    result = _copy(data)
    for path, value in sorted(values.items(), key=lambda entry: entry[0].count(".")):
        *parents, last = path.split(".")
        node = result
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = _copy(value)
    return result


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_copy(item) for item in value]
    return value
