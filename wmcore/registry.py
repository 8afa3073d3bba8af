"""Collects the kinds of a package into one discriminated union.

A kind is a concrete ``Spec`` with a ``kind: Literal["name"]`` field, alone in a module of its package. Adding one is
adding a file: nothing is registered by hand.
"""

from __future__ import annotations

import importlib
import pkgutil
from functools import cache, reduce
from operator import or_
from types import ModuleType
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import Field

from wmcore.spec import Spec


@cache
def kinds(package: ModuleType, base: type[Spec]) -> dict[str, type[Spec]]:
    """Kind name -> spec class, sorted by name, of every kind defined in the package's modules.

    Raises:
        TypeError: two modules define the same kind.
    """
    found: dict[str, type[Spec]] = {}
    for module_info in pkgutil.iter_modules(package.__path__, package.__name__ + "."):
        module = importlib.import_module(module_info.name)
        for value in vars(module).values():
            if not (isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__):
                continue
            name = kind_of(value)
            if name is None:
                continue
            if name in found:
                raise TypeError(f"kind {name!r} is defined by both {found[name].__module__} and {value.__module__}")
            found[name] = value
    return dict(sorted(found.items()))


def kind_of(spec: type[Spec]) -> str | None:
    """The literal of the ``kind`` field, or None for a base class that has none."""
    field = spec.model_fields.get("kind")
    if field is None or get_origin(field.annotation) is not Literal:
        return None
    return get_args(field.annotation)[0]


def discriminated_union(package: ModuleType, base: type[Spec]) -> Any:
    """An annotated union of all kinds of ``package``, discriminated by ``kind``."""
    return Annotated[reduce(or_, kinds(package, base).values()), Field(discriminator="kind")]
