"""A memory plan drives the engine: pretended VRAM and injected OutOfMemory on the miniature, on a CPU."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import torch

from oblik.diffusion.modulation import is_baked
from oblik.errors import OutOfMemory
from oblik.generation.backends.diffusers_engine import DiffusersEngine
from oblik.generation.plan import Plan
from oblik.generation.record import Record, read_record
from oblik.packs.manifest import OpenPack
from oblik.packs.memory_plan import GIB, MemoryPlan
from oblik.progress import SilentProgress
from oblik.training.backends.native import NativeTrainer
from oblik.training.trainer import TrainRequest

NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)
PLAN = Plan(
    pack="miniature", persona=None, prompt="photo of a woman, in a park", seeds=(3, 4), batch=2, steps=2,
    guidance=3.0, width_px=128, height_px=128, dtype="float32",
)  # fmt: skip
ROOMY = 2 * GIB

pytestmark = pytest.mark.filterwarnings("ignore")


class Engine(DiffusersEngine):
    """Plans of its choice; the first ``full`` pipelines run out of memory in ``part``."""

    def __init__(self, vram_bytes: int | None = ROOMY, part: str = "", full: int = 1) -> None:
        super().__init__("cpu", vram_bytes)
        self.part, self.full, self.opened = part, full, 0
        self.wanted: dict[str, Any] = {}

    def _memory_plan(self, plan: Plan, pack: OpenPack, artifact: Path | None) -> MemoryPlan | None:
        found = super()._memory_plan(plan, pack, artifact)
        for each in (found, *found.smaller) if found and self.wanted else ():
            if self.wanted.items() <= each.configuration.model_dump().items():
                return each
        return found

    def _open_by(self, *asked: Any) -> Any:
        family = super()._open_by(*asked)
        self.opened += 1
        if self.part and self.opened <= self.full:

            def fill(*_: Any) -> None:
                raise torch.OutOfMemoryError("CUDA out of memory")

            whole = {**self._aside, "decoder": family.pipeline.vae.decoder}
            (whole.get(self.part) or family.network).register_forward_pre_hook(fill)
        return family


@pytest.fixture(scope="module")
def plain(pack: OpenPack, tmp_path_factory: pytest.TempPathFactory) -> Record:
    """What an engine without a plan makes."""
    return run(Engine(None), pack, tmp_path_factory.mktemp("plain"))


def run(engine: DiffusersEngine, pack: OpenPack, out_dir: Path, **changes: Any) -> Record:
    plan = PLAN.model_copy(update=changes)
    return engine.run(plan, pack=pack, artifact=None, out_dir=out_dir, now=NOW, progress=SilentProgress())


def bytes_of(record: Record) -> list[str]:
    return [picture.sha256 for picture in record.pictures]


@pytest.mark.parametrize("place", ["stays", "freed"])
def test_baked_pictures_are_the_same_bytes_and_other_schedules_are_baked_again(
    pack: OpenPack, plain: Record, tmp_path: Path, place: str
) -> None:
    engine = Engine()
    engine.wanted = {"baked_modulation": True, "text_encoder_place": place, "batch": 2, "mlp": "diffusers"}
    baked = run(engine, pack, tmp_path / "baked")
    assert bytes_of(baked) == bytes_of(plain)
    assert plain.steps == []
    assert baked.steps[0].name == "memory plan"
    assert "baked modulation" in baked.steps[0].reason
    assert engine._open is not None
    pipeline = engine._open[1].pipeline
    assert is_baked(pipeline.transformer)
    assert pipeline.vae.use_slicing
    assert pipeline.text_encoder is None
    other = {"steps": 3, "width_px": 96, "prompt": "photo of a man", "seeds": (5,)}
    again = run(engine, pack, tmp_path / "other", **other)
    assert engine.opened == 1, "the weights were loaded twice"
    assert bytes_of(again) == bytes_of(run(Engine(None), pack, tmp_path / "unbaked", **other))


@pytest.mark.parametrize(
    ("part", "stage"), [("text_encoder", "encode text"), ("transformer", "denoise"), ("decoder", "decode")]
)
def test_out_of_memory_once_gives_whole_pictures_and_a_record_of_what_was_given_up(
    pack: OpenPack, plain: Record, tmp_path: Path, part: str, stage: str
) -> None:
    engine = Engine(part=part)
    record = run(engine, pack, tmp_path)
    assert engine.opened == 2
    assert [picture.seed for picture in record.pictures] == [3, 4]
    assert len(bytes_of(record)) == len(bytes_of(plain))
    assert [step.name for step in record.steps] == ["memory plan", "smaller memory plan"]
    assert record.steps[1].reason.startswith(f"out of memory in {stage!r}")
    assert read_record(tmp_path) == record
    assert record.asked == PLAN


def test_with_no_plan_left_it_is_an_error(pack: OpenPack, tmp_path: Path) -> None:
    with pytest.raises(OutOfMemory, match="no smaller plan is left"):
        run(Engine(part="transformer", full=99), pack, tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_persons_lora_and_token_are_there_in_baked_pictures(
    pack: OpenPack, plain: Record, tmp_path: Path, ask: Callable[..., TrainRequest]
) -> None:
    request = ask(tmp_path / "v001", learning_rate=0.05, token_steps=1, steps=2, text_layers=1, text_rank=2)
    artifact = NativeTrainer("cpu", vram_bytes=ROOMY).train(request, SilentProgress())
    plan = PLAN.model_copy(update={"prompt": "photo of <oblik_s> person", "lora_scale": 1.0})
    engine = Engine()
    engine.wanted = {"baked_modulation": True, "text_encoder_place": "freed", "batch": 2}
    made = [
        each.run(
            plan, pack=pack, artifact=artifact, out_dir=tmp_path / name, now=NOW, progress=SilentProgress()
        )
        for name, each in (("unbaked", Engine(None)), ("baked", engine))
    ]
    assert bytes_of(made[0]) == bytes_of(made[1]) != bytes_of(plain)
    assert len(made[1].token_ids) == 1
