"""Blocks that wait in RAM: what does not fit on a card comes to it for its turn.

In: a transformer that lies in RAM, how many of its blocks shall stay there, a device. Out: the same
transformer with everything else on the device; a waiting block is copied there when its forward begins, and
the copy is let go when another waiting block begins. Frozen weights never change, so nothing is copied back.
A LoRA is small, learns, and does not wait. Knows nothing of plans.

Under gradient checkpointing (Chen et al. 2016; torch's, without re-entrance) the backward pass goes through
the blocks in reverse: it computes a block's forward once more, then that block's gradients, and only then
begins the block before. So at the time that a block is let go, no gradient needs it any more. A hook after
the forward would be too early: layers that read their weights in the backward pass (fp8) would find those in
RAM. Without checkpointing autograd would hold a copy of every block, so a plan that lets blocks wait
checkpoints.

While one block computes, the next one on the way is copied on a stream of its own: two are there at most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

Copy = Callable[[Tensor], Tensor]


class Slot(NamedTuple):
    """Where a module holds a tensor (its table of parameters or buffers, the name), and RAM's tensor."""

    table: dict[str, Any]
    name: str
    home: Tensor


class Waiting:
    """The waiting blocks of one transformer. ``copy`` brings a tensor to the device."""

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device, copy: Copy | None = None) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None
        self._copy = copy or (lambda home: home.to(device, non_blocking=True))
        self._slots = [_slots(block, pinned=device.type == "cuda") for block in blocks]
        self._here: int | None = None
        self._coming: tuple[int, list[Tensor]] | None = None
        for place, block in enumerate(blocks):
            block.register_forward_pre_hook(lambda _block, _inputs, place=place: self._begin(place))

    def _begin(self, place: int) -> None:
        """Have a block here and the one that is likely next on its way."""
        onward = 1 if self._here is None or place > self._here else -1
        if place != self._here:
            copies = self._arrived(place)
            self.leave()
            for slot, copy in zip(self._slots[place], copies or self._copies(place), strict=True):
                slot.table[slot.name] = copy
            if self._stream:
                torch.cuda.current_stream(self.device).wait_stream(self._stream)
            self._here = place
        if self._coming is None and 0 <= place + onward < len(self._slots):
            self._coming = place + onward, self._copies(place + onward)

    def _arrived(self, place: int) -> list[Tensor] | None:
        """The copies of a block that was on its way; another block's are let go."""
        coming, self._coming = self._coming, None
        return coming[1] if coming and coming[0] == place else None

    @torch.no_grad()
    def _copies(self, place: int) -> list[Tensor]:
        homes = [slot.home for slot in self._slots[place]]
        if self._stream is None:
            return [_like(self._copy(home), home) for home in homes]
        # The memory that copies take may be that of a block whose last operators are still queued.
        self._stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self._stream):
            return [_like(self._copy(home), home) for home in homes]

    def leave(self) -> None:
        """Let the block that is here go; its place in the model is RAM's again."""
        if self._here is not None:
            for slot in self._slots[self._here]:
                slot.table[slot.name] = slot.home
            self._here = None

    @contextmanager
    def absent(self) -> Iterator[None]:
        """Inside, the model is without the waiting tensors, and no copy of them exists."""
        self._coming = None
        self.leave()
        every = [slot for block in self._slots for slot in block]
        for slot in every:
            slot.table[slot.name] = None
        try:
            yield
        finally:
            for slot in every:
                slot.table[slot.name] = slot.home


def keep_in_ram(transformer: Any, count: int, device: torch.device, copy: Copy | None = None) -> None:
    """Let ``count`` blocks, evenly among the others, wait in RAM; the rest moves to ``device``."""
    blocks = list(transformer.transformer_blocks)
    chosen = [
        block
        for place, block in enumerate(blocks)
        if (place + 1) * count // len(blocks) > place * count // len(blocks)
    ]
    transformer.waiting = Waiting(chosen, device, copy)
    move(transformer, device)


def move(model: Any, device: torch.device) -> None:
    """As ``model.to(device)``, but what waits in RAM stays there."""
    waiting: Waiting | None = getattr(model, "waiting", None)
    if waiting is None:
        model.to(device)
        return
    with waiting.absent():
        model.to(device)


def _slots(block: nn.Module, *, pinned: bool) -> list[Slot]:
    """Every tensor of a block but those of a LoRA; ``pinned`` in memory that a card reads by itself."""
    found = []
    for name, module in block.named_modules():
        tables: tuple[dict[str, Any], ...] = (module._parameters, module._buffers)
        for table in () if ".lora_" in name else tables:
            for key, tensor in table.items():
                if tensor is not None:
                    home = _pinned(tensor) if pinned else tensor
                    table[key] = home
                    found.append(Slot(table, key, home))
    return found


@torch.no_grad()
def _pinned(tensor: Tensor) -> Tensor:
    if hasattr(tensor, "__tensor_flatten__"):
        return tensor  # torchao's: several tensors in one, copied without pinning
    return _like(tensor.pin_memory(), tensor)


def _like(value: Tensor, home: Tensor) -> Tensor:
    """A parameter where ``home`` is one."""
    if isinstance(home, nn.Parameter) and not isinstance(value, nn.Parameter):
        return nn.Parameter(value, requires_grad=False)
    return value
