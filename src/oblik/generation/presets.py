"""Presets: partial plans in TOML, laid over a pack's defaults.

In: a preset's name or file, a pack, what the user asked for. Out: a `Plan`. Knows nothing of
personas and prompts: those are part of what was asked.

From weak to strong: the plan's own defaults; the preset's table for the pack's family; the pack's
defaults; the preset's quality level for the family; the preset's plain values; what was asked. A pack
knows what it was trained for, so it overrules what merely suits its family; a value that somebody
wrote into a preset overrules both, and so does a quality level, which is asked for by name.
A preset may say how far what is asked may go (``[ranges]``): what it and the pack say themselves always may.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

import oblik
from oblik.errors import Conflict, InvalidInput, NotFound
from oblik.generation.ladder import Heights
from oblik.generation.plan import LARGEST_BATCH, Plan, value_range
from oblik.generation.sizes import ASPECT, SHORT_SIDE, snapped, with_size
from oblik.packs.manifest import Pack
from oblik.paths import atomic_write, expanded

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

SHIPPED = Path(oblik.__file__).parent / "presets"
NAME = r"[a-z0-9][a-z0-9_-]{0,39}"
OF_ONE_PICTURE = ("pack", "persona", "prompt", "lora", "references", "edit")
"""What belongs to a single picture and never to a preset that is saved."""


KNOWN = {*Plan.model_fields, SHORT_SIDE, ASPECT}
RANGED = ("lora_scale", "guidance", "steps")
"""What a preset may give a range, within that of a plan."""
Range = tuple[int | float, int | float]


class Pace(BaseModel):
    """How a machine is spared: seconds of rest after each batch, and the most pictures of a batch."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pause_s: float = Field(0.0, ge=0, le=600)
    largest_batch: int = Field(LARGEST_BATCH, ge=1, le=LARGEST_BATCH)


class Level(BaseModel):
    """What a quality level means for one family: shorter side, steps, guidance.

    ``side_px`` is meant for a pack whose native size is ``made_for_px``. A bigger pack gets a side as much
    bigger; a smaller pack was trained for one size, and keeps it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    made_for_px: int = Field(ge=64)
    side_px: int = Field(ge=64)
    steps: int
    guidance: float

    def values(self, pack: Pack) -> dict[str, Any]:
        """Values of a plan; the pack's own shape is kept."""
        native = pack.native_size_px
        side_px = native if native < self.made_for_px else self.side_px * native / self.made_for_px
        width, height = (pack.defaults.get(name, native) for name in ("width_px", "height_px"))
        scale, multiple = side_px / min(width, height), max(16, pack.side_multiple_px)
        sides = (snapped(side * scale, multiple) for side in (width, height))
        return dict(zip(("width_px", "height_px"), sides, strict=True)) | self.model_dump(
            include={"steps", "guidance"}
        )


class Preset(BaseModel):
    """One TOML file: ``about``, ``[pace]``, and partial plans: ``[plan]``, ``[families.<family>]``;
    ``[levels.<family>]`` makes it a quality level; ``[ranges]`` and ``[ranges.<family>]`` bound what is asked
    for. In ``reliable``, ``[ladder.<family>]`` is what the rungs raise a plan to. Files of ``controls`` are
    meant from the preset's file on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str
    pace: Pace = Field(default_factory=Pace)
    plan: dict[str, Any] = Field(default_factory=dict)
    families: dict[str, dict[str, Any]] = Field(default_factory=dict)
    levels: dict[str, Level] = Field(default_factory=dict)
    ranges: dict[str, Range | dict[str, Range]] = Field(default_factory=dict)
    ladder: dict[str, Heights] = Field(default_factory=dict)

    @field_validator("ranges")
    @classmethod
    def _are_ranges(cls, ranges: dict[str, Range | dict[str, Range]]) -> dict[str, Range | dict[str, Range]]:
        pairs: list[tuple[str, Range]] = []
        for key, found in ranges.items():
            pairs += found.items() if isinstance(found, dict) else [(key, found)]
        for name, (low, high) in pairs:
            if name not in RANGED:
                raise ValueError(f"{name!r} has no range: {', '.join(RANGED)} may have one")
            if low > high:
                raise ValueError(f"the range of {name} ends below where it begins")
        return ranges

    def ranges_for(self, family: str) -> dict[str, Range]:
        """How far values may be asked for, those of the family before those of all."""
        own = self.ranges.get(family, {})
        common = {name: bounds for name, bounds in self.ranges.items() if not isinstance(bounds, dict)}
        return common | own if isinstance(own, dict) else common


class Known(NamedTuple):
    """A preset that can be named, its file, and whether it ships with Oblik."""

    name: str
    preset: Preset
    path: Path
    shipped: bool


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
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, ValidationError) as broken:
        raise InvalidInput(
            f"{path} is not a preset: {broken}", hint=f"compare it with {SHIPPED / 'fast.toml'}"
        ) from broken
    for values in (preset.plan, *preset.families.values()):
        if unknown := sorted(values.keys() - KNOWN):
            raise InvalidInput(
                f"{path}: a plan has no {unknown[0]!r}", hint=f"known: {', '.join(Plan.model_fields)}"
            )
        controls = values.get("controls")
        for control in controls if isinstance(controls, list) else ():
            if isinstance(control, dict) and control.get("image"):
                control["image"] = str(path.absolute().parent / expanded(str(control["image"])))
    return preset


def find_preset(name: str, *folders: Path) -> Preset:
    """The preset called ``name``, or the file that ``name`` is the path of.

    ``folders`` are looked through before the presets that ship with Oblik.
    """
    return read_preset(preset_file(name, *folders))


def preset_file(name: str, *folders: Path) -> Path:
    """Where the preset called ``name`` lies. Raises NotFound, naming those that are known."""
    if name.endswith(".toml"):
        return Path(name)
    known = dict(_files(folders))
    if name not in known:
        raise NotFound(f"no preset is called {name!r}", hint=f"known: {', '.join(sorted(known)) or 'none'}")
    return known[name]


def list_presets(*folders: Path) -> list[Known]:
    """Every preset by name, a user's own in place of a shipped one of the same name."""
    return [
        Known(name, read_preset(path), path, shipped=path.parent == SHIPPED)
        for name, path in sorted(dict(_files(folders)).items())
    ]


def plan_from(preset: Preset, pack: Pack, asked: Mapping[str, Any]) -> Plan:
    """The plan that results; ``asked`` values that are None do not count as asked.

    Sides are rounded to the pack's multiple; ``short_side_px`` and ``aspect`` stand for both of them.

    Raises InvalidInput, which names the value and its range: the plan's, or the preset's.
    """
    wishes = {key: value for key, value in asked.items() if value is not None}
    said = layered(preset, pack)
    merged = with_size(said, wishes, max(16, pack.side_multiple_px))
    try:
        plan = Plan.model_validate({"pack": pack.name} | merged)
    except ValidationError as refused:
        first = refused.errors()[0]
        where, known = ".".join(str(part) for part in first["loc"]), value_range(str(first["loc"][0]))
        wrong = f"one of {known}" if "literal" in first["type"] else known
        raise InvalidInput(
            f"{where}: {wrong or first['msg'].lower()}, not {first['input']!r}", hint="oblik generate --help"
        ) from None
    for name, bounds in preset.ranges_for(pack.family).items():
        if name in wishes and getattr(plan, name) != said.get(name):
            _refuse_beyond(name, getattr(plan, name), bounds)
    return plan.model_copy(update={"batch": min(plan.batch, preset.pace.largest_batch)})


def layered(preset: Preset, pack: Pack) -> dict[str, Any]:
    """What the preset and the pack say together, before anybody asked for anything."""
    level = preset.levels.get(pack.family)
    layers = (
        preset.families.get(pack.family, {}),
        pack.defaults,
        level.values(pack) if level else {},
        preset.plan,
    )
    merged: dict[str, Any] = {}
    for layer in layers:
        merged.update({key: value for key, value in layer.items() if value is not None})
    return merged


def save_preset(name: str, folder: Path, preset: Preset, *, replace: bool = False) -> Path:
    """Write ``folder/name.toml``; what belongs to one picture is left out.

    Raises:
        InvalidInput: the name cannot be a file's, or a value is none of a plan or out of its range.
        Conflict: there is one of that name, and ``replace`` was not asked for.
    """
    import tomli_w

    if not re.fullmatch(NAME, name):
        raise InvalidInput(
            f"{name!r} cannot name a preset: small letters, digits, - and _, at most 40",
            hint="oblik preset save my-portraits --from standard",
        )
    path = folder / f"{name}.toml"
    if path.exists() and not replace:
        raise Conflict(f"there is a preset called {name!r}", hint=f"oblik preset save {name} --replace")
    kept = {key: value for key, value in preset.plan.items() if key not in OF_ONE_PICTURE}
    _refuse_values(kept)
    content = preset.model_copy(update={"plan": kept}).model_dump(mode="json", exclude_defaults=True)
    atomic_write(path, tomli_w.dumps(content))
    return path


def _refuse_beyond(name: str, value: float, bounds: Range) -> None:
    """Raise InvalidInput for a value outside of a preset's range, with the ways out."""
    low, high = bounds
    if not low <= value <= high:
        raise InvalidInput(
            f"{name}: {low:g} to {high:g}, not {value:g}",
            hint=f"--preset experimental (quality: experimental in an order) takes {value_range(name)}, and "
            f"a preset of your own its own values: oblik preset save mine --set {name}={value:g}",
        )


def _refuse_values(values: Mapping[str, Any]) -> None:
    """Raise InvalidInput for what no plan could hold."""
    if unknown := sorted(values.keys() - KNOWN):
        raise InvalidInput(
            f"a plan has no {unknown[0]!r}",
            hint=f"known: {', '.join(name for name in Plan.model_fields if name not in OF_ONE_PICTURE)}",
        )
    any_pack = Pack(name="any", version="0", family="any", native_size_px=64, side_multiple_px=1)
    plan_from(Preset(about="", plan={"seeds": (1,), **values}), any_pack, {"persona": "any", "prompt": "any"})


def _files(folders: tuple[Path, ...]) -> Iterator[tuple[str, Path]]:
    """Name and file of every preset, weakest folder first."""
    for folder in (SHIPPED, *reversed(folders)):
        yield from ((path.stem, path) for path in sorted(folder.glob("*.toml")))
