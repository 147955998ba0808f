"""The native trainer: a token's embedding first, then a LoRA, by flow matching.

In: a `TrainRequest`. Out: a `LoraArtifact` folder. The order (token, then freeze and cache the text, then
LoRA) lets text states be cached although the token is learned. Step ``n`` draws its batch from
``(seed, n)``, so a run that was killed goes on to the same weights. Knows nothing of consent: flows ask.

B batch, T image tokens, C packed channels.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from oblik.datasets.manifest import Photo, Split, face_vectors
from oblik.diffusion import lora, tokens
from oblik.diffusion.device import pick_device
from oblik.diffusion.families.qwen_image import QwenImage, Text
from oblik.diffusion.flow_match import noised, training_times, velocity_loss
from oblik.diffusion.identity import read_name
from oblik.diffusion.load import open_pipeline
from oblik.diffusion.real_rope import use_real_rope
from oblik.errors import ConsentError, InvalidInput
from oblik.images import grid, save_clean_png
from oblik.paths import atomic_write, private_dir, sha256_file
from oblik.personas.trigger import check, write_tokenizer
from oblik.progress import Progress
from oblik.training.artifact import (
    CURVES,
    MANIFEST,
    TOKEN,
    TOKENIZER,
    WEIGHTS,
    LoraArtifact,
    LossPoint,
    TrainingLog,
)
from oblik.training.backends.checkpoints import Checkpoint, finish, load_latents, save_latents
from oblik.training.backends.halves import Halves, Rows
from oblik.training.trainer import TrainRequest

VALIDATION_SIGMAS = (0.9, 0.7, 0.5, 0.3)
SAMPLE_SEEDS = [11, 12, 13, 14]
LIBRARIES = ("torch", "diffusers", "transformers", "peft", "numpy")


@dataclass(frozen=True)
class Photos:
    """Latents (N, T, C), face weights (N, T) and captions of one split, all of one size."""

    latents: Tensor
    weights: Tensor
    captions: list[str]
    size_px: tuple[int, int]

    def __len__(self) -> int:
        return len(self.captions)


class NativeTrainer:
    """Trains on the pack's own pipeline."""

    def __init__(self, device: str = "auto") -> None:
        self._device = pick_device(device)

    def train(self, request: TrainRequest, progress: Progress) -> Path:
        run = _Run(request, self._device, progress)
        run.go()
        return request.out_dir


class _Run:
    """One training from the first step (or the last checkpoint) to the artifact."""

    def __init__(self, request: TrainRequest, device: torch.device, progress: Progress) -> None:
        self.request, self.config, self.progress = request, request.config, progress
        self.out_dir = private_dir(request.out_dir)
        self.dtype = getattr(torch, self.config.dtype)
        pipeline = open_pipeline(request.pack, None, dtype=self.dtype, device=device)
        tokenizer_folder = (self.out_dir / TOKENIZER).parent
        self.token_id = write_tokenizer(
            request.pack.tokenizer_file.parent, tokenizer_folder, request.persona.trigger
        )
        pipeline.tokenizer = type(pipeline.tokenizer).from_pretrained(tokenizer_folder, local_files_only=True)
        if device.type == "cpu":
            use_real_rope(pipeline.transformer)
        self.family = QwenImage(pipeline)
        self.row = self._first_guess()
        self.lora_parameters = lora.attach(self.family.transformer, self.config)
        self.halves = Halves(self.lora_parameters, device)
        self.optimisers = {
            "token": torch.optim.AdamW([self.row], lr=self.config.token_learning_rate, weight_decay=0.0),
            "lora": torch.optim.AdamW(
                self.lora_parameters, lr=self.config.learning_rate, weight_decay=self.config.weight_decay
            ),
        }
        self.total = self.config.token_steps + self.config.steps
        self.log = TrainingLog(losses=[])
        self.seconds = 0.0
        self.checkpoint = Checkpoint(self.out_dir / "work" / "last.pt")

    def _first_guess(self) -> torch.nn.Parameter:
        """The token's embedding before training."""
        request = self.request
        if self.config.token_start == "photos":
            vectors = face_vectors(request.dataset_dir, request.dataset, Split.train)
            name = read_name(request.pack.folder, vectors, request.dataset.face_stack)
            if name is not None:
                return torch.nn.Parameter(name)
        return tokens.first_guess(self.family.text_encoder, self.family.noun_ids(request.persona.class_noun))

    def go(self) -> None:
        start = self._resume() if self.request.resume else 0
        train, validation = self._photos(Split.train), self._photos(Split.validation)
        self._texts: dict[str, Text] = {}
        if start == 0:
            self._sample(0)
        with self.progress.stage("train LoRA", self.total) as advance:
            advance(start)
            for step in range(start, self.total):
                began = time.monotonic()
                loss = self._step(step, train)
                done = step + 1
                checked = self._validate(validation) if self._due(done, self.config.validate_every) else None
                self.log.losses.append(LossPoint(step=done, train=loss, validation=checked))
                if self.config.sample_every and self._due(done, self.config.sample_every):
                    self._sample(done)
                self.seconds += time.monotonic() - began
                if self._due(done, self.config.checkpoint_every):
                    self._save(done)
                advance(1, f"loss {loss:.3f}" + (f", held out {checked:.3f}" if checked is not None else ""))
                try:
                    self.progress.check_cancelled()
                except ConsentError:
                    raise  # nothing more is kept of somebody who withdrew
                except BaseException:
                    self._save(done)
                    raise
        self._write_artifact()

    def _step(self, step: int, photos: Photos) -> float:
        learning_token = step < self.config.token_steps
        rng = np.random.default_rng([self.config.seed, step])
        noise = torch.Generator().manual_seed(self.config.seed * 1_000_003 + step)
        rows = rng.integers(0, len(photos), self.config.batch)
        x0 = photos.latents[rows]
        eps = torch.randn(x0.shape, generator=noise).to(x0.device)
        sigma = training_times(len(rows), self.family.mu(x0.shape[1]), noise).to(x0.device)
        captions = [" " if rng.random() < self.config.caption_dropout else photos.captions[i] for i in rows]
        stranger = (rng.random(len(rows)) < self.config.prior_share) & (not learning_token)
        captions = [self._of_stranger(c) if s else c for c, s in zip(captions, stranger, strict=True)]
        text = self._encode(captions, cached=not learning_token)
        noisy, target = noised(x0, eps, sigma), eps - x0
        if stranger.any():
            target = self._preserved(target, noisy, sigma, text, photos.size_px, torch.from_numpy(stranger))
        weights = photos.weights[rows]
        if learning_token:
            loss = velocity_loss(self.family.velocity(noisy, sigma, text, photos.size_px), target, weights)
            loss.backward()
        else:
            velocity = self._velocity(noisy, sigma, text, photos.size_px)
            loss = self.halves.backward(velocity, len(rows), lambda v: velocity_loss(v, target, weights))
        name, parameters = ("token", [self.row]) if learning_token else ("lora", self.lora_parameters)
        optimiser = self.optimisers[name]
        torch.nn.utils.clip_grad_norm_(parameters, self.config.clip_norm)
        for group in optimiser.param_groups:
            group["lr"] = self._rate(step, learning_token)
        optimiser.step()
        for each in self.optimisers.values():
            each.zero_grad()
        return float(loss.detach())

    def _velocity(self, noisy: Tensor, sigma: Tensor, text: Text, size_px: tuple[int, int]) -> Rows:
        """The velocity of some rows."""
        return lambda part: self.family.velocity(noisy[part], sigma[part], text.of(part), size_px)

    def _of_stranger(self, caption: str) -> str:
        """The caption with an article in the token's place."""
        return caption.replace(self.request.persona.trigger, "a")

    @torch.no_grad()
    def _preserved(
        self, target: Tensor, noisy: Tensor, sigma: Tensor, text: Text, size_px: tuple[int, int], of: Tensor
    ) -> Tensor:
        """The target with the base model's own velocity where the photo is shown without the token.

        Prior preservation by output (DreamBooth's idea, Ruiz et al. 2023, without its class images):
        what the LoRA says about strangers is held to what the model said before.
        """
        noisy, sigma, text = noisy[of], sigma[of], text.of(of)
        self.family.transformer.disable_adapters()
        prior = self.halves.compute(self._velocity(noisy, sigma, text, size_px), len(noisy))
        self.family.transformer.enable_adapters()
        target = target.clone()
        target[of] = prior.to(target.dtype)
        return target

    def _rate(self, step: int, learning_token: bool) -> float:
        """Warm-up, then a cosine to a tenth, for each of the two stages."""
        begin, length, peak = (
            (0, self.config.token_steps, self.config.token_learning_rate)
            if learning_token
            else (self.config.token_steps, self.config.steps, self.config.learning_rate)
        )
        at = step - begin
        warm = min(1.0, (at + 1) / max(1, self.config.warmup_steps))
        return peak * warm * (0.55 + 0.45 * float(np.cos(np.pi * at / length)))

    def _encode(self, captions: list[str], *, cached: bool) -> Text:
        """Text states of a batch; once the token is frozen each caption is encoded once."""
        if not cached:
            with tokens.replaced(self.family.text_encoder, self.token_id, self.row):
                return self.family.text(captions)
        for missing in {c for c in captions if c not in self._texts}:
            with torch.no_grad(), tokens.replaced(self.family.text_encoder, self.token_id, self.row):
                self._texts[missing] = self.family.text([missing])
        return _stack([self._texts[c].states[0] for c in captions])

    @torch.no_grad()
    def _validate(self, photos: Photos) -> float:
        """Loss at fixed times and fixed noise, unweighted by the face."""
        noise = torch.Generator().manual_seed(20_011)
        with tokens.replaced(self.family.text_encoder, self.token_id, self.row):
            text = self.family.text(photos.captions)
        losses = []
        for level in VALIDATION_SIGMAS:
            eps = torch.randn(photos.latents.shape, generator=noise).to(photos.latents.device)
            sigma = torch.full((len(photos),), level, device=eps.device)
            v = self.family.velocity(noised(photos.latents, eps, sigma), sigma, text, photos.size_px)
            losses.append(float(velocity_loss(v, eps - photos.latents)))
        return float(np.mean(losses))

    def _sample(self, step: int) -> None:
        """One strip of fixed prompts and seeds, ``samples/step_00100.png``."""
        if not self.config.sample_every:
            return
        defaults = self.request.pack.manifest.defaults
        side = self.request.pack.manifest.native_size_px
        prompt = f"photo of {self.request.persona.trigger} {self.request.persona.class_noun}"
        with tokens.replaced(self.family.text_encoder, self.token_id, self.row):
            images = self.family.sample(
                prompt, SAMPLE_SEEDS, (side, side), 20, float(defaults.get("guidance", 4.0))
            )
        name = f"samples/step_{step:05d}.png"
        private_dir(self.out_dir / "samples")
        save_clean_png(grid(images, columns=len(images), cell_px=side), self.out_dir / name)
        self.log.samples[step] = name

    def _photos(self, split: Split) -> Photos:
        photos = self.request.dataset.accepted(split)
        sizes = {(p.width_px, p.height_px) for p in photos}
        if not photos or len(sizes) != 1:
            raise InvalidInput(
                f"the {split.value} split has {len(photos)} photos in {len(sizes)} sizes; one size is needed",
                hint="oblik dataset build PHOTOS",
            )
        latents = self._latents(split, photos)
        weights = torch.stack([self._weights(photo) for photo in photos])
        width, height = sizes.pop()
        assert width is not None
        assert height is not None
        device = self.family.device
        return Photos(latents.to(device), weights.to(device), [p.caption for p in photos], (width, height))

    def _latents(self, split: Split, photos: list[Photo]) -> Tensor:
        key = "-".join([self.request.pack.manifest.version, *(photo.sha256 or "" for photo in photos)])
        file = self.out_dir / "work" / f"latents-{split.value}.safetensors"
        cached = load_latents(file, key)
        if cached is not None:
            return cached
        with self.progress.stage(f"encode {split.value}", len(photos)) as advance:
            rows = []
            for photo in photos:
                self.progress.check_cancelled()
                rows.append(self.family.latents(np.asarray(self._open(photo.path).convert("RGB"))))
                advance(1)
        latents = torch.stack(rows)
        save_latents(file, key, latents)
        return latents

    def _weights(self, photo: Photo) -> Tensor:
        mask = self._open(photo.mask).convert("L")
        return self.family.token_weights(np.asarray(mask), self.config.face_weight)

    def _open(self, name: str | None) -> Image.Image:
        assert name is not None, "accepted photos have a path and a mask"
        return Image.open(self.request.dataset_dir / name)

    def _due(self, done: int, every: int) -> bool:
        return done % every == 0 or done == self.total

    def _resume(self) -> int:
        found = self.checkpoint.load(self.family.transformer, self.row, self.optimisers)
        if found is None:
            return 0
        self.log, self.seconds = found.log, found.seconds
        return found.step

    def _save(self, step: int) -> None:
        self.checkpoint.save(step, self.seconds, self.log, self.family.transformer, self.row, self.optimisers)

    def _write_artifact(self) -> None:
        request, config = self.request, self.config
        lora.export(self.family.transformer, self.out_dir / WEIGHTS, config.alpha)
        tokens.export(self.row, self.out_dir / TOKEN, request.persona.trigger)
        atomic_write(self.out_dir / CURVES, self.log.model_dump_json(indent=1) + "\n")
        manifest = LoraArtifact(
            persona=request.persona.slug,
            version=self.out_dir.name,
            pack=request.pack.manifest.name,
            pack_version=request.pack.manifest.version,
            dataset=request.dataset.version,
            dataset_sha256=sha256_file(request.dataset_dir / "dataset.json"),
            consent_sha256=request.dataset.consent_sha256,
            trigger=request.persona.trigger,
            token_id=self.token_id,
            class_noun=request.persona.class_noun,
            rank=config.rank,
            alpha=config.alpha,
            targets=config.targets,
            steps=self.total,
            config=config,
            created_at=request.now,
            seconds=round(self.seconds, 1),
            weights_sha256=sha256_file(self.out_dir / WEIGHTS),
            token_sha256=sha256_file(self.out_dir / TOKEN),
            token_proof=check(self.out_dir / TOKENIZER, request.persona.trigger),
            libraries={name: version(name) for name in LIBRARIES},
        )
        atomic_write(self.out_dir / MANIFEST, manifest.model_dump_json(indent=2) + "\n")
        finish(self.out_dir / "work")


def _stack(states: list[Any]) -> Text:
    """Pad text states of different lengths into one batch; no mask when all are equally long."""
    lengths = torch.tensor([len(s) for s in states])
    padded = torch.nn.utils.rnn.pad_sequence(states, batch_first=True)
    if bool((lengths == lengths[0]).all()):
        return Text(padded, None)
    return Text(padded, (torch.arange(padded.shape[1])[None] < lengths[:, None]).long().to(padded.device))
