"""A ControlNet beside the pipeline: it changes nothing until it says something, and then what it is shown."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import (
    ControlNetModel,
    QwenImageControlNetModel,
    QwenImageControlNetPipeline,
    QwenImageTransformer2DModel,
    StableDiffusionControlNetPipeline,
    StableDiffusionXLControlNetPipeline,
)
from PIL import Image
from tests.diffusion.sd_packs import write_pack

from oblik.errors import BackendUnavailable, InvalidInput
from oblik.faces.masks import OUTLINE, face_mask
from oblik.faces.stack import open_stack
from oblik.generation.adapters import Sight
from oblik.generation.backends.control import room_beside
from oblik.generation.backends.diffusers_engine import DiffusersEngine
from oblik.generation.control import fitted, pose_image
from oblik.generation.plan import Control, Plan, Reference
from oblik.generation.record import Record
from oblik.miniature.people import Person
from oblik.miniature.render import render
from oblik.miniature.shots import Shot
from oblik.miniature.train_control import new_controlnet, without_text_out
from oblik.packs.manifest import OpenPack, Pack
from oblik.packs.memory_plan import GIB
from oblik.packs.store import BUNDLED, open_pack
from oblik.paths import Home
from oblik.progress import SilentProgress

NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)
MINI = open_pack(str(BUNDLED / "miniature"), Home(Path("nowhere")))
MARKS = np.array([[45, 50], [80, 50], [70, 68], [50, 88], [78, 88]], np.float32)
POSE, OTHER = (
    Control(kind="pose", image="a.png", weight=1.0),
    Control(kind="given", image="b.png", weight=1.0),
)

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def personas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("personas")
    (root / "sitter").mkdir()
    pose_image(MARKS, 128, 128).save(root / "sitter" / "a.png")
    pose_image(MARKS[:, ::-1], 128, 128).save(root / "sitter" / "b.png")
    photo = render(Person.from_seed(830_001), Shot(), 192).image
    Image.fromarray(photo).save(root / "sitter" / "photo.png")
    return root


def net_of_miniature() -> QwenImageControlNetModel:
    transformer = QwenImageTransformer2DModel.from_pretrained(MINI.folder / "transformer")
    return new_controlnet(transformer.float())


def pack_with(net: Any, folder: Path) -> OpenPack:
    for part in MINI.folder.iterdir():
        if part.name != "controlnet":
            (folder / part.name).symlink_to(part)
    net.save_pretrained(folder / "controlnet")
    return OpenPack(manifest=MINI.manifest, folder=folder)


@pytest.fixture(scope="module")
def loud(tmp_path_factory: pytest.TempPathFactory) -> OpenPack:
    """The miniature with a net that says something, without knowing what."""
    net = net_of_miniature()
    torch.manual_seed(1)
    torch.nn.init.normal_(net.controlnet_blocks[0].weight, std=0.05)
    return pack_with(net, tmp_path_factory.mktemp("loud"))


@pytest.fixture(scope="module")
def engine(personas: Path) -> DiffusersEngine:
    stack = open_stack("onnx", folder=MINI.faces_folder)
    return DiffusersEngine("cpu", sight=Sight(personas, lambda: stack))


def plan_of(*controls: Control, **changes: Any) -> Plan:
    values = {
        "pack": "miniature", "persona": "sitter", "prompt": "photo of a woman, frontal view, in a park",
        "seeds": (1, 2), "steps": 2, "guidance": 3.0, "width_px": 128, "height_px": 128, "dtype": "float32",
        "controls": controls,
    }  # fmt: skip
    return Plan.model_validate(values | changes)


def run(engine: DiffusersEngine, pack: OpenPack, plan: Plan, out_dir: Path) -> Record:
    return engine.run(plan, pack=pack, artifact=None, out_dir=out_dir, now=NOW, progress=SilentProgress())


def bytes_of(record: Record) -> list[str]:
    return [picture.sha256 for picture in record.pictures]


def images_of(record: Record, folder: Path) -> list[np.ndarray]:
    return [np.asarray(Image.open(folder / picture.file)) for picture in record.pictures]


def test_a_new_net_says_nothing(tmp_path: Path, engine: DiffusersEngine) -> None:
    (tmp_path / "pack").mkdir()
    pack = pack_with(net_of_miniature(), tmp_path / "pack")
    plain, silent = (run(engine, pack, plan_of(*c), tmp_path / str(n)) for n, c in enumerate([(), (POSE,)]))
    assert bytes_of(plain) == bytes_of(silent)


def test_pictures_follow_the_image_alone_and_leave_no_trace(
    tmp_path: Path, engine: DiffusersEngine, loud: OpenPack
) -> None:
    plans = [plan_of(), plan_of(POSE), plan_of(OTHER), plan_of(POSE, batch=1, seeds=(2, 1)), plan_of()]
    plain, posed, other, _, again = (
        run(engine, loud, plan, tmp_path / str(place)) for place, plan in enumerate(plans)
    )
    assert len({*bytes_of(plain), *bytes_of(posed), *bytes_of(other)}) == 6
    for place, seed in enumerate((1, 2)):
        one, two = (
            np.asarray(Image.open(tmp_path / folder / f"{at:02d}-seed{seed}.png")).astype(int)
            for folder, at in (("1", place + 1), ("3", 2 - place))
        )
        assert np.abs(one - two).max() <= 2, "a picture does not depend on its place in the batch"
    assert bytes_of(again) == bytes_of(plain), "the net is gone when no control is asked for"
    assert set(posed.references_sha256) == {"a.png"}


def test_it_says_what_diffusers_own_pipeline_says(
    tmp_path: Path, engine: DiffusersEngine, loud: OpenPack
) -> None:
    """Within what the VAE's posterior, which that pipeline draws from, is wide."""
    plan = plan_of(POSE, seeds=(1,))
    (plain,), (mine,) = (
        images_of(run(engine, loud, each, tmp_path / str(n)), tmp_path / str(n))
        for n, each in enumerate([plan_of(seeds=(1,)), plan])
    )
    assert engine._open
    assert engine._net
    family = engine._open[1]
    theirs = diffusers_own(QwenImageControlNetPipeline, engine, plan, "control_image", true_cfg_scale=3.0)
    assert np.abs(mine - theirs).mean() < 0.02 * np.abs(plain - theirs).mean()
    assert not family.network._forward_pre_hooks


def diffusers_own(kind: Any, engine: DiffusersEngine, plan: Plan, name: str, **more: Any) -> np.ndarray:
    """The plan's first picture by a control pipeline of diffusers, with the engine's weights."""
    assert engine._open
    assert engine._net
    family = engine._open[1]
    pipeline = kind(**family.pipeline.components, controlnet=engine._net.network, **more.pop("opened", {}))
    pipeline.set_progress_bar_config(disable=True)
    size_px = (plan.width_px, plan.height_px)
    asked = {"generator": torch.Generator().manual_seed(0), "latents": family.noise((1,), size_px)}
    image = pipeline(
        plan.prompt, negative_prompt=plan.negative_prompt, num_inference_steps=plan.steps,
        controlnet_conditioning_scale=1.0, output_type="np", width=size_px[0], height=size_px[1],
        **{name: fitted(pose_image(MARKS, 128, 128), size_px)}, **asked, **more,
    ).images[0]  # fmt: skip
    return np.asarray(np.round(image * 255), np.float32)


KEPT = Control(kind="pose", weight=0.8)


def test_a_kept_pose_is_each_faces_own(tmp_path: Path, engine: DiffusersEngine) -> None:
    """In rung 1 the new faces lie nearer to those of the first run; all around them is the first run's."""
    photo = (Reference(image="photo.png"),)
    plans = [
        plan_of(steps=6), plan_of(references=photo, steps=6), plan_of(KEPT, references=photo, steps=6),
        plan_of(KEPT, references=photo, steps=6, seeds=(2,)),
    ]  # fmt: skip
    images = [
        images_of(run(engine, MINI, plan, tmp_path / str(n)), tmp_path / str(n))
        for n, plan in enumerate(plans)
    ]
    assert np.abs(images[2][1].astype(int) - images[3][0]).max() <= 2, "a batch does not mix the poses"
    stack, apart = open_stack("onnx", folder=MINI.faces_folder), {1: 0.0, 2: 0.0}
    for place, first in enumerate(images[0]):
        there = stack.detect(first)[0].landmarks
        mask = face_mask(there, 128, 128, grow=OUTLINE)
        for way in apart:
            assert (images[way][place][mask == 0] == first[mask == 0]).all()
            apart[way] += float(np.linalg.norm(stack.detect(images[way][place])[0].landmarks - there))
    assert apart[2] < apart[1]


def test_at_scale_zero_it_is_not_there(tmp_path: Path, engine: DiffusersEngine, loud: OpenPack) -> None:
    off = POSE.model_copy(update={"weight": 0.0})
    plain, silent = (run(engine, loud, plan_of(*c), tmp_path / str(n)) for n, c in enumerate([(), (off,)]))
    assert bytes_of(plain) == bytes_of(silent)


def test_rung_one_keeps_the_control_and_changes_only_the_face(
    tmp_path: Path, engine: DiffusersEngine, loud: OpenPack
) -> None:
    few = {"seeds": (1,), "steps": 8}
    quiet = POSE.model_copy(update={"weight": 0.05})
    referred = plan_of(quiet, references=(Reference(image="photo.png"),), **few)
    records = [
        run(engine, loud, plan, tmp_path / str(n)) for n, plan in enumerate([plan_of(quiet, **few), referred])
    ]
    before, after = (
        np.asarray(Image.open(tmp_path / str(n) / record.pictures[0].file))
        for n, record in enumerate(records)
    )
    face = open_stack("onnx", folder=MINI.faces_folder).detect(before)[0]
    mask = face_mask(face.landmarks, 128, 128, grow=OUTLINE)
    assert (before[mask == 0] == after[mask == 0]).all()
    assert (before[mask > 0] != after[mask > 0]).any()
    assert set(records[1].references_sha256) == {"a.png", "photo.png"}


def test_the_bundled_net_puts_the_face_where_the_pose_says(
    tmp_path: Path, engine: DiffusersEngine, personas: Path
) -> None:
    stack, noses = open_stack("onnx", folder=MINI.faces_folder), []
    for place, shift_px in enumerate((-8, 8)):
        asked = np.asarray(MARKS * 0.8 + [14 + shift_px, 6], np.float32)
        pose_image(asked, 128, 128).save(personas / "sitter" / "asked.png")
        control = POSE.model_copy(update={"image": "asked.png"})
        record = run(engine, MINI, plan_of(control, steps=8), tmp_path / str(place))
        images = [np.asarray(Image.open(tmp_path / str(place) / each.file)) for each in record.pictures]
        noses.append([stack.detect(image)[0].landmarks[2, 0] for image in images])
    assert np.mean(noses[1]) - np.mean(noses[0]) > 8, "16 px were asked for"


def test_what_cannot_be_followed_is_refused(tmp_path: Path, engine: DiffusersEngine, loud: OpenPack) -> None:
    manifest = Pack(name="p", version="1", family="qwen_image", native_size_px=128, side_multiple_px=16)
    bare = OpenPack(manifest=manifest, folder=tmp_path)
    with pytest.raises(BackendUnavailable, match="no controlnet"):
        run(engine, bare, plan_of(POSE), tmp_path)
    with pytest.raises(InvalidInput, match="one control image"):
        run(engine, loud, plan_of(POSE, OTHER), tmp_path)
    with pytest.raises(InvalidInput, match="no face yet"):
        run(engine, loud, plan_of(KEPT), tmp_path)
    with pytest.raises(ValueError, match="only a pose"):
        Control(kind="depth")
    with pytest.raises(InvalidInput, match=re.escape("'../a.png'")):
        run(engine, loud, plan_of(POSE.model_copy(update={"image": "../a.png"})), tmp_path)


def test_what_nobody_reads_of_the_last_block_may_be_zero() -> None:
    net = net_of_miniature()
    torch.nn.init.normal_(net.controlnet_blocks[0].weight)
    inputs = {
        "hidden_states": torch.randn(2, 64, 64), "controlnet_cond": torch.randn(2, 64, 64),
        "encoder_hidden_states": torch.randn(2, 9, 128), "timestep": torch.tensor([0.2, 0.9]),
        "img_shapes": [[(1, 8, 8)]] * 2, "return_dict": False,
    }  # fmt: skip
    with torch.no_grad():
        before = net(**inputs)[0]
        after = without_text_out(net)(**inputs)[0]
    assert torch.equal(before, after)
    zeros = sum(int((value == 0).sum()) for value in net.parameters())
    assert zeros > 500_000


def test_a_memory_plan_leaves_room_for_the_net(loud: OpenPack) -> None:
    size = (loud.folder / "controlnet" / "diffusion_pytorch_model.safetensors").stat().st_size
    assert room_beside(plan_of(POSE), loud, GIB) == GIB - size
    assert room_beside(plan_of(), loud, GIB) == GIB
    assert room_beside(plan_of(POSE), loud, None) is None


@pytest.mark.parametrize("name", ["tiny-sd", "tiny-xl"])
def test_stable_diffusion_follows_too(tmp_path: Path, personas: Path, name: str) -> None:
    pack = write_pack(tmp_path / "pack", name)
    engine = DiffusersEngine("cpu", sight=Sight(personas, lambda: pytest.fail("no face is looked for")))
    small = {
        "width_px": 64,
        "height_px": 64,
        "steps": 2,
        "negative_prompt": "",
        "prompt": "photo of a person",
    }
    plain = run(engine, pack, plan_of(**small), tmp_path / "plain")
    assert engine._open is not None
    torch.manual_seed(0)
    net = ControlNetModel.from_unet(engine._open[1].network, conditioning_channels=3)
    for block in (*net.controlnet_down_blocks, net.controlnet_mid_block):
        torch.nn.init.normal_(block.weight, std=0.5)
    net.save_pretrained(pack.folder / "controlnet")
    followed = run(engine, pack, plan_of(POSE, **small), tmp_path / "followed")
    assert not set(bytes_of(plain)) & set(bytes_of(followed))
    kind, opened = {
        "tiny-sd": (StableDiffusionControlNetPipeline, {"requires_safety_checker": False}),
        "tiny-xl": (StableDiffusionXLControlNetPipeline, {"add_watermarker": False}),
    }[name]
    theirs = diffusers_own(kind, engine, plan_of(**small), "image", opened=opened, guidance_scale=3.0)
    mine = np.asarray(Image.open(tmp_path / "followed" / followed.pictures[0].file))
    assert np.abs(mine - theirs).max() <= 1
    again = run(engine, pack, plan_of(**small), tmp_path / "again")
    assert bytes_of(again) == bytes_of(plain)
    assert engine._net is None
