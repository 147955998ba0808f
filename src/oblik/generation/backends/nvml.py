"""A card's temperature, power and memory in use, from NVIDIA's management library.

In: a device name as the settings write it. Out: readings. The card is found by its UUID: NVML counts
cards by their slot and knows nothing of ``CUDA_VISIBLE_DEVICES``, so equal numbers need not mean the same
card.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pynvml
import torch

from oblik.errors import BackendUnavailable
from oblik.generation.heat import Reading

WHY = "the pauses of the quality level are kept without it"


class NvmlThermometer:
    """Reads the card that ``device`` names; ``auto`` and ``cuda`` are the first that torch sees."""

    def __init__(self, device: str = "auto") -> None:
        wanted = torch.device("cuda" if device == "auto" else device)
        if wanted.type != "cuda" or not torch.cuda.is_available():
            raise BackendUnavailable(f"{device} is no NVIDIA card: {WHY}", hint="oblik doctor")
        properties = torch.cuda.get_device_properties(wanted.index or 0)
        try:
            pynvml.nvmlInit()
            self._card = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{properties.uuid}")
        except pynvml.NVMLError as missing:
            raise BackendUnavailable(
                f"NVML does not answer ({missing}): {WHY}", hint="oblik doctor"
            ) from missing

    def read(self) -> Reading:
        power_mw = _asked(lambda: pynvml.nvmlDeviceGetPowerUsage(self._card))
        return Reading(
            temperature_c=_asked(
                lambda: pynvml.nvmlDeviceGetTemperature(self._card, pynvml.NVML_TEMPERATURE_GPU)
            ),
            power_w=None if power_mw is None else power_mw / 1000,
            used_bytes=_asked(lambda: int(pynvml.nvmlDeviceGetMemoryInfo(self._card).used)),
        )


def _asked(question: Callable[[], Any]) -> Any:
    """The answer; None where the driver has none (WSL2 and laptops do not know everything)."""
    try:
        return question()
    except pynvml.NVMLError:
        return None
