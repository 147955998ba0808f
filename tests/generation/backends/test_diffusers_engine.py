"""The in-process engine on the bundled pack: few steps, real pipeline."""

from __future__ import annotations

import shutil
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from oblik.errors import BackendError, InvalidInput, JobCancelled
from oblik.flows.batches import Batches, Run
from oblik.generation.backends.diffusers_engine import DiffusersEngine
from oblik.generation.engine import Engine, open_engine
from oblik.generation.heat import HeatGuard
from oblik.generation.order_report import OrderReport
from oblik.generation.plan import Control, Plan
from oblik.generation.presets import Pace
from oblik.generation.record import Record, read_record
from oblik.images import label_of
from oblik.labels import Label
from oblik.packs.manifest import OpenPack
from oblik.packs.store import BUNDLED, open_pack
from oblik.paths import Home
from oblik.progress import SilentProgress

NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)
PLAN = Plan(
    pack="miniature",
    persona=None,
    prompt="photo of a woman, in a park",
    seeds=(3, 4, 5),
    steps=2,
    guidance=3.0,
    width_px=128,
    height_px=128,
    dtype="float32",
)

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def engine() -> Engine:
    return open_engine(device="cpu")


@pytest.fixture(scope="module")
def pack(tmp_path_factory: pytest.TempPathFactory) -> OpenPack:
    """The bundled pack with noise on its transformer, so that no result rests on how far it was trained."""
    folder = tmp_path_factory.mktemp("pack")
    shutil.copytree(BUNDLED / "miniature", folder, dirs_exist_ok=True)
    file = folder / "transformer" / "diffusion_pytorch_model.safetensors"
    noise = torch.Generator().manual_seed(1)
    tensors = {
        name: tensor.float() + 0.02 * torch.randn(tensor.shape, generator=noise)
        for name, tensor in sorted(load_file(file).items())
    }
    save_file(tensors, file)
    return open_pack(str(folder), Home(Path("nowhere")))


def run(
    engine: Engine, pack: OpenPack, out_dir: Path, stop_after: int | None = None, **changes: object
) -> Record:
    steps = iter(range(10_000))
    progress = SilentProgress(lambda: stop_after is not None and next(steps) >= stop_after)
    plan = PLAN.model_copy(update=changes)
    return engine.run(plan, pack=pack, artifact=None, out_dir=out_dir, now=NOW, progress=progress)


def pixels(folder: Path, name: str) -> np.ndarray:
    return np.asarray(Image.open(folder / name), int)


def test_pictures_grid_and_record(engine: Engine, pack: OpenPack, tmp_path: Path) -> None:
    record = run(engine, pack, tmp_path)
    names = ["01-seed3.png", "02-seed4.png", "03-seed5.png"]
    assert [picture.file for picture in record.pictures] == names
    assert {path.name for path in tmp_path.iterdir()} == {*names, "grid.png", "record.json"}
    assert read_record(tmp_path) == record
    assert Image.open(tmp_path / names[0]).size == (128, 128)
    for picture in record.pictures:
        assert label_of(tmp_path / picture.file) == Label(record=f"record.json#{picture.pixels_sha256}")
        assert b"oblik_" not in (tmp_path / picture.file).read_bytes()
    assert label_of(tmp_path / "grid.png") == Label(record="record.json")
    assert (record.free_vram_bytes, record.device, record.pack_version) == (
        None,
        "cpu",
        pack.manifest.version,
    )
    assert record.seconds.keys() == {"load", "text", "denoise", "write"}
    assert {
        "torch",
        "diffusers",
        "tokenizers",
        "onnxruntime",
        "opencv-python-headless",
    } <= record.libraries.keys()
    assert record.machine.keys() == {"cpu"}
    assert len(record.machine["cpu"]) > len(", AVX2")
    assert len(record.prompt_ids) > 4


def test_the_same_plan_gives_the_same_bytes(engine: Engine, pack: OpenPack, tmp_path: Path) -> None:
    first, second = (run(engine, pack, tmp_path / name) for name in ("a", "b"))
    assert [picture.sha256 for picture in first.pictures] == [picture.sha256 for picture in second.pictures]


def test_a_seed_is_the_same_picture_in_every_batch(engine: Engine, pack: OpenPack, tmp_path: Path) -> None:
    run(engine, pack, tmp_path / "three")
    run(engine, pack, tmp_path / "alone", seeds=(4,))
    run(engine, pack, tmp_path / "pairs", batch=2)
    together = pixels(tmp_path / "three", "02-seed4.png")
    assert np.abs(together - pixels(tmp_path / "alone", "01-seed4.png")).max() <= 1
    assert np.abs(together - pixels(tmp_path / "pairs", "02-seed4.png")).max() <= 1
    assert np.abs(together - pixels(tmp_path / "three", "01-seed3.png")).max() > 20


def test_no_guidance_needs_no_second_pass(engine: Engine, pack: OpenPack, tmp_path: Path) -> None:
    run(engine, pack, tmp_path / "guided")
    run(engine, pack, tmp_path / "plain", guidance=1.0)
    assert (pixels(tmp_path / "guided", "01-seed3.png") != pixels(tmp_path / "plain", "01-seed3.png")).any()


def test_a_stopped_run_keeps_what_was_finished(engine: Engine, pack: OpenPack, tmp_path: Path) -> None:
    with pytest.raises(JobCancelled):
        run(engine, pack, tmp_path / "stopped", batch=1, stop_after=3)
    record = read_record(tmp_path / "stopped")
    assert [picture.seed for picture in record.pictures] == [3]
    assert (tmp_path / "stopped" / "01-seed3.png").is_file()
    run(engine, pack, tmp_path / "after", batch=1, seeds=(3,))
    assert (pixels(tmp_path / "after", "01-seed3.png") == pixels(tmp_path / "stopped", "01-seed3.png")).all()


class Poisoned(DiffusersEngine):
    """The noise of some seeds is not a number."""

    bad: frozenset[int] = frozenset()

    def _family(self, *asked: Any) -> Any:
        family = super()._family(*asked)
        drawn = type(family).noise

        def noise(seeds: tuple[int, ...], size_px: tuple[int, int]) -> torch.Tensor:
            latents = drawn(family, seeds, size_px).clone()
            latents[[seed in self.bad for seed in seeds]] = torch.nan
            return latents

        vars(family)["noise"] = noise
        return family


@pytest.mark.parametrize("batch", [8, 1])
def test_a_broken_picture_is_thrown_away_and_the_rest_of_the_batch_is_made(
    pack: OpenPack, tmp_path: Path, batch: int
) -> None:
    engine = Poisoned("cpu")
    engine.bad = frozenset({4})
    with pytest.raises(BackendError, match=r"seed 4 .*not numbers; 2 others"):
        run(engine, pack, tmp_path / "broken", batch=batch)
    record = read_record(tmp_path / "broken")
    assert [picture.seed for picture in record.pictures] == [3, 5]
    named = {picture.file for picture in record.pictures}
    assert {path.name for path in (tmp_path / "broken").iterdir()} == {*named, "grid.png", "record.json"}
    engine.bad = frozenset()
    whole = run(engine, pack, tmp_path / "whole", batch=batch)
    assert len(whole.pictures) == 3, "what was broken is not kept for the next run"
    assert [whole.pictures[place].sha256 for place in (0, 2)] == [each.sha256 for each in record.pictures]


def test_an_order_goes_on_after_a_broken_picture_and_tries_it_again(pack: OpenPack, tmp_path: Path) -> None:
    engine = Poisoned("cpu")

    def order() -> OrderReport:
        def make(plan: Plan, folder: Path, used: Engine) -> None:
            where: dict[str, Any] = {"pack": pack, "artifact": None, "out_dir": folder, "now": NOW}
            used.run(plan, **where, progress=SilentProgress())

        report = OrderReport(
            name="three", type="series", persona=None, pack="miniature", lora=None, order_sha256="",
            started_at=NOW, wanted=3,
        )  # fmt: skip
        run = Run(tmp_path, report, lambda: engine, make, HeatGuard())
        return run.all([Batches("series", PLAN, Pace())], SilentProgress())

    engine.bad = frozenset({4})
    report = order()
    assert (report.state, [made.seed for made in report.pictures]) == ("incomplete", [3, 5])
    assert [(failed.seed, failed.code) for failed in report.failures] == [(4, "backend")]
    assert "not numbers" in report.failures[0].message
    engine.bad = frozenset()
    again = order()
    assert (again.state, [made.again for made in again.pictures]) == ("done", [True, False, True])


def test_a_control_needs_a_place_to_look_for_its_image(
    engine: Engine, pack: OpenPack, tmp_path: Path
) -> None:
    with pytest.raises(InvalidInput, match="needs the folder of a persona"):
        run(engine, pack, tmp_path, controls=(Control(kind="pose", image="pose.png"),))
