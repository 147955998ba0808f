"""A memory plan drives the engine: pretended VRAM and injected OutOfMemory on the miniature, on a CPU."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from oblik.diffusion.modulation import is_baked
from oblik.errors import JobCancelled, OutOfMemory
from oblik.generation.backends.diffusers_engine import DiffusersEngine
from oblik.generation.backends.shortage import fitting
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


class Narrow(torch.nn.Module):
    """Stands in for a layer; whoever reads its weight hears of it."""

    def __init__(self, layer: Any, read: Callable[..., None]) -> None:
        super().__init__()
        self.layer, self.read = layer, read
        self.bias, self.kernel_size = layer.bias, layer.kernel_size

    @property
    def weight(self) -> torch.Tensor:
        self.read()
        found: torch.Tensor = self.layer.weight
        return found

    def forward(self, *asked: Any, **named: Any) -> Any:
        self.read()
        return self.layer(*asked, **named)


class Engine(DiffusersEngine):
    """Plans of its choice; memory runs out ``full`` times at ``stage`` after ``skip`` calls, as ``error``
    says it."""

    def __init__(
        self, vram_bytes: int | None = ROOMY, stage: str = "", full: int = 1,
        error: Exception | None = None, skip: int = 0,
    ) -> None:  # fmt: skip
        super().__init__("cpu", vram_bytes)
        self.stage, self.full, self.skip, self.opened = stage, full, skip, 0
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")
        self.wanted: dict[str, Any] = {}
        self.narrow: weakref.WeakSet[Any] = weakref.WeakSet()

    def fill(self, stage: str) -> None:
        if stage != self.stage:
            return
        self.skip -= 1
        if self.full > 0 and self.skip < 0:
            self.full -= 1
            raise self.error

    def _family(self, *asked: Any) -> Any:
        if self.stage == "load":
            asked[-1].enter("load")
            self.fill("load")
        family = super()._family(*asked)
        if family.network not in self.narrow:
            self.narrow.add(family.network)
            encoders = {"text_encoder": family.pipeline.text_encoder, **self._aside}
            encoders["text_encoder"].register_forward_pre_hook(lambda *_: self.fill("encode text"))
            family.network.register_forward_pre_hook(lambda *_: self.fill("denoise"))
            decoder = family.pipeline.vae.decoder
            decoder.conv_in = Narrow(decoder.conv_in, lambda: self.fill("decode"))
        return family

    def _memory_plan(self, plan: Plan, pack: OpenPack, artifact: Path | None) -> MemoryPlan | None:
        found = super()._memory_plan(plan, pack, artifact)
        for each in (found, *found.smaller) if found and self.wanted else ():
            if self.wanted.items() <= each.configuration.model_dump().items():
                return each
        return found

    def _open_by(self, *asked: Any) -> Any:
        self.opened += 1
        return super()._open_by(*asked)


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


class Heard(SilentProgress):
    """Remembers the stages that an operator would see."""

    def __init__(self) -> None:
        super().__init__()
        self.stages: list[str] = []

    def stage(self, name: str, total: int | None = None) -> Any:
        self.stages.append(name)
        return super().stage(name, total)


GIVEN_UP = {
    "load": (1, ["offload"]),
    "encode text": (1, ["offload"]),
    "denoise": (3, ["two passes of guidance", "half the batch", "offload"]),
    "decode": (1, ["half the batch"]),
    "decode alone": (1, ["offload"]),
}


@pytest.mark.parametrize("case", GIVEN_UP)
def test_out_of_memory_at_any_stage_goes_on_smaller_and_says_so(
    pack: OpenPack, plain: Record, tmp_path: Path, case: str
) -> None:
    (full, names), stage = GIVEN_UP[case], case.removesuffix(" alone")
    engine, heard = Engine(stage=stage, full=full), Heard()
    plan = PLAN.model_copy(update={"batch": 1 if stage != case else 2})
    record = engine.run(plan, pack=pack, artifact=None, out_dir=tmp_path, now=NOW, progress=heard)
    assert engine.full == 0
    assert [step.name for step in record.steps] == ["memory plan", *names]
    assert [name for name in heard.stages if name != "generate"] == names
    assert all(f"out of memory in {stage!r}" in step.reason for step in record.steps[1:])
    assert engine.opened == (2 if names[-1] == "offload" and stage != "load" else 1)
    assert (record.asked, read_record(tmp_path)) == (plan, record)
    assert (record.plan.width_px, record.plan.steps) == (PLAN.width_px, PLAN.steps)
    assert record.plan.guidance_at_once == ("two passes of guidance" not in names)
    assert record.plan.batch == (1 if "half the batch" in names else plan.batch)
    assert len(record.pictures) == 2
    assert stage in ("denoise", "decode") or bytes_of(record) == bytes_of(plain)


def test_after_running_out_the_next_pictures_are_those_of_a_fresh_engine(
    pack: OpenPack, plain: Record, tmp_path: Path
) -> None:
    """With a cache on, in the middle of a step of the second of two batches."""
    engine = Engine(None, "denoise", skip=5)
    cached = {"cache_threshold": 0.5, "seeds": (8, 9, 10, 11)}
    assert len(run(engine, pack, tmp_path / "short", **cached).pictures) == 4
    assert bytes_of(run(engine, pack, tmp_path / "after")) == bytes_of(plain)


def test_what_an_attempt_had_finished_is_not_left_beside_the_next_ones(
    pack: OpenPack, tmp_path: Path
) -> None:
    """The first had two of four pictures; the second is stopped before it has any."""
    checks = iter(range(100))
    stopped = SilentProgress(lambda: next(checks) >= 2)
    plan = PLAN.model_copy(update={"seeds": (8, 9, 10, 11)})
    where: dict[str, Any] = {"pack": pack, "artifact": None, "out_dir": tmp_path, "now": NOW}
    with pytest.raises(JobCancelled):
        Engine(None, "denoise", skip=5).run(plan, **where, progress=stopped)
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        RuntimeError("[enforce fail at alloc_cpu.cpp:114] DefaultCPUAllocator: can't allocate memory"),
        RuntimeError("MPS backend out of memory"),
        OutOfMemory("by a plan"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_every_way_of_saying_it_is_understood(
    pack: OpenPack, plain: Record, tmp_path: Path, error: Exception
) -> None:
    record = run(Engine(None, "denoise", 1, error), pack, tmp_path)
    assert [step.name for step in record.steps] == ["two passes of guidance"]
    assert bytes_of(record) == bytes_of(plain)


def test_another_error_is_no_shortage(pack: OpenPack, tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="shapes"):
        run(Engine(None, "denoise", 1, RuntimeError("shapes differ")), pack, tmp_path)


def test_larger_pictures_become_smaller_ones(pack: OpenPack, tmp_path: Path) -> None:
    large = {"width_px": 544, "height_px": 544, "guidance": 1.0, "seeds": (3,), "steps": 2}
    record = run(Engine(None, "denoise"), pack, tmp_path, **large)
    assert [step.name for step in record.steps] == ["smaller pictures"]
    with Image.open(tmp_path / record.pictures[0].file) as picture:
        assert picture.size == (512, 512)


def test_with_nothing_left_to_give_up_it_is_an_error(pack: OpenPack, tmp_path: Path) -> None:
    with pytest.raises(OutOfMemory, match="no smaller plan is left"):
        run(Engine(stage="load", full=99), pack, tmp_path / "planned")
    with pytest.raises(OutOfMemory, match="not even one at a time: out of memory in 'encode text'"):
        run(Engine(None, "encode text", full=99), pack, tmp_path / "unplanned")
    assert not (tmp_path / "planned").exists()


def test_free_memory_is_asked_for_before_each_run(pack: OpenPack, tmp_path: Path) -> None:
    free = iter((ROOMY, ROOMY, GIB + 1))
    engine = DiffusersEngine("cpu", lambda: next(free))
    for folder in ("first", "second"):
        assert run(engine, pack, tmp_path / folder).steps[0].reason == "Gave up nothing."
    with pytest.raises(OutOfMemory, match="does not fit"):
        run(engine, pack, tmp_path / "third")


def test_what_has_no_memory_plan_is_planned_smaller() -> None:
    said: list[str] = []

    def planner(plan: Plan) -> None:
        if plan.width_px > 600:
            raise OutOfMemory("too large")

    large = PLAN.model_copy(update={"width_px": 1024, "height_px": 1024})
    fit = fitting(large, planner, lambda name, reason: said.append(f"{name}: {reason}"), 16)
    assert (fit.plan.width_px, fit.plan.height_px, fit.plan.batch) == (576, 576, 2)
    assert said == ["smaller pictures: too large"] * 2


def test_a_persons_lora_and_token_are_there_in_baked_pictures(
    pack: OpenPack, plain: Record, tmp_path: Path, ask: Callable[..., TrainRequest]
) -> None:
    request = ask(tmp_path / "v001", learning_rate=0.05, token_steps=1, steps=2, text_layers=1, text_rank=2)
    artifact = NativeTrainer("cpu", vram_bytes=ROOMY).train(request, SilentProgress())
    plan = PLAN.model_copy(update={"prompt": "photo of <oblik_s> person", "lora_scale": 1.0})
    engine = Engine()
    engine.wanted = {"baked_modulation": True, "text_encoder_place": "freed", "batch": 2}
    heard: list[tuple[tuple[int, ...], list[int], int]] = []
    unbaked = Engine(None)
    for each in (unbaked, engine):
        here = tmp_path / ("baked" if each is engine else "unbaked")
        each._tokens = lambda plan, ids, here=here: heard.append(
            (plan.seeds, list(ids), len(list(here.glob("*.png"))))
        )
    made = [
        each.run(
            plan, pack=pack, artifact=artifact, out_dir=tmp_path / name, now=NOW, progress=SilentProgress()
        )
        for name, each in (("unbaked", unbaked), ("baked", engine))
    ]
    assert bytes_of(made[0]) == bytes_of(made[1]) != bytes_of(plain)
    assert len(made[1].token_ids) == 1
    assert heard == [((3, 4), made[1].token_ids, 0)] * 2, "of both, before their first picture"
