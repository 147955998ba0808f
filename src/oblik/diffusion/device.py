"""Which device, and how much of its memory is free.

In: a name such as ``auto`` or ``cuda:1``. Out: a torch device. Probes when asked, never at import.
"""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import torch
from torch import nn

SMALL = 50_000_000
"""Parameters below which one thread is faster than two: OpenMP's threads sleep and wake at every operator."""


def pick_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one, then Apple's MPS, then the CPU."""
    if name != "auto":
        return torch.device(name)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def free_vram(device: torch.device) -> int | None:
    """Free bytes on a CUDA device; None elsewhere."""
    return int(torch.cuda.mem_get_info(device)[0]) if device.type == "cuda" else None


def total_vram() -> int:
    """All bytes of the first CUDA device; 0 where there is none."""
    return int(torch.cuda.get_device_properties(0).total_memory) if torch.cuda.is_available() else 0


def usable_vram(device: torch.device, reserve_bytes: int) -> int | None:
    """What a memory plan may count on: the card's memory, or what others leave of it and ``reserve_bytes``,
    which the plan takes off again. None without a CUDA card."""
    if device.type != "cuda":
        return None
    free_bytes, all_bytes = torch.cuda.mem_get_info(device)
    return int(min(all_bytes, free_bytes + torch.cuda.memory_reserved(device) + reserve_bytes))


def give_back_memory() -> None:
    """Return to the system what was freed but is kept by glibc; elsewhere nothing happens."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)


def free_memory() -> None:
    """Between two orders: break Python's cycles, then empty CUDA's cache and return what glibc keeps."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    give_back_memory()


def is_small(network: nn.Module) -> bool:
    """Whether ``network`` lies on a CPU and is small enough for one thread to be faster than several."""
    weights = [parameter for parameter in network.parameters() if parameter.device.type == "cpu"]
    return 0 < sum(parameter.numel() for parameter in weights) < SMALL


@contextmanager
def few_threads(network: nn.Module) -> Iterator[None]:
    """Inside, operators run on one thread when ``network`` is small and lies on a CPU."""
    before = torch.get_num_threads()
    if is_small(network):
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
