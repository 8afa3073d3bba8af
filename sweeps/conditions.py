"""When the paths of a space are searched: conditions on the values of other paths, ANDed and nested."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sweeps.distributions import Choice, Distribution, alike, encode
from sweeps.nearest import nearest_hint
from wmcore.errors import InputError

_OTHER, _INACTIVE = -1, -2


class Conditions:
    """The ``when`` entries of a space, checked and resolved.

    Attributes:
        of: path -> each path that it depends on -> the values of that one at which it is active.
        order: every path after those that it depends on; otherwise as in the file.
        needs: path -> each path that must be active so that it is, directly or not -> the values that this one may
            have then.
    """

    def __init__(self, distributions: Mapping[str, Distribution]) -> None:
        """Raises InputError: a condition on an unknown or a continuous path or on an impossible value, one without
        effect, a cycle, or conditions that never hold together. Its ``where`` starts with the path."""
        self._distributions = distributions
        self.of = {path: _resolved(path, distributions) for path in distributions}
        self.order = self._sorted()
        self.needs: dict[str, dict[str, list[Any]]] = {}
        for path in self.order:
            self.needs[path] = self._needed(path, self.of[path])
            self._check_effect(path)

    def active(self, point: Mapping[str, Any], path: str) -> bool:
        """Whether a path is searched, given the values of the active paths that it depends on."""
        return all(parent in point and _among(point[parent], allowed) for parent, allowed in self.of[path].items())

    def points(self, values: Mapping[str, Sequence[Any]]) -> Iterator[dict[str, Any]]:
        """Every point at which each active path has one of the values that are listed for it; the last path of
        ``order`` changes fastest. The paths of a point are in the order of the file."""
        for point in self._after({}, 0, values):
            yield {path: point[path] for path in self._distributions if path in point}

    def _after(
        self, point: dict[str, Any], place: int, values: Mapping[str, Sequence[Any]]
    ) -> Iterator[dict[str, Any]]:
        while place < len(self.order) and not self.active(point, self.order[place]):
            place += 1
        if place == len(self.order):
            yield point
            return
        path = self.order[place]
        for value in values[path]:
            yield from self._after({**point, path: value}, place + 1, values)

    def count(self) -> int | None:
        """Number of points; None if a distribution is continuous.

        Takes one path after the other. Of those taken, only the values that a later condition names are kept apart,
        so that paths without conditions are multiplied and not enumerated.
        """
        named = {path: self.named(path) for path in self.order}
        todo, known = list(self.order), {frozenset[tuple[str, int]](): 1}
        while todo:
            ready = [path for path in todo if not any(parent in todo for parent in self.of[path])]
            path = min(ready, key=lambda path: len(self._asked_for([other for other in todo if other != path])))
            size = self._distributions[path].size()
            if size is None:
                return None
            todo.remove(path)
            kept, classes = self._asked_for(todo), [(place, 1) for place in range(len(named[path]))]
            classes.append((_OTHER, size - len(named[path])))
            counts: dict[frozenset[tuple[str, int]], int] = {}
            for state, count in known.items():
                point = {parent: named[parent][place] for parent, place in state if place >= 0}
                for place, weight in classes if self.active(point, path) else [(_INACTIVE, 1)]:
                    after = frozenset(entry for entry in (*state, (path, place)) if entry[0] in kept)
                    counts[after] = counts.get(after, 0) + count * weight
            known = counts
        return sum(known.values())

    def named(self, path: str) -> list[Any]:
        """The values of a path that some condition names."""
        found: list[Any] = []
        for conditions in self.of.values():
            found.extend(value for value in conditions.get(path, []) if not _among(value, found))
        return found

    def _asked_for(self, paths: Sequence[str]) -> set[str]:
        """What these paths depend on."""
        return {parent for path in paths for parent in self.of[path]}

    def _sorted(self) -> tuple[str, ...]:
        order: list[str] = []
        while len(order) < len(self.of):
            ready = (p for p in self.of if p not in order and all(parent in order for parent in self.of[p]))
            path = next(ready, None)
            if path is None:
                raise self._cycle([p for p in self.of if p not in order])
            order.append(path)
        return tuple(order)

    def _cycle(self, paths: list[str]) -> InputError:
        """Each of these paths depends on another one of them."""
        trail = [paths[0]]
        while len(set(trail)) == len(trail):
            trail.append(next(parent for parent in self.of[trail[-1]] if parent in paths))
        trail = trail[trail.index(trail[-1]) :]
        rule = f"closes a circle of conditions: {', which depends on '.join(trail)}"
        if len(trail) == 2:
            rule = "makes the path depend on itself"
        return InputError(f"{trail[0]}.when.{trail[1]}", rule, remedy="Remove one of the conditions.")

    def _check_effect(self, path: str) -> None:
        """Every condition of a path must rule out something that its others do not."""
        for parent, allowed in self.of[path].items():
            known = self._needed(path, {other: values for other, values in self.of[path].items() if other != parent})
            if _within(known.get(parent), allowed):
                why = f"the other conditions hold only where {parent} is {_listed(known[parent])}"
            elif len(allowed) == self._distributions[parent].size() and all(
                _within(known.get(other), values) for other, values in self.of[parent].items()
            ):
                why = f"it names every value of {parent}"
            else:
                continue
            given = (self._distributions[path].when or {})[parent]
            raise InputError(
                f"{path}.when.{parent}", f"has no effect: {why}", value=given, remedy="Remove the condition."
            )

    def _needed(self, path: str, conditions: Mapping[str, list[Any]]) -> dict[str, list[Any]]:
        """What must hold so that conditions of a path do: theirs, and those of the paths that they are on."""
        found: dict[str, list[Any]] = {}
        for parent, allowed in conditions.items():
            for other, values in (*self.needs[parent].items(), (parent, allowed)):
                both = [value for value in values if _among(value, found.get(other, values))]
                if not both:
                    raise InputError(
                        f"{path}.when",
                        f"never holds: together with the conditions of the paths that it names, {other} would have to "
                        f"have different values at once ({_listed(found[other])}, and {_listed(values)})",
                        remedy="Remove one of the conditions.",
                    )
                found[other] = both
        return found


def _resolved(path: str, distributions: Mapping[str, Distribution]) -> dict[str, list[Any]]:
    """The conditions of a path: the path that each is on -> the values at which it holds."""
    found: dict[str, list[Any]] = {}
    for parent, given in (distributions[path].when or {}).items():
        where = f"{path}.when.{parent}"
        if parent not in distributions:
            remedy = f"{nearest_hint(parent, list(distributions))} Searched are {', '.join(distributions)}."
            raise InputError(where, "is not a path of this space", remedy=remedy.strip())
        distribution = distributions[parent]
        if distribution.size() is None:
            raise InputError(
                where,
                f"is a condition on a continuous path ({distribution.key}), which has no values to name",
                value=given,
                remedy=f"Search {parent} by choice, int, logint or quantised.",
            )
        # A choice may itself be a list.
        values = given if isinstance(given, list) and not distribution.holds(given) else [given]
        for place, value in enumerate(values):
            inside = where if values is not given else f"{where}.{place}"
            if not distribution.holds(value):
                raise _impossible(inside, value, distribution)
            if _among(value, values[:place]):
                raise InputError(inside, "stands there twice", value=value, remedy="Remove one of the two.")
        values = [distribution.decode(encode(value)) for value in values]
        if not values:
            raise InputError(where, "must be a value or a list of at least one", value=given)
        found[parent] = values
    return found


def _impossible(where: str, value: Any, distribution: Distribution) -> InputError:
    ends = distribution.ends()
    if isinstance(distribution, Choice):
        hint = nearest_hint(str(value), [str(choice) for choice in ends])
        return InputError(where, f"must be one of the choices {_listed(ends)}", value=value, remedy=hint)
    rule = f"must be a value of {distribution.key}: {distribution.written()}"
    return InputError(where, rule, value=value, remedy=f"For example {ends[0]} or {ends[-1]}.")


def _within(values: Sequence[Any] | None, allowed: Sequence[Any]) -> bool:
    """Whether values are known, and all of them allowed."""
    return values is not None and all(_among(value, allowed) for value in values)


def _among(value: Any, values: Sequence[Any]) -> bool:
    return any(alike(value, other) for other in values)


def _listed(values: Sequence[Any]) -> str:
    return ", ".join(repr(value) for value in values)
