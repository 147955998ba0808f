"""The reliable mode as a flow: what is measured, what is climbed, what stays in the gallery."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from filelock import FileLock
from tests.flows.conftest import SITTER, STRANGER, painted

from oblik.datasets.manifest import Split
from oblik.errors import ConsentError, JobCancelled, NotFound
from oblik.flows.acceptance import accept
from oblik.flows.gallery import batches
from oblik.flows.generate import replay
from oblik.flows.reliable import PHOTOS, Climbing, generate_in_mode, reference_photos, sweep
from oblik.generation.engine import FIRST, GRID, picture_name
from oblik.generation.plan import Plan
from oblik.generation.record import FLAG, USUAL, Picture, Record, read_record, write_record
from oblik.images import grid, save_clean_png
from oblik.packs.manifest import OpenPack
from oblik.paths import private_dir, sha256_file
from oblik.personas.persona import Scope
from oblik.progress import Progress, SilentProgress

if TYPE_CHECKING:
    from tests.flows.conftest import World

LIKE = {"bare": 0.48, "referred": 0.52, "larger": 1.0}
"""How much of the sitter is in a picture: from the stranger (0) to the sitter (1)."""


@dataclass
class ClimbableEngine:
    """Paints the more of the sitter the higher the plan is; ``share`` says how much."""

    share: dict[str, float] = field(default_factory=lambda: dict(LIKE))
    stop_at: str = ""
    plans: list[Plan] = field(default_factory=list)

    def run(
        self, plan: Plan, *, pack: OpenPack, artifact: Path | None, out_dir: Path, now: Any,
        progress: Progress,
    ) -> Record:  # fmt: skip
        self.plans.append(plan)
        kind = "larger" if plan.steps >= 60 else "referred" if plan.references else "bare"
        if kind == self.stop_at:
            private_dir(out_dir)
            raise JobCancelled("stopped")
        person = self.share[kind] * SITTER + (1 - self.share[kind]) * STRANGER
        images = [painted(person, seed, spread=1) for seed in plan.seeds]
        record = Record(
            plan=plan, asked=plan, started_at=now, token_ids=[], prompt_ids=[], lora_sha256=None,
            pack_version="1", libraries={}, device="cpu", free_vram_bytes=None, seconds={}, pictures=[],
        )  # fmt: skip
        for place, (seed, image) in enumerate(zip(plan.seeds, images, strict=True), start=1):
            path = out_dir / picture_name(place, seed)
            save_clean_png(image, path)
            record.pictures.append(Picture(file=path.name, seed=seed, sha256=sha256_file(path)))
        save_clean_png(grid(images, 4, cell_px=64), out_dir / GRID)
        write_record(record, out_dir)
        return record


@pytest.fixture
def ready(world: World) -> World:
    """A world with a dataset, a LoRA, and a pack that has identity tokens."""
    world.dataset(24)
    world.artifact()
    private_dir(world.pack.folder / "identity" / "projector.safetensors")
    return world


Make = Callable[..., tuple[Record, Path, list[str]]]


@pytest.fixture
def make(ready: World) -> Make:
    def call(engine: ClimbableEngine, mode: str = "fast", **wish: Any) -> tuple[Record, Path, list[str]]:
        said: list[str] = []
        plan = Plan.model_validate(
            {
                "pack": "paint", "persona": "sitter", "prompt": "photo of <oblik_sitter>", "seeds": (1, 2),
                "lora": "v001", "width_px": 64, "height_px": 64, "steps": 4, "mode": mode,
            }
        )  # fmt: skip
        record, folder = generate_in_mode(
            ready.persona, plan, Climbing(**{"say": said.append} | wish), home=ready.home, pack=ready.pack,
            engine=engine, stack=lambda: ready.stack, progress=SilentProgress(), now=ready.now,
        )  # fmt: skip
        return record, folder, said

    return call


def gallery(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.parent.iterdir())


def test_a_batch_that_is_alike_enough_climbs_nothing(make: Make) -> None:
    engine = ClimbableEngine({"bare": 1.0})
    record, folder, said = make(engine)
    assert len(engine.plans) == 1
    assert (record.steps, record.plan.mode) == ([], "fast")
    assert len(said) == 1
    assert said[0].startswith("likeness 0.9")
    assert f"threshold {record.threshold:.3f}: reached; " in said[0]
    assert record.guards is not None
    assert said[0].endswith(record.guards.words)
    assert record.guards.bleed == "bleed not measured"
    assert all(picture.likeness is not None for picture in read_record(folder).pictures)


def test_a_batch_below_the_threshold_climbs_and_the_best_attempt_is_what_is_left(make: Make) -> None:
    engine = ClimbableEngine()
    record, folder, said = make(engine)
    assert [plan.steps for plan in engine.plans] == [4, 4, 60]
    assert [len(plan.references) > 0 for plan in engine.plans] == [False, True, True]
    first, second = record.steps
    assert (first.name, second.name) == ("1 reference", "2 larger and longer")
    assert first.likeness_after == second.likeness_before
    likeness = [first.likeness_before, first.likeness_after, second.likeness_after]
    assert likeness == sorted(likeness, key=lambda value: value or 0.0)
    assert second.reason == "64x64 px, 60 steps", "what it came to"
    assert not any("not available" in line for line in said), "the third rung was not needed"
    assert (record.plan, record.asked) == (engine.plans[2], engine.plans[0])
    assert (record.asked.mode, record.plan.mode) == ("fast", "reliable")
    assert gallery(folder) == ["v001"]
    assert read_record(folder) == record
    assert [sha256_file(folder / picture.file) for picture in record.pictures] == [
        picture.sha256 for picture in record.pictures
    ]
    assert all(line.count("threshold") == 1 for line in said)
    for step, line in zip((first, second), said[1:3], strict=True):
        assert f"; {step.guards} (" in line
    assert ": not reached; " in said[0]
    assert said[-1].startswith("kept: rung 2 larger and longer, likeness ")


def test_the_best_attempt_need_not_be_the_last_and_what_to_do_is_said(make: Make) -> None:
    engine = ClimbableEngine({"bare": 0.48, "referred": 0.52, "larger": 0.4})
    record, folder, said = make(engine)
    assert record.plan == engine.plans[1]
    assert [step.kind for step in record.steps] == ["rung", "rung", "rung", "flag"]
    assert not any("not available" in line for line in said), "tokens drew the face of the third rung"
    assert sum(line.endswith(FLAG) for line in said) == 1
    assert any(line.startswith("kept: rung 1 reference, ") for line in said)
    assert said[-len(record.advice) :] == [f"advice: {line}" for line in record.advice]
    photograph, retrain, *scale = record.advice
    assert "oblik dataset build" in photograph
    assert "oblik train --steps 80" in retrain, "the last of 40 steps was the best that anybody knows"
    assert record.plan.lora_scale < 0.9
    assert f"at {record.plan.lora_scale:.2f}" in scale[0]
    assert gallery(folder) == ["v001"]
    measured = np.mean([picture.likeness for picture in record.pictures if picture.likeness is not None])
    assert measured == pytest.approx(record.steps[0].likeness_after)


def test_the_advice_names_the_conditions_that_the_last_test_of_the_lora_found(
    make: Make, ready: World
) -> None:
    tested = accept(
        ready.persona, home=ready.home, pack=ready.pack, engine=ClimbableEngine({"bare": 0.3}),
        stack=ready.stack, progress=SilentProgress(), now=ready.now,
    )  # fmt: skip
    record, _, said = make(ClimbableEngine({"bare": 0.48, "referred": 0.52, "larger": 0.4}))
    assert tested.failing.startswith(
        f"12 of 12 conditions fall short of the threshold {tested.threshold:.2f}"
    )
    worst = min(tested.conditions, key=lambda row: row.likeness[0] or 0.0)
    assert f"({worst.name} 0 of 1, mean {worst.likeness[0] or 0:.2f}; " in tested.failing
    assert f", and in the last test of the LoRA {tested.failing}: take photos of these" in record.advice[0]
    assert f"advice: {record.advice[0]}" in said


def test_what_a_climb_missed_is_one_short_line(make: Make, ready: World) -> None:
    shutil.rmtree(ready.pack.folder / "identity")
    record, _, said = make(ClimbableEngine())
    assert [step.kind for step in record.steps] == ["rung", "lack", "lack"], "the second rung sufficed"
    assert all(step.reason.startswith("rung 1, ") for step in record.steps[1:]), "nobody came to the third"
    (line,) = [line for line in said if line.startswith("not available")]
    assert line.endswith("has no identity/projector.safetensors, and 1 more")
    assert line.split(", and")[0].removeprefix("not available: ") in record.steps[1].reason
    assert len(line) < len(record.steps[1].reason), "the record has the alternatives, too"


def test_how_far_it_climbs_can_be_limited(make: Make) -> None:
    engine = ClimbableEngine()
    record, _, _ = make(engine, highest=1)
    assert len(engine.plans) == 2
    assert [step.name for step in record.steps] == ["1 reference", FLAG]


def test_a_reliable_plan_refers_to_photos_in_any_case(make: Make) -> None:
    engine = ClimbableEngine({"bare": 0.9, "referred": 1.0})
    record, _, _ = make(engine, "reliable", usual="the test of LoRA v001 found TPR 50 %")
    assert [(step.name, step.kind) for step in record.steps][:2] == [(USUAL, "note"), ("1 reference", "rung")]
    assert record.plan.references


def test_without_auto_nothing_is_measured(make: Make, ready: World) -> None:
    ready.stack = None  # type: ignore[assignment]
    fast, referred, raised = ClimbableEngine(), ClimbableEngine(), ClimbableEngine()
    assert make(fast, auto=False)[0].steps == []
    record, folder, _ = make(referred, "reliable", auto=False)
    assert [step.name for step in record.steps] == ["1 reference"]
    assert (record.steps[0].kind, record.steps[0].likeness_after) == ("rung", None)
    assert read_record(folder) == record
    make(raised, "reliable", auto=False, highest=2)
    assert [len(engine.plans) for engine in (fast, referred, raised)] == [1, 1, 1]
    assert (len(raised.plans[0].references), raised.plans[0].steps) == (min(PHOTOS, 12), 60)


def test_references_are_photos_that_taught_and_never_those_that_measure(ready: World) -> None:
    dataset = ready.dataset(24)
    photos = reference_photos(ready.home, "sitter", "v001")
    taught = {f"datasets/v001/{photo.path}" for photo in dataset.accepted(Split.train)}
    assert len(photos) == PHOTOS == len(set(photos))
    assert set(photos) <= taught
    assert all((ready.home.persona("sitter").root / photo).is_file() for photo in photos)


def test_a_stop_on_a_rung_leaves_the_pictures_that_were_finished(make: Make, ready: World) -> None:
    with pytest.raises(JobCancelled):
        make(ClimbableEngine(stop_at="larger"))
    folder = ready.home.persona("sitter").gallery / "v001"
    assert gallery(folder) == ["v001"]
    record = read_record(folder)
    assert record.plan.references, "the first rung was finished, and better"
    assert not record.asked.references
    assert [step.name for step in record.steps] == ["1 reference"]
    assert (record.steps[0].likeness_before or 1) < (record.steps[0].likeness_after or 0)
    assert len(list(folder.glob("*-seed*.png"))) == 2


def test_a_stop_before_the_first_picture_leaves_nothing_and_hides_nothing(make: Make, ready: World) -> None:
    with pytest.raises(JobCancelled, match="stopped"):
        make(ClimbableEngine(stop_at="bare"))
    assert not list(ready.home.persona("sitter").gallery.rglob("*.png"))


def test_a_fast_batch_that_nobody_can_measure_is_made_and_a_reliable_one_is_not(
    make: Make, ready: World
) -> None:
    (ready.pack.faces_folder / "impostors.npz").unlink()
    record, _, said = make(ClimbableEngine())
    assert record.threshold is None
    assert said[0].startswith("not measured: ")
    with pytest.raises(NotFound):
        make(ClimbableEngine(), "reliable")


def test_consent_comes_before_photos_and_engine(make: Make, ready: World) -> None:
    ready.persona = ready.sign("other", scopes=frozenset({Scope.chat}))
    engine = ClimbableEngine()
    with pytest.raises(ConsentError):
        make(engine)
    assert engine.plans == []


def test_a_climbed_record_runs_again_by_the_plan_that_won(make: Make, ready: World, tmp_path: Path) -> None:
    engine = ClimbableEngine()
    record, folder, _ = make(engine)
    again = replay(
        folder, ready.persona, home=ready.home, pack=ready.pack, engine=engine, progress=SilentProgress(),
        now=ready.now, out_dir=tmp_path / "again",
    )  # fmt: skip
    assert again.identical
    assert engine.plans[-1] == record.plan


def test_pictures_to_be_edited_that_a_kill_left_are_swept_by_the_next_run(make: Make, ready: World) -> None:
    place = ready.home.persona("sitter").gallery
    _, first, _ = make(ClimbableEngine({"bare": 1.0}))
    for name in ("v002", "v003", "v004"):
        shutil.copytree(first, place / name / FIRST)
        (place / f".{name}.lock").touch()
    shutil.copy(next(first.glob("*seed*.png")), place / "v003")
    with FileLock(place / ".v004.lock"):
        sweep(place)
        assert (place / "v004" / FIRST).is_dir(), "somebody is at it"
    assert sorted(path.name for path in place.iterdir()) == [".v004.lock", "v001", "v003", "v004"]
    assert [path.suffix for path in (place / "v003").iterdir()] == [".png"], "what was finished stays"

    class Killed(ClimbableEngine):
        def run(self, plan: Plan, **asked: Any) -> Record:
            self.locked = (place / f".{asked['out_dir'].name}.lock").is_file()
            return super().run(plan, **asked)

    engine = Killed()
    make(engine, "reliable", auto=False)
    assert engine.locked, "a run that may have such pictures is known to be at work"
    assert not list(place.rglob(FIRST))


def test_what_a_killed_climb_left_is_swept_by_the_next_run_and_a_running_one_is_let_alone(
    make: Make, ready: World
) -> None:
    place = ready.home.persona("sitter").gallery
    _, first, _ = make(ClimbableEngine({"bare": 1.0}))
    shutil.copytree(first, place / ".v001-rung1")
    shutil.copytree(first, place / ".v002-rung1")
    shutil.copytree(first, place / ".v002-before")
    shutil.copytree(first, place / ".v009-rung1")
    folders = ready.home.persona("sitter")
    assert [batch.name for batch in batches(folders)] == ["v001"], "attempts are no batches"
    with FileLock(place / ".v009.lock"):
        sweep(place)
    assert sorted(path.name for path in place.iterdir() if path.is_dir()) == [".v009-rung1", "v001", "v002"]
    assert read_record(place / "v002") == read_record(first), "what was set aside is back"
    _, folder, _ = make(ClimbableEngine({"bare": 1.0}))
    assert folder.name == "v003"
    assert sorted(path.name for path in place.iterdir()) == ["v001", "v002", "v003"]
