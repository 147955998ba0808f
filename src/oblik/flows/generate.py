"""Generation as one call: words and wishes become a plan, the plan becomes pictures in the gallery.

In: a persona, an open pack, an engine, an order. Out: a `Record` and its folder
``gallery/<version>/``. Consent, the trigger token and the pack of the LoRA are checked here, before
an engine is touched. Knows nothing of tensors and faces.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from oblik.datasets.captions import without_token
from oblik.errors import InvalidInput, NotFound
from oblik.generation.engine import Engine
from oblik.generation.graph import write_graph
from oblik.generation.plan import Plan
from oblik.generation.presets import Preset, plan_from
from oblik.generation.prompt import compose, refuse_other_personas
from oblik.generation.record import FILE_NAME, Picture, Record, read_record
from oblik.generation.scenes import FOLDER, read_scenes, set_scenes
from oblik.images import open_upright
from oblik.labels import fingerprint
from oblik.packs.manifest import OpenPack
from oblik.paths import Home, next_version
from oblik.personas.permission import under_consent
from oblik.personas.persona import Persona
from oblik.personas.trigger import check
from oblik.progress import Progress
from oblik.training.artifact import MANIFEST, TOKENIZER, latest_artifact, read_artifact

COMPARED = (
    "pack_version", "pack_sha256", "lora_sha256", "token_sha256", "text_encoder_sha256", "references_sha256",
    "edit_sha256", "device", "token_ids", "prompt_ids",
)  # fmt: skip
"""What of two records should be the same, beside libraries, machine and face stack."""


@dataclass(frozen=True)
class Order:
    """What somebody asked for. ``asked`` are values of a plan; None there was not asked.

    ``lora`` False keeps the learned token and takes the LoRA's weights away; ``token`` False speaks of
    anybody: neither the token nor the description that goes with it; with both, the pack is run bare.
    """

    text: str
    asked: Mapping[str, Any] = field(default_factory=dict)
    lora: bool = True
    token: bool = True
    style: bool = False


@dataclass(frozen=True)
class Replay:
    """What running a record again showed: for every picture whether its pixels are the same."""

    record: Record
    again: Record
    same: tuple[bool, ...]
    differences: tuple[str, ...]

    @property
    def identical(self) -> bool:
        return all(self.same)


def generate(
    persona: Persona,
    plan: Plan,
    *,
    home: Home,
    pack: OpenPack,
    engine: Engine,
    progress: Progress,
    now: datetime,
    folder: Path | None = None,
    operation: str = "generate",
) -> tuple[Record, Path]:
    """Run a plan into ``folder`` (default: the next version in the persona's gallery).

    Raises:
        ConsentError: the persona's consent does not cover portraits today.
        NotFound, InvalidInput: the LoRA is missing or belongs to another pack.
        TokenBroken: the LoRA's tokenizer takes the trigger apart.
    """
    progress = under_consent(persona, operation, home=home, now=now, progress=progress)
    artifact = open_artifact(plan, home, pack)
    learned = artifact is not None and read_artifact(artifact).token_id >= 0
    if artifact is not None and learned and persona.trigger in plan.prompt:
        check(artifact / TOKENIZER, persona.trigger)
    gallery = home.persona(persona.slug).gallery
    folder = folder or gallery / next_version(gallery)
    return run_plan(plan, folder, artifact, pack=pack, engine=engine, progress=progress, now=now), folder


def run_plan(
    plan: Plan, folder: Path, artifact: Path | None, *, pack: OpenPack, engine: Engine, progress: Progress,
    now: datetime,
) -> Record:  # fmt: skip
    """Run a plan into ``folder``; beside the record lies ``graph.json``, also where the run was stopped."""
    try:
        return engine.run(plan, pack=pack, artifact=artifact, out_dir=folder, now=now, progress=progress)
    finally:
        if (folder / FILE_NAME).is_file():
            write_graph(read_record(folder).plan, pack, folder)


def plan_order(
    order: Order, persona: Persona, preset: Preset, pack: OpenPack, home: Home, others: Sequence[str] = ()
) -> Plan:
    """The plan of an order. ``others`` are the triggers of the other personas.

    Raises InvalidInput for a value outside its range, as `plan_from` says it.
    """
    text = set_scenes(order.text, read_scenes(home.root / FOLDER))
    prompt = compose(
        text,
        trigger=persona.trigger,
        noun=persona.class_noun,
        descriptors=persona.descriptors if order.token else {},
        others=others,
        style=order.style,
    )
    asked: dict[str, Any] = dict(order.asked) | {"persona": persona.slug}
    asked["prompt"] = prompt if order.token else without_token(prompt, persona.trigger)
    if order.lora or order.token:
        asked["lora"] = asked.get("lora") or latest_artifact(home.persona(persona.slug).loras)
    plan = plan_from(preset, pack.manifest, asked)
    return plan if order.lora else plan.model_copy(update={"lora_scale": 0.0})


def open_artifact(plan: Plan, home: Home, pack: OpenPack) -> Path | None:
    """The folder of the plan's LoRA, None when it has none."""
    if plan.lora is None or plan.persona is None:
        return None
    folder = home.persona(plan.persona).loras / plan.lora
    if not (folder / MANIFEST).is_file():
        raise NotFound(f"persona {plan.persona!r} has no LoRA {plan.lora}", hint="oblik train")
    artifact = read_artifact(folder)
    if artifact.pack != pack.manifest.name:
        raise InvalidInput(
            f"LoRA {plan.lora} was trained on the pack {artifact.pack!r}, not {pack.manifest.name!r}",
            hint=f"oblik --pack {artifact.pack} generate ...",
        )
    refuse_other_personas(plan.prompt, artifact.trigger)
    return folder


def replay(
    place: Path,
    persona: Persona | None,
    *,
    home: Home,
    pack: OpenPack,
    engine: Engine,
    progress: Progress,
    now: datetime,
    out_dir: Path,
) -> Replay:
    """Run a record's plan again into ``out_dir`` and compare every pixel of every picture."""
    record = read_record(place)
    if record.restoration is not None:
        raise InvalidInput(
            f"these pictures of {record.restoration.of} were restored afterwards",
            hint=f"replay the batch itself: oblik replay .../{record.restoration.of}",
        )
    if persona is not None:
        progress = under_consent(
            persona, "edit" if record.plan.edit else "replay", home=home, now=now, progress=progress
        )
    artifact = open_artifact(record.plan, home, pack)
    again = run_plan(record.plan, out_dir, artifact, pack=pack, engine=engine, progress=progress, now=now)
    made = {picture.seed: _pixels(picture, out_dir) for picture in again.pictures}
    folder = place if place.is_dir() else place.parent
    same = tuple(made.get(picture.seed) == _pixels(picture, folder) for picture in record.pictures)
    return Replay(record, again, same, differences(record, again))


def differences(record: Record, again: Record) -> tuple[str, ...]:
    """What changed in the surroundings between two runs of a plan, as far as records know, one line each."""
    found = _changed(record.libraries, again.libraries) + _changed(record.machine, again.machine)
    if record.face_stack and again.face_stack and record.face_stack != again.face_stack:
        found.append(f"face stack {record.face_stack} became {again.face_stack}")
    for name in COMPARED:
        before, after = getattr(record, name), getattr(again, name)
        if before != after and before is not None:
            found.append(f"{name.replace('_', ' ')} {json.dumps(before)} became {json.dumps(after)}")
    before, after = _memory(record), _memory(again)
    if before != after:
        found.append(f"memory plan {json.dumps(before)} became {json.dumps(after)}")
    return tuple(found)


def _changed(before: Mapping[str, str], after: Mapping[str, str]) -> list[str]:
    """Names whose values differ; a record that is too old to know any says nothing."""
    names = sorted(before.keys() | after.keys()) if before else []
    return [
        f"{name} {before.get(name, 'absent')} became {after.get(name, 'absent')}"
        for name in names
        if before.get(name) != after.get(name)
    ]


def _memory(record: Record) -> list[str]:
    """How the pack was held: packed weights are other weights."""
    return [step.reason for step in record.steps if step.name.endswith("memory plan")]


def _pixels(picture: Picture, folder: Path) -> str:
    """The fingerprint of a picture; a record that is older than these has it worked out from the file."""
    file = folder / picture.file
    if picture.pixels_sha256 is not None or not file.is_file():
        return picture.pixels_sha256 or picture.sha256
    return fingerprint(open_upright(file))
