"""The exception types that a user can meet.

Each carries one readable paragraph: where (a field path, a file, a line), what value, which rule, and the remedy.
"""

from __future__ import annotations


class WmsweepError(Exception):
    """Base of every error that is shown to a user as a paragraph rather than as a traceback."""

    exit_code = 1


class InputError(WmsweepError, ValueError):
    """The user's input breaks a rule: nothing was started and nothing was changed.

    Args:
        where: the field path, file or option at fault, e.g. ``trial.model.cell``.
        rule: what is expected there, as a sentence part ("must be one of vanilla, gru, lstm").
        value: the offending value; leave it out when there is none (a missing field).
        remedy: what to do about it, as a full sentence.
        source: file and line, e.g. ``sweep.yaml:12``.
    """

    exit_code = 2
    _NO_VALUE = object()

    def __init__(self, where: str, rule: str, *, value: object = _NO_VALUE, remedy: str = "", source: str = "") -> None:
        self.where, self.rule, self.remedy, self.source = where, rule, remedy, source
        self.has_value = value is not self._NO_VALUE
        self.value = value if self.has_value else None
        super().__init__(str(self))

    def __str__(self) -> str:
        shown = f" is {_short(self.value)}, but it" if self.has_value else ""
        head = f"{self.source}: " if self.source else ""
        tail = f" {self.remedy}" if self.remedy else ""
        return f"{head}{self.where}{shown} {self.rule}.{tail}"

    def __reduce__(self):
        return (_rebuild, (type(self), self.__dict__.copy()))


class GateError(WmsweepError):
    """A scientific precondition failed (for example: the frozen features do not carry the labels)."""


class MissingPartError(WmsweepError):
    """Something that this machine lacks (a system library, an extra package, weights), with its remedy."""

    exit_code = 1


def _short(value: object, limit: int = 80) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def _rebuild(cls: type[InputError], state: dict[str, object]) -> InputError:
    error = cls.__new__(cls)
    error.__dict__.update(state)
    ValueError.__init__(error, str(error))
    return error
