"""IP-Adapter FaceID on a Stable Diffusion and an SDXL with random weights: it acts where and when it is asked
to, and leaves nothing behind. What it makes of a face is not seen here."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from diffusers import ControlNetModel, UNet2DConditionModel
from numpy.typing import NDArray
from peft import LoraConfig
from PIL import Image
from tests.diffusion.sd_packs import write_pack
from tests.generation.backends.faceid_files import (
    DIMS,
    MARKS,
    SIDE,
    STACK,
    TwoDots,
    faceid_weights,
    write_faceid,
)

from oblik.diffusion.load import open_pipeline
from oblik.diffusion.lora import ADAPTER as PERSON
from oblik.errors import BackendUnavailable, PackBroken
from oblik.faces.masks import OUTLINE, face_mask
from oblik.generation.adapters import Sight, lack
from oblik.generation.backends.diffusers_engine import DiffusersEngine
from oblik.generation.backends.edits import needed
from oblik.generation.backends.faceid import LORA, FaceId
from oblik.generation.ladder import Heights, ladder
from oblik.generation.plan import Control, Edit, Plan, Reference
from oblik.generation.record import Record
from oblik.packs.manifest import OpenPack
from oblik.packs.memory_plan import GIB
from oblik.progress import SilentProgress

NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)
INSIDE = face_mask(MARKS, SIDE, SIDE, grow=OUTLINE)
CPU = torch.device("cpu")

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


class Made(NamedTuple):
    pack: OpenPack
    weights: Any
    engine: DiffusersEngine


@pytest.fixture(scope="module")
def personas(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("personas")
    (root / "sitter").mkdir()
    for name, colour in {"a": "red", "b": "white", "c": "navy"}.items():
        Image.new("RGB", (96, 96), colour).save(root / "sitter" / f"{name}.png")
    noise = np.random.default_rng(0).integers(0, 255, (SIDE, SIDE, 3), np.uint8)
    Image.fromarray(noise).save(root / "sitter" / "frame.png")
    Image.fromarray(INSIDE).save(root / "sitter" / "mask.png")
    return root


@pytest.fixture(scope="module", params=["tiny-sd", "tiny-xl"])
def made(request: pytest.FixtureRequest, personas: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    pack = write_pack(tmp_path_factory.mktemp("sd") / "pack", request.param)
    weights = faceid_weights(UNet2DConditionModel.from_pretrained(pack.folder / "unet"))
    write_faceid(pack.folder, weights)
    return Made(pack, weights, DiffusersEngine("cpu", sight=Sight(personas, TwoDots)))


def plan_of(weight: float | None = 0.6, *images: str, **changes: Any) -> Plan:
    references = tuple(
        Reference(image=image, weight=weight, adapter="ip-adapter-faceid")
        for image in images or ("a.png", "b.png")
        if weight is not None
    )
    values = {
        "pack": "tiny", "persona": "sitter", "prompt": "photo of a person", "negative_prompt": "", "steps": 2,
        "seeds": (3, 4), "guidance": 5.0, "width_px": SIDE, "height_px": SIDE, "dtype": "float32",
        "references": references,
    }  # fmt: skip
    return Plan.model_validate(values | changes)


def run(made: Made, plan: Plan, out_dir: Path, engine: DiffusersEngine | None = None) -> Record:
    return (engine or made.engine).run(
        plan, pack=made.pack, artifact=None, out_dir=out_dir, now=NOW, progress=SilentProgress()
    )


def pixels(record: Record, folder: Path) -> NDArray[np.int64]:
    found = []
    for picture in record.pictures:
        with Image.open(folder / picture.file) as image:
            found.append(np.asarray(image, np.int64))
    return np.stack(found)


def bytes_of(record: Record) -> list[str]:
    return [picture.sha256 for picture in record.pictures]


def drawn(made: Made, tmp_path: Path, *plans: Plan) -> list[NDArray[np.int64]]:
    folders = [tmp_path / str(place) for place in range(len(plans))]
    return [pixels(run(made, plan, folder), folder) for plan, folder in zip(plans, folders, strict=True)]


def test_only_the_face_changes_and_the_more_the_larger_the_weight(made: Made, tmp_path: Path) -> None:
    plans = [plan_of(None), plan_of(0.0), plan_of(0.3), plan_of(0.9), plan_of(0.9, "c.png"), plan_of(0.9)]
    plain, *referred = drawn(made, tmp_path, *plans)
    assert 0 < (INSIDE > 0).mean() < 0.9
    for images in referred:
        assert (images[:, INSIDE == 0] == plain[:, INSIDE == 0]).all()
        assert (images != plain).any(axis=(1, 2, 3)).all(), "the LoRA acts at its whole strength"
    nothing, little, much, other, again = referred
    assert 0 < np.abs(little - nothing).mean() < np.abs(much - nothing).mean()
    assert (other != much).any(), "another face"
    assert (again == much).all()


def test_at_weight_zero_the_face_is_not_heard(made: Made, personas: Path, tmp_path: Path) -> None:
    """The same bytes as by a FaceID whose values for the face are zeros; without its LoRA the first run's."""
    muted, bare = tmp_path / "muted", tmp_path / "bare"
    packs = [linked(made.pack, folder) for folder in (muted, bare)]
    layers = {k: v * (0 if "to_v_ip" in k else 1) for k, v in made.weights["ip_adapter"].items()}
    write_faceid(muted, made.weights | {"ip_adapter": layers})
    layers = {k: v for k, v in layers.items() if "lora" not in k}
    write_faceid(bare, made.weights | {"ip_adapter": layers})
    plain, zero = (run(made, plan_of(weight), tmp_path / f"{weight}") for weight in (None, 0.0))
    others = [made._replace(pack=pack, engine=new_engine(personas)) for pack in packs]
    assert bytes_of(run(others[0], plan_of(0.7), tmp_path / "a")) == bytes_of(zero)
    assert bytes_of(run(others[1], plan_of(0.7), tmp_path / "b")) == bytes_of(plain)


def linked(pack: OpenPack, folder: Path) -> OpenPack:
    folder.mkdir()
    for part in pack.folder.iterdir():
        if part.name != "faceid":
            (folder / part.name).symlink_to(part)
    return OpenPack(manifest=pack.manifest, folder=folder)


def new_engine(personas: Path) -> DiffusersEngine:
    return DiffusersEngine("cpu", sight=Sight(personas, TwoDots))


def test_what_comes_before_and_after_is_as_if_it_had_never_been_there(
    made: Made, personas: Path, tmp_path: Path
) -> None:
    never = run(made, plan_of(None), tmp_path / "never", new_engine(personas))
    engine = new_engine(personas)
    asked = [plan_of(), plan_of(guidance=1.0), plan_of(None), plan_of(None, prompt="a park"), plan_of()]
    records = [run(made, plan, tmp_path / str(place), engine) for place, plan in enumerate(asked)]
    assert bytes_of(records[2]) == bytes_of(never)
    elsewhere = run(made, asked[3], tmp_path / "elsewhere", new_engine(personas))
    assert bytes_of(records[3]) == bytes_of(elsewhere)
    assert bytes_of(records[4]) == bytes_of(records[0])
    first = pixels(records[0], tmp_path / "0")
    assert (first[:, INSIDE == 0] == pixels(never, tmp_path / "never")[:, INSIDE == 0]).all()
    assert records[0].references_sha256.keys() == {"a.png", "b.png", "weights.bin"}
    assert records[0].face_stack == STACK
    planned = DiffusersEngine("cpu", vram_bytes=8 * GIB, sight=Sight(personas, TwoDots))
    assert bytes_of(run(made, asked[0], tmp_path / "planned", planned)) == bytes_of(records[0])
    half = run(made, plan_of(dtype="bfloat16"), tmp_path / "half", engine)
    assert np.abs(pixels(half, tmp_path / "half") - first).mean() < 5


def test_the_persons_lora_acts_beside_that_of_faceid_and_is_itself_again(made: Made) -> None:
    pipeline = open_pipeline(made.pack, None, dtype=torch.float32, device=CPU)
    unet, plan = pipeline.unet, plan_of(0.6, lora_scale=0.5)
    unet.add_adapter(LoraConfig(r=2, lora_alpha=4, target_modules=["to_q", "to_k"]), adapter_name=PERSON)
    for parameter in unet.parameters():
        if parameter.requires_grad:
            torch.nn.init.normal_(parameter, std=0.3)
    unet.set_adapters([PERSON], [0.5])
    before, names = said(unet), {name: type(each) for name, each in unet.attn_processors.items()}
    adapter = FaceId()
    faces = np.eye(2, DIMS, dtype=np.float32)
    adapter.words(pipeline, plan, faces, pack=made.pack, stack=STACK)
    with adapter.drawing(pipeline, plan):
        layers = [each for _, each in unet.named_modules() if LORA in getattr(each, "scaling", {})]
        both = [each for each in layers if PERSON in each.scaling]
        assert len(layers) == 4 * len(names)
        assert len(both) == 2 * len(names)
        assert all(each.active_adapters == [PERSON, LORA] for each in layers)
        assert all((each.scaling[PERSON], each.scaling[LORA]) == (1.0, 1.0) for each in both)
    assert {name: type(each) for name, each in unet.attn_processors.items()} == names
    assert unet.active_adapters() == [PERSON]
    assert not any(LORA in name for name, _ in unet.named_parameters())
    assert torch.equal(said(unet), before)
    with pytest.raises(ZeroDivisionError), adapter.drawing(pipeline, plan):
        raise ZeroDivisionError
    assert torch.equal(said(unet), before)


def test_the_network_says_what_it_says_as_diffusers_loads_it(made: Made) -> None:
    """From the file into a whole pipeline; told the same faces, behind zeros where there is guidance."""
    ours, theirs = (open_pipeline(made.pack, None, dtype=torch.float32, device=CPU) for _ in range(2))
    faces = np.eye(2, DIMS, dtype=np.float32)
    adapter = FaceId()
    (both,) = adapter.words(ours, plan_of(0.6), faces, pack=made.pack, stack=STACK)["ip_adapter_image_embeds"]
    assert torch.equal(both, torch.stack([torch.zeros(2, DIMS), torch.from_numpy(faces)]))
    (alone,) = FaceId().words(ours, plan_of(0.6, guidance=1.0), faces, pack=made.pack, stack=STACK)[
        "ip_adapter_image_embeds"
    ]
    assert torch.equal(alone, torch.from_numpy(faces)[None])
    theirs.load_ip_adapter(
        made.pack.folder, subfolder="faceid", weight_name="weights.bin", image_encoder_folder=None
    )
    theirs.set_ip_adapter_scale(0.6)
    wanted = said(theirs.unet, image_embeds=[alone])
    with adapter.drawing(ours, plan_of(0.6)):
        assert torch.equal(said(ours.unet, image_embeds=[alone]), wanted)
        assert not torch.equal(said(ours.unet, image_embeds=[alone.flip(-1)]), wanted)


def test_memory_that_runs_out_is_said_as_that(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    """The engine goes on smaller; called broken, the pack would end the run."""
    pipeline = open_pipeline(made.pack, None, dtype=torch.float32, device=CPU)
    before, adapter = said(pipeline.unet), FaceId()
    adapter.words(pipeline, plan_of(), np.eye(2, DIMS, dtype=np.float32), pack=made.pack, stack=STACK)

    def full(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(pipeline.unet, "load_lora_adapter", full)
    with pytest.raises(torch.OutOfMemoryError), adapter.drawing(pipeline, plan_of()):
        pytest.fail("it is not loaded")
    assert torch.equal(said(pipeline.unet), before)


@torch.no_grad()
def said(unet: Any, **beside: Any) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    if unet.config.addition_embed_type:
        beside |= {"text_embeds": torch.ones(1, 16), "time_ids": torch.ones(1, 6)}
    words = torch.randn(1, 3, unet.config.cross_attention_dim, generator=draw)
    noise = torch.randn(1, 4, 8, 8, generator=draw)
    out: torch.Tensor = unet(noise, 500, words, added_cond_kwargs=beside, return_dict=False)[0]
    return out


def test_an_edit_is_drawn_towards_the_face(made: Made, personas: Path, tmp_path: Path) -> None:
    edit = Edit(image="frame.png", mask="mask.png")
    plans = [plan_of(weight, edit=edit, seeds=(3,)) for weight in (None, 0.0, 0.9, None)]
    plain, nothing, much, again = drawn(made, tmp_path, *plans)
    frame = np.asarray(Image.open(personas / "sitter" / "frame.png"), np.int64)
    for images in (plain, nothing, much):
        assert (images[0][INSIDE == 0] == frame[INSIDE == 0]).all()
    assert (nothing != plain).any()
    assert (much != nothing).any()
    assert (again == plain).all()


def test_a_pose_is_kept_beside_it(made: Made, personas: Path, tmp_path: Path) -> None:
    """A new net says nothing (its last layers are zeros): the same bytes as without it."""
    pack = linked(made.pack, tmp_path / "pack")
    write_faceid(pack.folder, made.weights)
    unet = UNet2DConditionModel.from_pretrained(pack.folder / "unet")
    ControlNetModel.from_unet(unet).save_pretrained(pack.folder / "controlnet")
    posed = made._replace(pack=pack, engine=new_engine(personas))
    plans = [plan_of(seeds=(3,), controls=kept) for kept in ((), (Control(kind="pose"),))]
    alone, beside = (run(posed, plan, tmp_path / str(place)) for place, plan in enumerate(plans))
    assert bytes_of(alone) == bytes_of(beside)


def test_a_ladder_and_a_memory_plan_count_with_it(made: Made, tmp_path: Path) -> None:
    assert lack("ip-adapter-faceid", made.pack) is None
    rungs = ladder(made.pack, ["a.png"], Heights()).rungs
    assert rungs[0].reason.startswith("ip-adapter-faceid")
    assert rungs[0].raised(plan_of(None)).references[0].adapter == "ip-adapter-faceid"
    size = (made.pack.folder / "faceid" / "weights.bin").stat().st_size
    assert needed(plan_of(), made.pack).lora_bytes == 2 * size
    assert needed(plan_of(dtype="float16"), made.pack).lora_bytes == size
    assert needed(plan_of(None), made.pack).lora_bytes == 0
    assert needed(plan_of(), linked(made.pack, tmp_path / "bare")).lora_bytes == 0


@pytest.mark.parametrize(
    ("known", "hint"),
    [("buffalo_l", "oblik --face-stack buffalo_l"), ("my-own", "no pack in")],
)
def test_the_vectors_of_another_stack_are_refused(
    made: Made, personas: Path, tmp_path: Path, known: str, hint: str
) -> None:
    other = made._replace(pack=linked(made.pack, tmp_path / "pack"), engine=new_engine(personas))
    write_faceid(tmp_path / "pack", made.weights, stack=known)
    with pytest.raises(BackendUnavailable, match=f"knows the face vectors of '{known}'") as refused:
        run(other, plan_of(), tmp_path / "out")
    assert refused.value.hint.startswith(hint)


class Sneaky:
    def __reduce__(self) -> Any:
        return (print, ("this ran",))


def test_weights_that_are_no_faceid_of_this_model_are_broken(
    made: Made, personas: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut off, a program, another model's, half of it: nothing runs, nothing stays in the network."""
    pack = linked(made.pack, tmp_path / "pack")
    other, file = (
        made._replace(pack=pack, engine=new_engine(personas)),
        pack.folder / "faceid" / "weights.bin",
    )
    projection, layers = made.weights["image_proj"], made.weights["ip_adapter"]
    half = {key: value for key, value in layers.items() if not key.startswith("1.")}
    narrow = {key: value[:, :-1] if "to_k_ip" in key else value for key, value in layers.items()}
    unfit: list[Any] = [
        {"image_proj": projection, "program": Sneaky()}, {"image_proj": projection}, [1, 2],
        made.weights | {"image_proj": projection | {"norm.weight": torch.ones(7)}},
        made.weights | {"image_proj": projection | {"proj.0.weight": torch.ones(16, 9)}},
        made.weights | {"ip_adapter": half}, made.weights | {"ip_adapter": narrow},
    ]  # fmt: skip
    for each in unfit:
        write_faceid(pack.folder, each)
        with pytest.raises(PackBroken, match=r"weights\.bin cannot be used") as broken:
            run(other, plan_of(), tmp_path / "out")
        assert broken.value.hint == "oblik pack verify"
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(PackBroken, match="cannot be used"):
        run(other, plan_of(), tmp_path / "out")
    file.unlink()
    with pytest.raises(PackBroken, match="cannot be used"):
        run(other, plan_of(), tmp_path / "out")
    (pack.folder / "faceid" / "faceid.json").write_text('{"weights": "../weights.bin"}')
    with pytest.raises(PackBroken, match=r"faceid\.json cannot be read"):
        run(other, plan_of(), tmp_path / "out")
    assert "this ran" not in capsys.readouterr().out
    plain = [run(each, plan_of(None), tmp_path / each.pack.folder.parent.name) for each in (made, other)]
    assert bytes_of(plain[0]) == bytes_of(plain[1])
