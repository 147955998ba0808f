"""What learns: a token's embedding and a text LoRA, then a LoRA of the network.

In: a `Family`, a token id, settings; batches. Out: losses, changed parameters, files. The order (words, then
freeze and cache the text, then the network) lets text states be cached although a token is learned
(pivotal tuning; Roich et al. 2021). Knows nothing of steps, files of a run and progress.

B batch, T image tokens, C channels.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from oblik.datasets.manifest import Split, face_vectors
from oblik.diffusion import lora, text_lora, tokens
from oblik.diffusion.families.family import Family, Text, stack
from oblik.diffusion.flow_match import squared_error, velocity_loss, weighted_mean
from oblik.diffusion.identity import FILE, read_name
from oblik.errors import TrainingDiverged
from oblik.packs.memory_plan import Configuration
from oblik.training.artifact import TOKEN
from oblik.training.backends.caches import Caches, Tensors, component_key, key_of, tensor_key
from oblik.training.backends.halves import Halves, Rows
from oblik.training.backends.optimisers import RETRY, Group, Stage
from oblik.training.backends.pictures import PRIOR, Albums, Batch
from oblik.training.trainer import TrainRequest

WORDS, NETWORK = "words", "network"


class Losses(NamedTuple):
    """The loss of a step and the mean of each of its terms."""

    total: float
    terms: dict[str, float]


class Learner:
    """The trainable parts on a frozen base, held as a memory plan's configuration says, where there is one.

    With a plan times lie on the grid of 1,000, baked or not: another plan changes nothing of what is drawn.
    """

    def __init__(
        self, request: TrainRequest, family: Family, token_id: int, choice: Configuration | None = None
    ) -> None:
        self.choice = choice
        self.request, self.config, self.family, self.token_id = request, request.config, family, token_id
        config, device = self.config, family.device
        for encoder in family.encoders.values():
            tokens.make_room(encoder, token_id)
        self.rows = self._first_guess()
        self.text_parameters = [
            parameter for encoder in family.encoders.values() for parameter in self._attach_text_lora(encoder)
        ]
        network = lora.attach(family.network, config)
        if config.gradient_checkpointing:
            family.network.enable_gradient_checkpointing()
        if choice:
            for encoder in family.encoders.values():
                encoder.train()  # no dropout in these; elsewhere transformers checkpoints nothing
                encoder.activation_checkpointing_enable()
        self.halves = Halves(network, device, whole=bool(choice and choice.offload_blocks))
        words = [
            Group(list(self.rows.values()), config.token_learning_rate, 0.0),
            Group(self.text_parameters, config.text_learning_rate, config.weight_decay),
        ]
        self.words = Stage(
            WORDS, 0, config.token_steps, [group for group in words if group.parameters], config, device
        )
        self.network = Stage(
            NETWORK, config.token_steps, config.steps,
            [Group(network, config.learning_rate, config.weight_decay)], config, device, config.ema,
        )  # fmt: skip
        self.texts: dict[str, Text] = {}

    def _first_guess(self) -> dict[str, nn.Parameter]:
        """The token's embedding in each text encoder before training."""
        request, family = self.request, self.family
        if self.config.token_start == "photos" and len(family.encoders) == 1:
            vectors = face_vectors(request.dataset_dir, request.dataset, Split.train)
            name = read_name(request.pack.find(str(FILE)), vectors, request.dataset.face_stack)
            if name is not None:
                return {next(iter(family.encoders)): nn.Parameter(name.to(family.device))}
        noun = family.noun_ids(request.persona.class_noun)
        return {name: tokens.first_guess(encoder, noun) for name, encoder in family.encoders.items()}

    def _attach_text_lora(self, encoder: Any) -> list[nn.Parameter]:
        config = self.config
        if not (config.text_layers and config.token_steps):
            return []
        return text_lora.attach(
            encoder, config.text_layers, config.text_rank, float(config.text_rank), config.seed
        )

    def keeps_prior(self, stage: Stage) -> bool:
        """Whether texts without the token could be changed by this stage."""
        return stage is self.network or bool(self.text_parameters)

    def begin(self, stage: Stage) -> None:
        """Let only this stage's parameters take gradients."""
        for each in (self.words, self.network):
            for parameter in each.parameters:
                parameter.requires_grad_(each is stage)
        if stage is self.words:
            self.family.network.disable_adapters()
        else:
            self.family.network.enable_adapters()

    def freeze_words(self, captions: Iterable[str], caches: Caches) -> None:
        """Encode every text once, on the disk for the next start; the encoders leave the device's memory."""
        learned = tensor_key([*self.rows.values(), *self.text_parameters])
        pack, trigger = self.request.pack, self.request.persona.trigger
        parts = [component_key(pack, name) for name in ("text_encoder", "text_encoder_2", "tokenizer")]
        wanted = list(dict.fromkeys(captions))
        key = key_of(*parts, self.config.dtype, trigger, self.token_id, learned)
        found = caches.texts(key, wanted, self._encode_each)
        device = self.family.device
        self.texts = {caption: _text(found, key_of(caption), device) for caption in wanted}
        leaves = self.choice.text_encoder_place == "freed" if self.choice else device.type != "cpu"
        if leaves:
            for name in ("text_encoder", "text_encoder_2"):
                if getattr(self.family.pipeline, name, None) is not None:
                    getattr(self.family.pipeline, name).to("cpu")
                    setattr(self.family.pipeline, name, None)

    @torch.no_grad()
    def _encode_each(self, captions: list[str]) -> Tensors:
        found: Tensors = {}
        with self.knowing_token():
            for caption in captions:
                text = self.family.text([caption])
                found[f"{key_of(caption)}.states"] = text.states
                if text.pooled is not None:
                    found[f"{key_of(caption)}.pooled"] = text.pooled
        return found

    def text(self, captions: list[str]) -> Text:
        """Text states of a batch: from the cache once the words are frozen, else with gradients."""
        if self.texts:
            return stack([self.texts[caption] for caption in captions])
        with self.knowing_token():
            return self.family.text(captions)

    @contextmanager
    def knowing_token(self) -> Iterator[None]:
        """Inside, the token's embedding is the learned one in every encoder."""
        with ExitStack() as all_of_them:
            for name, encoder in self.family.encoders.items():
                all_of_them.enter_context(tokens.replaced(encoder, self.token_id, self.rows[name]))
            yield

    def learn(self, stage: Stage, step: int, batch: Batch, noise: torch.Generator) -> Losses:
        """One step. Raises TrainingDiverged when the loss is no number."""
        device = self.family.device
        x0 = batch.x0.to(device)
        eps = torch.randn(x0.shape, generator=noise).to(device)
        time = self.family.times(len(batch), x0.shape[1], noise).to(device)
        time = self.family.on_grid(time) if self.choice else time
        noisy, target = self.family.noised(x0, eps, time), self.family.target(x0, eps, time)
        weights = batch.weights.to(device)
        mean, total, errors = weights.mean(), 0.0, []
        for part in _parts(len(batch), self.config.micro_batch):
            share = (part.stop - part.start) / len(batch)
            frozen = self.text(batch.captions[part]) if stage is self.network else None
            known = self._preserved(batch, part, noisy, time, target, frozen)
            text = frozen or self.text(batch.captions[part])

            def loss(said: Tensor, part: slice = part, known: Tensor = known, share: float = share) -> Tensor:
                nonlocal total
                error_BT = squared_error(said, known)
                errors.append((error_BT.detach() * weights[part] / mean).mean(1))
                value = weighted_mean(error_BT, weights[part], mean) * share
                total += float(value.detach())
                return stage.scaler.scale(value)

            count, size_px = part.stop - part.start, batch.size_px
            if stage is self.words:
                with _cut(text) as (leaf, leaves):
                    rows = self._rows(noisy[part], time[part], leaf, size_px)
                    self.halves.backward(rows, count, loss, leaves)
            else:
                self.halves.backward(self._rows(noisy[part], time[part], text, size_px), count, loss)
        if not np.isfinite(total):
            raise TrainingDiverged(f"the loss of step {step + 1} is no number", hint=RETRY)
        stage.move(step)
        return Losses(total, _by_term(torch.cat(errors), batch.terms))

    def _rows(self, noisy: Tensor, time: Tensor, text: Text, size_px: tuple[int, int]) -> Rows:
        """What the network says about some rows."""
        return lambda part: self.family.predict(noisy[part], time[part], text.of(part), size_px)

    @torch.no_grad()
    def _preserved(
        self, batch: Batch, part: slice, noisy: Tensor, time: Tensor, target: Tensor, frozen: Text | None
    ) -> Tensor:
        """The targets of a part; where a photo is shown without the token, what the base model says.

        Prior preservation by output (DreamBooth's idea, Ruiz et al. 2023, without its class images):
        what the LoRA says about strangers is held to what the model said before. ``frozen`` is the part's
        text once it learns no more.
        """
        of = torch.tensor([term == PRIOR for term in batch.terms[part]])
        if not of.any():
            return target[part]
        captions = [caption for caption, chosen in zip(batch.captions[part], of, strict=True) if chosen]
        with self._untaught([self.family.network] if frozen else list(self.family.encoders.values())):
            base = frozen.of(of) if frozen else self.text(captions)
            rows = self._rows(noisy[part][of], time[part][of], base, batch.size_px)
            prior = self.halves.compute(rows, len(captions))
        known = target[part].clone()
        known[of] = prior.to(known.dtype)
        return known

    @contextmanager
    def _untaught(self, parts: Sequence[Any]) -> Iterator[None]:
        """Inside, these parts are as they were before any LoRA."""
        for part in parts:
            part.disable_adapters()
        try:
            yield
        finally:
            for part in parts:
                part.enable_adapters()

    @torch.no_grad()
    def validate(self, albums: Albums) -> float:
        """Loss at fixed times and fixed noise, unweighted by the face; a mean over photos."""
        noise, losses, counts = torch.Generator().manual_seed(20_011), [], []
        most = self.config.micro_batch or self.config.batch
        for album in albums.values():
            latents = torch.stack(album.latents)
            for level in self.family.levels:
                eps = torch.randn(latents.shape, generator=noise)
                for part in _parts(len(album), most):
                    x0, e = latents[part].to(self.family.device), eps[part].to(self.family.device)
                    time = torch.full((len(x0),), level, device=x0.device)
                    said = self.family.predict(
                        self.family.noised(x0, e, time), time, self.text(album.captions[part]), album.size_px
                    )
                    losses.append(float(velocity_loss(said, self.family.target(x0, e, time))))
                    counts.append(len(x0))
        return float(np.average(losses, weights=counts))

    def export(self, folder: Path, metadata: dict[str, str]) -> None:
        """Write the LoRA, that of the text encoders too, and the token."""
        self.family.export(folder, self.config.alpha, metadata)
        tokens.export(self.rows, folder / TOKEN, self.request.persona.trigger)


@contextmanager
def _cut(text: Text) -> Iterator[tuple[Text, list[Tensor]]]:
    """The text cut off from what made it, and its tensors: their gradients go on to its makers at the end."""
    made = [part for part in (text.states, text.pooled) if part is not None]
    leaves = [part.detach().requires_grad_() for part in made]
    yield text._replace(states=leaves[0], pooled=leaves[1] if leaves[1:] else None), leaves
    reached = [(part, leaf.grad) for part, leaf in zip(made, leaves, strict=True) if leaf.grad is not None]
    torch.autograd.backward([part for part, _ in reached], [grad for _, grad in reached])


def _parts(count: int, most: int) -> list[slice]:
    size = most or count
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _by_term(error_B: Tensor, terms: list[str]) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for term, value in zip(terms, error_B.tolist(), strict=True):
        found.setdefault(term, []).append(value)
    return {term: float(np.mean(values)) for term, values in sorted(found.items())}


def _text(found: Tensors, key: str, device: torch.device) -> Text:
    pooled = found.get(f"{key}.pooled")
    return Text(found[f"{key}.states"].to(device), None, None if pooled is None else pooled.to(device))
