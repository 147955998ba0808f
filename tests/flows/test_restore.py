"""Only what passed is restored, all of it is measured again, and the record says what was done."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray

from oblik.errors import Conflict, InvalidInput
from oblik.flows.calibrate import Ruler, measure, open_ruler
from oblik.flows.gallery import batches, chosen
from oblik.flows.generate import Order, generate, plan_order, replay
from oblik.flows.restore import Means, restore
from oblik.generation.presets import find_preset
from oblik.generation.record import Record, read_record, write_record
from oblik.generation.restoration import Restorer
from oblik.images import label_of
from oblik.labels import PLAIN
from oblik.paths import sha256_file
from oblik.progress import SilentProgress

if TYPE_CHECKING:
    from tests.flows.conftest import World

MEANS = Means("gfpgan", "f" * 64, 0.2)
Image_HW3 = NDArray[np.uint8]


def warmer(face: Image_HW3) -> Image_HW3:
    return np.asarray(np.clip(face.astype(int) + 20, 0, 255), np.uint8)


def ruler_of(world: World) -> Ruler:
    return open_ruler(world.persona, home=world.home, pack=world.pack, stack=world.stack)


@pytest.fixture
def batch(world: World) -> Path:
    """Three measured pictures, the last of which did not pass."""
    world.dataset(24)
    world.artifact()
    plan = plan_order(
        Order("smiling", {"seeds": (1, 2, 3)}), world.persona, find_preset("fast"), world.pack, world.home
    )
    _, folder = generate(
        world.persona, plan, home=world.home, pack=world.pack, engine=world.engine,
        progress=SilentProgress(), now=world.now,
    )  # fmt: skip
    measure(world.persona, folder, ruler_of(world), home=world.home, progress=SilentProgress(), now=world.now)
    record = read_record(folder)
    record.pictures[2].likeness = 0.0
    write_record(record, folder)
    return folder


def run(
    world: World, name: str = "v001", restorer: Restorer = warmer, ruler: Ruler | None = None
) -> tuple[Record, Path]:
    (found,) = chosen(world.home.persona("sitter"), [name])[:1]
    return restore(
        world.persona, found, MEANS, restorer=restorer, ruler=lambda: ruler or ruler_of(world), labels=PLAIN,
        home=world.home, progress=SilentProgress(), now=world.now,
    )  # fmt: skip


def test_what_passed_is_restored_into_a_batch_of_its_own(world: World, batch: Path) -> None:
    before = {path.name: sha256_file(path) for path in batch.iterdir()}
    record, folder = run(world)
    assert {path.name: sha256_file(path) for path in batch.iterdir()} == before
    assert folder == world.home.persona("sitter").gallery / "restored" / "v001"
    assert [picture.seed for picture in record.pictures] == [1, 2]
    done = record.restoration
    assert done is not None
    assert (done.of, done.network, done.weight, done.dropped) == ("v001", "gfpgan", 0.2, 0)
    assert done.likeness_before != done.likeness_after, "measured again"
    assert read_record(folder) == record
    for picture in record.pictures:
        assert picture.sha256 == sha256_file(folder / picture.file) != before[picture.file]
        label = label_of(folder / picture.file)
        assert label is not None
        assert label.record == f"record.json#{picture.pixels_sha256}"
    assert {found.name for found in batches(world.home.persona("sitter"))} == {"v001", "restored/v001"}
    with pytest.raises(InvalidInput, match="restored afterwards"):
        replay(
            folder, world.persona, home=world.home, pack=world.pack, engine=world.engine,
            progress=SilentProgress(), now=world.now, out_dir=folder / "again",
        )  # fmt: skip
    for name in ("v001", "restored/v001"):
        with pytest.raises(Conflict):
            run(world, name)


def test_what_no_longer_passes_is_not_kept(world: World, batch: Path) -> None:
    """The threshold is just below the less alike of the two, and that one is spoilt."""
    likeness = [picture.likeness or 0.0 for picture in read_record(batch).pictures[:2]]
    spoilt = int(np.argmin(likeness))
    known = ruler_of(world)
    calibration = known.calibration.model_copy(update={"threshold": min(likeness) - 0.002})
    calls: list[int] = []

    def spoils_one(face: Image_HW3) -> Image_HW3:
        calls.append(1)
        return np.full_like(face, (255, 0, 255)) if len(calls) == spoilt + 1 else face

    record, folder = run(world, restorer=spoils_one, ruler=replace(known, calibration=calibration))
    assert record.restoration is not None
    assert record.restoration.dropped == 1
    assert [picture.seed for picture in record.pictures] == [2 - spoilt]
    assert len(list(folder.glob("*.png"))) == 1


def test_only_measured_and_passed_batches_are_restored(world: World, batch: Path) -> None:
    record = read_record(batch)
    failed = record.model_copy(deep=True)
    for picture in failed.pictures:
        picture.likeness = 0.0
    write_record(failed, batch)
    with pytest.raises(InvalidInput, match="passed the likeness check"):
        run(world)
    write_record(record.model_copy(update={"threshold": None}), batch)
    with pytest.raises(InvalidInput) as unmeasured:
        run(world)
    assert unmeasured.value.hint == "oblik likeness"
    assert not (batch.parent / "restored").exists()
