"""Stands in for sd-scripts in tests: takes its options, prints what it prints, writes a LoRA of two tensors.

Run as ``accelerate launch ... train_network.py ...`` and as the script itself. What it does is told by
STAND_IN: ``ok``, ``crash``, ``memory``, ``nan``, ``hang``, ``nothing`` or ``torn``; what it saw goes into the
file STAND_IN_SEEN.
"""

from __future__ import annotations

import argparse
import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

# The names as library/train_util.py and train_network.py of sd-scripts v0.10.1 define them.
VALUES = (
    "pretrained_model_name_or_path dataset_config resolution output_dir output_name save_model_as "
    "save_precision save_every_n_steps network_module network_dim network_alpha learning_rate "
    "optimizer_type max_grad_norm lr_scheduler lr_warmup_steps max_train_steps mixed_precision seed "
    "max_data_loader_n_workers tokenizer_cache_dir validate_every_n_steps validate_every_n_epochs "
    "validation_seed save_last_n_steps"
).split()
SWITCHES = (
    "no_metadata gradient_checkpointing sdpa cache_latents persistent_data_loader_workers no_half_vae"
).split()
LAUNCH_VALUES = (
    "num_processes num_machines num_cpu_threads_per_process mixed_precision dynamo_backend".split()
)
HELD_OUT = {2: 0.31, 4: 0.12, 6: 0.25}
LOSS = 0.2


def accelerate(arguments: list[str]) -> int:
    """Start the script, wait, and add a traceback of its own when it failed, as accelerate does."""
    parser = argparse.ArgumentParser("accelerate", allow_abbrev=False)
    parser.add_argument("command", choices=["launch"])
    for name in LAUNCH_VALUES:
        parser.add_argument(f"--{name}")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("script")
    parser.add_argument("rest", nargs=argparse.REMAINDER)
    known = parser.parse_args(arguments)
    subprocess.run([sys.executable, known.script, *known.rest], check=True)
    return 0


def script(arguments: list[str]) -> int:
    """Train nothing, but say so as sd-scripts would."""
    parser = argparse.ArgumentParser("train_network.py", allow_abbrev=False)
    for name in VALUES:
        parser.add_argument(f"--{name}")
    parser.add_argument("--optimizer_args", nargs="*")
    for name in SWITCHES:
        parser.add_argument(f"--{name}", action="store_true")
    args = parser.parse_args(arguments)
    _write_what_was_seen(args)
    print("running training / 学習開始")
    print(f"  total optimization steps / 学習ステップ数: {args.max_train_steps}")
    _misbehave(os.environ.get("STAND_IN", "ok"))
    steps, every = int(args.max_train_steps), int(args.save_every_n_steps)
    _bar("steps", 0, steps, "00:00<?, ?it/s")
    for step in range(1, steps + 1):
        loss = "nan" if os.environ.get("STAND_IN") == "nan" and step > 1 else f"{LOSS / step:.3g}"
        _bar("steps", step, steps, f"00:{step:02d}<00:{steps - step:02d},  1.00it/s")
        if step % every == 0:
            _save(args, f"{args.output_name}-step{step:08d}.safetensors", step)
        _bar("steps", step, steps, f"00:{step:02d}<00:{steps - step:02d},  1.00it/s, avr_loss={loss}")
        if args.validate_every_n_steps and step % int(args.validate_every_n_steps) == 0:
            for done in (1, 2):
                measured = HELD_OUT[step] + (0.1 if done == 1 else 0)
                rest = f"00:00<00:00,  2.50it/s, val_avg_loss={measured}, timestep={200 * done}"
                _bar("validation steps", done, 2, rest)
    _save(args, f"{args.output_name}.safetensors", steps)
    return 0


def _write_what_was_seen(args: argparse.Namespace) -> None:
    """Options, environment and dataset go into a file: the folder is gone when the test looks."""
    config = tomllib.loads(Path(args.dataset_config).read_text(encoding="utf-8"))
    pictures = {}
    for dataset in config["datasets"]:
        for subset in dataset["subsets"]:
            files = sorted(Path(subset["image_dir"]).glob("*.png"))
            pictures[Path(subset["image_dir"]).name] = [
                file.with_suffix(".txt").read_text(encoding="utf-8").strip() for file in files
            ]
    cache = Path(args.tokenizer_cache_dir) if args.tokenizer_cache_dir else None
    seen = {
        "script": Path(sys.argv[0]).name, "folder": str(Path.cwd()), "args": vars(args), "config": config,
        "pictures": pictures, "offline": os.environ.get("HF_HUB_OFFLINE"),
        "tokenizers": sorted(place.name for place in cache.iterdir()) if cache else [],
        "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
    }  # fmt: skip
    Path(os.environ["STAND_IN_SEEN"]).write_text(json.dumps(seen), encoding="utf-8")


def _misbehave(how: str) -> None:
    if how == "crash":
        raise RuntimeError("the VAE and I disagree")
    if how == "memory":
        print("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB", file=sys.stderr)
        raise SystemExit(1)
    if how == "nothing":
        raise SystemExit(0)
    if how == "hang":
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(os.environ["STAND_IN_SEEN"]).write_text(json.dumps([os.getpid(), child.pid]), encoding="utf-8")
        time.sleep(600)


def _bar(name: str, done: int, total: int, rest: str) -> None:
    """A bar as tqdm draws it: on stderr, over itself, without an end of line; a second one below."""
    drawn = "█" * (10 * done // total)
    text = f"\r{name}: {100 * done // total:3d}%|{drawn:<10}| {done}/{total} [{rest}]"
    sys.stderr.write(text if name == "steps" else f"\n{text}\x1b[A")
    sys.stderr.flush()


def _save(args: argparse.Namespace, name: str, step: int) -> None:
    file = Path(args.output_dir) / name
    file.parent.mkdir(parents=True, exist_ok=True)
    print(f"\nsaving checkpoint: {file}")
    write_lora(file, step)
    if os.environ.get("STAND_IN") == "torn" and step == int(args.max_train_steps):
        file.write_bytes(file.read_bytes()[:-2])


def write_lora(file: Path, value: float) -> None:
    """A LoRA file whose tensors hold ``value``, so that one tells from which step it is."""
    names = (
        "lora_te_text_model_encoder_layers_0_mlp_fc1.lora_down.weight",
        "lora_unet_mid_block_proj_in.lora_down.weight",
    )
    header: dict[str, Any] = {
        name: {"dtype": "F32", "shape": [1], "data_offsets": [4 * place, 4 * place + 4]}
        for place, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + struct.pack("<2f", value, value))


if __name__ == "__main__":
    launched = Path(sys.argv[0]).name.startswith("accelerate")
    sys.exit(accelerate(sys.argv[1:]) if launched else script(sys.argv[1:]))
