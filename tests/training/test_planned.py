"""A memory plan drives the trainer: pretended VRAM and injected OutOfMemory on tiny networks on a CPU."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tests.training.tiny import open_tiny

from oblik.diffusion.load import loading, plan_for
from oblik.diffusion.modulation import is_baked
from oblik.errors import InvalidInput, JobCancelled, OutOfMemory
from oblik.packs.manifest import OpenPack
from oblik.packs.memory_plan import GIB, MemoryPlan
from oblik.progress import SilentProgress
from oblik.training.artifact import CURVES, METRICS, TEXT_ENCODER, WEIGHTS, TrainingLog, read_artifact
from oblik.training.backends.native import NativeTrainer
from oblik.training.trainer import TrainRequest

Ask = Callable[..., TrainRequest]
ROOMY = 2 * GIB


class Trainer(NativeTrainer):
    """Remembers its plan and the pipelines it opened; ``full`` of them run out of memory in one network."""

    def __init__(self, vram_bytes: int | None, part: str = "", calls: int = 0, full: int = 1) -> None:
        super().__init__("cpu", self._opened, vram_bytes)
        self.part, self.calls, self.full = part, calls, full
        self.pipelines: list[Any] = []

    def _opened(self, pack: OpenPack, dtype: torch.dtype, device: torch.device) -> Any:
        pipeline = open_tiny(pack, dtype, device)
        self.pipelines.append(pipeline)
        if self.part and len(self.pipelines) <= self.full:
            left = iter(range(self.calls))

            def fill(*_: Any) -> None:
                if next(left, None) is None:
                    raise torch.OutOfMemoryError("CUDA out of memory")

            name, _, inside = self.part.partition(".")
            getattr(pipeline, name).get_submodule(inside).register_forward_pre_hook(fill)
        return pipeline


class Offloading(Trainer):
    """Its plan lets one block wait in RAM."""

    def _plan(self, request: TrainRequest) -> MemoryPlan | None:
        plan = super()._plan(request)
        assert plan is not None
        return plan.model_copy(
            update={"configuration": plan.configuration.model_copy(update={"offload_blocks": 1})}
        )


class Heard(SilentProgress):
    """Remembers what stages there were."""

    def __init__(self) -> None:
        super().__init__()
        self.titles: list[str] = []

    def stage(self, name: str, total: int | None = None) -> Any:
        self.titles.append(name)
        return super().stage(name, total)


@pytest.fixture(scope="module")
def pack(tiny_pack: OpenPack) -> OpenPack:
    """The tiny pack with its configurations, so that its own bytes are counted."""
    pipeline = open_tiny(tiny_pack, torch.float32, torch.device("cpu"))
    for name in ("transformer", "text_encoder", "vae"):
        part = getattr(pipeline, name)
        folder = tiny_pack.folder / name
        part.save_config(folder) if hasattr(part, "save_config") else part.config.save_pretrained(folder)
    return tiny_pack


@pytest.fixture(scope="module")
def request_of(tiny_ask: Ask, pack: OpenPack) -> Ask:
    def build(out: Path, **changed: Any) -> TrainRequest:
        return tiny_ask(out, pack=pack, **changed)

    return build


def train(trainer: Trainer, request: TrainRequest) -> Path:
    return trainer.train(request, SilentProgress())


def losses(folder: Path) -> list[float]:
    return [point.train for point in log(folder).losses]


def log(folder: Path) -> TrainingLog:
    return TrainingLog.model_validate_json((folder / CURVES).read_text())


def bytes_of_baked(request: TrainRequest) -> int:
    """So little memory that the plan of a request with one picture at a time bakes the modulation."""
    plan = Trainer(ROOMY)._plan(request)
    assert plan is not None
    baked = next(each for each in plan.smaller if each.configuration.baked_modulation)
    return GIB + baked.peak_bytes + 1


def test_baking_changes_no_loss_and_no_weight(tmp_path: Path, request_of: Ask) -> None:
    made, trainers = [], []
    for name in ("plain", "baked"):
        request = request_of(tmp_path / name, micro_batch=1, sample_every=9, probe_images=1)
        trainers.append(Trainer(ROOMY if name == "plain" else bytes_of_baked(request)))
        made.append(train(trainers[-1], request))
    assert [is_baked(trainer.pipelines[0].transformer) for trainer in trainers] == [False, True]
    plain, baked = (read_artifact(folder) for folder in made)
    assert (plain.memory_plan.baked_modulation, baked.memory_plan.baked_modulation) == (False, True)  # type: ignore[union-attr]
    assert losses(made[0]) == losses(made[1])
    one, other = (load_file(folder / WEIGHTS) for folder in made)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_without_vram_bytes_a_cpu_plans_nothing_and_draws_its_times_off_the_grid(
    tmp_path: Path, request_of: Ask
) -> None:
    plain = train(Trainer(None), request_of(tmp_path / "plain"))
    planned = train(Trainer(ROOMY), request_of(tmp_path / "planned"))
    assert read_artifact(plain).memory_plan is None
    assert losses(plain) != losses(planned)
    taught = load_file(planned / TEXT_ENCODER)
    assert any(value.abs().max() > 0 for key, value in taught.items() if "lora_B" in key)
    config = read_artifact(planned).config
    assert (config.micro_batch, config.optimiser, config.gradient_checkpointing) == (4, "adamw", True)


@pytest.mark.parametrize(
    ("part", "calls", "stage"),
    [
        ("vae.encoder.down_blocks.1.resample", 0, "encode text"),
        ("text_encoder", 0, "train token"),
        ("transformer", 17, "train transformer"),
    ],
)
def test_out_of_memory_goes_on_with_less_and_says_what_was_given_up(
    tmp_path: Path, request_of: Ask, part: str, calls: int, stage: str
) -> None:
    trainer = Trainer(ROOMY, part, calls)
    heard = Heard()
    folder = trainer.train(request_of(tmp_path / "v001"), heard)
    assert len(trainer.pipelines) == 2
    assert "smaller plan" in heard.titles
    begun = 2 if part == "text_encoder" else 1  # a run that was in the second stage goes on there
    assert heard.titles.count("learn the word") == begun
    [note] = log(folder).replanned
    assert note.startswith(f"out of memory in {stage!r}")
    assert "Gave up" in note
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    assert [line["replanned"] for line in lines if "replanned" in line] == [note]
    assert [line["step"] for line in lines if "step" in line] == list(range(1, 10))
    chosen = read_artifact(folder).memory_plan
    assert chosen is not None
    assert chosen.batch < 4 or chosen.baked_modulation


def test_with_no_plan_left_it_is_an_error(tmp_path: Path, request_of: Ask) -> None:
    trainer = Trainer(ROOMY, "transformer", 0, full=99)
    with pytest.raises(OutOfMemory, match="no smaller plan is left"):
        train(trainer, request_of(tmp_path / "v001"))
    assert len(trainer.pipelines) > 2


def test_only_a_plan_may_change_the_optimiser_of_a_stopped_run(tmp_path: Path, request_of: Ask) -> None:
    asked, request = iter([False] * 12), request_of(tmp_path / "v001")
    with pytest.raises(JobCancelled):
        Trainer(ROOMY).train(request, SilentProgress(cancelled=lambda: next(asked, True)))
    files = list((request.out_dir / "work").glob("step-*.pt"))
    assert files
    for file in files:
        state = torch.load(file, weights_only=True)
        state["structure"] = state["structure"].replace('"adamw"', '"adamw8bit"')
        for stage in state["stages"].values():
            stage["optimiser"] = {"of another": "kind"}
        torch.save(state, file)
    again = replace(request, resume=True)
    with pytest.raises(InvalidInput, match="keeps its"):
        train(Trainer(None), again)
    assert len(losses(train(Trainer(ROOMY), again))) == 9


def test_modulation_as_a_target_is_never_baked(tmp_path: Path, request_of: Ask) -> None:
    request = request_of(tmp_path / "v001")
    config = request.config.model_copy(update={"targets": ("to_q", "img_mod.1")})
    plan = Trainer(ROOMY)._plan(replace(request, config=config))
    assert plan is not None
    assert not any(each.configuration.baked_modulation for each in (plan, *plan.smaller))


def test_blocks_that_wait_in_ram_change_no_loss_and_no_weight(tmp_path: Path, request_of: Ask) -> None:
    whole, kept = Trainer(ROOMY), Offloading(ROOMY)
    made = [
        train(trainer, request_of(tmp_path / name, micro_batch=1, sample_every=9, probe_images=1))
        for name, trainer in (("whole", whole), ("kept", kept))
    ]
    assert len(kept.pipelines[0].transformer.waiting._slots) == 1
    assert read_artifact(made[1]).memory_plan.offload_blocks == 1  # type: ignore[union-attr]
    assert losses(made[0]) == losses(made[1])
    one, other = (load_file(folder / WEIGHTS) for folder in made)
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_card_too_small_for_every_block_gets_a_plan_that_keeps_some_in_ram(pack: OpenPack) -> None:
    unread = pack.model_copy(update={"folder": Path("nowhere")})  # planned as the published 20B

    def plan(vram_bytes: int) -> MemoryPlan:
        made = plan_for(
            unread, device=torch.device("cpu"), vram_bytes=vram_bytes, dtype="bfloat16", purpose="generate"
        )
        assert made is not None
        return made

    small, large = plan(20 * GIB), plan(60 * GIB)
    assert small.fits
    assert small.configuration.offload_blocks > 0
    assert large.configuration.offload_blocks == 0
    assert loading(small.configuration, torch.device("cuda"))[0].type == "cpu", (
        "it is never whole on the card"
    )
