"""The tree drawn at the top of errors.py is the tree that exists."""

from __future__ import annotations

import inspect
import re

import pytest

from oblik import errors
from oblik.errors import OblikError

LINE = re.compile(r"^(?P<lead>[ |`]*(?:\|--|`--)? ?)(?P<name>[A-Z]\w+)(?: +exit (?P<exit>\d))?(?: |$)")


def drawn() -> dict[str, tuple[str | None, int]]:
    """Class name to (parent, exit status), read from the drawing."""
    found: dict[str, tuple[str | None, int]] = {}
    above: list[tuple[int, str, int]] = []
    for line in (errors.__doc__ or "").splitlines():
        if not line.startswith("    ") or (match := LINE.match(line)) is None:
            continue
        depth, name = len(match["lead"]), match["name"]
        while above and above[-1][0] >= depth:
            above.pop()
        parent, inherited = (above[-1][1], above[-1][2]) if above else (None, 1)
        exit_status = int(match["exit"] or inherited)
        found[name] = (parent, exit_status)
        above.append((depth, name, exit_status))
    return found


def existing() -> dict[str, tuple[str | None, int]]:
    classes = [
        kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, OblikError)
    ]
    parents = {kind: None if kind is OblikError else kind.__bases__[0].__name__ for kind in classes}
    return {kind.__name__: (parents[kind], kind.exit_status) for kind in classes}


def test_the_drawing_equals_the_classes() -> None:
    assert drawn() == existing()
    assert len(drawn()) > 10


def test_codes_are_unique_and_stable_names() -> None:
    classes = [getattr(errors, name) for name in existing()]
    codes = [kind.code for kind in classes]
    assert len(set(codes)) == len(codes)
    assert all(re.fullmatch(r"[a-z_]+", code) for code in codes)
    assert all("code" in vars(kind) for kind in classes)


@pytest.mark.parametrize("name", sorted(existing()))
def test_each_carries_a_message_and_a_hint(name: str) -> None:
    error = getattr(errors, name)("what went wrong", hint="what to type")
    assert (str(error), error.message, error.hint) == ("what went wrong", "what went wrong", "what to type")
