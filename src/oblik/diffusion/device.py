"""Which device, and how much of its memory is free.

In: a name such as ``auto`` or ``cuda:1``. Out: a torch device. Probes when asked, never at import.
"""

from __future__ import annotations

import torch


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
