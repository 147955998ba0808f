"""Names to objects, loaded when asked for.

In: a plain table ``name -> "module:attribute"`` and the extra that installs it. Out: the attribute.
Entry points (group ``oblik.<kind>``) are read only for a name that the table lacks.
Knows nothing of what a backend does.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from oblik.errors import BackendUnavailable, NotFound


def load(kind: str, name: str, table: Mapping[str, str], extras: Mapping[str, str] | None = None) -> Any:
    """Return the object that ``name`` stands for.

    Raises:
        NotFound: neither the table nor an installed entry point has the name.
        BackendUnavailable: its module needs a package that is not installed.
    """
    target = table.get(name) or _entry_point(kind, name)
    if target is None:
        raise NotFound(f"no {kind} is called {name!r}", hint=f"known: {', '.join(sorted(table))}")
    module, _, attribute = target.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except ModuleNotFoundError as missing:
        extra = (extras or {}).get(name, "")
        install = f"pip install 'oblik[{extra}]'" if extra else f"pip install {missing.name}"
        raise BackendUnavailable(
            f"{kind} {name!r} needs the package {missing.name}", hint=install
        ) from missing


def _entry_point(kind: str, name: str) -> str | None:
    for point in entry_points(group=f"oblik.{kind}"):
        if point.name == name:
            return point.value
    return None
