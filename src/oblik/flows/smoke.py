"""A smoke test: some pictures with one command, and how the machine bore it.

In: an open pack, an engine; a persona, or nobody: then the bare pack paints strangers and no consent is
needed. Out: an `OrderReport` and the pictures, made one at a time with the pauses of a quality level. The
folder is cleaned first, of what an earlier smoke test wrote there and of nothing else. Knows nothing of
terminals.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path

from oblik.errors import Conflict
from oblik.flows.batches import LOCK, PART, Batches, Run
from oblik.flows.generate import Order as Wish
from oblik.flows.generate import generate, plan_order, run_plan
from oblik.flows.orders import Bench
from oblik.generation.engine import GRID, Engine
from oblik.generation.order_report import FILE_NAME as REPORT
from oblik.generation.order_report import OrderReport, read_order_report
from oblik.generation.plan import Plan
from oblik.generation.presets import Preset, find_preset, plan_from
from oblik.generation.record import FILE_NAME as RECORD
from oblik.paths import Home
from oblik.personas.permission import under_consent
from oblik.personas.persona import Persona
from oblik.progress import Progress, Unseen

NAME, QUALITY, PICTURES = "smoke", "standard", 10
FOLDER = Path("outputs", NAME)
SCENE = "smiling, frontal view, head and shoulders, in a park, daylight"
STRANGER = f"photo of a woman, {SCENE}"
_OURS = re.compile(rf"\d+-seed\d+\.png|{re.escape(GRID)}|{re.escape(RECORD)}|graph\.json")


def smoke(
    bench: Bench,
    persona: Persona | None,
    *,
    out: Path,
    progress: Progress,
    now: datetime,
    quality: str = QUALITY,
    count: int = PICTURES,
) -> OrderReport:
    """Make ``count`` pictures into ``out``.

    Raises:
        Conflict: ``out`` holds pictures of an order.
        ConsentError, BackendError, JobCancelled: as an order does.
    """
    clean(out)
    preset = find_preset(quality, bench.home.root / "presets")
    plan = _plan(bench, persona, preset, tuple(range(1, count + 1)))
    report = OrderReport(
        name=NAME, type=NAME, persona=plan.persona, pack=plan.pack, lora=plan.lora, order_sha256="",
        started_at=now, wanted=count,
    )  # fmt: skip

    if persona is not None:
        progress = under_consent(persona, "generate", home=bench.home, now=now, progress=progress)

    def make(plan: Plan, folder: Path, engine: Engine) -> None:
        watched = bench.guard.watch(Unseen(progress))
        if persona is None:
            run_plan(plan, folder, None, pack=bench.pack, engine=engine, progress=watched, now=now)
            return
        generate(
            persona, plan, home=bench.home, pack=bench.pack, engine=engine, progress=watched, now=now,
            folder=folder,
        )  # fmt: skip

    run = Run(
        out, report, bench.engine, make, bench.guard, wanted=lambda: _known(persona, bench.home),
        labels=bench.labels,
    )  # fmt: skip
    return run.all([Batches(NAME, plan, preset.pace)], progress)


def clean(out: Path) -> None:
    """Remove what an earlier smoke test wrote into ``out``; other files stay, links are not followed."""
    before = read_order_report(out)
    if before is None:
        return
    if before.type != NAME:
        raise Conflict(
            f"{out} holds the pictures of the order {before.name!r}", hint="oblik smoke --out FOLDER"
        )
    for folder in out.iterdir():
        name = folder.name.removesuffix(PART)
        if re.fullmatch(rf"\d{{3,}}-{NAME}", name) and folder.is_dir() and not folder.is_symlink():
            for path in folder.iterdir():
                if _OURS.fullmatch(path.name):
                    path.unlink()
            if not any(folder.iterdir()):
                folder.rmdir()
    for name in (GRID, LOCK, REPORT):
        (out / name).unlink(missing_ok=True)


def _plan(bench: Bench, persona: Persona | None, preset: Preset, seeds: tuple[int, ...]) -> Plan:
    asked = {"seeds": seeds, "batch": 1}
    if persona is not None:
        return plan_order(Wish(SCENE, asked), persona, preset, bench.pack, bench.home, bench.others)
    stranger = {**asked, "prompt": STRANGER, "persona": "nobody"}
    return plan_from(preset, bench.pack.manifest, stranger).model_copy(update={"persona": None})


def _known(persona: Persona | None, home: Home) -> bool:
    """Whether the person is still there; nobody always is."""
    return persona is None or home.persona(persona.slug).toml.is_file()
