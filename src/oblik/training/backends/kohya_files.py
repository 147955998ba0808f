"""Files for sd-scripts: a dataset in its layout, the base model, and which of its LoRAs to take.

In: a `TrainRequest` and a private folder. Out: ``dataset.toml`` beside the folders that it names; paths. The
copies of photos live as long as the folder. Knows nothing of processes.

    images/10_oblik_s woman/0000.png, 0000.txt    training photos and their variations
    others/1_woman/0000.png, 0000.txt             class images and negatives, as regularisation
    held-out/1_oblik_s woman/0000.png, 0000.txt   validation photos
    tokenizers/openai_clip-vit-large-patch14/     so that sd-scripts need not go online
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import tomli_w

from oblik.datasets.manifest import Kind, Split
from oblik.errors import BackendError, InvalidInput, LoraBroken, PackBroken
from oblik.packs.manifest import OpenPack
from oblik.paths import atomic_write, private_dir
from oblik.training.safetensors_header import tensors_in
from oblik.training.trainer import TrainRequest

CONFIG, OUTPUT, NAME = "dataset.toml", "output", "lora"
REPEATS = 10
"""How often an epoch shows a photo, at least; the number of steps does not depend on it."""
STEP_PX = 64
TOKENIZERS = {
    "tokenizer": "openai_clip-vit-large-patch14",
    "tokenizer_2": "laion_CLIP-ViT-bigG-14-laion2B-39B-b160k",
}
"""A pack's folder -> the name under which sd-scripts looks for it in ``--tokenizer_cache_dir``."""
_STEP = re.compile(rf"{NAME}-step(\d+)\.safetensors")
Captioned = tuple[str, str]
"""A picture, relative to the dataset, and its caption."""


def lay_out(request: TrainRequest, folder: Path, *, held_out: bool) -> Path:
    """Copy pictures and captions, write ``dataset.toml`` and return it.

    ``held_out``: whether this sd-scripts measures the loss on photos of its own (v0.10 and later).
    Raises InvalidInput when there is no photo to learn from.
    """
    dataset, source = request.dataset, request.dataset_dir
    photos: list[Captioned] = [(str(photo.path), photo.caption) for photo in dataset.accepted(Split.train)]
    photos += _extras(request, Kind.augmented)
    if not photos:
        raise InvalidInput(
            f"dataset {dataset.version} has no photo to learn from", hint="oblik dataset build PHOTOS"
        )
    others = _extras(request, Kind.class_image) + _extras(request, Kind.negative)
    kept = [(str(photo.path), photo.caption) for photo in dataset.accepted(Split.validation)]
    repeats = max(REPEATS, -(-len(others) // max(1, len(photos))))
    person = f"{_plain(dataset.trigger)} {_plain(dataset.class_noun)}"
    subsets = [_subset(folder / "images", repeats, person, photos, source)]
    subsets[0]["caption_dropout_rate"] = request.config.caption_dropout
    if others:
        subsets.append(_subset(folder / "others", 1, _plain(dataset.class_noun), others, source))
        subsets[1]["is_reg"] = True
    datasets = [{**_sizes(request), "subsets": subsets}]
    if held_out and kept:
        subset = _subset(folder / "held-out", 1, person, kept, source)
        datasets.append({**_sizes(request), "validation_split": 1.0, "subsets": [subset]})
    config = folder / CONFIG
    atomic_write(config, tomli_w.dumps({"general": {"caption_extension": ".txt"}, "datasets": datasets}))
    return config


def lay_out_tokenizers(pack: OpenPack, folder: Path) -> Path | None:
    """A cache of the pack's tokenizers as sd-scripts reads it; None when the pack has none in that form."""
    cache = folder / "tokenizers"
    for name, known_as in TOKENIZERS.items():
        if (pack.folder / name / "vocab.json").is_file():
            shutil.copytree(pack.folder / name, private_dir(cache) / known_as)
    return cache if cache.is_dir() else None


def base_model(pack: OpenPack) -> Path:
    """The pack's single checkpoint file, or the pack as a diffusers folder. Raises PackBroken."""
    named = {file.path for part in pack.manifest.components.values() for file in part.files}
    found = [name for name in sorted(named) if name.endswith((".safetensors", ".ckpt")) and "/" not in name]
    if not found and (pack.folder / "model_index.json").is_file():
        return pack.folder
    if len(found) != 1 or not (pack.folder / found[0]).is_file():
        raise PackBroken(
            f"pack {pack.manifest.name!r} is neither a diffusers folder nor a single checkpoint",
            hint="oblik pack verify",
        )
    return pack.folder / found[0]


def is_sdxl(pack: OpenPack) -> bool:
    """Whether the base model has SDXL's two text encoders."""
    model = base_model(pack)
    if model.is_dir():
        return (model / "text_encoder_2").is_dir()
    if model.suffix != ".safetensors":
        return False
    return any(name.startswith("conditioner.embedders.1.") for name in tensors_in(model))


def best_lora(folder: Path, held_out: dict[int, float], last: int) -> tuple[Path, int]:
    """The LoRA with the lowest held-out loss, else the last one that is whole; and its step.

    Raises BackendError when there is none.
    """
    files = {int(match[1]): file for file in folder.glob("*") if (match := _STEP.fullmatch(file.name))}
    if (folder / f"{NAME}.safetensors").is_file():
        files[last] = folder / f"{NAME}.safetensors"
    whole = {step: file for step, file in files.items() if lora_modules(file)}
    if not whole:
        raise BackendError(
            "sd-scripts ended without writing a LoRA", hint="read its log, kohya.log beside the LoRA versions"
        )
    measured = [step for step in whole if step in held_out]
    step = min(measured, key=lambda step: (held_out[step], step)) if measured else max(whole)
    return whole[step], step


def keep_best(folder: Path, held_out: dict[int, float]) -> None:
    """Remove the LoRAs of measured steps but the best: hundreds of them would fill the disk."""
    best = min(held_out, key=lambda step: (held_out[step], step), default=None)
    for file in folder.glob("*"):
        found = _STEP.fullmatch(file.name)
        if found and int(found[1]) in held_out and int(found[1]) != best:
            file.unlink()


def lora_modules(file: Path) -> set[str]:
    """Which parts a LoRA file changes: ``lora_unet``, ``lora_te``...; empty when it is torn or no LoRA."""
    try:
        names = tensors_in(file)
    except LoraBroken:
        return set()
    return {"_".join(name.split("_")[:2]) for name in names if name.startswith("lora_")}


def _extras(request: TrainRequest, kind: Kind) -> list[Captioned]:
    return [(extra.path, extra.caption) for extra in request.dataset.extra(kind)]


def _subset(
    folder: Path, repeats: int, words: str, pictures: Sequence[Captioned], source: Path
) -> dict[str, Any]:
    """Copy pictures with their captions into ``N_words``; that folder as a subset of dataset.toml."""
    place = private_dir(folder / f"{repeats}_{words}")
    for number, (name, caption) in enumerate(pictures):
        copy = place / f"{number:04d}{Path(name).suffix}"
        shutil.copyfile(source / name, copy)
        copy.with_suffix(".txt").write_text(caption + "\n", encoding="utf-8")
    return {"image_dir": place.as_posix(), "num_repeats": repeats, "class_tokens": words}


def _sizes(request: TrainRequest) -> dict[str, Any]:
    """Buckets that the photos fall into as they are: sd-scripts makes its own of this area."""
    native = request.pack.manifest.native_size_px
    sides = list(_sides(request))
    return {
        "resolution": [native, native],
        "batch_size": request.config.batch,
        "enable_bucket": True,
        "bucket_reso_steps": STEP_PX,
        "min_bucket_reso": max(STEP_PX, min([256, native, *sides]) // STEP_PX * STEP_PX),
        "max_bucket_reso": -(-max([1024, native, *sides]) // STEP_PX) * STEP_PX,
    }


def _sides(request: TrainRequest) -> Iterable[int]:
    for photo in request.dataset.accepted():
        yield from (side for side in (photo.width_px, photo.height_px) if side)


def _plain(words: str) -> str:
    """Words as a folder name on every system: a trigger's angle brackets are none on Windows."""
    return re.sub(r"[^\w -]+", "", words).strip() or "person"
