"""Trains a pack's identity adapter: the word that a face is read as makes the frozen pack draw that face.

In: portraits of many people, an open pack. Out: weights that `oblik.diffusion.identity.read_name` reads. The
loss is the pack's own, on pictures of a person described with the word that the person's other pictures give
(E4T, Gal et al. 2023; PhotoMaker, Li et al. 2024); text encoder and network stand still. The word begins as
the noun's. Knows nothing of files beyond its own, and of whose photos they are.

B batch, T image tokens, D face vector, E embedding width.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import AddedToken

from oblik.diffusion import tokens
from oblik.diffusion.device import few_threads, pick_device
from oblik.diffusion.families.family import Family, family_of, open_family
from oblik.diffusion.flow_match import squared_error, weighted_mean
from oblik.diffusion.identity import STACK
from oblik.diffusion.load import encoders_of, loading, open_pipeline, plan_for, settle
from oblik.diffusion.modulation import training_grid
from oblik.errors import InvalidInput, JobCancelled, TrainingDiverged
from oblik.faces.masks import OUTLINE, face_mask
from oblik.packs.manifest import OpenPack
from oblik.packs.memory_plan import Configuration
from oblik.progress import Progress
from oblik.training.adapter import WORD, AdapterConfig, Portrait
from oblik.training.backends.interrupts import asked_to_stop

CHECKPOINT = "adapter.pt"


class Lessons(NamedTuple):
    """The portraits as the pack sees them: latents (N, T, C), weights (N, T), vectors (N, D), captions."""

    latents: Tensor
    weights: Tensor
    vectors: Tensor
    captions: list[str]
    size_px: tuple[int, int]


def train_projector(
    portraits: Sequence[Portrait], pack: OpenPack, face_stack: str, out: Path, config: AdapterConfig,
    progress: Progress, *, work: Path, noun: str = "person", device: str = "auto",
    vram_bytes: int | None = None,
) -> dict[int, float]:  # fmt: skip
    """Train into the file ``out``, going on from the checkpoint in ``work``. Returns mean losses by step.

    Raises:
        InvalidInput: the checkpoint is of another run.
        JobCancelled: somebody asked to stop; the same call goes on.
        TrainingDiverged: the loss is no number.
    """
    place = pick_device(device)
    pipeline, choice = _open(pack, config, portraits[0].pixels_HW3.shape[0], place, vram_bytes)
    pipeline.tokenizer.add_tokens([AddedToken(WORD, lstrip=True, normalized=False)])
    family = open_family(pack.manifest.family, pipeline)
    run = _Run(family, choice, _lessons(portraits, family, config, progress), config, noun)
    key = _key(portraits, pack, face_stack, config)
    with few_threads(family.network):
        losses = run.go(work / CHECKPOINT, key, progress)
    out.parent.mkdir(parents=True, exist_ok=True)
    weights = {name: value.detach().cpu().contiguous() for name, value in run.net.state_dict().items()}
    save_file(weights, out, metadata={STACK: face_stack})
    return losses


class _Run:
    def __init__(
        self, family: Family, choice: Configuration | None, lessons: Lessons, config: AdapterConfig, noun: str
    ) -> None:
        self.family, self.choice, self.lessons, self.config = family, choice, lessons, config
        self.encoder = next(iter(family.encoders.values()))
        self.word_id = int(family.pipeline.tokenizer.convert_tokens_to_ids(WORD))
        tokens.make_room(self.encoder, self.word_id)
        first_E = tokens.first_guess(self.encoder, family.noun_ids(noun)).detach()
        self.net = new_projector(lessons.vectors.shape[1], first_E, config).to(family.device)
        self.optimiser = torch.optim.AdamW(
            self.net.parameters(), lr=config.learning_rate, betas=(0.9, 0.98), weight_decay=0.0
        )
        if choice:
            family.network.enable_gradient_checkpointing()
            self.encoder.train()
            self.encoder.activation_checkpointing_enable()

    def go(self, checkpoint: Path, key: str, progress: Progress) -> dict[int, float]:
        """All steps that are left. Mean losses since the last entry, by step."""
        start, losses = self._resume(checkpoint, key)
        recent: list[float] = []
        config = self.config
        with progress.stage("train adapter", config.steps) as advance, asked_to_stop() as asked:
            advance(start)
            for step in range(start, config.steps):
                recent.append(self._step(step))
                done = step + 1
                stopping = asked()
                if done % config.checkpoint_every == 0 or done == config.steps or stopping:
                    losses[done] = float(np.mean(recent))
                    recent = []
                    self._save(checkpoint, key, done, losses)
                advance(1, f"loss {np.mean(recent or [losses.get(done, 0.0)]):.4f}")
                if stopping and done < config.steps:
                    raise JobCancelled(
                        f"stopped after step {done} of {config.steps}; all of it is kept",
                        hint="the same command goes on",
                    )
                progress.check_cancelled()
        return losses

    def backward(self, step: int) -> float:
        """The loss of a step; its gradients stay in the net. What is drawn is a function of the step."""
        config, lessons, device = self.config, self.lessons, self.family.device
        rng = np.random.default_rng([config.seed, step])
        noise = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
        rows = rng.integers(0, len(lessons.captions), config.batch)
        x0 = lessons.latents[rows].to(device)
        eps = torch.randn(x0.shape, generator=noise).to(device)
        time = self.family.times(len(rows), x0.shape[1], noise).to(device)
        time = self.family.on_grid(time) if self.choice else time
        blur = config.name_noise * torch.randn(len(rows), lessons.vectors.shape[1], generator=noise)
        names = nn.functional.normalize(lessons.vectors[rows] + blur, dim=1).to(device)
        weights = lessons.weights[rows].to(device)
        most, total = (self.choice.batch if self.choice else len(rows)), 0.0
        for begin in range(0, len(rows), most):
            part = slice(begin, min(begin + most, len(rows)))
            captions = [lessons.captions[row] for row in rows[part]]
            with tokens.replaced(self.encoder, self.word_id, self.net(names[part])[:, None]):
                text = self.family.text(captions)
            noisy = self.family.noised(x0[part], eps[part], time[part])
            said = self.family.predict(noisy, time[part], text, lessons.size_px)
            error_BT = squared_error(said, self.family.target(x0[part], eps[part], time[part]))
            loss = weighted_mean(error_BT, weights[part], weights.mean()) * (len(captions) / len(rows))
            loss.backward()
            total += float(loss.detach())
        if not np.isfinite(total):
            raise TrainingDiverged(
                f"the loss of step {step + 1} is no number",
                hint="oblik adapter train --restart --learning-rate 1e-4",
            )
        return total

    def _step(self, step: int) -> float:
        config, loss = self.config, self.backward(step)
        nn.utils.clip_grad_norm_(self.net.parameters(), 1.0)
        rate = config.learning_rate * min(1.0, (step + 1) / 20) * (1 - step / config.steps)
        self.optimiser.param_groups[0]["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad()
        return loss

    def _save(self, checkpoint: Path, key: str, done: int, losses: dict[int, float]) -> None:
        checkpoint.parent.mkdir(parents=True, exist_ok=True)
        whole = {"net": self.net.state_dict(), "optimiser": self.optimiser.state_dict()}
        partial = checkpoint.with_suffix(".partial")
        torch.save({**whole, "key": key, "done": done, "losses": losses}, partial)
        partial.replace(checkpoint)

    def _resume(self, checkpoint: Path, key: str) -> tuple[int, dict[int, float]]:
        if not checkpoint.is_file():
            return 0, {}
        saved: dict[str, Any] = torch.load(checkpoint, weights_only=True)
        if saved["key"] != key:
            raise InvalidInput(
                "the adapter that was begun has other settings or people",
                hint="oblik adapter train --restart",
            )
        self.net.load_state_dict(saved["net"])
        self.optimiser.load_state_dict(saved["optimiser"])
        return int(saved["done"]), dict(saved["losses"])


def new_projector(dims: int, first_E: Tensor, config: AdapterConfig) -> nn.Sequential:
    """A face vector (D,) -> a word (E,), at first hardly more than ``first_E``. Layers as `read_name` has."""
    torch.manual_seed(config.seed)
    width = len(first_E)
    hidden = config.hidden or width
    first, last = nn.Linear(dims, hidden), nn.Linear(hidden, width)
    with torch.no_grad():
        first.weight.mul_(dims**0.5)  # each number of a unit vector is small
        last.weight.mul_(float(first_E.std()))
        last.bias.copy_(first_E)
    return nn.Sequential(first, nn.SiLU(), last)


def _lessons(
    portraits: Sequence[Portrait], family: Family, config: AdapterConfig, progress: Progress
) -> Lessons:
    latents, weights = [], []
    with progress.stage("encode portraits", len(portraits)) as advance:
        for portrait in portraits:
            height_px, width_px = portrait.pixels_HW3.shape[:2]
            mask_HW = face_mask(portrait.landmarks, width_px, height_px, grow=OUTLINE)
            latents.append(family.latents(portrait.pixels_HW3).float().cpu())
            weights.append(1 + (config.face_weight - 1) * family.face_share(mask_HW))
            advance(1)
            progress.check_cancelled()
    vectors = torch.from_numpy(np.stack([portrait.vector_D for portrait in portraits])).float()
    captions = [portrait.caption for portrait in portraits]
    return Lessons(torch.stack(latents), torch.stack(weights), vectors, captions, (width_px, height_px))


def _open(
    pack: OpenPack, config: AdapterConfig, side_px: int, device: torch.device, vram_bytes: int | None
) -> tuple[Any, Configuration | None]:
    """The pack's pipeline, on a card as a memory plan for training holds it."""
    dtype: torch.dtype = getattr(torch, config.dtype)
    memory = plan_for(
        pack, device=device, vram_bytes=vram_bytes, dtype=config.dtype, purpose="train", width_px=side_px,
        height_px=side_px, batch=config.batch, rank=1, text_rank=1, text_layers=0, mlp_lora=False,
    )  # fmt: skip
    if memory is None:
        return open_pipeline(pack, None, dtype=dtype, device=device), None
    choice = memory.configuration
    place, packing = loading(choice, device)
    pipeline = open_pipeline(pack, None, dtype=dtype, device=place, **packing)
    family = family_of(pack.manifest.family)(pipeline)
    times = training_grid() if choice.baked_modulation else None
    settle(family, choice, times, rows=choice.batch, dtype=dtype, device=device)
    for encoder in encoders_of(pipeline).values():
        encoder.to(device)
    return pipeline, choice


def _key(portraits: Sequence[Portrait], pack: OpenPack, face_stack: str, config: AdapterConfig) -> str:
    """The same for runs that may be continued by one another."""
    digest = hashlib.sha256(f"{pack.manifest.name} {pack.manifest.version} {face_stack} {config!r}".encode())
    for portrait in portraits:
        digest.update(portrait.pixels_HW3.tobytes() + portrait.vector_D.tobytes() + portrait.caption.encode())
    return digest.hexdigest()
