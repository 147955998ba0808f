"""The planner's arithmetic for a U-Net with CLIP: against published files and against a small real one."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from tests.diffusion.sd_packs import CPU, write_pack

from oblik.diffusion import lora, memory_unet
from oblik.diffusion.families.family import Family, open_family
from oblik.diffusion.live_bytes import LiveBytes
from oblik.diffusion.load import open_pipeline
from oblik.diffusion.memory import architecture_of, configurations, make_plan
from oblik.diffusion.memory_count import Counted
from oblik.errors import OutOfMemory
from oblik.packs.catalogue import find_entry
from oblik.packs.memory_plan import GIB, Asked, MemoryPlan
from oblik.training.config import TrainConfig


@pytest.mark.parametrize("name", ["sd15", "sdxl"])
def test_weights_are_those_of_the_published_files(name: str) -> None:
    architecture = architecture_of(name, None)
    network, _, vae = architecture.configs
    dtype = getattr(torch, architecture.dtype)
    encoders = memory_unet.new_encoders(architecture, dtype)
    found = {"unet": memory_unet.new_unet(network, dtype), "text_encoder": encoders[0]}
    found |= dict(zip(["text_encoder_2"], encoders[1:], strict=False))
    found["vae"] = memory_unet.new_vae(vae, dtype, is_xl=name == "sdxl")
    files = {
        part.component: file.bytes
        for part in find_entry(name).parts for file in part.files
        if part.component in found and file.path.endswith(".safetensors") and file.bytes
    }  # fmt: skip
    assert files.keys() >= found.keys() - {"vae"}
    for component, size in files.items():
        assert held(found[component]) == pytest.approx(size, rel=3e-4), component
        assert held(found[component]) < size, "a header is never less than nothing"


def held(model: Any) -> int:
    """Bytes of a model's parameters."""
    return sum(p.numel() * p.element_size() for p in model.parameters())


@pytest.fixture(scope="module", params=["tiny-sd", "tiny-xl"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Family:
    pack = write_pack(tmp_path_factory.mktemp("pack") / "pack", request.param)
    found = open_family("stable_diffusion", open_pipeline(pack, None, dtype=torch.float32, device=CPU))
    found.pack = pack  # type: ignore[attr-defined]
    return found


def counted(family: Family, purpose: str) -> tuple[Counted, MemoryPlan]:
    pack = family.pack  # type: ignore[attr-defined]
    asked = Asked(
        pack="tiny", purpose=purpose, vram_bytes=1, width_px=64, height_px=48, text_layers=2, batch=1,
        rank=2, text_rank=2,
    )  # fmt: skip
    architecture = architecture_of("tiny", pack)
    found = family.count(architecture, asked)
    return found, found.plan(next(configurations(architecture, asked)), GIB)


def test_a_real_step_holds_what_was_counted(family: Family) -> None:
    _, plan = counted(family, "train")
    rows = {stage.stage: stage.rows for stage in plan.stages}
    assert rows["train transformer"]["transformer"] == held(family.network)
    assert rows["encode text"]["text encoder"] == sum(map(held, family.encoders.values()))
    assert rows["encode images"]["VAE"] == held(family.pipeline.vae)
    denoised = counted(family, "generate")[0].peaks["denoise"]
    network = OnCpu(family.network)
    with LiveBytes(family.network.parameters()) as live, torch.no_grad():
        memory_unet._noise(network, (6, 8), batch=2)
    assert denoised == pytest.approx(live.peak - network.replaced, rel=0.1)

    parameters = lora.attach(family.network, TrainConfig(rank=2))
    optimiser = torch.optim.AdamW(parameters)
    memory_unet._noise(OnCpu(family.network), (6, 8), batch=1).square().mean().backward()
    optimiser.step()
    state = [value for each in optimiser.state.values() for value in each.values() if value.dim()]
    stage = rows["train transformer"]
    assert stage["LoRA"] == sum(p.nbytes for p in parameters)
    assert stage["gradients"] == sum(p.grad.nbytes for p in parameters if p.grad is not None)
    assert stage["optimiser"] == sum(value.nbytes for value in state)


class OnCpu:
    """A network that gets real numbers where the counting gives it none."""

    def __init__(self, network: Any) -> None:
        self.network, self.config, self.dtype, self.replaced = network, network.config, network.dtype, 0

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        beside = named["added_cond_kwargs"]
        named["encoder_hidden_states"] = self.real(named["encoder_hidden_states"])
        named["added_cond_kwargs"] = beside and {name: self.real(value) for name, value in beside.items()}
        return self.network(*map(self.real, inputs), **named)

    def real(self, tensor: torch.Tensor) -> torch.Tensor:
        self.replaced += tensor.nbytes
        return torch.ones(tensor.shape, dtype=tensor.dtype)


def real_plan(vram_gib: float) -> MemoryPlan:
    return make_plan(
        architecture_of("sd15", None),
        Asked(pack="sd15", purpose="generate", vram_bytes=round(vram_gib * GIB), width_px=512, height_px=512),
    )


def test_more_memory_gives_up_less_and_nothing_is_planned_that_cannot_be_done() -> None:
    plans = {vram: real_plan(vram) for vram in (3.3, 3.4, 16)}
    chosen = [(p.configuration.text_encoder_place, p.configuration.batch) for p in plans.values()]
    assert chosen == [("freed", 4), ("stays", 2), ("stays", 4)]
    assert plans[16].gave_up == "Gave up nothing."
    for plan in plans.values():
        for each in (plan, *plan.smaller):
            named = each.configuration
            assert (named.attention, named.mlp, named.text_encoder) == ("diffusers",) * 3
            assert not named.baked_modulation
            assert not named.offload_blocks
    with pytest.raises(OutOfMemory, match="in any configuration"):
        real_plan(2.5)
