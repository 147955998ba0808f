"""Baked modulation: what depends on the time alone, computed once for every time of a schedule.

In: a QwenImageTransformer2DModel and the times it will be called with. Out: the same model without
modulation weights. ``img_mod`` and ``txt_mod`` are a third of the parameters (6.8 of 20.4 billion) and see
nothing but the time, so a table in RAM holds what they say: to the last bit, because they compute it
themselves. A time that is not in the table is an error, never an approximation. Knows nothing of images,
prompts or memory budgets.

How it fits in: the table takes the place of the time embedding, so what travels through the blocks as
``temb`` is a whole row. Each modulation becomes its columns of the row, the last norm gets the columns of
the old ``temb``. Nothing is remembered between calls: threads and checkpointing see the row they were given.

T times, B rows of a batch, D width of the transformer, R width of a table's row: (12 * blocks + 1) * D.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from diffusers.pipelines.qwenimage.pipeline_qwenimage import calculate_shift, retrieve_timesteps
from numpy import linspace
from torch import Tensor, nn

from oblik.errors import InvalidInput, LoraBroken

GRID = 1000
EMBEDDING = "time_text_embed"
STREAMS = ("img_mod", "txt_mod")

# Gives the module of that name ("transformer_blocks.3.img_mod", "time_text_embed") with its weights.
Source = Callable[[str], nn.Module]


class Table(nn.Module):
    """Stands where the time embedding stood. Not in the state dict, and ``.to(device)`` leaves it in RAM."""

    def __init__(self, times_T: Tensor, table_TR: Tensor, rows: int, source: Source | None) -> None:
        super().__init__()
        self.times_T, self.table_TR, self.rows, self.source = times_T, table_TR, rows, source

    def forward(self, timestep_B: Tensor, *_hidden: Any) -> Tensor:
        """The rows (B, R) of these times. Raises InvalidInput for a time that was not baked."""
        same_BT = timestep_B.detach().cpu()[:, None] == self.times_T
        if not bool(same_BT.any(1).all()):
            raise InvalidInput(
                f"time {float(timestep_B[~same_BT.any(1)][0]):.6f} is not one of {len(self.times_T)} baked",
                hint="bake again when steps, shift or size change",
            )
        rows_BR: Tensor = self.table_TR[same_BT.int().argmax(1)]
        return rows_BR.to(timestep_B.device, non_blocking=True)


class Columns(nn.Module):
    """Stands where a modulation's linear layer stood: its columns of the row."""

    def __init__(self, start: int, stop: int) -> None:
        super().__init__()
        self.start, self.stop = start, stop

    def forward(self, row_BR: Tensor) -> Tensor:
        return row_BR[:, self.start : self.stop]

    def __repr__(self) -> str:  # PEFT's refusal quotes it
        return "'modulation that is baked into a table: apply this LoRA before baking'"


def bake(
    transformer: Any,
    times: Tensor,
    *,
    rows: int = 1,
    source: Source | None = None,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> None:
    """Replace the modulation by a table for ``times``; on a baked transformer, replace the table.

    ``times`` are what the transformer is called with: `schedule_times`, `training_grid`, `every_bfloat16`.
    ``rows`` is the batch of those calls: a matrix product of another height may round otherwise. ``device``
    computes, one module at a time, and should be the one that will run the model; the transformer may still
    lie in RAM. ``dtype`` is what the model computes in, where its parameters do not say it (GGUF). Weights
    are dropped unless a ``source`` keeps them (`parked`). A LoRA on modulation must be applied before, and
    stays at the scale that it has now.

    Raises:
        InvalidInput: the modulation depends on more than the time, or its weights are gone.
    """
    if transformer.config.use_additional_t_cond or transformer.config.guidance_embeds:
        raise InvalidInput(
            "this model's modulation depends on more than the time: it cannot be baked",
            hint="choose a smaller format instead: oblik plan",
        )
    if is_baked(transformer):
        source = source or transformer.time_text_embed.source
        if source is None:
            raise InvalidInput(
                "the modulation was baked for other times and its weights were dropped",
                hint="load the model again, or bake it with a source",
            )
    times_T = _distinct(transformer, times, dtype or transformer.dtype)
    read = source or transformer.get_submodule
    table_TR = _computed(transformer, read, times_T, rows, device or transformer.device)
    _install(transformer, Table(times_T, table_TR, rows, source))


def ensure(transformer: Any, times: Tensor, *, rows: int = 1, device: torch.device | None = None) -> bool:
    """Bake a baked transformer again where its table is for other times or rows; whether it was."""
    table = transformer.time_text_embed
    dtype = table.times_T.dtype
    if table.rows == rows and bool(torch.isin(_distinct(transformer, times, dtype), table.times_T).all()):
        return False
    bake(transformer, times, rows=rows, device=device, dtype=dtype)
    return True


def is_baked(transformer: Any) -> bool:
    """Whether the modulation is a table."""
    return isinstance(transformer.time_text_embed, Table)


def parked(transformer: Any) -> Source:
    """A source: the transformer's own modules, kept in RAM. To be asked before baking."""
    return {name: transformer.get_submodule(name).to("cpu") for name in _names(transformer)}.__getitem__


def refuse_lora(transformer: Any, modules: Iterable[str]) -> None:
    """Raise LoraBroken when one of a LoRA's modules is no longer there because it was baked."""
    hit = [name for name in modules if name.startswith(EMBEDDING) or set(STREAMS) & set(name.split("."))]
    if hit and is_baked(transformer):
        raise LoraBroken(
            f"{len(hit)} modules of this LoRA are modulation, which is baked into a table: {hit[0]}",
            hint="apply it before the modulation is baked, or choose a plan without baked modulation",
        )


def schedule_times(
    pipeline: Any,
    steps: int,
    size_px: tuple[int, int],
    *,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The times (T,) at which ``QwenImagePipeline`` calls its transformer for a picture of (width, height).

    Computed with the pipeline's own functions and on the device that will run it: a division by 1000 does not
    round alike everywhere.
    """
    scheduler = type(pipeline.scheduler).from_config(pipeline.scheduler.config)
    columns, rows = (side // (2 * pipeline.vae_scale_factor) for side in size_px)
    anchors = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
    mu = calculate_shift(rows * columns, *(scheduler.config[name] for name in anchors))
    sigmas = linspace(1.0, 1 / steps, steps)
    device = device or pipeline.transformer.device
    timesteps, _ = retrieve_timesteps(scheduler, steps, device, sigmas=sigmas, mu=mu)
    times: Tensor = timesteps.to(dtype or pipeline.transformer.dtype) / 1000
    return times


def training_grid() -> Tensor:
    """The 1,000 times sigma (T,) that training with a table draws from; float32."""
    return torch.arange(1, GRID + 1) / GRID


def on_grid(sigma_B: Tensor) -> Tensor:
    """Drawn times, each moved to the nearest of `training_grid`: the drawing becomes discrete."""
    nearest = (sigma_B.cpu() * GRID).round().long().clamp(1, GRID)
    return training_grid()[nearest - 1].to(sigma_B.device)


def every_bfloat16(lowest: float = 0.02) -> Tensor:
    """Every bfloat16 in [lowest, 1]: a table for all steps, shifts and sizes, in bfloat16 only."""
    bits = torch.arange(2**15, dtype=torch.int16).view(torch.bfloat16)
    return bits[(bits >= lowest) & (bits <= 1)]


def _names(transformer: Any) -> list[str]:
    blocks = range(len(transformer.transformer_blocks))
    return [EMBEDDING, *(f"transformer_blocks.{i}.{stream}" for i in blocks for stream in STREAMS)]


def _distinct(transformer: Any, times: Tensor, dtype: torch.dtype) -> Tensor:
    """Times in the dtype of the model's arithmetic, each once, with the 0 that edit models add."""
    times = times.detach().cpu().to(dtype)
    if transformer.config.zero_cond_t:
        times = torch.cat([times, times.new_zeros(1)])
    distinct: Tensor = torch.unique(times)
    return distinct


@torch.no_grad()
def _computed(transformer: Any, read: Source, times_T: Tensor, rows: int, device: torch.device) -> Tensor:
    """The table (T, R) in RAM: columns by block and stream, the time embedding last."""
    width = transformer.inner_dim
    names = _names(transformer)
    table_TR = torch.empty(len(times_T), (6 * (len(names) - 1) + 1) * width, dtype=times_T.dtype)
    doubled = rows * (2 if transformer.config.zero_cond_t else 1)
    with _lent(read(EMBEDDING), device) as embed:
        temb_TBD = [embed(t.to(device).expand(doubled), table_TR) for t in times_T]
    table_TR[:, -width:] = torch.stack([temb_BD[0].cpu() for temb_BD in temb_TBD])
    for at, name in enumerate(names[1:]):
        height = doubled if name.endswith(STREAMS[0]) else rows
        with _lent(read(name), device) as modulation:
            for t, temb_BD in enumerate(temb_TBD):
                table_TR[t, 6 * at * width : 6 * (at + 1) * width] = modulation(temb_BD[:height])[0].cpu()
    return table_TR


@contextmanager
def _lent(module: nn.Module, device: torch.device) -> Iterator[nn.Module]:
    """The module on ``device``, and afterwards back where it was."""
    home = next(module.parameters()).device
    yield module.to(device)
    module.to(home)


def _install(transformer: Any, table: Table) -> None:
    width = transformer.inner_dim
    if not is_baked(transformer):
        transformer.norm_out.register_forward_pre_hook(partial(_last_columns, width))
        for index, block in enumerate(transformer.transformer_blocks):
            for stream, name in enumerate(STREAMS):
                start = 6 * width * (2 * index + stream)
                setattr(block, name, nn.Sequential(nn.Identity(), Columns(start, start + 6 * width)))
    transformer.time_text_embed = table


def _last_columns(width: int, _norm: nn.Module, inputs: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    hidden, row_BR = inputs
    return hidden, row_BR[:, -width:]
