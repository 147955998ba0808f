"""What a picture was made with: versions, machine, files. Two records differ in it, or in nothing known.

In: a plan, what it runs on. Out: a `Record` without pictures. Knows nothing of how pictures are made.
"""

from __future__ import annotations

import platform
import re
import subprocess
from contextlib import suppress
from datetime import datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

from oblik import __version__
from oblik.diffusion.families.family import Family
from oblik.generation.plan import Plan
from oblik.generation.record import Record, pack_sha256
from oblik.packs.manifest import OpenPack
from oblik.training.artifact import read_artifact

LIBRARIES = (
    "torch", "diffusers", "transformers", "tokenizers", "peft", "safetensors", "numpy", "pillow",
    "onnxruntime", "opencv-python-headless", "torchao", "gguf", "bitsandbytes",
)  # fmt: skip
"""Those that are installed stand in the record."""
DRIVER = Path("/proc/driver/nvidia/version")


def new_record(
    plan: Plan, pack: OpenPack, artifact: Path | None, family: Family, now: datetime, device: torch.device,
    free_bytes: int | None,
) -> Record:  # fmt: skip
    """The record of a run that begins."""
    manifest = read_artifact(artifact) if artifact else None
    prompt_ids = family.pipeline.tokenizer(plan.prompt)["input_ids"]
    return Record(
        plan=plan,
        asked=plan,
        started_at=now,
        token_ids=[i for i in prompt_ids if manifest and i == manifest.token_id],
        prompt_ids=prompt_ids,
        lora_sha256=manifest.weights_sha256 if manifest else None,
        token_sha256=(manifest.token_sha256 or None) if manifest else None,
        text_encoder_sha256=manifest.text_encoder_sha256 if manifest else None,
        pack_version=pack.manifest.version,
        pack_sha256=pack_sha256(pack.manifest),
        libraries=libraries(),
        machine=machine(device),
        device=str(device),
        free_vram_bytes=free_bytes,
        seconds={},
        pictures=[],
    )


@cache
def _libraries() -> tuple[tuple[str, str], ...]:
    found = [("oblik", __version__)]
    for name in LIBRARIES:
        with suppress(PackageNotFoundError):
            found.append((name, version(name)))
    return tuple(found)


def libraries() -> dict[str, str]:
    """Versions of what computes pictures and faces, as far as it is installed."""
    return dict(_libraries())


def machine(device: torch.device) -> dict[str, str]:
    """The processor with the instructions that torch uses of it; of a card its name and driver, too."""
    found = {"cpu": f"{processor()}, {torch.backends.cpu.get_cpu_capability()}"}
    if device.type == "cuda":
        found |= {"gpu": torch.cuda.get_device_name(device), "driver": driver() or "unknown"}
    return found


@cache
def processor() -> str:
    """The processor's name, as the system tells it."""
    with suppress(OSError):
        if named := re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
            return named[1].strip()
    if platform.system() == "Darwin":
        query = ["sysctl", "-n", "machdep.cpu.brand_string"]
        with suppress(OSError, subprocess.SubprocessError):
            return subprocess.run(
                query, capture_output=True, text=True, timeout=10, check=True
            ).stdout.strip()
    return platform.processor() or platform.machine()


@cache
def driver() -> str | None:
    """The version of NVIDIA's driver: of NVML, else as its kernel module tells it; None without."""
    try:
        import pynvml

        pynvml.nvmlInit()
        return str(pynvml.nvmlSystemGetDriverVersion())
    except Exception:  # not installed, or a driver that does not answer
        pass
    with suppress(OSError):
        if found := re.search(r"Kernel Module.*?\s(\d+(?:\.\d+)+)", DRIVER.read_text()):
            return found[1]
    return None
