"""Presets: partial plans in TOML, laid over a pack's defaults.

In: a preset's name or file, a pack, what the user asked for. Out: a `Plan`. Knows nothing of
personas and prompts: those are part of what was asked.

From weak to strong: the plan's own defaults; the preset's table for the pack's family; the pack's
defaults; the preset's plain values; what was asked. A pack knows what it was trained for, so it
overrules what merely suits its family; a value that somebody wrote into a preset overrules both.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import oblik
from oblik.errors import InvalidInput, NotFound
from oblik.generation.ladder import Heights
from oblik.generation.plan import Plan
from oblik.packs.manifest import Pack

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHIPPED = Path(oblik.__file__).parent / "presets"


class Preset(BaseModel):
    """One TOML file: ``about``, ``[plan]`` and ``[families.<family>]``, both partial plans; in ``reliable``
    also ``[ladder.<family>]``, what the rungs raise a plan to."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str
    plan: dict[str, Any] = Field(default_factory=dict)
    families: dict[str, dict[str, Any]] = Field(default_factory=dict)
    ladder: dict[str, Heights] = Field(default_factory=dict)


def read_preset(path: Path) -> Preset:
    """Read one file.

    Raises:
        NotFound: there is no such file.
        InvalidInput: it is not TOML, or holds a key that no plan has.
    """
    if not path.is_file():
        raise NotFound(f"there is no preset at {path}", hint=f"ls {path.parent}")
    try:
        preset = Preset.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except (tomllib.TOMLDecodeError, ValidationError) as broken:
        raise InvalidInput(
            f"{path} is not a preset: {broken}", hint=f"compare it with {SHIPPED / 'fast.toml'}"
        ) from broken
    for values in (preset.plan, *preset.families.values()):
        if unknown := sorted(values.keys() - Plan.model_fields.keys()):
            raise InvalidInput(
                f"{path}: a plan has no {unknown[0]!r}", hint=f"known: {', '.join(Plan.model_fields)}"
            )
    return preset


def find_preset(name: str, *folders: Path) -> Preset:
    """The preset called ``name``, or the file that ``name`` is the path of.

    ``folders`` are looked through before the presets that ship with Oblik.
    """
    if name.endswith(".toml"):
        return read_preset(Path(name))
    known = {
        path.stem: path for folder in (SHIPPED, *reversed(folders)) for path in sorted(folder.glob("*.toml"))
    }
    if name not in known:
        raise NotFound(f"no preset is called {name!r}", hint=f"known: {', '.join(sorted(known)) or 'none'}")
    return read_preset(known[name])


def plan_from(preset: Preset, pack: Pack, asked: Mapping[str, Any]) -> Plan:
    """The plan that results; ``asked`` values that are None do not count as asked.

    Raises InvalidInput, which names the value and its range.
    """
    layers = (preset.families.get(pack.family, {}), pack.defaults, preset.plan, asked)
    merged: dict[str, Any] = {"pack": pack.name}
    for layer in layers:
        merged.update({key: value for key, value in layer.items() if value is not None})
    try:
        return Plan.model_validate(merged)
    except ValidationError as refused:
        first = refused.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(
            f"{where}: {first['msg'].lower()}, not {first['input']!r}", hint="oblik generate --help"
        ) from None
