"""Reading an order: YAML in, a validated `Order` out, and the line of every value for whoever complains.

Plain YAML 1.2 values only: ``true``, ``false``, ``null`` and decimal numbers; everything else is text, so a
prompt that is ``no``, ``12:30`` or a date stays what was typed. Refused are keys that stand twice, anchors
(a file of a few lines could unfold to gigabytes), tags, and files that are no order by their size. Knows
nothing of what an order means.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from oblik.errors import InvalidInput, NotFound, OblikError
from oblik.generation.orders import MOST_PICTURES, ORDER, Order, jobs_of
from oblik.generation.plan import Plan, value_range

MOST_BYTES, DEEPEST = 1 << 20, 10
HINT = "correct the file (oblik order schema says what an order may hold)"
NAMED = 10
"""So many mistakes are named at once."""
Place = tuple[str | int, ...]
_BOUNDS = {"greater_than", "greater_than_equal", "less_than", "less_than_equal"}
_TAGS = {"series", "catalogue", "grid"}


_CORE = (
    ("null", r"null|~|", ["n", "~", ""]),
    ("bool", r"true|false", ["t", "f"]),
    ("int", r"[-+]?(0|[1-9][0-9]*)", list("-+0123456789")),
    ("float", r"[-+]?[0-9]+(\.[0-9]*)?([eE][-+]?[0-9]+)?", list("-+0123456789")),
)
"""Tag, pattern and first letters of what is no text."""


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    found: dict[str, list[tuple[str, re.Pattern[str]]]] = {}
    for tag, pattern, firsts in _CORE:
        for first in firsts:
            found.setdefault(first, []).append((f"tag:yaml.org,2002:{tag}", re.compile(f"^(?:{pattern})$")))
    return found


class _PlainLoader(yaml.SafeLoader):  # type: ignore[misc]
    """Resolves what YAML 1.2 calls its core schema, without octal and infinities."""

    yaml_implicit_resolvers = _resolvers()


@dataclass(frozen=True)
class OrderFile:
    """An order, the file it came from, and the way back from a value to its line."""

    order: Order
    path: Path
    sha256: str
    root: yaml.Node | None = None

    def at(self, place: Place) -> str:
        """``order.yaml:7: items.2.prompt``."""
        words = ".".join(str(part) for part in place) or "the order"
        return f"{self.path.name}:{line_of(self.root, place)}: {words}"

    def located(self, place: Place, error: OblikError) -> OblikError:
        """The same error with the line in front of it; a value is named once."""
        message = error.message.removeprefix(f"{place[-1]}: ") if place else error.message
        return type(error)(f"{self.at(place)}: {message}", hint=error.hint)


def read_order(path: Path) -> OrderFile:
    """Read and validate an order.

    Raises:
        NotFound: there is no such file.
        InvalidInput: it is not YAML, or not an order; every mistake with its line.
    """
    if not path.is_file():
        raise NotFound(f"there is no order at {path}", hint="oblik order --help")
    content = path.read_bytes()
    root = _composed(path, content)
    data = _plain(path, root)
    try:
        order = ORDER.validate_json(json.dumps(data), strict=True)
    except ValidationError as refused:
        raise InvalidInput(_words(path, root, refused), hint=HINT) from None
    file = OrderFile(order, path, sha256(content).hexdigest(), root)
    total = sum(len(job.seeds or ()) for job in jobs_of(order))
    if total > MOST_PICTURES:
        raise InvalidInput(
            f"{path.name}: {total} pictures are asked for, and an order makes at most {MOST_PICTURES}",
            hint="split it into several orders",
        )
    return file


def line_of(node: yaml.Node | None, place: Place) -> int:
    """The line, from 1, on which the value at ``place`` begins, or what is nearest above it."""
    line = node.start_mark.line + 1 if node is not None else 1
    for part in place:
        if isinstance(node, yaml.MappingNode):
            found = next((pair for pair in node.value if pair[0].value == str(part)), None)
            if found is None:
                break
            line, node = found[0].start_mark.line + 1, found[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
        else:
            break
    return line


def _composed(path: Path, content: bytes) -> yaml.Node:
    """The file's one document as nodes."""
    if len(content) > MOST_BYTES:
        raise _broken(path, 1, f"{len(content):,} bytes are too many for an order")
    try:
        text = content.decode("utf-8-sig")
        _refuse_tricks(path, text)
        root = yaml.compose(text, Loader=_PlainLoader)
    except UnicodeDecodeError as broken:
        raise _broken(path, 1, "it is not UTF-8 text") from broken
    except yaml.YAMLError as broken:
        mark = getattr(broken, "problem_mark", None) or getattr(broken, "context_mark", None)
        problem = getattr(broken, "problem", None) or "it is not YAML"
        raise _broken(path, mark.line + 1 if mark else 1, problem) from broken
    if not isinstance(root, yaml.MappingNode):
        raise _broken(path, 1, "an order is a mapping: name, persona, type ...")
    return root


def _refuse_tricks(path: Path, text: str) -> None:
    """What no order needs and what could make reading it endless."""
    depth = 0
    for event in yaml.parse(text, Loader=_PlainLoader):
        line = event.start_mark.line + 1
        if getattr(event, "anchor", None) or getattr(event, "tag", None):
            raise _broken(path, line, "anchors and tags are not used in orders")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise _broken(path, line, "it is nested too deeply")


def _plain(path: Path, node: yaml.Node) -> Any:
    """Nodes as JSON values. A key that stands twice is refused."""
    if isinstance(node, yaml.SequenceNode):
        return [_plain(path, part) for part in node.value]
    if isinstance(node, yaml.MappingNode):
        found: dict[str, Any] = {}
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            if not isinstance(key, yaml.ScalarNode):
                raise _broken(path, line, "a key must be a word")
            if name in found:
                raise _broken(path, line, f"{name!r} stands there twice")
            found[name] = _plain(path, value)
        return found
    kind, text = node.tag.rpartition(":")[2], node.value
    if kind == "null":
        return None
    if kind == "bool":
        return text == "true"
    return int(text) if kind == "int" else float(text) if kind == "float" else text


def _words(path: Path, root: yaml.Node, refused: ValidationError) -> str:
    lines = []
    for error in refused.errors():
        place = tuple(part for n, part in enumerate(error["loc"]) if not (n == 0 and part in _TAGS))
        if error["type"] == "union_tag_invalid":
            place = ("type",)
        words = ".".join(str(part) for part in place)
        message = _plainer(error["type"], error["msg"], error.get("input"), str(place[-1]) if place else "")
        lines.append((line_of(root, place), f"{words}: {message}" if words else message))
    lines.sort()
    shown = [f"{path.name}:{line}: {text}" for line, text in lines[:NAMED]]
    more = [f"and {len(lines) - NAMED} more"] if len(lines) > NAMED else []
    return "\n".join([*shown, *more])


def _plainer(kind: str, message: str, given: Any, name: str) -> str:
    """What pydantic says, for somebody who wrote YAML; of a plan's value its range, as everywhere else."""
    if kind in _BOUNDS and name in Plan.model_fields and (bounds := value_range(name)):
        return f"{bounds}, not {given!r}"
    known = {
        "missing": "is missing",
        "extra_forbidden": "is no word of an order",
        "union_tag_not_found": "type is missing: series, catalogue or grid",
        "union_tag_invalid": "is series, catalogue or grid",
    }
    if kind in known:
        return known[kind]
    message = message.removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    if kind == "string_type" and isinstance(given, (int, float)):
        return f"{message}: put it in quotes"
    return (
        message if isinstance(given, (dict, list)) or kind == "value_error" else f"{message}, not {given!r}"
    )


def _broken(path: Path, line: int, problem: str) -> InvalidInput:
    return InvalidInput(f"{path.name}:{line}: {problem}", hint=HINT)
