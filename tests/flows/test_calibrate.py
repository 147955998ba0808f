"""Measuring as a flow: one ruler for a persona, scores in the records, misses counted."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from PIL import Image

from oblik.errors import ConsentError, InvalidInput, NotFound
from oblik.flows.calibrate import Ruler, dataset_of, measure, newest_pictures, open_ruler, pictures_in
from oblik.flows.generate import Order, generate, plan_order
from oblik.generation.presets import find_preset
from oblik.generation.record import read_record
from oblik.images import save_clean_png
from oblik.likeness.findings import LikenessReport, Verdict
from oblik.paths import atomic_write
from oblik.personas.persona import Scope
from oblik.progress import SilentProgress
from oblik.training.artifact import MANIFEST, read_artifact

if TYPE_CHECKING:
    from tests.flows.conftest import World


def ruler_of(world: World) -> Ruler:
    return open_ruler(world.persona, home=world.home, pack=world.pack, stack=world.stack)


def make(world: World, *, token: bool = True, name: str = "v001") -> Path:
    order = Order("smiling", {"seeds": tuple(range(6))}, token=token)
    plan = plan_order(order, world.persona, find_preset("fast"), world.pack, world.home)
    folder = world.home.persona("sitter").gallery / name
    generate(
        world.persona, plan, home=world.home, pack=world.pack, engine=world.engine, progress=SilentProgress(),
        now=world.now, folder=folder,
    )  # fmt: skip
    return folder


def measured(world: World, folder: Path, without_token: Path | None = None) -> LikenessReport:
    return measure(
        world.persona, folder, ruler_of(world), home=world.home, progress=SilentProgress(), now=world.now,
        without_token=without_token,
    )  # fmt: skip


def test_portraits_are_recognised_and_strangers_are_not(world: World) -> None:
    world.dataset()
    world.artifact()
    portraits, strangers = make(world), make(world, token=False, name="v002")
    report = measured(world, portraits, strangers)
    assert report.verdict is Verdict.recognised
    assert report.bleed is not None
    assert report.bleed.above == 0
    assert [score.name for score in report.scores] == [path.name for path in pictures_in(portraits)]
    assert {"likeness.json", "roc.json", "roc.png", "scores.png"} <= {
        path.name for path in portraits.iterdir()
    }


def test_scores_and_threshold_are_written_into_the_record(world: World) -> None:
    world.dataset()
    world.artifact()
    report = measured(world, make(world))
    record = read_record(newest_pictures(world.persona, world.home))
    assert record.threshold == report.calibration.threshold
    assert [picture.likeness for picture in record.pictures] == [score.centroid for score in report.scores]
    assert all(picture.face_found for picture in record.pictures)


def test_any_folder_of_pictures_can_be_measured_and_a_missing_face_counts(
    world: World, tmp_path: Path
) -> None:
    world.dataset()
    loose = tmp_path / "loose"
    save_clean_png(Image.new("RGB", (32, 32), (200, 120, 60)), loose / "a.png")
    save_clean_png(Image.new("RGB", (32, 32)), loose / "b.png")
    report = measured(world, loose)
    assert (report.images, report.misses) == (2, 1)
    assert report.scores[1].centroid is None
    assert pictures_in(loose) == [loose / "a.png", loose / "b.png"], "what measuring drew is not measured"


def test_pictures_are_measured_with_the_dataset_of_the_lora_that_made_them(
    world: World, tmp_path: Path
) -> None:
    world.dataset()
    world.artifact("v001")
    first = make(world, name="v001")
    artifact = world.artifact("v002")
    later = read_artifact(artifact).model_copy(update={"dataset": "v002"})
    atomic_write(artifact / MANIFEST, later.model_dump_json())
    second = make(world, name="v002")
    assert dataset_of(world.persona, first, world.home) == "v001", "and not that of the LoRA in use"
    assert dataset_of(world.persona, second, world.home) == "v002"
    assert dataset_of(world.sign("other"), first, world.home) is None
    assert dataset_of(world.persona, tmp_path / "loose", world.home) is None
    with pytest.raises(InvalidInput, match="several datasets: v001, v002"):
        dataset_of(world.persona, first.parent, world.home)


def test_another_face_stack_is_refused(world: World) -> None:
    world.dataset()
    world.stack.name = "other"
    with pytest.raises(InvalidInput, match="measured with the faces of hue, not other"):
        ruler_of(world)


def test_what_is_missing_is_said_with_the_next_command(world: World, tmp_path: Path) -> None:
    with pytest.raises(NotFound) as missing:
        ruler_of(world)
    assert missing.value.hint == "oblik dataset build PHOTOS"
    with pytest.raises(NotFound, match="gallery is empty"):
        newest_pictures(world.persona, world.home)
    world.dataset()
    (tmp_path / "none").mkdir()
    with pytest.raises(NotFound, match="no picture"):
        measured(world, tmp_path / "none")


def test_measuring_needs_consent(world: World) -> None:
    world.dataset()
    world.artifact()
    folder, ruler = make(world), ruler_of(world)
    stranger = world.sign("other", scopes=frozenset({Scope.voice}))
    with pytest.raises(ConsentError):
        measure(stranger, folder, ruler, home=world.home, progress=SilentProgress(), now=world.now)
