"""``pack.json`` of the miniature: what it is made of, its defaults, and what it cannot do.

In: a pack's folder. Out: its manifest with the size and hash of every file.
"""

from __future__ import annotations

from pathlib import Path

from oblik.miniature.architecture import IMAGE_PX
from oblik.packs.manifest import Component, Pack, PackFile
from oblik.packs.store import MANIFEST
from oblik.paths import atomic_write, sha256_file
from oblik.training.config import ATTENTION_TARGETS

VERSION = "6"
PARTS = {
    "pipeline": "model_index.json", "transformer": "transformer", "text_encoder": "text_encoder",
    "vae": "vae", "tokenizer": "tokenizer", "scheduler": "scheduler", "faces": "faces", "words": "words",
    "identity": "identity", "controlnet": "controlnet", "edit": "edit",
}  # fmt: skip
LIMITS = (
    "Trained from scratch on procedurally rendered people who do not exist, at 128 px. It shows how "
    "Oblik works; it cannot draw a real person."
)
DEFAULTS = {
    "width_px": IMAGE_PX, "height_px": IMAGE_PX, "steps": 30, "guidance": 3.0, "lora_scale": 1.0,
    "dtype": "float32", "negative_prompt": " ",
}  # fmt: skip
TRAINING = {
    "rank": 16, "alpha": 16.0, "targets": [*ATTENTION_TARGETS, "img_mlp.net.0.proj", "img_mlp.net.2"],
    "learning_rate": 2e-3, "token_learning_rate": 5e-3, "token_steps": 100, "steps": 260, "batch": 12,
    "text_layers": 0, "warmup_steps": 20, "face_weight": 2.0, "prior_share": 0.5, "validate_every": 50,
    "checkpoint_every": 50, "sample_every": 180, "probe_images": 8, "dtype": "float32", "buckets": ["1:1"],
}  # fmt: skip


def write_manifest(folder: Path) -> Pack:
    """Hash every file of the pack and write ``pack.json``."""
    found = {part: place for part, place in PARTS.items() if (folder / place).exists()}
    components = {part: _component(folder, place) for part, place in found.items()}
    pack = Pack(
        name="miniature",
        version=VERSION,
        family="qwen_image",
        native_size_px=IMAGE_PX,
        side_multiple_px=16,
        defaults=DEFAULTS,
        training=TRAINING,
        face_stack={"backend": "onnx"},
        synthetic=True,
        limits=LIMITS,
        components=components,
    )
    atomic_write(folder / MANIFEST, pack.model_dump_json(indent=2) + "\n")
    return pack


def _component(folder: Path, place: str) -> Component:
    files = sorted(path for path in (folder / place, *(folder / place).rglob("*")) if path.is_file())
    return Component(
        source="oblik miniature build",
        licence="Apache-2.0",
        commercial_use=True,
        files=[
            PackFile(
                path=path.relative_to(folder).as_posix(), bytes=path.stat().st_size, sha256=sha256_file(path)
            )
            for path in files
        ],
    )
