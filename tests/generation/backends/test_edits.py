"""Edits in the engine: what a mask forbids stays to the byte, what it allows is drawn; no trace is left."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from oblik.datasets.captions import caption
from oblik.diffusion.families.qwen_image import EYES
from oblik.errors import BackendUnavailable, InvalidInput, PackBroken
from oblik.faces.masks import face_mask
from oblik.faces.stack import FaceStack, open_stack
from oblik.generation.adapters import Sight
from oblik.generation.backends import edits
from oblik.generation.backends.diffusers_engine import DiffusersEngine
from oblik.generation.backends.edit_reference import LORA, EditReference, edit_view
from oblik.generation.backends.edits import whole_cells
from oblik.generation.plan import Edit, Plan
from oblik.generation.record import Record
from oblik.miniature.corpus import HELD_OUT, shot_of
from oblik.miniature.people import Person
from oblik.miniature.prompts import is_portrait
from oblik.miniature.render import render
from oblik.miniature.train_edit import EditRecipe, attach, write_edit
from oblik.packs.manifest import Component, OpenPack, PackFile
from oblik.packs.memory_plan import GIB, Beside
from oblik.packs.store import BUNDLED, open_pack
from oblik.paths import Home, private_dir
from oblik.progress import SilentProgress

NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)
BUNDLED_PACK = open_pack(str(BUNDLED / "miniature"), Home(Path("nowhere")))
SEED, STRANGER = HELD_OUT + 330_000, HELD_OUT + 330_001
TAIL = {"expression": "smile", "view": "frontal", "scene": "park", "light": "daylight"}

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def stack() -> FaceStack:
    return open_stack("onnx", folder=BUNDLED_PACK.faces_folder)


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> OpenPack:
    """The bundled pack with an editing LoRA that was not trained, but says something."""
    from diffusers import QwenImageTransformer2DModel
    from peft.utils import get_peft_model_state_dict

    folder = tmp_path_factory.mktemp("pack")
    for part in BUNDLED_PACK.folder.iterdir():
        if part.name != LORA.parent.name:
            (folder / part.name).symlink_to(part)
    transformer = QwenImageTransformer2DModel.from_pretrained(BUNDLED_PACK.folder / "transformer")
    attach(transformer, EditRecipe(rank=2))
    weights = get_peft_model_state_dict(transformer, adapter_name="edit")
    noise = torch.Generator().manual_seed(0)
    said = {name: 0.1 * torch.randn(each.shape, generator=noise) for name, each in weights.items()}
    write_edit(folder / LORA.parent, said)
    return OpenPack(manifest=BUNDLED_PACK.manifest, folder=folder)


@pytest.fixture(scope="module")
def personas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sitter's photos, and a stranger's photo as the frame, with a mask on the face."""
    home = private_dir(tmp_path_factory.mktemp("personas") / "sitter")
    for seed, names in ((SEED, ("0.png", "1.png")), (STRANGER, ("frame.png",))):
        shots = (shot_of(seed, place)[0] for place in range(200))
        good = [each for each in shots if is_portrait(each.descriptors) and not each.hat]
        for name, shot in zip(names, good, strict=False):
            Image.fromarray(render(Person.from_seed(seed), shot, 160).image).save(home / name)
    alpha = np.zeros((160, 160), np.uint8)
    alpha[40:100, 50:110] = 255
    alpha[40:100, 50:54] = 90
    Image.fromarray(alpha).save(home / "alpha.png")
    Image.new("RGB", (128, 128)).save(home / "pose.png")
    return home.parent


@pytest.fixture(scope="module")
def engine(personas: Path, stack: FaceStack) -> DiffusersEngine:
    return DiffusersEngine("cpu", sight=Sight(personas, lambda: stack))


@pytest.fixture
def taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every edit is taken, also one that brings a face no closer: this LoRA was not trained."""
    monkeypatch.setattr(edits, "no_closer", lambda *_: "")


def plan_of(adapter: str | None = None, **changes: Any) -> Plan:
    words = {**Person.from_seed(SEED).descriptors, **TAIL}
    references = [{"image": f"{place}.png", "adapter": adapter} for place in range(2) if adapter]
    values = {
        "pack": "miniature", "persona": "sitter", "prompt": caption(words), "seeds": (1,), "steps": 3,
        "guidance": 2.0, "width_px": 128, "height_px": 128, "dtype": "float32", "references": references,
    }  # fmt: skip
    return Plan.model_validate(values | changes)


EDIT = Edit(image="frame.png", mask="alpha.png", window=(10, 0, 160, 150))


def run(
    engine: DiffusersEngine, plan: Plan, pack: OpenPack, out_dir: Path
) -> tuple[Record, list[np.ndarray]]:
    record = engine.run(plan, pack=pack, artifact=None, out_dir=out_dir, now=NOW, progress=SilentProgress())
    return record, [np.asarray(Image.open(out_dir / picture.file)) for picture in record.pictures]


@pytest.mark.parametrize("adapter", [None, "identity-tokens", "edit-reference"])
def test_where_the_alpha_map_is_zero_every_byte_is_the_frames(
    engine: DiffusersEngine, pack: OpenPack, personas: Path, tmp_path: Path, adapter: str | None
) -> None:
    record, (edited,) = run(engine, plan_of(adapter, edit=EDIT), pack, tmp_path)
    frame, alpha = (np.asarray(Image.open(personas / "sitter" / name)) for name in ("frame.png", "alpha.png"))
    assert edited.shape == frame.shape
    assert (edited[alpha == 0] == frame[alpha == 0]).all()
    assert (edited[alpha == 255] != frame[alpha == 255]).mean() > 0.5
    assert set(record.edit_sha256) == {"frame.png", "alpha.png"}
    assert len(record.references_sha256) == (2 if adapter else 0)


def test_an_edit_runs_again_to_the_same_bytes_and_leaves_no_trace(
    engine: DiffusersEngine, pack: OpenPack, tmp_path: Path
) -> None:
    plans = (plan_of(), plan_of("edit-reference", edit=EDIT), plan_of("edit-reference", edit=EDIT), plan_of())
    before, first, second, after = (
        run(engine, plan, pack, tmp_path / str(place))[0].pictures[0].sha256
        for place, plan in enumerate(plans)
    )
    assert first == second
    assert before == after


def test_the_pose_of_the_frame_is_kept_unless_there_is_none(
    engine: DiffusersEngine, pack: OpenPack, personas: Path, stack: FaceStack, tmp_path: Path
) -> None:
    """The drawn face lies nearer to the frame's own; a mask without a face is noted and drawn freely."""
    home = personas / "sitter"
    frame = np.asarray(Image.open(home / "frame.png"))
    there = stack.detect(frame)[0].landmarks
    Image.fromarray(face_mask(there, 160, 160, grow=1.15)).save(home / "face.png")
    Image.fromarray(np.pad(np.full((9, 9), 255, np.uint8), ((0, 151), (0, 151)))).save(home / "corner.png")
    pose = [{"kind": "pose"}]
    face = EDIT.model_copy(update={"mask": "face.png"})
    apart = []
    for place, controls in enumerate(([], pose)):
        plan = plan_of("identity-tokens", edit=face, controls=controls, seeds=(1, 2), steps=4)
        record, images = run(engine, plan, pack, tmp_path / f"turned{place}")
        found = [stack.detect(image) for image in images]
        apart.append(np.mean([np.linalg.norm(f[0].landmarks - there, axis=1).mean() for f in found if f]))
        assert not record.steps
    assert apart[1] < apart[0]
    plans = [plan_of("edit-reference", edit=face, controls=each, steps=2) for each in ([], pose, pose)]
    free, kept, again = (run(engine, plan, pack, tmp_path / str(n))[0] for n, plan in enumerate(plans))
    assert free.pictures[0].sha256 != kept.pictures[0].sha256 == again.pictures[0].sha256
    corner = EDIT.model_copy(update={"mask": "corner.png", "window": None})
    plain, noted = (
        run(engine, plan_of(edit=corner, controls=each, steps=2), pack, tmp_path / f"corner{len(each)}")[0]
        for each in ([], pose)
    )
    assert [step.name for step in noted.steps] == ["pose"]
    assert noted.pictures[0].sha256 == plain.pictures[0].sha256


@pytest.mark.usefixtures("taken")
def test_the_third_rung_keeps_the_pose_of_its_own_pictures(
    engine: DiffusersEngine, pack: OpenPack, tmp_path: Path
) -> None:
    plans = [plan_of("edit-reference", controls=each, steps=2) for each in ([], [{"kind": "pose"}])]
    free, kept = (run(engine, plan, pack, tmp_path / str(n))[1][0] for n, plan in enumerate(plans))
    corner = (slice(0, 16), slice(0, 16))
    assert (free != kept).any()
    assert (free[corner] == kept[corner]).all()


def test_an_edit_steps_by_the_plans_sampler(engine: DiffusersEngine, pack: OpenPack, tmp_path: Path) -> None:
    euler, first, second = (
        run(engine, plan_of(edit=EDIT, sampler=sampler), pack, tmp_path / str(place))[0].pictures[0].sha256
        for place, sampler in enumerate(("euler", "euler_ancestral", "euler_ancestral"))
    )
    assert euler != first == second


def test_below_full_strength_the_frame_shines_through(
    engine: DiffusersEngine, pack: OpenPack, personas: Path, tmp_path: Path
) -> None:
    frame = np.asarray(Image.open(personas / "sitter" / "frame.png")).astype(int)
    away = []
    for strength in (0.4, 1.0):
        plan = plan_of(edit=EDIT.model_copy(update={"strength": strength}), steps=5)
        _, (edited,) = run(engine, plan, pack, tmp_path / str(strength))
        away.append(np.abs(edited - frame)[40:100, 60:110].mean())
    assert 0 < away[0] < away[1]


def test_an_edit_of_its_own_pictures_stays_away_where_it_brings_no_face_closer(
    engine: DiffusersEngine, pack: OpenPack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody's frame is edited in any case: that is what was asked for."""
    monkeypatch.setattr(edits, "no_closer", lambda *_: "it is not")
    short: dict[str, Any] = {"steps": 2}
    plans = (
        plan_of(**short),
        plan_of("edit-reference", **short),
        plan_of("edit-reference", edit=EDIT, **short),
    )
    (_, (plain,)), (own, (kept,)), (given, (frame,)) = (
        run(engine, plan, pack, tmp_path / str(place)) for place, plan in enumerate(plans)
    )
    assert (kept == plain).all()
    assert [step.reason for step in own.steps] == ["seed 1 stays: it is not"]
    assert (given.steps, len(frame)) == ([], 160)


@pytest.mark.usefixtures("taken")
def test_the_third_rung_edits_the_faces_of_its_own_pictures(
    engine: DiffusersEngine, pack: OpenPack, stack: FaceStack, tmp_path: Path
) -> None:
    short: dict[str, Any] = {"seeds": (1, 2), "steps": 6}
    _, plain = run(engine, plan_of(**short), pack, tmp_path / "plain")
    record, edited = run(engine, plan_of("edit-reference", **short), pack, tmp_path / "edited")
    changed = 0
    for before, after in zip(plain, edited, strict=True):
        differs = (before != after).any(-1)
        assert differs.mean() < 0.7
        changed += int(differs.any())
    assert changed == sum(bool(stack.detect(image)) for image in plain) > 0
    assert record.seconds["before the edit"] > 0
    assert not (tmp_path / "edited" / ".before").exists()


def test_the_third_rung_edits_pictures_that_follow_a_control(
    engine: DiffusersEngine, pack: OpenPack, tmp_path: Path
) -> None:
    controls = [{"kind": "given", "image": "pose.png", "weight": 1.0}]
    plans = plan_of(), plan_of(controls=controls), plan_of("edit-reference", controls=controls)
    (plain,), (followed,), (edited,) = (
        run(engine, plan, pack, tmp_path / str(place))[1] for place, plan in enumerate(plans)
    )
    assert (followed != plain).any()
    corner = (slice(0, 16), slice(0, 16))
    assert (edited[corner] == followed[corner]).all(), "what is not the face is the picture that followed"


def test_references_are_read(engine: DiffusersEngine, pack: OpenPack, personas: Path, tmp_path: Path) -> None:
    """Another person's head beside the frame makes another picture, the words being the same."""
    one = plan_of("edit-reference", edit=EDIT)
    other = one.model_copy(
        update={"references": (one.references[0].model_copy(update={"image": "frame.png"}),)}
    )
    made = [run(engine, plan, pack, tmp_path / str(place))[1][0] for place, plan in enumerate((one, other))]
    assert (made[0] != made[1]).any()


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"strength": 0.1}, "less than one step"), ({"mask": "0.png", "image": "small.png"}, "not as large")],
)
def test_what_cannot_be_edited_is_said_before_any_weights_are_read(
    personas: Path, stack: FaceStack, pack: OpenPack, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    Image.new("RGB", (64, 64), "grey").save(personas / "sitter" / "small.png")
    engine = DiffusersEngine("cpu", sight=Sight(personas, lambda: stack))
    with pytest.raises(InvalidInput, match=said):
        run(engine, plan_of(edit=EDIT.model_copy(update=changes)), pack, tmp_path)
    assert engine._open is None


def test_a_pack_that_cannot_edit_makes_nothing_first(
    engine: DiffusersEngine, pack: OpenPack, tmp_path: Path
) -> None:
    bare = OpenPack(manifest=pack.manifest, folder=tmp_path / "bare")
    with pytest.raises(BackendUnavailable, match="has no edit"):
        run(engine, plan_of("edit-reference"), bare, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_editing_lora_that_does_not_fit_is_a_broken_pack(
    engine: DiffusersEngine, pack: OpenPack, tmp_path: Path
) -> None:
    folder = tmp_path / "pack"
    folder.mkdir()
    for part in BUNDLED_PACK.folder.iterdir():
        if part.name != LORA.parent.name:
            (folder / part.name).symlink_to(part)
    key = "transformer_blocks.0.attn.to_q.lora_{}.weight"
    write_edit(folder / LORA.parent, {key.format("A"): torch.ones(2, 7), key.format("B"): torch.ones(7, 2)})
    broken = OpenPack(manifest=pack.manifest, folder=folder)
    with pytest.raises(PackBroken, match="cannot be loaded"):
        run(engine, plan_of("edit-reference", edit=EDIT), broken, tmp_path / "out")


@pytest.fixture(scope="module")
def other_network(pack: OpenPack, tmp_path_factory: pytest.TempPathFactory) -> OpenPack:
    """A pack with a transformer for edits, random, and a processor through which its encoder looks."""
    from diffusers import QwenImageTransformer2DModel
    from transformers import Qwen2VLImageProcessorPil

    folder = tmp_path_factory.mktemp("other")
    for part in BUNDLED_PACK.folder.iterdir():
        if part.name != LORA.parent.name:
            (folder / part.name).symlink_to(part)
    transformer = QwenImageTransformer2DModel.from_pretrained(BUNDLED_PACK.folder / "transformer")
    torch.nn.init.normal_(transformer.proj_out.weight, std=0.1, generator=torch.Generator().manual_seed(0))
    transformer.save_pretrained(folder / "edit" / "transformer")
    eyes = Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=4 * 28 * 28)
    eyes.save_pretrained(folder / "edit" / "processor")
    files = [
        PackFile(path=f"edit/transformer/{path.name}", bytes=1, sha256="0")
        for path in (folder / "edit" / "transformer").iterdir()
    ]
    network = Component(source="made here", licence="Apache-2.0", commercial_use=True, files=files)
    parts = {**pack.manifest.components, "edit_transformer": network}
    return OpenPack(manifest=pack.manifest.model_copy(update={"components": parts}), folder=folder)


def test_a_packs_own_editing_transformer_and_its_eyes_are_used_for_edits_only(
    engine: DiffusersEngine, pack: OpenPack, other_network: OpenPack, tmp_path: Path
) -> None:
    plans = (plan_of(steps=2), plan_of("edit-reference", edit=EDIT, steps=2), plan_of(steps=2))
    own = [run(engine, plan, pack, tmp_path / f"own{place}")[1][0] for place, plan in enumerate(plans)]
    records, others = [], []
    for place, plan in enumerate(plans):
        record, (image,) = run(engine, plan, other_network, tmp_path / f"other{place}")
        records.append(record.pack_version)
        others.append(image)
    assert (own[0] == others[0]).all()
    assert (own[1] != others[1]).any()
    assert (own[2] == others[2]).all()
    assert records[1] == f"{records[0]}+edit"
    assert engine._open
    pipeline, frame = engine._open[1].pipeline, np.full((64, 64, 3), 90, np.uint8)
    asked = (np.zeros((64, 64), np.uint8), np.stack([frame]))
    words = [
        EditReference().seeing(pipeline, plan_of(), shown, *asked, other_network)
        for shown in (frame, frame, frame[::-1] + np.arange(64, dtype=np.uint8)[:, None, None])
    ]
    assert all(words)
    first, again, other = (each["prompt_embeds"] for each in words if each)
    assert torch.equal(first, again)
    assert not torch.equal(first, other), "the frame is looked at"
    assert EditReference().seeing(pipeline, plan_of(), frame, *asked, pack) is None


@pytest.fixture(scope="module")
def looking(pack: OpenPack, other_network: OpenPack, tmp_path_factory: pytest.TempPathFactory) -> OpenPack:
    """The pack with its editing LoRA, and with eyes."""
    folder = tmp_path_factory.mktemp("looking")
    for part in pack.folder.iterdir():
        if part.name != LORA.parent.name:
            (folder / part.name).symlink_to(part)
    (folder / LORA.parent).mkdir()
    (folder / LORA).symlink_to(pack.folder / LORA)
    (folder / EYES).symlink_to(other_network.folder / EYES)
    return OpenPack(manifest=pack.manifest, folder=folder)


@pytest.mark.parametrize("kind", ["a LoRA", "a network"])
def test_an_edit_by_a_memory_plan_is_the_same_picture(
    engine: DiffusersEngine, looking: OpenPack, other_network: OpenPack, personas: Path, stack: FaceStack,
    tmp_path: Path, kind: str,
) -> None:  # fmt: skip
    """The third rung: first the pictures, then their faces; each has a plan, and the eyes are kept."""
    network = looking if kind == "a LoRA" else other_network
    planned = DiffusersEngine("cpu", 2 * GIB, sight=Sight(personas, lambda: stack))
    plan = plan_of("edit-reference", steps=2, batch=2)
    record, pictures = run(planned, plan, network, tmp_path / "planned")
    _, free = run(engine, plan, network, tmp_path / "free")
    assert all((one == other).all() for one, other in zip(pictures, free, strict=True))
    names = [step.name for step in record.steps]
    assert names[:2] == ["before the edit: memory plan", "memory plan"]
    assert record.plan.batch == 2


def test_a_memory_plan_counts_the_network_that_is_loaded_and_what_it_is_shown(looking: OpenPack) -> None:
    part = Component(
        source="made here", licence="Apache-2.0", commercial_use=True, format="gguf",
        files=[PackFile(path="edit/transformer/edit-Q4_K_M.gguf", bytes=1, sha256="0")],
    )  # fmt: skip
    parts = {**BUNDLED_PACK.manifest.components, "edit_transformer": part}
    manifest = BUNDLED_PACK.manifest.model_copy(update={"components": parts})
    both, planner = OpenPack(manifest=manifest, folder=looking.folder), DiffusersEngine("cpu", 2 * GIB)
    rung, edit = plan_of("edit-reference"), plan_of("edit-reference", edit=EDIT)
    own, edited, framed, referred, adapted = (
        planner._memory_plan(plan, pack, None)
        for plan, pack in (
            (plan_of(), both), (rung, both), (edit, both), (plan_of("identity-tokens"), both),
            (rung, looking),
        )
    )  # fmt: skip
    assert own
    assert edited
    assert framed
    assert referred
    assert adapted
    assert [each.configuration.attention for each in (own, edited)] == ["diffusers", "gguf-q4_k"]
    assert edited.asked == framed.asked
    shown = ((128, 128), (64, 64), (64, 64))
    lora_bytes = (looking.folder / LORA).stat().st_size
    assert edited.asked.beside == Beside(shown_px=shown, seen=3, lora_bytes=lora_bytes, alone=True)
    assert referred.asked.beside == Beside(first_steps=3)
    assert own.asked.beside == Beside()
    rows = {stage.stage: stage.rows for stage in adapted.stages}
    assert rows["denoise"]["LoRA"] >= lora_bytes


def test_a_cell_may_change_when_any_of_its_pixels_may() -> None:
    alpha = np.zeros((32, 48), np.uint8)
    alpha[17, 20] = 1
    assert whole_cells(alpha, 16).nonzero()[0].min() == 16
    assert (whole_cells(alpha, 16) > 0).sum() == 256


def test_a_plan_that_edits_runs_the_packs_editing_transformer() -> None:
    part = Component(
        source="made here", licence="Apache-2.0", commercial_use=True, format="gguf",
        files=[PackFile(path="edit/transformer/edit.gguf", bytes=1, sha256="0")],
    )  # fmt: skip
    parts = {**BUNDLED_PACK.manifest.components, "edit_transformer": part}
    manifest = BUNDLED_PACK.manifest.model_copy(update={"components": parts})
    both = OpenPack(manifest=manifest, folder=BUNDLED_PACK.folder)
    viewed = edit_view(plan_of("edit-reference"), both).manifest
    assert viewed.components["transformer"] == part
    assert viewed.version != manifest.version
    assert edit_view(plan_of("identity-tokens"), both) is both
    assert edit_view(plan_of("edit-reference"), BUNDLED_PACK) is BUNDLED_PACK
