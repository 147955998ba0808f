"""Training, portraits and their likeness, and the demo that runs all of it.

In: settings and plain values. Out: artifacts, records, reports and where they lie.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from oblik.studio.acceptance import usual_mode
from oblik.studio.house import engine_of, face_stack_of, home_of, now, pack_of, trainer_of
from oblik.studio.operations import operation
from oblik.studio.people import list_personas, show_persona

if TYPE_CHECKING:
    from oblik.flows.demo import DemoResult
    from oblik.flows.generate import Replay
    from oblik.generation.record import Record
    from oblik.likeness.findings import LikenessReport
    from oblik.packs.memory_plan import MemoryPlan
    from oblik.progress import Progress
    from oblik.settings import Settings
    from oblik.training.artifact import LoraArtifact


class Trained(NamedTuple):
    """A finished LoRA and where it lies."""

    artifact: LoraArtifact
    folder: Path


class Generated(NamedTuple):
    """A batch of pictures and where it lies."""

    record: Record
    folder: Path


class Measured(NamedTuple):
    """What was found about a folder of pictures."""

    report: LikenessReport
    folder: Path


def train(
    settings: Settings,
    slug: str | None = None,
    *,
    dataset: str | None = None,
    asked: Mapping[str, Any] | None = None,
    resume: bool = False,
    trainer: str = "native",
    progress: Progress | None = None,
    say: Callable[[str], object] | None = None,
) -> Trained:
    """Train the next LoRA of the persona on its newest dataset, or on the one named.

    ``asked`` overrides the pack's training settings; ``resume`` goes on with a run that was stopped;
    ``trainer`` is "native" or "kohya", which makes no probes. ``say`` is told why nobody judges the others'.
    """
    from oblik.flows.judge import judge_of
    from oblik.flows.train import TrainOrder
    from oblik.flows.train import train as run
    from oblik.progress import SilentProgress
    from oblik.training.artifact import read_artifact

    persona, home = show_persona(settings, slug), home_of(settings)
    with operation(settings, "train", persona.slug) as details:
        pack = pack_of(settings)
        judges = judge_of(persona, home=home, pack=pack, stack=lambda: face_stack_of(pack, settings), say=say)
        folder = run(
            persona, TrainOrder(dataset, asked or {}, resume), home=home, pack=pack,
            trainer=trainer_of(settings, trainer), progress=progress or SilentProgress(), now=now(),
            judges=None if trainer == "kohya" else judges,
        )  # fmt: skip
        made = read_artifact(folder)
        details.update(lora=made.version, dataset=made.dataset, weights=made.weights_sha256)
    return Trained(made, folder)


def generate(
    settings: Settings,
    text: str,
    slug: str | None = None,
    *,
    asked: Mapping[str, Any] | None = None,
    lora: bool = True,
    token: bool = True,
    style: bool = False,
    preset: str | None = None,
    mode: str | None = None,
    auto: bool = False,
    max_rung: int | None = None,
    progress: Progress | None = None,
    say: Callable[[str], object] | None = None,
) -> Generated:
    """Make portraits of the persona in the words of ``text``; ``asked`` are values of a plan.

    ``mode`` is "fast" or "reliable" (default: the preset's, without one what the LoRA's test calls for;
    strangers are always fast). With ``auto``
    they are measured, and rungs up to ``max_rung`` climbed while they fall short; ``say`` is told each score.
    A control names any file; its image is made here and kept in the persona's folder.
    """
    from oblik.flows.control import controlled
    from oblik.flows.generate import Order, open_artifact, plan_order
    from oblik.flows.reliable import Climbing, generate_in_mode, silent
    from oblik.generation.ladder import Heights
    from oblik.generation.presets import find_preset
    from oblik.progress import SilentProgress

    persona, home = show_persona(settings, slug), home_of(settings)
    with operation(settings, "generate", persona.slug) as details:
        why = ""
        if mode is None and preset is None and lora and token:
            mode, why = usual_mode(settings, slug, (asked or {}).get("lora"))
        pack = pack_of(settings)
        others = [other.trigger for other in list_personas(settings) if other.slug != persona.slug]
        wanted = {**(asked or {}), "mode": mode if token else "fast"}
        order = Order(text, wanted, lora=lora, token=token, style=style)
        presets = home.root / "presets"
        chosen = find_preset(preset or mode or "fast", presets)
        plan = plan_order(order, persona, chosen, pack, home, others)
        plan = controlled(
            persona, plan, home=home, pack=pack, stack=lambda: face_stack_of(pack, settings), now=now()
        )
        heights = find_preset("reliable", presets).ladder.get(pack.manifest.family, Heights())
        engine = engine_of(settings, pack, chosen.pace.pause_s)
        open_artifact(plan, home, pack)  # what is wrong with the plan is said before its mode
        say = say or silent
        if why:
            say(f"mode {mode}, because {why}; --mode fast goes without")
        climbing = Climbing(auto and token, max_rung, heights, say, why)
        record, folder = generate_in_mode(
            persona, plan, climbing, home=home, pack=pack, engine=engine,
            stack=lambda: face_stack_of(pack, settings), progress=progress or SilentProgress(), now=now(),
        )  # fmt: skip
        details.update(pictures=len(record.pictures), batch=folder.name)
    return Generated(record, folder)


def plan_memory(settings: Settings, name: str, asked: Mapping[str, Any]) -> MemoryPlan:
    """How the pack ``name`` is held in a card's memory; ``asked`` are values of `Asked`.

    A pack that was not pulled is planned from its family's published configurations.
    """
    from oblik.errors import NotFound
    from oblik.flows.plan import plan
    from oblik.packs.store import open_pack

    try:
        pack = open_pack(name, home_of(settings))
    except NotFound:
        pack = None
    return plan(name, pack, asked)


def measure_likeness(
    settings: Settings,
    folder: Path | None = None,
    slug: str | None = None,
    *,
    without_token: Path | None = None,
    progress: Progress | None = None,
) -> Measured:
    """Calibrate for the persona and score a folder of pictures; without a folder the newest batch."""
    from oblik.flows.calibrate import dataset_of, measure, newest_pictures, open_ruler
    from oblik.progress import SilentProgress

    persona, home = show_persona(settings, slug), home_of(settings)
    with operation(settings, "likeness", persona.slug) as details:
        pack = pack_of(settings)
        folder = folder or newest_pictures(persona, home)
        ruler = open_ruler(
            persona, home=home, pack=pack, stack=face_stack_of(pack, settings),
            dataset=dataset_of(persona, folder, home),
        )  # fmt: skip
        report = measure(
            persona, folder, ruler, home=home, progress=progress or SilentProgress(), now=now(),
            without_token=without_token,
        )  # fmt: skip
        details.update(pictures=report.images, verdict=report.verdict.name)
    return Measured(report, folder)


def replay(
    settings: Settings, place: Path, *, keep: Path | None = None, progress: Progress | None = None
) -> Replay:
    """Run a record again and compare the pixels; ``keep`` is where the new pictures stay."""
    from tempfile import TemporaryDirectory

    from oblik.flows.generate import replay as run
    from oblik.generation.record import read_record
    from oblik.progress import SilentProgress

    plan = read_record(place).plan
    persona = show_persona(settings, plan.persona) if plan.persona else None
    with (
        operation(settings, "replay", plan.persona),
        TemporaryDirectory(prefix="oblik-replay-") as scratch,
    ):
        pack = pack_of(settings.model_copy(update={"pack": plan.pack}))
        return run(
            place, persona, home=home_of(settings), pack=pack, engine=engine_of(settings, pack),
            progress=progress or SilentProgress(), now=now(), out_dir=keep or Path(scratch),
        )  # fmt: skip


def run_demo(
    settings: Settings,
    out: Path,
    *,
    seed: int | None = None,
    photos: int | None = None,
    portraits: int | None = None,
    training: Mapping[str, Any] | None = None,
    plan: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> DemoResult:
    """The whole flow on a rendered stranger into ``out``; finished stages are not done again."""
    from oblik.flows.demo import DemoOrder
    from oblik.flows.demo import run_demo as run
    from oblik.flows.workshop import open_workshop
    from oblik.progress import SilentProgress

    settings = settings.model_copy(update={"home": out.absolute() / "home"})
    pack = pack_of(settings)
    wanted = {"seed": seed, "photos": photos, "portraits": portraits}
    given = {name: value for name, value in wanted.items() if value is not None}
    order = DemoOrder(out, train=training or {}, plan=plan or {}, **given)
    workshop = open_workshop(
        pack, lambda: face_stack_of(pack, settings), lambda: engine_of(settings, pack), settings.device
    )
    with operation(settings, "demo", None) as details:
        result = run(order, workshop, progress=progress or SilentProgress(), now=now())
        details["sitter"] = result.persona
    return result
