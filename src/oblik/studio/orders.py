"""Orders, the smoke test, and the presets that both are made with.

In: settings and plain values. Out: reports of orders, plans, presets, and where they lie.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from oblik.studio.house import engine_of, face_stack_of, home_of, labels_of, now, pack_of
from oblik.studio.operations import log, operation
from oblik.studio.people import list_personas, show_persona

if TYPE_CHECKING:
    from oblik.flows.batches import Batches
    from oblik.flows.orders import Bench
    from oblik.generation.order_report import OrderReport
    from oblik.generation.plan import Plan
    from oblik.generation.presets import Known, Range
    from oblik.packs.manifest import Pack
    from oblik.progress import Progress
    from oblik.settings import Settings

PRESETS = "presets"
NOBODYS_PICTURE = {"prompt": "any", "persona": "nobody"}


class Ordered(NamedTuple):
    """What became of an order, and where its pictures lie."""

    report: OrderReport
    folder: Path


class Checked(NamedTuple):
    """What an order would make, and where."""

    batches: list[Batches]
    folder: Path


class Shown(NamedTuple):
    """A preset and the plan it makes with the active pack, but for prompt and persona; the ranges that it
    gives values there."""

    known: Known
    plan: Plan
    ranges: dict[str, Range]


def run_order(settings: Settings, path: Path, *, progress: Progress | None = None) -> Ordered:
    """Make what is missing of the order in ``path``. The consent is asked for before anything is opened.

    Raises:
        InvalidInput: the file is no order; every mistake with its line.
        OblikError: as `oblik.flows.orders.run_order` raises it.
    """
    from oblik.flows.orders import run_order as run
    from oblik.flows.orders import target_of
    from oblik.generation.order_file import read_order
    from oblik.progress import SilentProgress

    file = read_order(path)
    slug, home = file.order.persona, home_of(settings)
    with operation(settings, "generate", slug) as details:
        persona, target = show_persona(settings, slug), target_of(file, home)
        log(settings, "order", slug, order=file.order.name, folder=str(target))
        report = run(file, persona, _bench(settings, slug), progress=progress or SilentProgress(), now=now())
        details.update(pictures=len(report.made_now), failures=len(report.failures), order=report.name)
    return Ordered(report, target)


def check_order(settings: Settings, path: Path) -> Checked:
    """Everything about an order that can be known without making a picture; the consent is asked for, too."""
    from oblik.flows.orders import planned, target_of
    from oblik.generation.order_file import read_order
    from oblik.personas.permission import permit

    file, home = read_order(path), home_of(settings)
    persona = show_persona(settings, file.order.persona)
    permit(persona, "generate", home=home, now=now())
    bench = _bench(settings, persona.slug, heat=False)
    return Checked(planned(file, persona, bench, now()), target_of(file, home))


def order_schema() -> dict[str, Any]:
    """The JSON Schema of an order's file."""
    from oblik.generation.orders import json_schema

    return json_schema()


def smoke(
    settings: Settings,
    slug: str | None = None,
    *,
    out: Path | None = None,
    quality: str | None = None,
    count: int | None = None,
    progress: Progress | None = None,
) -> Ordered:
    """Make some pictures of nobody, or of the persona ``slug``, and see how the machine bears it."""
    from oblik.flows import smoke as flow
    from oblik.progress import SilentProgress

    out = (out or flow.FOLDER).absolute()
    with operation(settings, "generate", slug) as details:
        persona = show_persona(settings, slug) if slug else None
        report = flow.smoke(
            _bench(settings, slug), persona, out=out, progress=progress or SilentProgress(), now=now(),
            quality=quality or flow.QUALITY, count=count or flow.PICTURES,
        )  # fmt: skip
        details.update(pictures=len(report.made_now), failures=len(report.failures))
    return Ordered(report, out)


def list_presets(settings: Settings) -> list[Shown]:
    """Every preset, with the plan that it makes on the active pack."""
    from oblik.generation import presets

    pack = pack_of(settings).manifest
    return [_shown(known, pack) for known in presets.list_presets(_own(settings))]


def show_preset(settings: Settings, name: str) -> Shown:
    """One preset by its name or file. Raises NotFound."""
    from oblik.generation.presets import SHIPPED, Known, preset_file, read_preset

    path = preset_file(name, _own(settings))
    known = Known(path.stem, read_preset(path), path, path.parent == SHIPPED)
    return _shown(known, pack_of(settings).manifest)


def save_preset(
    settings: Settings,
    name: str,
    *,
    start: str | None = None,
    record: Path | None = None,
    values: Mapping[str, Any] | None = None,
    about: str | None = None,
    replace: bool = False,
) -> Path:
    """Keep a preset of one's own: another one (``start``), or a ``record``'s plan, with ``values`` changed.

    Raises InvalidInput, NotFound, and Conflict when there is one of that name.
    """
    from oblik.generation.presets import Preset, find_preset
    from oblik.generation.presets import save_preset as save
    from oblik.generation.record import read_record

    if record is not None:
        liked = read_record(record).asked.model_dump(mode="json", exclude={"controls"})
        preset = Preset(about=f"From {record.name}.", plan=liked)
    else:
        preset = find_preset(start or "standard", _own(settings))
    changed: dict[str, Any] = {"plan": {**preset.plan, **(values or {})}}
    if about:
        changed["about"] = about
    return save(name, _own(settings), preset.model_copy(update=changed), replace=replace)


def export_preset(settings: Settings, name: str, target: Path) -> Path:
    """Copy a preset's file to ``target``, a file or a folder. Raises Conflict when it is there already."""
    from oblik.errors import Conflict
    from oblik.generation.presets import preset_file
    from oblik.paths import atomic_write

    source = preset_file(name, _own(settings))
    target = target / source.name if target.is_dir() else target
    if target.exists():
        raise Conflict(f"{target} is there already", hint=f"oblik preset export {name} FOLDER")
    atomic_write(target, source.read_bytes())
    return target


def _shown(known: Known, pack: Pack) -> Shown:
    from oblik.generation.presets import plan_from

    seeds = () if "seeds" in known.preset.plan else (1,)
    plan = plan_from(known.preset, pack, {**NOBODYS_PICTURE, "seeds": seeds or None})
    return Shown(known, plan, known.preset.ranges_for(pack.family))


def _own(settings: Settings) -> Path:
    return home_of(settings).root / PRESETS


def _bench(settings: Settings, slug: str | None, *, heat: bool = True) -> Bench:
    """What pictures are made with; the engine is opened when the first is made."""
    from functools import cache

    from oblik.flows.orders import Bench
    from oblik.generation.heat import HeatGuard, open_thermometer

    pack = pack_of(settings)
    guard = HeatGuard(open_thermometer(device=settings.device) if heat else None)
    return Bench(
        home=home_of(settings),
        pack=pack,
        engine=lambda: engine_of(settings, pack, guard=guard),
        guard=guard,
        stack=cache(lambda: face_stack_of(pack, settings)),
        others=[other.trigger for other in list_personas(settings) if other.slug != slug],
        labels=labels_of(settings),
    )
