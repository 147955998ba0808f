"""The judge of checkpoints: held-out likeness with a lower end, misses as misses, two guards."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from tests.flows.conftest import SITTER, STRANGER, HueStack, painted

from oblik.errors import InvalidInput, NotFound
from oblik.faces.stack import Face, Image_HW3, Unit_D
from oblik.flows.calibrate import open_ruler
from oblik.flows.judge import CHOICE, Judges, LikenessJudge, judge_of, open_judge, write_choice
from oblik.images import open_upright, save_clean_png
from oblik.likeness.pairs import score_images
from oblik.training.artifact import LossPoint
from oblik.training.judge import WITH, WITHOUT, best

if TYPE_CHECKING:
    from tests.flows.conftest import World

Colours_43 = NDArray[np.float64]


class CountingStack(HueStack):
    """Counts how many faces were embedded."""

    def __init__(self) -> None:
        self.embedded = 0

    def embed(self, image: Image_HW3, face: Face) -> Unit_D:
        self.embedded += 1
        return super().embed(image, face)


def opened(world: World) -> LikenessJudge:
    judge = open_judge(world.persona, home=world.home, pack=world.pack, stack=world.stack, dataset="v001")
    assert isinstance(judge, LikenessJudge)
    return judge


def probes(folder: Path, *, alike: float = 1.0, bleed: float = 0.0, count: int = 6, misses: int = 0) -> Path:
    """``alike`` and ``bleed`` say how much of the sitter is in the pictures with and without the token."""
    for name, share in ((WITH, alike), (WITHOUT, bleed)):
        person = share * SITTER + (1 - share) * STRANGER
        for place in range(count):
            image = painted(person, 31 * place + 7, spread=15)
            if name == WITH and place < misses:
                image = Image.new("RGB", image.size)
            save_clean_png(image, folder / name / f"{place:02d}.png")
    return folder


@pytest.fixture
def judge(world: World) -> LikenessJudge:
    world.dataset(40)
    return opened(world)


def test_likeness_is_the_mean_cosine_to_held_out_photos(
    world: World, judge: LikenessJudge, tmp_path: Path
) -> None:
    folder = probes(tmp_path / "step_00100")
    found = judge(100, folder)
    images = [open_upright(path) for path in sorted((folder / WITH).glob("*.png"))]
    heldout_ND = open_ruler(
        world.persona, home=world.home, pack=world.pack, stack=world.stack
    ).references.heldout_ND
    scores = score_images(world.stack, images, heldout_ND)
    assert found.likeness == pytest.approx(np.mean([score.centroid for score in scores]))
    assert (found.step, found.misses, found.passes) == (100, 0, True)
    assert found.low < found.likeness < found.high
    assert found.without < found.threshold < found.low


def test_a_picture_without_a_face_is_scored_as_a_miss(judge: LikenessJudge, tmp_path: Path) -> None:
    whole, missed = judge(1, probes(tmp_path / "a")), judge(1, probes(tmp_path / "b", misses=3))
    assert missed.misses == 3
    assert missed.likeness == pytest.approx(whole.likeness / 2, abs=0.03)
    assert missed.low < 0.3
    none = judge(1, probes(tmp_path / "c", misses=6))
    assert (none.likeness, none.low, none.misses) == (0, 0, 6)


def test_strangers_who_look_like_the_person_fail_the_guard(judge: LikenessJudge, tmp_path: Path) -> None:
    clean = judge(1, probes(tmp_path / "a", alike=0.8))
    bled = judge(2, probes(tmp_path / "b", alike=1.0, bleed=0.9))
    assert (clean.passes, bled.passes, bled.bleeds) == (True, False, True)
    assert bled.low > clean.low
    assert best([clean, bled]) == clean


def test_pictures_that_repeat_training_photos_fail_the_guard(world: World, tmp_path: Path) -> None:
    """The copies are more alike than an honest checkpoint, and still are not chosen."""
    world.dataset(40)
    spread_out(world)
    judge = opened(world)
    honest = judge(1, probes(tmp_path / "a"))
    folder = probes(tmp_path / "b")
    for place, photo in enumerate((1, 2, 5, 6, 9, 10)):
        save_clean_png(training_photo(photo), folder / WITH / f"{place:02d}.png")
    copied = judge(2, folder)
    assert (honest.copies, honest.passes) == (False, True)
    assert (copied.copies, copied.passes) == (True, False)
    assert copied.copied > copied.allowed_copy


def training_photo(place: int) -> Image.Image:
    return painted(SITTER, place, spread=25)


def spread_out(world: World) -> None:
    """Photos that differ among themselves, as a person's do: a copy then stands out."""
    stack, faces = HueStack(), {}
    for place in range(40):
        pixels = np.asarray(training_photo(place))
        faces[f"{place:064x}"] = stack.embed(pixels, stack.detect(pixels)[0])
    np.savez(world.home.persona("sitter").datasets / "v001" / "faces.npz", **faces)  # type: ignore[arg-type]


def test_references_are_embedded_once_and_the_same_probes_judged_the_same(
    world: World, tmp_path: Path
) -> None:
    world.dataset(40)
    world.stack = CountingStack()
    judge, folder = opened(world), probes(tmp_path)
    first = judge(1, folder)
    assert world.stack.embedded == 12, "the faces of the probes and no others"
    assert judge(1, folder) == first


def test_probes_that_are_not_there_are_an_error(judge: LikenessJudge, tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no probe"):
        judge(1, tmp_path)


def test_another_face_stack_is_refused_before_the_training(world: World) -> None:
    world.dataset()
    world.stack.name = "other"
    with pytest.raises(InvalidInput, match="not other"):
        opened(world)


def judges_of(world: World, said: list[str]) -> Judges:
    return judge_of(
        world.persona, home=world.home, pack=world.pack, stack=lambda: world.stack, say=said.append
    )


def test_a_mixture_of_face_stacks_is_refused_and_not_trained_unjudged(world: World) -> None:
    world.dataset()
    world.stack.name = "other"
    said: list[str] = []
    with pytest.raises(InvalidInput, match="not other"):
        judges_of(world, said)("v001")
    assert said == []


def test_without_other_people_nobody_judges_and_the_operator_is_told(world: World) -> None:
    world.dataset()
    said: list[str] = []
    assert judges_of(world, said)("v001") is not None
    assert said == []
    (world.pack.faces_folder / "impostors.npz").unlink()
    assert judges_of(world, said)("v001") is None
    assert len(said) == 1
    assert said[0].startswith("checkpoints are not judged: pack 'paint' brings no faces of other people")
    assert said[0].endswith("; oblik likeness impostors FOLDER")


def test_the_chart_lies_in_the_artifact(judge: LikenessJudge, tmp_path: Path) -> None:
    found = [judge(step, probes(tmp_path / f"{step}", alike=step / 100)) for step in (50, 100)]
    losses = [
        LossPoint(step=step, train=1 / step, validation=0.5 if step == 50 else None) for step in (50, 100)
    ]
    path = write_choice(tmp_path, found, losses)
    assert path == tmp_path / CHOICE
    with Image.open(path) as image:
        assert min(image.size) > 800
