"""An order as one call: every picture that is not there yet is made, batch by batch.

In: a validated order, a persona, what pictures are made with. Out: an `OrderReport`; pictures and
``generation_report.json`` in the target folder, as `oblik.flows.batches` lays them down. Everything that
can be refused is refused before the first picture. Knows nothing of tensors and terminals.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from oblik.errors import BackendUnavailable, RequestError
from oblik.faces.stack import FaceStack
from oblik.flows.batches import Batches, Run
from oblik.flows.calibrate import open_ruler
from oblik.flows.control import controlled
from oblik.flows.generate import Order as Wish
from oblik.flows.generate import open_artifact, plan_order
from oblik.flows.reliable import Climbing, dataset_behind, generate_in_mode
from oblik.generation.engine import Engine
from oblik.generation.heat import HeatGuard
from oblik.generation.ladder import Heights
from oblik.generation.order_file import OrderFile
from oblik.generation.order_report import OrderReport, read_order_report
from oblik.generation.orders import jobs_of
from oblik.generation.plan import Control, Plan
from oblik.generation.presets import find_preset
from oblik.labels import PLAIN, Labeller
from oblik.packs.manifest import OpenPack
from oblik.paths import Home, expanded
from oblik.personas.permission import permit, under_consent
from oblik.personas.persona import Persona
from oblik.progress import Progress, Unseen

FOLDER = "orders"


@dataclass(frozen=True)
class Bench:
    """What pictures are made with. ``stack`` opens the one face stack; ``others`` are the triggers of the
    other personas; ``labels`` signs the sheet."""

    home: Home
    pack: OpenPack
    engine: Callable[[], Engine]
    guard: HeatGuard
    stack: Callable[[], FaceStack]
    others: Sequence[str] = ()
    labels: Labeller = PLAIN


def target_of(file: OrderFile, home: Home) -> Path:
    """Where the pictures of an order go."""
    order = file.order
    if order.folder is None:
        return home.persona(order.persona).gallery / FOLDER / order.name
    return (file.path.parent / expanded(order.folder)).absolute()


def planned(file: OrderFile, persona: Persona, bench: Bench, now: datetime) -> list[Batches]:
    """The plans of an order; every prompt and value is checked, nothing is run but what makes control images.

    An order that names no LoRA and was begun before goes on with the version that it began with.

    Raises:
        ConsentError: the persona's consent does not cover portraits; no photo of a control was read.
        RequestError, BackendUnavailable: a preset, prompt or value that cannot be used, or a reliable picture
            that nobody can measure, with its line.
    """
    permit(persona, "generate", home=bench.home, now=now)
    followed: dict[tuple[Any, ...], tuple[Control, ...]] = {}
    measured: set[str | None] = set()
    before = read_order_report(target_of(file, bench.home))
    lora = file.order.lora or (before.lora if before else None)
    found = []
    for job in jobs_of(file.order):
        asked = job.asked | {"seeds": job.seeds, "lora": lora}
        if "controls" in asked:
            asked["controls"] = [_from(file.path, control) for control in asked["controls"]]
        try:
            preset = find_preset(_named(job.quality, file.path), bench.home.root / "presets")
            wish = Wish(job.text, asked, style=job.style)
            plan = plan_order(wish, persona, preset, bench.pack, bench.home, bench.others)
            open_artifact(plan, bench.home, bench.pack)
            if plan.mode == "reliable" and plan.lora not in measured:
                dataset = dataset_behind(plan, bench.home)
                open_ruler(persona, home=bench.home, pack=bench.pack, stack=bench.stack(), dataset=dataset)
                measured.add(plan.lora)
        except RequestError as refused:
            value = refused.message.partition(":")[0]  # as `plan_from` names it
            raise file.located(job.at(value) if value in job.asked else job.place, refused) from None
        key = (plan.controls, plan.width_px, plan.height_px)
        try:
            if key not in followed:
                followed[key] = controlled(
                    persona, plan, home=bench.home, pack=bench.pack, stack=bench.stack, now=now
                ).controls
        except (RequestError, BackendUnavailable) as refused:
            raise file.located(job.at("controls"), refused) from None
        plan = plan.model_copy(update={"controls": followed[key]})
        found.append(Batches(job.name, plan, preset.pace))
    return found


def run_order(
    file: OrderFile, persona: Persona, bench: Bench, *, progress: Progress, now: datetime
) -> OrderReport:
    """Make what is missing of an order.

    Raises:
        ConsentError: the persona's consent does not cover portraits, or no longer does.
        RequestError: something in the order cannot be used, with its line; nothing was made then.
        Conflict: another run of this order is at work.
        TooHot, BackendError, JobCancelled: the run ended early; what is finished stays, and the same call
            goes on.
    """
    batches = planned(file, persona, bench, now)
    report = OrderReport(
        name=file.order.name, type=file.order.type, persona=persona.slug, pack=bench.pack.manifest.name,
        lora=batches[0].plan.lora, order_sha256=file.sha256, started_at=now,
        wanted=sum(len(batch.plan.seeds) for batch in batches),
    )  # fmt: skip

    began_s = time.monotonic()
    ladders = find_preset("reliable", bench.home.root / "presets").ladder
    heights = ladders.get(bench.pack.manifest.family, Heights())

    def make(plan: Plan, folder: Path, engine: Engine) -> None:
        climbing = Climbing(auto=plan.mode == "reliable", heights=heights)
        generate_in_mode(
            persona, plan, climbing, home=bench.home, pack=bench.pack, engine=engine, stack=bench.stack,
            progress=bench.guard.watch(Unseen(progress)), folder=folder,
            now=now + timedelta(seconds=int(time.monotonic() - began_s)),
        )  # fmt: skip

    folders = bench.home.persona(persona.slug)
    known = folders.toml.is_file()
    run = Run(
        target_of(file, bench.home), report, bench.engine, make, bench.guard,
        wanted=lambda: folders.toml.is_file() or not known, labels=bench.labels,
    )  # fmt: skip
    try:
        permitted = under_consent(persona, "generate", home=bench.home, now=now, progress=progress)
        return run.all(batches, permitted)
    finally:
        if known and not folders.toml.is_file():  # deleted meanwhile: nothing of them is written again
            shutil.rmtree(folders.root, ignore_errors=True)


def _from(order: Path, control: dict[str, Any]) -> dict[str, Any]:
    """A control whose file is meant from the order's file on."""
    if not control.get("image"):
        return control
    return control | {"image": str(order.absolute().parent / expanded(control["image"]))}


def _named(quality: str, order: Path) -> str:
    """A preset's name, or its file from the order's file on."""
    return str(order.parent / quality) if quality.endswith(".toml") else quality
