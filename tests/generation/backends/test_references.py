"""References in the engine: the face is drawn towards photos, and nothing but the face.

Scores are never compared with a number: a retrained pack has others. What must hold for any of them is which
of two pictures is more alike.
"""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from oblik.datasets.captions import caption
from oblik.errors import BackendUnavailable, InvalidInput
from oblik.faces.masks import OUTLINE, face_mask
from oblik.faces.stack import Face, FaceStack, open_stack
from oblik.generation.adapters import Sight
from oblik.generation.backends import references
from oblik.generation.backends.diffusers_engine import DiffusersEngine
from oblik.generation.backends.first_runs import FirstRuns
from oblik.generation.backends.identity_tokens import three_prompts
from oblik.generation.backends.references import inside_face
from oblik.generation.plan import Plan, Reference
from oblik.generation.record import Record
from oblik.likeness.pairs import centroid, unit
from oblik.miniature.corpus import HELD_OUT, shot_of
from oblik.miniature.people import Person
from oblik.miniature.prompts import is_portrait
from oblik.miniature.render import render
from oblik.packs.memory_plan import GIB
from oblik.packs.store import BUNDLED, open_pack
from oblik.paths import Home, private_dir
from oblik.progress import SilentProgress
from oblik.training.adapter import WORD

NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)
PACK = open_pack(str(BUNDLED / "miniature"), Home(Path("nowhere")))
PEOPLE = range(HELD_OUT + 310_000, HELD_OUT + 310_003)
TAIL = {"expression": "smile", "view": "frontal", "scene": "park", "light": "daylight"}
SEEDS, STEPS = (1, 2, 3, 4), 8

pytestmark = pytest.mark.filterwarnings("ignore")


class Blind:
    """A stack that sees a face in a photo from a phone and none in a picture of the pack's size."""

    def __init__(self, stack: FaceStack, name: str = "") -> None:
        self._stack, self.name = stack, name or stack.name

    def detect(self, image: Any) -> list[Face]:
        return [] if len(image) <= 128 and self.name == self._stack.name else self._stack.detect(image)

    def embed(self, image: Any, face: Face) -> Any:
        return self._stack.embed(image, face)


@pytest.fixture(scope="module")
def stack() -> FaceStack:
    return open_stack("onnx", folder=PACK.faces_folder)


@pytest.fixture(scope="module")
def personas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For each person four photos to refer to and four others to measure with, rendered at 192 px."""
    root = tmp_path_factory.mktemp("personas")
    for seed in PEOPLE:
        person = Person.from_seed(seed)
        shots = (shot_of(seed, place)[0] for place in range(200))
        good = [each for each in shots if is_portrait(each.descriptors) and not each.hat][:8]
        for place, shot in enumerate(good):
            path = private_dir(root / f"p{seed}") / f"{place}.png"
            Image.fromarray(render(person, shot, 192).image).save(path)
    return root


@pytest.fixture(scope="module")
def engine(personas: Path, stack: FaceStack) -> DiffusersEngine:
    return DiffusersEngine("cpu", sight=Sight(personas, lambda: stack))


def plan_of(seed: int, *, weight: float | None = 0.6, **changes: Any) -> Plan:
    words = {**Person.from_seed(seed).descriptors, **TAIL}
    photos = tuple(Reference(image=f"{place}.png", weight=weight) for place in range(4) if weight is not None)
    values = {
        "pack": "miniature", "persona": f"p{seed}", "prompt": caption(words), "seeds": SEEDS, "steps": STEPS,
        "guidance": 3.0, "width_px": 128, "height_px": 128, "dtype": "float32", "references": photos,
    }  # fmt: skip
    return Plan.model_validate(values | changes)


def run(engine: DiffusersEngine, plan: Plan, out_dir: Path) -> Record:
    return engine.run(plan, pack=PACK, artifact=None, out_dir=out_dir, now=NOW, progress=SilentProgress())


def pixels(record: Record, folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(folder / picture.file)) for picture in record.pictures]


def likeness(images: list[np.ndarray], references_ND: np.ndarray, stack: FaceStack) -> float:
    """The mean cosine to the mean of the photos; a picture without a face counts as 0."""
    middle_D = centroid(references_ND)
    found = [(image, stack.detect(image)) for image in images]
    return float(
        np.mean([stack.embed(image, faces[0]) @ middle_D if faces else 0.0 for image, faces in found])
    )


@pytest.fixture(scope="module")
def pairs(
    engine: DiffusersEngine, tmp_path_factory: pytest.TempPathFactory
) -> dict[int, tuple[list[np.ndarray], list[np.ndarray]]]:
    """For each person the pictures without references and with them, whether these came closer or not."""
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(references, "no_closer", lambda *_: "")
        for seed in PEOPLE:
            folders = [tmp_path_factory.mktemp(name) for name in ("plain", "referred")]
            plans = [plan_of(seed, weight=None), plan_of(seed)]
            plain, referred = (
                pixels(run(engine, plan, folder), folder) for plan, folder in zip(plans, folders, strict=True)
            )
            made[seed] = (plain, referred)
    return made


Pairs = dict[int, tuple[list[np.ndarray], list[np.ndarray]]]


def test_outside_the_feathered_mask_every_pixel_is_the_first_runs(pairs: Pairs, stack: FaceStack) -> None:
    changed = 0
    for plain, referred in pairs.values():
        for before, after in zip(plain, referred, strict=True):
            faces = stack.detect(before)
            assert faces, "this pack draws faces"
            mask = face_mask(faces[0].landmarks, 128, 128, grow=OUTLINE)
            assert (mask == 0).mean() > 0.3
            assert (before[mask == 0] == after[mask == 0]).all()
            changed += int((before[mask > 200] != after[mask > 200]).any())
    assert changed == len(PEOPLE) * len(SEEDS)


def test_the_mean_likeness_of_sitters_without_a_lora_rises(
    pairs: Pairs, personas: Path, stack: FaceStack
) -> None:
    gains = []
    for seed, (plain, referred) in pairs.items():
        photos = [np.asarray(Image.open(personas / f"p{seed}" / f"{place}.png")) for place in range(4, 8)]
        seen = [(photo, stack.detect(photo)) for photo in photos]
        others_ND = unit(np.stack([stack.embed(photo, faces[0]) for photo, faces in seen if faces]))
        gains.append(likeness(referred, others_ND, stack) - likeness(plain, others_ND, stack))
    assert np.mean(gains) > 0, gains


def test_a_seed_runs_again_to_the_same_bytes_and_leaves_no_trace(
    engine: DiffusersEngine, tmp_path: Path
) -> None:
    short = {"seeds": (1,), "steps": 3}
    before, first, second, after = (
        run(engine, plan_of(PEOPLE[0], weight=weight, **short), tmp_path / name)
        for name, weight in (("a", None), ("b", 0.6), ("c", 0.6), ("d", None))
    )
    assert first.pictures[0].sha256 == second.pictures[0].sha256 != before.pictures[0].sha256
    assert after.pictures[0].sha256 == before.pictures[0].sha256
    assert len(first.references_sha256) == 4
    assert before.references_sha256 == {}


def test_the_first_run_is_not_made_again_after_the_rung_below(
    personas: Path, stack: FaceStack, tmp_path: Path
) -> None:
    """Each step calls the network twice; another run is made, and kept in turn; an edit takes it, too."""
    climbing = DiffusersEngine("cpu", sight=Sight(personas, lambda: stack))
    calls: list[int] = []

    def called(weight: float | None, adapter: str = "", **changes: Any) -> tuple[int, list[str]]:
        calls.clear()
        plan = plan_of(PEOPLE[0], weight=weight, **{"seeds": (1, 2), "batch": 1, "steps": 2} | changes)
        if adapter:
            photos = tuple(each.model_copy(update={"adapter": adapter}) for each in plan.references)
            plan = plan.model_copy(update={"references": photos[:2]})
        record = run(climbing, plan, tmp_path / str(len(list(tmp_path.iterdir()))))
        return len(calls), [picture.sha256 for picture in record.pictures]

    called(None)
    assert climbing._open
    climbing._open[1].network.register_forward_pre_hook(lambda *_: calls.append(1))
    each_run = 2 * 2 * 2
    calls_made, pictures = called(0.6, mode="reliable")
    assert calls_made == each_run
    assert called(0.6) == (each_run, pictures)
    assert called(0.6, "edit-reference")[0] == each_run
    called(None, lora_scale=0.5)
    assert called(0.6) == (2 * each_run, pictures), "another run was kept"
    assert called(0.6, "edit-reference")[0] == each_run, "what was made for references is kept in turn"
    climbing._first_runs = FirstRuns(most_bytes=300_000)
    called(None)
    assert called(0.6) == (2 * each_run, pictures), "too large to be kept"


@pytest.mark.parametrize("taken", [True, False])
def test_a_picture_is_drawn_again_only_to_come_closer(
    engine: DiffusersEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, taken: bool
) -> None:
    """What is compared are the first run's picture and the one that would take its place."""
    asked: list[list[np.ndarray]] = []

    def no_closer(_stack: FaceStack, vectors_ND: np.ndarray, *images: np.ndarray) -> str:
        assert vectors_ND.shape[0] == 4
        asked.append(list(images))
        return "" if taken else "it is not"

    monkeypatch.setattr(references, "no_closer", no_closer)
    plans = [plan_of(PEOPLE[0], weight=weight, seeds=(1, 2), steps=2) for weight in (None, 0.6)]
    records = [run(engine, plan, tmp_path / str(place)) for place, plan in enumerate(plans)]
    plain, referred = (pixels(record, tmp_path / str(place)) for place, record in enumerate(records))
    assert all((image == before).all() for image, (before, _) in zip(plain, asked, strict=True))
    wanted = [after for _, after in asked] if taken else plain
    assert all((image == other).all() for image, other in zip(referred, wanted, strict=True))
    notes = [step.reason for step in records[1].steps]
    assert notes == ([] if taken else ["seed 1 stays: it is not", "seed 2 stays: it is not"])


def test_weight_is_a_strength(
    engine: DiffusersEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Away from the stranger of the same words, whom weight 0 draws."""
    monkeypatch.setattr(references, "no_closer", lambda *_: "")
    (stranger,), *others = (
        pixels(run(engine, plan_of(PEOPLE[0], weight=weight, seeds=(2,), steps=4), folder), folder)
        for weight in (0.0, 0.4, 1.0)
        if (folder := tmp_path / str(weight))
    )
    away = [float(np.abs(image.astype(int) - stranger).mean()) for (image,) in others]
    assert 0 < away[0] < away[1]


def test_a_memory_plan_that_frees_the_text_encoder_gives_the_same_bytes(
    engine: DiffusersEngine, personas: Path, stack: FaceStack, tmp_path: Path
) -> None:
    planned = DiffusersEngine("cpu", 2 * GIB, Sight(personas, lambda: stack))
    plan = plan_of(PEOPLE[0], seeds=(1,), steps=2)
    records = [run(each, plan, tmp_path / str(place)) for place, each in enumerate((engine, planned))]
    assert records[0].pictures[0].sha256 == records[1].pictures[0].sha256
    assert records[1].steps


def test_a_picture_without_a_face_stays_as_it_was_and_that_is_noted(
    engine: DiffusersEngine, personas: Path, stack: FaceStack, tmp_path: Path
) -> None:
    blind = DiffusersEngine("cpu", sight=Sight(personas, lambda: Blind(stack)))
    short: dict[str, Any] = {"seeds": (1,), "steps": 2}
    record = run(blind, plan_of(PEOPLE[0], **short), tmp_path / "blind")
    plain = run(engine, plan_of(PEOPLE[0], weight=None, **short), tmp_path / "plain")
    assert record.pictures[0].sha256 == plain.pictures[0].sha256
    assert [step.reason.split(":")[0] for step in record.steps] == [
        "no face is found in the picture of seed 1"
    ]


def test_what_cannot_be_done_is_said_before_any_weights_are_read(
    personas: Path, stack: FaceStack, tmp_path: Path
) -> None:
    engine = DiffusersEngine("cpu", sight=Sight(personas, lambda: stack))
    other = (Reference(image="0.png", adapter="ip-adapter-faceid"),)
    with pytest.raises(BackendUnavailable, match="no FaceID adapter exists for this family"):
        run(engine, plan_of(PEOPLE[0], references=other), tmp_path)
    with pytest.raises(InvalidInput, match="face stack"):
        run(DiffusersEngine("cpu"), plan_of(PEOPLE[0]), tmp_path)
    assert engine._open is None


def test_faces_of_another_stack_are_refused(personas: Path, stack: FaceStack, tmp_path: Path) -> None:
    engine = DiffusersEngine("cpu", sight=Sight(personas, lambda: Blind(stack, "other")))
    with pytest.raises(BackendUnavailable, match="does not know the face vectors of 'other'"):
        run(engine, plan_of(PEOPLE[0], steps=1), tmp_path)


class Pipeline:
    """What `inside_face` asks of a pipeline."""

    vae_scale_factor = 8

    @staticmethod
    def _pack_latents(latents: torch.Tensor, count: int, channels: int, rows: int, columns: int) -> Any:
        from diffusers import QwenImagePipeline

        return QwenImagePipeline._pack_latents(latents, count, channels, rows, columns)


def test_a_latent_cell_is_inside_when_any_of_its_pixels_is() -> None:
    masks_BHW = np.zeros((2, 64, 96), np.float32)
    masks_BHW[0, 20, 50] = 0.01
    maps = inside_face(Pipeline(), masks_BHW, torch.zeros(2, 4, 8, 12))
    assert maps.shape == (2, 4, 8, 12)
    assert maps.nonzero()[:, [0, 2, 3]].unique(dim=0).tolist() == [[0, 2, 6]]
    packed = inside_face(Pipeline(), masks_BHW, torch.zeros(2, 24, 64))
    assert torch.equal(
        packed,
        Pipeline._pack_latents(maps[:, None].expand(-1, 1, -1, -1, -1).repeat(1, 1, 4, 1, 1), 2, 16, 8, 12)
        > 0,
    )


@pytest.mark.parametrize(
    ("prompt", "trigger", "stranger", "named"),
    [
        ("photo of a woman", None, "photo of a woman", f"photo of {WORD} woman"),
        ("photo of an old man, a hat", None, "photo of an old man, a hat", f"photo of {WORD} old man, a hat"),
        ("photo of <oblik_s> man", "<oblik_s>", "photo of a man", f"photo of {WORD} man"),
        ("photo of <oblik_s> old man", "<oblik_s>", "photo of an old man", f"photo of {WORD} old man"),
    ],
)
def test_the_word_takes_the_place_of_the_trigger_or_the_first_article(
    prompt: str, trigger: str | None, stranger: str, named: str
) -> None:
    assert three_prompts(prompt, trigger) == (prompt, stranger, named)


def test_a_prompt_without_an_article_gets_an_opening_that_has_one() -> None:
    opened = "photo of a person, smiling"
    assert three_prompts("smiling", None) == (opened, opened, f"photo of {WORD} person, smiling")
