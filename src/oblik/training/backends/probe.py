"""What a checkpoint can do: the same prompts and seeds each time, with the token and without it.

In: a `Learner` and a step. Out: ``probes/step_00150/with/NN.png``, ``without/NN.png`` and ``grid.png``. With
the token the pictures should show the person, without it they must not. Knows nothing of likeness.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from oblik.datasets.captions import without_token
from oblik.diffusion.families.family import Text, stack
from oblik.images import grid
from oblik.labels import PLAIN, Label
from oblik.personas.persona import Persona
from oblik.training.backends.learner import Learner
from oblik.training.backends.pictures import EMPTY

PROMPTS = (
    "photo of {}, frontal view, close-up",
    "photo of {}, three-quarter view, in a park, daylight",
    "photo of {}, frontal view, smiling, in a room, warm light",
    "photo of {}, frontal view, head and shoulders, in a studio",
)
FIRST_SEED, SAMPLER_STEPS, GUIDANCE = 11, 20, 4.0
FOLDER = "probes"


def prompts(persona: Persona, count: int) -> list[str]:
    """The prompts of ``count`` pictures, with the token."""
    who = f"{persona.trigger} {persona.class_noun}"
    return [PROMPTS[place % len(PROMPTS)].format(who) for place in range(count)]


def texts(persona: Persona, count: int) -> list[str]:
    """Every text that a probe needs."""
    named = prompts(persona, count)
    return [*named, *(without_token(text, persona.trigger) for text in named), EMPTY]


def take(learner: Learner, step: int, out_dir: Path) -> Path:
    """Make the pictures of a step; their folder. Pictures of an earlier try are replaced."""
    persona, count = learner.request.persona, learner.config.probe_images
    named, folder = prompts(persona, count), out_dir / FOLDER / f"step_{step:05d}"
    shown = []
    for name, wanted in (("with", named), ("without", [without_token(t, persona.trigger) for t in named])):
        images = _paint(learner, wanted)
        for place, image in enumerate(images):
            PLAIN.save(image, folder / name / f"{place:02d}.png", Label())
        shown += images
    sheet = grid(shown, columns=count, cell_px=min(256, shown[0].width))
    PLAIN.save(sheet, folder / "grid.png", Label())
    return folder


def _paint(learner: Learner, wanted: list[str]) -> list[Any]:
    """One picture for each prompt, a batch of the training's size at a time."""
    pack = learner.request.pack.manifest
    side, guidance = pack.native_size_px, float(pack.defaults.get("guidance", GUIDANCE))
    most = learner.config.micro_batch or learner.config.batch
    images = []
    for start in range(0, len(wanted), most):
        part = wanted[start : start + most]
        seeds = [FIRST_SEED + start + place for place in range(len(part))]
        text = stack([_one(learner, caption) for caption in part])
        negative = stack([_one(learner, EMPTY)] * len(part))
        images += learner.family.sample(text, negative, seeds, (side, side), SAMPLER_STEPS, guidance)
    return images


def _one(learner: Learner, caption: str) -> Text:
    with torch.no_grad():
        return learner.text([caption])
