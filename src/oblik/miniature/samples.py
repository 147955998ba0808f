"""A page of samples: what the transformer draws while it learns, one row for each visit.

In: a painter in training, the VAE and the tokenizer it draws with. Out: ``samples/step-<n>.png`` and
``samples/index.html`` in the work folder. The same strangers with the same noise every time, so that rows can
be compared. Knows nothing of losses.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path

import torch
from diffusers import AutoencoderKLQwenImage, QwenImagePipeline
from transformers import Qwen2Tokenizer

from oblik.datasets.captions import caption
from oblik.images import grid, save_clean_png
from oblik.miniature.architecture import IMAGE_PX, new_scheduler
from oblik.miniature.corpus import shot_of
from oblik.miniature.people import Person
from oblik.miniature.prompts import is_portrait
from oblik.miniature.train_transformer import Painter
from oblik.paths import atomic_write

PICTURES, STEPS, GUIDANCE = 8, 20, 3.0
FIRST_STRANGER = 820_000


class SamplePage:
    """Call it with a step and the painter; it adds a row."""

    def __init__(self, work: Path, vae: AutoencoderKLQwenImage, tokenizer: Qwen2Tokenizer) -> None:
        self.folder, self.vae, self.tokenizer = work / "samples", vae, tokenizer
        self.words = list(islice(_strangers(), PICTURES))

    def __call__(self, step: int, painter: Painter) -> None:
        """Draw everybody and write the row and the page again."""
        pipeline = QwenImagePipeline(
            scheduler=new_scheduler(),
            vae=self.vae,
            text_encoder=painter.text_encoder,
            tokenizer=self.tokenizer,
            transformer=painter.transformer,
        )
        pipeline.set_progress_bar_config(disable=True)
        with torch.no_grad():
            drawn = pipeline(
                prompt=self.words,
                negative_prompt=[" "] * PICTURES,
                true_cfg_scale=GUIDANCE,
                num_inference_steps=STEPS,
                width=IMAGE_PX,
                height=IMAGE_PX,
                generator=[torch.Generator().manual_seed(seed) for seed in range(PICTURES)],
            ).images
        self.folder.mkdir(exist_ok=True)
        save_clean_png(grid(drawn, PICTURES, cell_px=IMAGE_PX), self.folder / f"step-{step:06d}.png")
        rows = sorted(self.folder.glob("step-*.png"), reverse=True)
        figures = "\n".join(f'<h2>{row.stem}</h2><img src="{row.name}" width="100%">' for row in rows)
        atomic_write(self.folder / "index.html", f"<!doctype html><title>Samples</title>\n{figures}\n")


def _strangers() -> Iterator[str]:
    for seed in count(FIRST_STRANGER):
        words = {**Person.from_seed(seed).descriptors, **shot_of(seed, 0)[0].descriptors}
        if is_portrait(words):
            yield caption(words)
