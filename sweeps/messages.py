"""Turns a pydantic ValidationError into one readable InputError."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel, ValidationError

from sweeps.allowed import MISSING, Allowed, Path, value_at
from sweeps.nearest import nearest_hint
from sweeps.yaml_source import YamlSource
from wmcore.errors import InputError

NAMES_SHOWN = 16
"""More names than this are not listed."""


@dataclass(frozen=True)
class _Fault:
    path: Path
    kind: str
    context: dict[str, Any]


def explain(error: ValidationError, data: Any, model: type[BaseModel], source: YamlSource | None = None) -> InputError:
    """The first fault, in the order of the file, as one paragraph; the others are counted and named.

    Args:
        error: what ``model`` raised for ``data``.
        data: plain data, as it was given to the model.
        source: knows file and line of every path, if the data was read from a file.
    """
    allowed = Allowed(model)
    faults = [
        _Fault(allowed.data_path(entry["loc"], data), entry["type"], entry.get("ctx", {}))
        for entry in error.errors(include_url=False)
    ]
    # A union reports a fault for each alternative: the one that got furthest is the one meant.
    faults = [f for f in faults if not any(f.path == other.path[: len(f.path)] != other.path for other in faults)]
    faults = list({fault.path: fault for fault in reversed(faults)}.values())[::-1]
    messages = [_message(fault, data, allowed) for fault in faults]
    if source is not None:
        messages.sort(key=lambda message: source.order(message.where))
    first, others = messages[0], messages[1:]
    return InputError(
        first.where,
        first.rule,
        remedy=" ".join(filter(None, (first.remedy, _others(others, source)))),
        source=source.place(first.where) if source is not None else first.source,
        **({"value": first.value} if first.has_value else {}),
    )


def _others(messages: list[InputError], source: YamlSource | None) -> str:
    if not messages:
        return ""
    shown = [m.where + (f" ({source.place(m.where)})" if source is not None else "") for m in messages[:3]]
    more = ", ..." if len(messages) > 3 else ""
    return f"And {len(messages)} more: {', '.join(shown)}{more}."


def _message(fault: _Fault, data: Any, allowed: Allowed) -> InputError:
    where, value = dotted(fault.path), value_at(data, fault.path)
    match fault.kind:
        case "missing":
            return _missing(fault.path, data, allowed)
        case "extra_forbidden":
            return _unknown_key(fault.path, data, allowed)
        case "union_tag_invalid" | "union_tag_not_found":
            return _unknown_kind(fault.path, data, allowed)
        case "value_error" | "assertion_error":
            return _broken_rule(where, value, fault.context.get("error"))
        case "finite_number":
            return InputError(where, "must be a finite number", value=value)
    return _wrong_value(fault.path, data, allowed)


def _missing(path: Path, data: Any, allowed: Allowed) -> InputError:
    kinds = allowed.kinds(path, data)
    what = f"a mapping whose kind is {_one_of(kinds)}" if kinds else allowed.description(path, data)
    given = [str(key) for key in value_at(data, path[:-1])]
    fields = allowed.fields(path[:-1], data)
    # A key that is nearly the missing one is most likely a slip.
    slip = nearest_hint(str(path[-1]), [key for key in given if key not in fields])
    remedy = f"{slip.removesuffix('?')[len('Did you mean ') :]} looks like it, misspelt." if slip else ""
    return InputError(dotted(path), f"is missing: it must be {what}", remedy=remedy)


def _unknown_key(path: Path, data: Any, allowed: Allowed) -> InputError:
    name, parent = str(path[-1]), path[:-1]
    fields, kinds = allowed.fields(parent, data), allowed.kinds(parent, data)
    if name in kinds and "kind" not in fields:
        given = [key for key in value_at(data, parent) if key in kinds]
        rule = f"must be one distribution, and {len(given)} are given ({', '.join(given)})"
        return InputError(dotted(parent), rule, value=value_at(data, parent), remedy="Keep one of them.")
    owner = dotted(parent) or "a sweep"
    kind = value_at(data, (*parent, "kind"))
    if isinstance(kind, str):
        owner += f" of kind {kind}"
    hint = nearest_hint(name, fields)
    if not hint:
        places = [place for place in allowed.places(name) if place != dotted(path)]
        hint = f"A field of that name exists at {' and at '.join(places[:2])}." if places else ""
    rule = f"is not a field of {owner}"
    return _with_value(dotted(path), rule, value_at(data, path), f"{hint} {_listed('Fields', fields)}".strip())


def _unknown_kind(path: Path, data: Any, allowed: Allowed) -> InputError:
    value, kinds = value_at(data, path), allowed.kinds(path, data)
    given = value_at(value, ("kind",))
    by_key = "kind" not in allowed.fields(path, data)
    if by_key:
        rule = f"must be a mapping with one of the keys {', '.join(kinds)}"
        near = [nearest_hint(key, kinds) for key in value] if isinstance(value, dict) else []
        example = "Write a list of values as {choice: [...]}." if not isinstance(value, dict) else ""
        return InputError(dotted(path), rule, value=value, remedy=next(filter(None, near), example))
    if given is MISSING:
        return InputError(dotted((*path, "kind")), f"is missing: it must be {_one_of(kinds)}")
    hint = nearest_hint(str(given), kinds) if len(kinds) > 1 else ""
    return InputError(dotted((*path, "kind")), f"must be {_one_of(kinds)}", value=given, remedy=hint)


def _broken_rule(where: str, value: Any, error: Any) -> InputError:
    if isinstance(error, InputError):
        inner = ".".join(filter(None, (where, error.where)))
        shown = error.value if error.has_value else MISSING
        return _with_value(inner, error.rule, shown, error.remedy)
    text = str(error).strip().rstrip(".")
    rule = text if text.startswith("must ") else f"breaks a rule: {text}"
    # A mapping's values are in the rule already.
    return _with_value(where or "the sweep", rule, MISSING if isinstance(value, dict) else value)


def _wrong_value(path: Path, data: Any, allowed: Allowed) -> InputError:
    value = value_at(data, path)
    kinds, choices = allowed.kinds(path, data), allowed.choices(path, data)
    if kinds and not isinstance(value, dict):
        by_key = "kind" not in allowed.fields(path, data)
        form = f"with one of the keys {', '.join(kinds)}" if by_key else f"whose kind is {_one_of(kinds)}"
        remedy = f"Write {{kind: {value}}}." if value in kinds and not by_key else ""
        return InputError(dotted(path), f"must be a mapping {form}", value=value, remedy=remedy)
    if isinstance(value, float) and not math.isfinite(value) and "a number" in allowed.description(path, data):
        return InputError(dotted(path), "must be a finite number", value=value)
    hint = nearest_hint(str(value), [str(choice) for choice in choices])
    remedy = hint or _rewritten(path, data, allowed)
    return _with_value(dotted(path), f"must be {allowed.description(path, data)}", value, remedy)


def _rewritten(path: Path, data: Any, allowed: Allowed) -> str:
    """How a value of the wrong type, but the right meaning, is written."""
    value, wanted = value_at(data, path), allowed.description(path, data)
    if isinstance(value, float) and wanted.startswith("an integer") and value.is_integer():
        return f"Write {int(value)}."
    if isinstance(value, str) and wanted.startswith(("an integer", "a number")):
        try:
            float(value)
        except ValueError:
            return ""
        return "Write it without quotes."
    if isinstance(value, str) and wanted == "true or false" and value.lower() in ("yes", "on", "no", "off"):
        return f"Write {'true' if value.lower() in ('yes', 'on') else 'false'}."
    if wanted.startswith("a list") and " entries, each" not in wanted and isinstance(value, str | int | float):
        return f"Write [{value}]."
    if wanted.startswith("a mapping") and isinstance(value, list) and len(value) == 1 and isinstance(value[0], dict):
        return "Write its one entry without the list."
    return ""


def _with_value(where: str, rule: str, value: Any, remedy: str = "") -> InputError:
    if value is MISSING:
        return InputError(where, rule, remedy=remedy)
    return InputError(where, rule, value=value, remedy=remedy)


def _one_of(names: tuple[str, ...]) -> str:
    return names[0] if len(names) == 1 else f"one of {', '.join(names)}"


def _listed(what: str, names: tuple[str, ...]) -> str:
    return f"{what}: {', '.join(names)}." if 0 < len(names) <= NAMES_SHOWN else ""


def dotted(path: Path) -> str:
    """A path as it is written: ``analyses.1.kind``."""
    return ".".join(map(str, path))
