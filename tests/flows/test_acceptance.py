"""After a training: test pictures, pairs, ROC and a line, beside the weights and without touching them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from oblik.datasets.captions import refuse_style_words
from oblik.errors import ConsentError, JobCancelled, NotFound
from oblik.flows.acceptance import BARE, CONDITIONS, accept, usual_mode
from oblik.flows.loras import find, page
from oblik.generation.record import read_record
from oblik.likeness.acceptance import Acceptance, last_test, read_acceptance
from oblik.likeness.intervals import rate
from oblik.likeness.report import read_report
from oblik.paths import atomic_write
from oblik.personas.amend import revoked
from oblik.personas.store import PersonaStore
from oblik.progress import SilentProgress

if TYPE_CHECKING:
    from tests.flows.conftest import World


def run(world: World, version: str | None = None, images: int = 12, mode: str = "fast") -> Acceptance:
    return accept(
        world.persona, version, home=world.home, pack=world.pack, engine=world.engine, stack=world.stack,
        progress=SilentProgress(), now=world.now, images=images, mode=mode,
    )  # fmt: skip


def files(folder: Path, but: Sequence[str] = ()) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file() and path.name not in but
    }


def test_twelve_conditions_are_tested_and_kept_with_the_artifact(world: World) -> None:
    world.dataset(24)
    folder = world.artifact()
    before = files(folder)
    found = run(world)
    assert files(folder, ("acceptance.json", "acceptance.png")) == before, "what was trained is not touched"
    assert read_acceptance(folder) == found
    assert (found.images, found.tpr.trials, found.version) == (12, 12, "v001")
    assert [row.name for row in found.conditions] == list(CONDITIONS)
    assert found.line.endswith("at FMR 1 %: not enough images to claim (12 of 200)")
    assert (found.accepted, found.profile) == (None, "fast")
    assert usual_mode(folder.parent) == ("fast", "")
    assert found.bleed is not None
    assert (found.bleed.images, found.bleed.passed) == (BARE, True)
    assert len(found.pairs.impostors) >= 1000
    assert read_report(folder / "acceptance" / "with").recognised == found.tpr
    entry = find(world.home.persona("sitter"))
    assert entry.acceptance_words == found.line
    assert entry.likeness_words.endswith(f"{found.threshold:.2f}: {found.verdict.value}")
    roc = json.loads((folder / "acceptance" / "with" / "roc.json").read_text())
    assert roc["generated"]["genuine"] == 12
    for name in ("acceptance.png", "acceptance/pairs.png"):
        with Image.open(folder / name) as image:
            assert min(image.size) > 600
    short = found.model_copy(update={"profile": "reliable", "tpr": rate(6, 12)})
    (folder / "acceptance.json").write_text(short.model_dump_json())
    assert usual_mode(folder.parent) == (
        "reliable",
        "the test of LoRA v001 found TPR 50.0 % over 12 pictures: even the upper end, 75.5 %, is below 90 %",
    )
    world.artifact("v002")
    assert usual_mode(folder.parent) == ("fast", ""), "v002 is in use, and untested is not short"
    assert usual_mode(folder.parent, "v001")[0] == "reliable"


def test_two_hundred_images_make_a_claim(world: World) -> None:
    world.dataset(24)
    world.artifact()
    found = run(world, images=200)
    assert found.images == 200
    assert sorted({len(row.likeness) for row in found.conditions}) == [16, 17]
    assert found.accepted is True
    assert found.line.endswith("accepted")
    plans = [plan for plan in world.engine.plans if world.persona.trigger in plan.prompt]
    seeds = [seed for plan in plans for seed in plan.seeds]
    assert len(set(seeds)) == 200, "no picture is counted twice"


def test_the_named_version_is_tested_and_an_earlier_test_is_replaced(world: World) -> None:
    world.dataset(24)
    first, _ = world.artifact("v001"), world.artifact("v002")
    assert run(world, "v001", images=14).images == 14
    again = run(world, "v001")
    assert (again.images, again.version) == (12, "v001"), "pictures of the earlier test do not count"
    assert {plan.lora for plan in world.engine.plans} == {"v001"}
    record = read_record(first / "acceptance" / "with" / "01" / "record.json")
    assert record.threshold == again.threshold


def test_what_is_missing_is_said_before_a_picture_is_made(world: World) -> None:
    world.dataset(24)
    folder = world.artifact()
    with pytest.raises(NotFound, match="was not tested yet"):
        read_acceptance(folder)
    with pytest.raises(NotFound, match="no LoRA v009"):
        run(world, "v009")
    PersonaStore(world.home).save(revoked(world.persona, world.now.date()))
    with pytest.raises(ConsentError):
        run(world)
    assert world.engine.plans == []


def test_a_preset_of_the_users_own_is_what_is_tested_and_reliable_takes_the_first_rung(world: World) -> None:
    world.dataset(24)
    folder = world.artifact()
    atomic_write(world.pack.folder / "identity" / "projector.safetensors", b"tokens")
    atomic_write(world.home.root / "presets" / "fast.toml", 'about = "mine"\n[plan]\nsteps = 7\n')
    fast = run(world)
    assert {plan.steps for plan in world.engine.plans} == {7}, "as generate does"
    world.engine.plans.clear()
    found = run(world, mode="reliable")
    shown = [plan for plan in world.engine.plans if world.persona.trigger in plan.prompt]
    assert all(plan.references and plan.mode == "reliable" for plan in shown)
    strangers = [plan for plan in world.engine.plans if plan not in shown]
    assert strangers
    assert not any(plan.references for plan in strangers)
    assert (found.mode, found.profile, found.shortfall) == ("reliable", "reliable", "")
    assert read_acceptance(folder) == fast, "the fast test stays"
    assert read_acceptance(folder, "reliable") == found
    assert usual_mode(folder.parent) == ("fast", "")
    assert last_test(folder) == fast, "of two of one time the fast one"
    (folder / "acceptance.json").unlink()
    assert last_test(folder) == found
    assert (folder / "acceptance-reliable" / "pairs.png").is_file()
    assert ("test, reliable", found.line) in page(find(world.home.persona("sitter")))


def test_somebody_can_stop_it(world: World) -> None:
    world.dataset(24)
    world.artifact()
    calls: list[int] = []

    def stopped() -> bool:
        calls.append(1)
        return len(calls) > 8

    with pytest.raises(JobCancelled):
        accept(
            world.persona, home=world.home, pack=world.pack, engine=world.engine, stack=world.stack,
            progress=SilentProgress(stopped), now=world.now,
        )  # fmt: skip
    assert 0 < len(world.engine.plans) < 12


def test_prompts_are_photographs_in_ten_conditions_and_more() -> None:
    assert 10 <= len(CONDITIONS) <= 20
    assert len(set(CONDITIONS.values())) == len(CONDITIONS)
    for prompt in CONDITIONS.values():
        refuse_style_words(prompt)
