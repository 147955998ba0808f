"""The trainer "kohya": the user's own checkout of sd-scripts, for Stable Diffusion 1.5 and SDXL.

In: a `TrainRequest` and where sd-scripts lies. Out: a `LoraArtifact` folder whose ``lora.safetensors`` is the
file that sd-scripts wrote. It runs ``accelerate launch train_network.py`` (SDXL: ``sdxl_train_network.py``)
on copies of the photos in a folder that is gone afterwards. sd-scripts learns no new token: the trigger is
read as the letters that it is made of. Knows nothing of tensors, and nothing of consent: flows ask.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import sys
import time
from pathlib import Path

from oblik.datasets.versions import building
from oblik.errors import BackendError, BackendUnavailable, InvalidInput, OutOfMemory
from oblik.paths import atomic_file, atomic_write, private_dir
from oblik.progress import Progress
from oblik.training.artifact import CURVES, MANIFEST, WEIGHTS, TrainingLog, describe
from oblik.training.backends import kohya_files as files
from oblik.training.backends.kohya_output import Output
from oblik.training.backends.program import running
from oblik.training.trainer import TrainRequest

FAMILY = "stable_diffusion"
LOG = "kohya.log"
SCRIPT, SDXL_SCRIPT = "train_network.py", "sdxl_train_network.py"
NO_TOKEN = -1
FOLLOWED = {
    "seed", "rank", "alpha", "learning_rate", "steps", "batch", "schedule", "warmup_steps", "weight_decay",
    "clip_norm", "caption_dropout", "checkpoint_every", "dtype",
}  # fmt: skip
"""Settings that reach sd-scripts; the others only Oblik's own trainer follows."""
SCHEDULES = {"cosine": "cosine", "constant": "constant_with_warmup"}
PRECISION = {"float32": "no", "bfloat16": "bf16", "float16": "fp16"}
ENVIRONMENT = {
    "PYTHONUNBUFFERED": "1",
    "PYTHONUTF8": "1",  # sd-scripts prints Japanese, and reads dataset.toml in the system's encoding
    "HF_HUB_OFFLINE": "1",
}
_MEMORY = ("OutOfMemoryError", "CUDA out of memory")


class KohyaTrainer:
    """Trains with sd-scripts. ``workspace`` is where it runs, the script's own folder unless set."""

    def __init__(
        self, device: str = "auto", *, script: Path | None = None, workspace: Path | None = None,
        accelerate: str | None = None,
    ) -> None:  # fmt: skip
        self._device, self._script, self._workspace, self._accelerate = device, script, workspace, accelerate

    def train(self, request: TrainRequest, progress: Progress) -> Path:
        """Train and return the artifact's folder; a run that fails leaves only its log, ``kohya.log``.

        Raises:
            InvalidInput: another family of model, a run to go on with, or settings that are not followed.
            BackendUnavailable: sd-scripts or accelerate is not where the settings say.
            BackendError, OutOfMemory: it crashed; the message holds the end of its traceback.
        """
        try:
            self._refuse(request)
            with building(request.out_dir.parent) as folder:
                self._run(request, folder, progress)
        finally:
            if request.out_dir.is_dir() and not any(request.out_dir.iterdir()):
                request.out_dir.rmdir()
        return request.out_dir

    def _refuse(self, request: TrainRequest) -> None:
        pack = request.pack.manifest
        if pack.family != FAMILY:
            raise InvalidInput(
                f"sd-scripts cannot train the pack {pack.name!r} of the family {pack.family!r}: it knows "
                "Stable Diffusion 1.5 and SDXL",
                hint="oblik train --trainer native",
            )
        if unknown := sorted(request.asked - FOLLOWED):
            raise InvalidInput(
                f"the trainer kohya does not follow {', '.join(unknown)}",
                hint="oblik train --trainer kohya, without them",
            )
        if request.resume:
            raise InvalidInput(
                "a run of sd-scripts cannot be gone on with; nothing of a stopped one is kept",
                hint="oblik train --trainer kohya",
            )

    def _run(self, request: TrainRequest, folder: Path, progress: Progress) -> None:
        script = script_for(request, self._script)
        held_out = "validate_every_n_steps" in (script.parent / SCRIPT).read_text(encoding="utf-8")
        config = files.lay_out(request, folder, held_out=held_out)
        workspace = self._workspace or script.parent
        launcher = find_accelerate(self._accelerate, workspace)
        command = [launcher, *launch_options(request, self._device), str(script)]
        command += script_options(request, config, held_out=held_out)
        if cache := files.lay_out_tokenizers(request.pack, folder):
            command += ["--tokenizer_cache_dir", str(cache)]
        environment = dict(ENVIRONMENT)
        if self._device.startswith("cuda:"):
            environment["CUDA_VISIBLE_DEVICES"] = self._device.removeprefix("cuda:")
        began = time.monotonic()
        written = folder / files.OUTPUT
        output = self._watch(request, command, workspace, environment, written, progress)
        found, step = files.best_lora(written, output.held_out, output.done)
        seconds = round(time.monotonic() - began, 1)
        _write_artifact(request, found, step, output, seconds, commit_of(script.parent), self._device)

    def _watch(
        self, request: TrainRequest, command: list[str], workspace: Path, environment: dict[str, str],
        written: Path, progress: Progress,
    ) -> Output:  # fmt: skip
        """Run the command to its end; its output goes line by line into the log and into the bar.

        Of the LoRAs in ``written`` only the best so far and the newest are kept.
        """
        output = Output()
        log = private_dir(request.out_dir.parent) / LOG
        with (
            log.open("w", encoding="utf-8", buffering=1) as lines,
            progress.stage("train LoRA (sd-scripts)", request.config.steps) as advance,
            running(command, folder=workspace, environment=environment) as program,
        ):
            for line in program.lines():
                progress.check_cancelled()
                steps = output.read(line)
                if line.strip():
                    lines.write(line.rstrip() + "\n")
                if steps:
                    advance(steps, output.note)
                    files.keep_best(written, output.held_out)
                if output.loss is not None and math.isnan(output.loss):
                    raise BackendError(
                        f"the loss is no number any more, at step {output.done}",
                        hint="oblik train --trainer kohya --learning-rate 5e-5",
                    )
            if program.status != 0:
                raise _crash(program.status, output.last_words())
        return output


def script_for(request: TrainRequest, script: Path | None) -> Path:
    """The script that trains this pack. Raises BackendUnavailable when it is not there."""
    if script is None:
        raise BackendUnavailable(
            "kohya.script_path is not set: where train_network.py of sd-scripts lies",
            hint="write it into oblik.toml (docs/kohya.md), then: oblik config test",
        )
    folder = script if script.is_dir() else script.parent
    wanted = SDXL_SCRIPT if files.is_sdxl(request.pack) else SCRIPT
    for name in (SCRIPT, wanted):
        if not (folder / name).is_file():
            raise BackendUnavailable(f"there is no {name} in {folder}", hint="oblik config test")
    return folder / wanted


def find_accelerate(named: str | None, workspace: Path) -> str:
    """The program ``accelerate``: the one that is named, else that of sd-scripts' own environment, else any.

    Oblik's own ``accelerate`` comes last: it would run sd-scripts on Oblik's libraries. Raises
    BackendUnavailable.
    """
    inside = "Scripts" if sys.platform == "win32" else "bin"
    own = [str(workspace / environment / inside / "accelerate") for environment in ("venv", ".venv")]
    for place in [named] if named else [*own, "accelerate"]:
        if found := shutil.which(place):
            return found
    raise BackendUnavailable(
        f"there is no program {named or 'accelerate'}",
        hint="set kohya.accelerate_bin to the accelerate of sd-scripts' environment, then: oblik config test",
    )


def launch_options(request: TrainRequest, device: str) -> list[str]:
    """Options of ``accelerate launch``, so that nothing depends on an ``accelerate config``."""
    precision = "no" if device == "cpu" else PRECISION[request.config.dtype]
    one = ["launch", "--num_processes", "1", "--num_machines", "1", "--num_cpu_threads_per_process", "1"]
    one += ["--mixed_precision", precision, "--dynamo_backend", "no"]
    return [*one, "--cpu"] if device == "cpu" else one


def script_options(request: TrainRequest, config_file: Path, *, held_out: bool) -> list[str]:
    """Options of the training script. ``--no_metadata``: else the LoRA would carry every caption."""
    config, native = request.config, request.pack.manifest.native_size_px
    options: dict[str, object] = {
        "pretrained_model_name_or_path": files.base_model(request.pack),
        "dataset_config": config_file,
        "resolution": f"{native},{native}",
        "output_dir": config_file.parent / files.OUTPUT,
        "output_name": files.NAME,
        "save_model_as": "safetensors",
        "save_precision": "fp16",
        "save_every_n_steps": config.checkpoint_every,
        "network_module": "networks.lora",
        "network_dim": config.rank,
        "network_alpha": config.alpha,
        "learning_rate": config.learning_rate,
        "optimizer_type": "AdamW",
        "optimizer_args": f"weight_decay={config.weight_decay}",
        "max_grad_norm": config.clip_norm,
        "lr_scheduler": SCHEDULES[config.schedule],
        "lr_warmup_steps": min(config.warmup_steps, config.steps),
        "max_train_steps": config.steps,
        "mixed_precision": PRECISION[config.dtype],
        "seed": config.seed,
        "max_data_loader_n_workers": 1,
    }
    if held_out:
        never = config.steps + 1  # it would measure after every epoch as well
        options |= {"validate_every_n_steps": config.checkpoint_every, "validate_every_n_epochs": never}
        options["validation_seed"] = config.seed
    else:
        options["save_last_n_steps"] = config.checkpoint_every
    switches = ["--no_metadata", "--gradient_checkpointing", "--sdpa", "--cache_latents"]
    switches.append("--persistent_data_loader_workers")
    if files.is_sdxl(request.pack):
        switches.append("--no_half_vae")  # SDXL's VAE gives nan in float16
    return [word for name, value in options.items() for word in (f"--{name}", str(value))] + switches


def commit_of(folder: Path) -> str:
    """The commit of the sd-scripts checkout, "unknown" where git cannot say."""
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=folder, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return answer.stdout.strip()


def _crash(status: int, last: list[str]) -> BackendError:
    said = "\n".join(f"  {line}" for line in last) or "  (it said nothing)"
    message = f"sd-scripts ended with status {status}:\n{said}"
    if any(word in line for line in last for word in _MEMORY):
        return OutOfMemory(message, hint="oblik train --trainer kohya --batch 1")
    return BackendError(message, hint="read kohya.log beside the LoRA versions; oblik config test")


def _write_artifact(
    request: TrainRequest, found: Path, step: int, output: Output, seconds: float, commit: str, device: str
) -> None:
    out_dir = request.out_dir
    with found.open("rb") as source, atomic_file(out_dir / WEIGHTS) as file:
        shutil.copyfileobj(source, file)
    atomic_write(out_dir / CURVES, TrainingLog(losses=output.losses).model_dump_json(indent=1) + "\n")
    manifest = describe(
        request,
        trainer="kohya",
        token_id=NO_TOKEN,
        targets=tuple(sorted(files.lora_modules(out_dir / WEIGHTS))),
        steps=step,
        seconds=seconds,
        token_sha256="",
        libraries={"sd-scripts": commit},
        device="" if device == "auto" else device,
    )
    atomic_write(out_dir / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
