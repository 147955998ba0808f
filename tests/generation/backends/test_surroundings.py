"""What a record knows of the machine that made it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from oblik.generation.backends import surroundings
from oblik.generation.backends.surroundings import driver, libraries, machine


def test_what_is_installed_stands_in_the_record_and_nothing_else() -> None:
    found = libraries()
    assert found["torch"] == torch.__version__
    assert {"oblik", "tokenizers", "onnxruntime", "opencv-python-headless", "gguf"} <= found.keys()
    assert all(found.values())


def test_a_card_is_named_with_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without NVML the driver is read where the kernel module says it; both of its wordings are known."""
    monkeypatch.setitem(__import__("sys").modules, "pynvml", None)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "NVIDIA X")
    monkeypatch.setattr(surroundings, "DRIVER", tmp_path / "version")
    driver.cache_clear()
    try:
        for words in ("NVIDIA UNIX x86_64 Kernel Module", "NVIDIA UNIX Open Kernel Module for x86_64"):
            (tmp_path / "version").write_text(f"NVRM version: {words}  550.54.15  Release Build\n")
            driver.cache_clear()
            found: dict[str, Any] = machine(torch.device("cuda"))
            assert (found["gpu"], found["driver"]) == ("NVIDIA X", "550.54.15")
    finally:
        driver.cache_clear()
