"""The in-process engine on Stable Diffusion: the same record and checks, with and without a memory plan."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers import UNet2DConditionModel
from numpy.typing import NDArray
from PIL import Image
from tests.diffusion.sd_packs import write_pack
from tests.generation.backends.faceid_files import TwoDots, faceid_weights, write_faceid
from tests.training.conftest import tiny_ask, tiny_pack

from oblik.diffusion.families.family import Family
from oblik.errors import BackendError
from oblik.generation.adapters import Sight
from oblik.generation.backends.diffusers_engine import DiffusersEngine
from oblik.generation.plan import Plan, Reference
from oblik.generation.presets import find_preset, plan_from
from oblik.generation.record import Record, read_record
from oblik.packs.manifest import OpenPack
from oblik.packs.memory_plan import GIB
from oblik.progress import SilentProgress
from oblik.training.artifact import MANIFEST, TOKEN
from oblik.training.backends.native import NativeTrainer
from oblik.training.trainer import TrainRequest

__all__ = ["tiny_ask", "tiny_pack"]
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)
PLAN = Plan(
    pack="tiny", persona=None, prompt="photo of <oblik_s> person", negative_prompt="", seeds=(3, 4, 5),
    batch=2, steps=2, guidance=7.0, width_px=64, height_px=64, dtype="float32", lora_scale=1.0,
)  # fmt: skip
Made = tuple[OpenPack, Path]


@pytest.fixture(scope="module", params=["tiny-sd", "tiny-xl"])
def made(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory,
    tiny_ask: Callable[..., TrainRequest],
) -> Made:  # fmt: skip
    folder = tmp_path_factory.mktemp("sd")
    pack = write_pack(folder / "pack", request.param)
    asked = tiny_ask(
        folder / "v001", pack=pack, steps=2, token_steps=2, warmup_steps=0, learning_rate=0.1,
        token_learning_rate=1.0, text_layers=2, text_learning_rate=0.1,
    )  # fmt: skip
    return pack, NativeTrainer("cpu").train(asked, SilentProgress())


def run(engine: DiffusersEngine, made: Made, out_dir: Path, lora: bool = True, **changes: Any) -> Record:
    plan = PLAN.model_copy(update=changes)
    return engine.run(
        plan, pack=made[0], artifact=made[1] if lora else None, out_dir=out_dir, now=NOW,
        progress=SilentProgress(),
    )  # fmt: skip


def bytes_of(record: Record) -> list[str]:
    return [picture.sha256 for picture in record.pictures]


def pixels(record: Record, folder: Path) -> NDArray[np.int64]:
    found = []
    for picture in record.pictures:
        with Image.open(folder / picture.file) as image:
            found.append(np.asarray(image, np.int64))
    return np.stack(found)


def test_pictures_grid_and_record_and_the_same_bytes_again(made: Made, tmp_path: Path) -> None:
    engine = DiffusersEngine("cpu")
    record = run(engine, made, tmp_path / "a")
    assert read_record(tmp_path / "a") == record
    assert [picture.seed for picture in record.pictures] == [3, 4, 5]
    assert pixels(record, tmp_path / "a").shape == (3, 64, 64, 3)
    assert (tmp_path / "a" / "grid.png").is_file()
    assert len(record.token_ids) == 1
    assert record.lora_sha256
    assert bytes_of(run(engine, made, tmp_path / "b")) == bytes_of(record)
    assert bytes_of(run(DiffusersEngine("cpu"), made, tmp_path / "c")) == bytes_of(record)


def test_half_precision_draws_nearly_the_same(made: Made, tmp_path: Path) -> None:
    """The noise of a seed is the same, and in the network's type: the pipeline would not cast it."""
    engine = DiffusersEngine("cpu")
    full, half = (
        run(engine, made, tmp_path / d, dtype=d, lora=False, seeds=(3,)) for d in ("float32", "bfloat16")
    )
    apart = np.abs(pixels(full, tmp_path / "float32") - pixels(half, tmp_path / "bfloat16"))
    assert apart.mean() < 5


def test_every_value_of_the_plan_matters(made: Made, tmp_path: Path) -> None:
    engine = DiffusersEngine("cpu")
    alone: dict[str, Any] = {"seeds": (3,)}
    base = bytes_of(run(engine, made, tmp_path / "base", **alone))
    changes: list[dict[str, Any]] = [
        {"lora_scale": 0.0}, {"guidance": 1.0}, {"guidance": 2.0}, {"negative_prompt": "a park"},
        {"prompt": "photo of a person"}, {"steps": 3},
    ]  # fmt: skip
    others = [
        bytes_of(run(engine, made, tmp_path / str(n), **alone, **each)) for n, each in enumerate(changes)
    ]
    assert len({tuple(each) for each in (base, *others)}) == 1 + len(changes)
    assert bytes_of(run(engine, made, tmp_path / "again", **alone)) == base
    assert bytes_of(run(engine, made, tmp_path / "bare", lora=False, **alone)) not in (base, *others)


def test_after_faceid_the_persons_lora_draws_as_before(made: Made, tmp_path: Path) -> None:
    """In the U-Net and in the text encoders, which hear the next prompt only then."""
    (tmp_path / "sitter").mkdir()
    Image.new("RGB", (96, 96), "red").save(tmp_path / "sitter" / "a.png")
    unet = UNet2DConditionModel.from_pretrained(made[0].folder / "unet")
    write_faceid(made[0].folder, faceid_weights(unet))
    engine = DiffusersEngine("cpu", sight=Sight(tmp_path, TwoDots))
    asked: dict[str, Any] = {"persona": "sitter", "seeds": (3,)}
    faceid = asked | {"references": (Reference(image="a.png", adapter="ip-adapter-faceid"),)}
    referred = run(engine, made, tmp_path / "referred", **faceid)
    weaker = run(engine, made, tmp_path / "weaker", **faceid, lora_scale=0.5)
    assert bytes_of(referred) != bytes_of(weaker)
    for place, words in enumerate((PLAN.prompt, "<oblik_s> in a park")):
        plain = run(engine, made, tmp_path / f"after{place}", **asked, prompt=words)
        never = run(DiffusersEngine("cpu"), made, tmp_path / f"never{place}", **asked, prompt=words)
        assert bytes_of(plain) == bytes_of(never) != bytes_of(referred)


def test_euler_ancestral_keeps_to_the_seed_in_every_batch(made: Made, tmp_path: Path) -> None:
    engine = DiffusersEngine("cpu")
    how: dict[str, Any] = {"sampler": "euler_ancestral", "lora": False, "steps": 3}
    together = run(engine, made, tmp_path / "a", **how)
    assert bytes_of(run(engine, made, tmp_path / "b", **how)) == bytes_of(together)
    alone = run(engine, made, tmp_path / "c", seeds=(4,), **how)
    apart = pixels(together, tmp_path / "a")[1] - pixels(alone, tmp_path / "c")[0]
    assert np.abs(apart).max() <= 1
    euler = run(engine, made, tmp_path / "d", lora=False, steps=3)
    assert not set(bytes_of(euler)) & set(bytes_of(together))


class Filling(DiffusersEngine):
    """With a memory plan; when ``full``, it runs out of memory once."""

    def __init__(self, full: bool) -> None:
        super().__init__("cpu", 2 * GIB)
        self.full = full

    def _open_by(self, *asked: Any) -> Family:
        family = super()._open_by(*asked)

        def fill(*_: Any) -> None:
            full, self.full = self.full, False
            if full:
                raise torch.OutOfMemoryError("CUDA out of memory")

        family.network.register_forward_pre_hook(fill)
        return family


@pytest.mark.parametrize("full", [False, True])
def test_a_memory_plan_draws_the_same_pictures(made: Made, tmp_path: Path, full: bool) -> None:
    """Within a rounding: decoded one by one, and out of memory once, denoised so, too."""
    plain = run(DiffusersEngine("cpu"), made, tmp_path / "plain", seeds=(3, 4))
    engine = Filling(full)
    record = run(engine, made, tmp_path / "planned", seeds=(3, 4))
    names = ["memory plan", "half the batch"] if full else ["memory plan"]
    assert [step.name for step in record.steps] == names
    assert record.plan.batch == (1 if full else 2)
    assert not full or record.steps[1].reason.startswith("out of memory in 'denoise'")
    apart = pixels(record, tmp_path / "planned") - pixels(plain, tmp_path / "plain")
    assert np.abs(apart).max() <= 1


def test_a_picture_that_is_no_number_is_thrown_away(made: Made, tmp_path: Path) -> None:
    engine = DiffusersEngine("cpu")
    run(engine, made, tmp_path / "a", seeds=(3,))
    assert engine._open is not None
    engine._open[1].pipeline.vae.decoder.conv_out.bias.data.fill_(float("nan"))
    with pytest.raises(BackendError, match="thrown away"):
        run(engine, made, tmp_path / "b", seeds=(3,))


def test_a_lora_by_kohya_has_no_token_and_draws(made: Made, tmp_path: Path) -> None:
    pack, artifact = made
    theirs = tmp_path / "v002"
    shutil.copytree(artifact, theirs, ignore=shutil.ignore_patterns("tokenizer*", TOKEN, "work"))
    manifest = json.loads((theirs / MANIFEST).read_text())
    manifest |= {"trainer": "kohya", "token_id": -1, "token_proof": None}
    (theirs / MANIFEST).write_text(json.dumps(manifest))
    record = run(DiffusersEngine("cpu"), (pack, theirs), tmp_path / "out", seeds=(3,))
    assert record.token_ids == []
    assert record.lora_sha256


@pytest.mark.parametrize("name", ["fast", "reliable"])
def test_a_preset_has_values_for_this_family(made: Made, name: str) -> None:
    bare = made[0].manifest.model_copy(update={"defaults": {}})
    plan = plan_from(find_preset(name), bare, {"persona": "p", "prompt": "a person"})
    assert 6 <= plan.guidance <= 8
    assert 30 <= plan.steps <= 50
