"""``oblik --help`` imports nothing heavy and answers at once."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time

HEAVY = {
    "torch", "diffusers", "transformers", "peft", "accelerate", "onnx", "onnxruntime", "numpy", "scipy",
    "cv2", "PIL", "matplotlib", "pydantic", "pydantic_settings", "rich", "tokenizers", "safetensors",
}  # fmt: skip
BUDGET_S = 0.150
RUNS = 7
HELP = """
import json, sys, time
from oblik.cli import main
main(["--help"], standalone_mode=False)
print(json.dumps({"cpu_s": time.process_time(), "modules": sorted(sys.modules)}))
"""
BARE = "import json, time; print(json.dumps({'cpu_s': time.process_time(), 'modules': []}))"


def started(code: str) -> tuple[float, float, list[str]]:
    """Wall seconds, CPU seconds and imported modules of a fresh interpreter that runs ``code``."""
    before = time.perf_counter()
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    wall_s = time.perf_counter() - before
    last = json.loads(answer.stdout.splitlines()[-1])
    return wall_s, last["cpu_s"], last["modules"]


def test_help_imports_no_sub_command_and_nothing_heavy() -> None:
    modules = started(HELP)[2]
    assert {name.partition(".")[0] for name in modules} & HEAVY == set()
    assert [name for name in modules if name.startswith("oblik")] == ["oblik", "oblik.cli", "oblik.errors"]


def test_help_takes_less_than_150_ms() -> None:
    """CPU time, best of several: another program on the same cores must not fail the test."""
    runs = [started(HELP)[:2] for _ in range(RUNS)]
    bare = [started(BARE)[:2] for _ in range(RUNS)]
    for name, times in (("oblik --help", runs), ("bare python", bare)):
        wall_ms = statistics.median(wall for wall, _ in times) * 1000
        print(f"{name}: median {wall_ms:.0f} ms, best CPU {min(cpu for _, cpu in times) * 1000:.0f} ms")
    slow_machine = max(1.0, min(cpu for _, cpu in bare) / 0.030)
    assert min(cpu for _, cpu in runs) < BUDGET_S * slow_machine
