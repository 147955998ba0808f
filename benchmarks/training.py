"""How fast and how large a training step is, beside diffusers' own script on the same work.

The bundled miniature pack, the same 20 rendered photos, batch, rank, targets, type (float32) and number of
steps, no token, no prior preservation: each side in a process of its own, in turn, several times. A step's
time is the median between two calls of the optimiser (PyTorch's own hook) after a warm-up. Memory is the peak
of a process over what it holds once its libraries are imported. Goals, in one setting: at least 1.5 times the
script's steps per second and at most 0.6 of its memory; and a step with 2,000 photos within a tenth of one
with 20.

    python benchmarks/training.py --peer train_dreambooth_lora_qwen_image.py [--peer-path FOLDER] [--quick]

The script runs twice. "diffusers" is the command of its README: one prompt, encoded once, and photos that the
VAE encodes anew at every step. Its flags here are the model, the photos, the prompt, --resolution,
--train_batch_size, --max_train_steps, --rank, --lora_alpha, --lora_layers, --learning_rate, --lr_scheduler,
--lr_warmup_steps, --mixed_precision=no, --seed, --skip_final_inference, --checkpointing_steps (none is
written), --report_to. "diffusers, cached" adds --cache_latents, its most favourable flag. Oblik always
caches; the goals are asked of both programs as their users run them, and the ratios to the cached row are
printed beside.

The script is not part of this repository: take it from diffusers, of the version that is installed. It needs
torchvision, which may lie in ``--peer-path``; beside a CPU build of PyTorch its compiled operators can't
load, so their registration is passed over (the script's transforms use none). Without
``--peer`` only the cost per photo is measured. Prints a table, then one JSON line; exit status 0 when all
goals are met.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from datetime import date, datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageEnhance

GOALS = {"speed": 1.5, "memory": 0.6, "flat": 1.1}
PHOTOS, SIDE_PX, BATCH, RANK, WARMUP = 20, 128, 12, 16, 5
OURS: dict[str, dict[str, Any]] = {
    "oblik": {},
    "micro-batch 6": {"micro_batch": 6},
}
PEERS: dict[str, list[str]] = {"diffusers": [], "diffusers, cached": ["--cache_latents"]}
HEADLINE = "oblik", "diffusers"
"""The one setting that both goals are asked of, and whom it stands beside."""
FLAT_SIDE_PX, DISTINCT = 64, 200
TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj", "to_add_out",
           "img_mlp.net.0.proj", "img_mlp.net.2")  # fmt: skip
NOW = datetime(2026, 1, 1, tzinfo=timezone.utc)
MEASURED = """
import json, resource, runpy, sys, time
import torch
if torch.version.cuda is None:
    register = torch.library.register_fake
    torch.library.register_fake = lambda name, *rest, **words: (
        (lambda function: function)
        if str(name).startswith("torchvision::")
        else register(name, *rest, **words)
    )
import diffusers, transformers, peft, accelerate
from diffusers import QwenImagePipeline, QwenImageTransformer2DModel, AutoencoderKLQwenImage
from transformers import Qwen2_5_VLForConditionalGeneration
import oblik.training.backends.native
from torch.optim.optimizer import register_optimizer_step_post_hook
times = []
register_optimizer_step_post_hook(lambda *_: times.append((time.perf_counter(), time.process_time())))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as ended:
    if ended.code:
        raise
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(json.dumps({"times": times, "before_kib": before, "peak_kib": peak}), flush=True)
"""


def main() -> int:
    words = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    words.add_argument(
        "--quick", action="store_true", help="12 steps, one round, 200 photos instead of 2,000"
    )
    words.add_argument("--peer", type=Path, help="diffusers' train_dreambooth_lora_qwen_image.py")
    words.add_argument("--peer-path", type=Path, help="folder with packages that the script needs")
    words.add_argument("--only", choices=("beside", "flat"), help="one half of it")
    words.add_argument(
        "--ours", nargs=5, metavar=("FOLDER", "OUT", "STEPS", "COUNT", "CHANGED"), help=argparse.SUPPRESS
    )
    asked = words.parse_args()
    if asked.ours:
        return train_ours(*asked.ours)
    steps, rounds, many = (12, 1, 200) if asked.quick else (20, 3, 2000)
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="oblik-training-") as place:
        folder = Path(place)
        if asked.peer and asked.only != "flat":
            figures |= beside(asked.peer, asked.peer_path, folder, steps, rounds)
        if asked.only != "beside":
            figures["flat"] = round(flat(folder, steps, rounds, many), 3)
            print(f"a step with {many:,} photos costs {figures['flat']:.2f} of one with {PHOTOS}")
    ok = figures.get("flat", 0.0) <= GOALS["flat"]
    ok &= figures.get("speed", np.inf) >= GOALS["speed"] and figures.get("memory", 0.0) <= GOALS["memory"]
    print(json.dumps({"name": "training", "figures": figures, "goals": GOALS, "ok": bool(ok)}))
    return 0 if ok else 1


def beside(script: Path, packages: Path | None, folder: Path, steps: int, rounds: int) -> dict[str, Any]:
    """Both trainers in turn; their ratios by the median of the rounds."""
    photos = folder / "photos"
    write_photos(photos, PHOTOS)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in (*PEERS, *OURS)}
    for number in range(rounds):
        for name, flags in PEERS.items():
            found[name].append(measure([*peer_words(script, folder, steps), *flags], packages))
        for name, changed in OURS.items():
            words = our_words(photos, folder / f"{name}-{number}", steps, PHOTOS, **changed)
            found[name].append(measure(words, None))
    middle = {
        name: {key: statistics.median(each[key] for each in runs) for key in runs[0]}
        for name, runs in found.items()
    }
    print(f"{'':<18}{'steps/s':>10}{'CPU s/step':>12}{'MiB':>8}{'MiB in all':>12}")
    for name, each in middle.items():
        figures = f"{1 / each['step_s']:>10.2f}{each['cpu_s']:>12.2f}"
        print(f"{name:<18}{figures}{each['mib']:>8.0f}{each['all_mib']:>12.0f}", flush=True)
    ratios = {name: {peer: compare(middle[name], middle[peer]) for peer in PEERS} for name in OURS}
    ours, peer = HEADLINE
    return {**ratios[ours][peer], "settings": f"{ours} beside {peer}", "ratios": ratios}


def compare(ours: dict[str, float], theirs: dict[str, float]) -> dict[str, float]:
    """Times their steps per second, by the clock and by CPU seconds, and shares of their memory."""
    return {
        "speed": round(theirs["step_s"] / ours["step_s"], 2),
        "cpu_speed": round(theirs["cpu_s"] / ours["cpu_s"], 2),
        "memory": round(ours["mib"] / theirs["mib"], 2),
        "memory_in_all": round(ours["all_mib"] / theirs["all_mib"], 2),
    }


def flat(folder: Path, steps: int, rounds: int, many: int) -> float:
    """CPU seconds of a step with many photos over those with few. Small photos: what a photo costs shows."""
    ratios = []
    for number in range(rounds):
        cost = []
        for count in (PHOTOS, many):
            photos = folder / str(count)
            if not photos.is_dir():
                write_photos(photos, count, FLAT_SIDE_PX)
            out = folder / f"flat-{count}-{number}"
            words = our_words(photos, out, steps, count, caches=str(folder / "caches"))
            cost.append(measure(words, None)["cpu_s"])
        ratios.append(cost[1] / cost[0])
    return statistics.median(ratios)


def measure(words: list[str], packages: Path | None) -> dict[str, float]:
    """Run a training; seconds and CPU seconds of a step, MiB above its libraries and in all."""
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE", "HF_HUB_OFFLINE": "1"}
    if packages:
        environment["PYTHONPATH"] = os.pathsep.join([str(packages), environment.get("PYTHONPATH", "")])
    run = subprocess.run(
        [sys.executable, "-c", MEASURED, *words], env=environment, capture_output=True, text=True, check=False
    )
    if run.returncode:
        raise SystemExit(f"{words[0]} failed:\n{run.stderr[-3000:]}")
    found = json.loads(run.stdout.splitlines()[-1])
    wall, cpu = (np.diff([pair[place] for pair in found["times"]])[WARMUP:] for place in (0, 1))
    peak = found["peak_kib"] / 1024
    return {
        "step_s": float(np.median(wall)), "cpu_s": float(np.median(cpu)),
        "mib": peak - found["before_kib"] / 1024, "all_mib": peak,
    }  # fmt: skip


def peer_words(script: Path, folder: Path, steps: int) -> list[str]:
    from oblik.packs.store import BUNDLED

    return [
        str(script), f"--pretrained_model_name_or_path={BUNDLED / 'miniature'}",
        f"--instance_data_dir={folder / 'photos' / 'images'}", "--instance_prompt=photo of sks woman",
        f"--output_dir={folder / 'peer'}", f"--resolution={SIDE_PX}", f"--train_batch_size={BATCH}",
        f"--max_train_steps={steps}", f"--rank={RANK}", f"--lora_alpha={RANK}",
        f"--lora_layers={','.join(TARGETS)}", "--learning_rate=1e-4", "--lr_scheduler=constant",
        "--lr_warmup_steps=0", "--skip_final_inference", "--mixed_precision=no",
        "--report_to=all", "--seed=0", "--checkpointing_steps=100000",
    ]  # fmt: skip


def our_words(photos: Path, out: Path, steps: int, count: int, **changed: Any) -> list[str]:
    return [str(Path(__file__).resolve()), "--ours", str(photos), str(out), str(steps), str(count),
            json.dumps(changed)]  # fmt: skip


def train_ours(photos: str, out: str, steps: str, count: str, changed: str) -> int:
    """The same work by Oblik's trainer; without ``caches`` every photo is encoded anew."""
    from oblik.packs.store import open_pack
    from oblik.paths import Home
    from oblik.personas.persona import Consent, Persona, Scope
    from oblik.progress import SilentProgress
    from oblik.training.config import TrainConfig
    from oblik.training.trainer import TrainRequest, open_trainer

    pack = open_pack("miniature", Home(Path("nowhere")))
    consent = Consent(
        kind="synthetic", signed_by="seed", signed_on=date(2026, 1, 1), scopes=frozenset({Scope.portraits})
    )
    persona = Persona(slug="b", trigger="<oblik_b>", class_noun="woman", consent=consent, created_at=NOW)
    settings = json.loads(changed)
    caches = settings.pop("caches", None)
    config = TrainConfig(
        rank=RANK, alpha=float(RANK), targets=TARGETS, learning_rate=1e-4, token_steps=0, token_start="noun",
        steps=int(steps), batch=BATCH, warmup_steps=0, schedule="constant", prior_share=0.0,
        face_weight=1.0, checkpoint_every=100_000, validate_every=100_000, held_out=1, dtype="float32",
        **settings,
    )  # fmt: skip
    open_trainer(device="cpu").train(
        TrainRequest(
            pack=pack, persona=persona, dataset=dataset_of(Path(photos), int(count)),
            dataset_dir=Path(photos), out_dir=Path(out), config=config, now=NOW,
            caches=Path(caches) if caches else None,
        ),
        SilentProgress(),
    )  # fmt: skip
    return 0


def dataset_of(folder: Path, count: int) -> Any:
    """A dataset of the photos in a folder, the last one held out; written beside them."""
    with Image.open(folder / "images" / "0.png") as first:
        side = first.width
    from oblik.datasets.manifest import Dataset, Photo, Split, Status
    from oblik.paths import atomic_write

    photos = [
        Photo(
            source=f"{place}.png", source_sha256=str(place), status=Status.accepted,
            path=f"images/{place}.png", mask="mask.png", width_px=side, height_px=side, bucket="1:1",
            split=Split.validation if place == count - 1 else Split.train,
            caption="photo of <oblik_b> woman",
        )
        for place in range(count)
    ]  # fmt: skip
    dataset = Dataset(
        persona="b", version="v001", trigger="<oblik_b>", class_noun="woman", created_at=NOW,
        consent_sha256="0" * 64, face_stack="none", short_side_px=side, embeddings="faces.npz",
        photos=photos,
    )  # fmt: skip
    atomic_write(folder / "dataset.json", dataset.model_dump_json())
    return dataset


def write_photos(folder: Path, count: int, side: int = SIDE_PX) -> None:
    """Rendered photos of one person; after twenty each is an earlier one a little brighter, after 200 again
    the first: a cache encodes equal files once, and a step draws from all of them."""
    from oblik.miniature.people import Person
    from oblik.miniature.render import render
    from oblik.miniature.shots import Shot

    (folder / "images").mkdir(parents=True)
    Image.new("L", (side, side), 0).save(folder / "mask.png")
    first = []
    for place in range(count):
        file = folder / "images" / f"{place}.png"
        if place >= DISTINCT:
            shutil.copyfile(folder / "images" / f"{place % DISTINCT}.png", file)
            continue
        if place < PHOTOS:
            shot = Shot.portrait(np.random.default_rng(place))
            whole = Image.fromarray(render(Person.from_seed(700_002), shot, SIDE_PX).image)
            first.append(whole.resize((side, side)))
            image = first[-1]
        else:
            image = ImageEnhance.Brightness(first[place % PHOTOS]).enhance(1 + place / (4 * DISTINCT))
        image.save(file)


if __name__ == "__main__":
    sys.exit(main())
