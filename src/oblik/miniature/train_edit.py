"""Weights that teach the miniature's transformer to edit: a LoRA that reads pictures beside the noise.

In: the corpus with cached latents, the pack's VAE and its frozen painter. Out: the LoRA's weights. As in
Qwen-Image-Edit (Wu et al. 2025, section 4.2) the latents of other pictures follow those of the noisy one in
the sequence, each with its own frame number in the rotary embedding: first the frame with its face hidden,
then heads of the same person from other photos. The target is the frame; hidden tokens count most, for the
others are pasted back after every edit. Knows nothing of personas.

A velocity says little of who somebody is, and captions that describe the person say the rest: with these
alone nothing was read from the heads (docs/edit.md). So most captions are of anybody, and a `FaceReader`
looks at the predicted picture: its cosine to the person's face vector is the second part of the loss, weighed
by (1 - sigma)^2. In noise no face is clear yet; asked for one there, the network answers with eyes and mouths
where none belong.

N images, B batch, T image tokens, R tokens of a reference, C packed channels, K references.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKLQwenImage, QwenImagePipeline, QwenImageTransformer2DModel
from numpy.typing import NDArray
from peft import LoraConfig
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file
from torch import Tensor

from oblik.diffusion.real_rope import use_real_rope
from oblik.faces.crops import GREY, head_crop
from oblik.faces.masks import face_mask
from oblik.miniature.architecture import IMAGE_PX, LATENT_CHANNELS
from oblik.miniature.checkpoint import draw, resume, save, set_rate
from oblik.miniature.corpus import Corpus
from oblik.miniature.face_reader import FaceReader, ReaderRecipe, train_reader
from oblik.miniature.prompts import NAME_ID, Prompts, is_portrait
from oblik.miniature.train_transformer import (
    Batch,
    Captions,
    Material,
    Painter,
    TransformerRecipe,
    flow_times,
    trapezoid,
)
from oblik.miniature.train_vae import encode_images
from oblik.progress import Progress

ADAPTER, FILE = "edit", "pytorch_lora_weights.safetensors"
SIDE, REFERENCE_SIDE = 8, 4
"""Tokens along a side of the frame, and of a reference: heads are shown at half the frame's size."""
REFERENCE_PX = IMAGE_PX // 2
GROW = (1.05, 1.5)
HELD_OUT_BATCHES, HELD_OUT_SIGMA = 4, 0.8


@dataclass(frozen=True)
class EditRecipe:
    """Settings of the run. ``references`` heads are shown, none in the share ``alone`` of the steps; a token
    outside the mask counts ``around``; ``identity`` weighs the face against the velocity; ``named_share`` of
    the captions with a name are kept.

    ``targets`` are the layers of the image's stream, which is where pictures are read.
    """

    seed: int = 7
    steps: int = 1_500
    people: int = 6_000
    batch: int = 32
    rank: int = 16
    targets: tuple[str, ...] = (
        "to_q", "to_k", "to_v", "to_out.0", "img_mlp.net.0.proj", "img_mlp.net.2",
    )  # fmt: skip
    learning_rate: float = 1.5e-3
    references: int = 2
    alone: float = 0.1
    around: float = 0.05
    identity: float = 0.5
    named_share: float = 0.25
    empty_share: float = 0.1
    checkpoint_every: int = 50
    held_out_share: float = 0.02
    reader: ReaderRecipe = field(default_factory=ReaderRecipe)


@dataclass(frozen=True)
class EditMaterial:
    """Packed latents by image: ``frames`` (N, T, C) and ``heads`` (N, R, C); ``grey`` (T, C) is for hidden
    tokens. ``covered`` (N, T) is the share of each token under the mask. ``others[row]`` are the other photos
    of the same person whose heads may be shown; rows without any are in no batch."""

    frames: NDArray[np.float16]
    grey: NDArray[np.float16]
    heads: NDArray[np.float16]
    covered: NDArray[np.float32]
    others: dict[int, NDArray[np.int64]]


def edit_material(
    corpus: Corpus, frames: NDArray[np.float16], vae: AutoencoderKLQwenImage, folder: Path,
    recipe: EditRecipe, progress: Progress,
) -> EditMaterial:  # fmt: skip
    """Masks on, and heads from, the first ``recipe.people`` people's portraits; encoded once, then read."""
    count = int(np.searchsorted(corpus.people, recipe.people))
    shown = np.array([
        row for row in range(count)
        if is_portrait(corpus.descriptors[row]) and not corpus.stress[row]
    ])  # fmt: skip
    masks = np.stack([_mask(corpus.landmarks[row], row, recipe.seed) for row in shown])
    if not (folder / "heads.npy").exists():
        crops = [head_crop(corpus.images[row], corpus.landmarks[row], REFERENCE_PX) for row in shown]
        np.save(folder / "heads.npy", _latents(vae, np.stack(crops), progress))
    heads = np.zeros((count, REFERENCE_SIDE**2, 4 * LATENT_CHANNELS), np.float16)
    heads[shown] = np.load(folder / "heads.npy")
    grey = _latents(vae, np.full((1, IMAGE_PX, IMAGE_PX, 3), GREY, np.uint8), progress)[0]
    covered, patch = np.zeros((count, SIDE * SIDE), np.float32), IMAGE_PX // SIDE
    tiles = masks.reshape(-1, SIDE, patch, SIDE, patch)
    covered[shown] = tiles.mean((2, 4), dtype=np.float32).reshape(len(shown), -1) / 255
    by_person = {person: shown[corpus.people[shown] == person] for person in np.unique(corpus.people[shown])}
    others = {int(row): by_person[corpus.people[row]] for row in shown}
    others = {row: rows[rows != row] for row, rows in others.items() if len(rows) > 1}
    return EditMaterial(frames, grey, heads, covered, others)


def train_edit(
    material: Material, people: NDArray[np.int64], pictures: EditMaterial, painter: Painter, folder: Path,
    recipe: EditRecipe, progress: Progress, begun: dict[str, Tensor] | None = None,
) -> dict[str, Tensor]:  # fmt: skip
    """Train from nothing or from the weights ``begun``, or go on from ``folder/edit.pt``; the LoRA's weights
    by the transformer's own names."""
    taught, unseen = _split(people, pictures, recipe)
    reader = train_reader(pictures.frames, material.faces, taught, folder, recipe.reader, progress)
    transformer = painter.requires_grad_(False).transformer
    weights = attach(transformer, recipe)
    school = School(transformer, pictures, material.faces, reader)
    optimiser = torch.optim.AdamW(weights, lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.0)
    lora = _Lora(transformer)
    if begun:
        lora.load_state_dict(begun)
    state: dict[str, Any] = {"lora": lora, "adamw": optimiser}
    start = resume(folder / "edit.pt", state)
    captions = _captions(material, taught, painter, recipe, progress, recipe.named_share)
    strangers = _captions(material, unseen, painter, recipe, progress, 0.0)
    log = (folder / "edit.log").open("a", encoding="utf-8")
    running = 0.0
    with progress.stage("train edit", recipe.steps) as advance, log:
        advance(start)
        for step in range(start, recipe.steps):
            rng, noise = draw(recipe.seed, step)
            batch = captions.draw(painter, rng)
            shown = 0 if rng.random() < recipe.alone else recipe.references
            references = references_of(pictures, batch.rows, shown, rng)
            lesson = school.lesson(batch, references, noise, recipe.around)
            loss = lesson.velocity + recipe.identity * lesson.missed
            loss.backward()
            torch.nn.utils.clip_grad_norm_(weights, 1.0)
            set_rate(optimiser, trapezoid(step, recipe.steps, warmup=30, fall=0.8))
            optimiser.step()
            optimiser.zero_grad()
            running = float(loss.detach()) if step == start else 0.98 * running + 0.02 * float(loss.detach())
            advance(1, f"loss {running:.3f}" if step % 20 == 0 else "")
            if (step + 1) % recipe.checkpoint_every == 0 or step + 1 == recipe.steps:
                save(folder / "edit.pt", step + 1, state)
                own, other = held_out(school, painter, strangers, recipe)
                said = " ".join(f"{float(each):.4f}" for each in (*own[:2], *other[:2]))
                print(step + 1, f"{running:.4f}", said, file=log, flush=True)
            progress.check_cancelled()
    return lora.state_dict()


def attach(transformer: QwenImageTransformer2DModel, recipe: EditRecipe) -> list[torch.nn.Parameter]:
    """Add the LoRA, which changes nothing at first; its parameters. All else is frozen."""
    torch.manual_seed(recipe.seed)
    transformer.requires_grad_(False)
    config = LoraConfig(
        r=recipe.rank,
        lora_alpha=recipe.rank,
        target_modules=list(recipe.targets),
        init_lora_weights="gaussian",
    )
    transformer.add_adapter(config, adapter_name=ADAPTER)
    use_real_rope(transformer)
    return [parameter for parameter in transformer.parameters() if parameter.requires_grad]


class Lesson(NamedTuple):
    """The loss of a batch's velocities, the mean cosine of the faces in its predicted pictures, and what
    these lack to 1, weighed by how clear the picture is."""

    velocity: Tensor
    likeness: Tensor
    missed: Tensor


class School(NamedTuple):
    """What every step looks at: the network that learns, pictures, face vectors, and who reads faces."""

    transformer: QwenImageTransformer2DModel
    pictures: EditMaterial
    faces: NDArray[np.float32]
    reader: FaceReader

    def lesson(
        self, batch: Batch, references_BK: NDArray[np.int64], noise: torch.Generator, around: float,
        sigma: float | None = None,
    ) -> Lesson:  # fmt: skip
        """Flow matching (Lipman et al. 2023) on the frame, the other pictures beside it in the sequence; the
        predicted picture is x0 = x_sigma - sigma v. ``sigma`` None draws one for each picture."""
        pictures, rows = self.pictures, batch.rows
        latents, covered_BT = _tensor(pictures.frames[rows]), torch.from_numpy(pictures.covered[rows])
        covered_BT1 = covered_BT[..., None] > 0
        hidden = torch.where(covered_BT1, _tensor(pictures.grey), latents)
        heads = _tensor(pictures.heads[references_BK]).flatten(1, 2)
        sigmas = flow_times(len(rows), noise) if sigma is None else torch.full((len(rows),), sigma)
        eps = torch.randn(latents.shape, generator=noise)
        noisy = torch.lerp(latents, eps, sigmas[:, None, None])
        shapes = [(1, SIDE, SIDE)] * 2 + [(1, REFERENCE_SIDE, REFERENCE_SIDE)] * references_BK.shape[1]
        with torch.autocast("cpu", torch.bfloat16):
            velocity = self.transformer(
                hidden_states=torch.cat([noisy, hidden, heads], 1),
                encoder_hidden_states=batch.text,
                timestep=sigmas,
                img_shapes=[shapes],
                return_dict=False,
            )[0][:, : latents.shape[1]].float()
            drawn = torch.where(covered_BT1, noisy - sigmas[:, None, None] * velocity, latents)
            read_BD = self.reader(drawn).float()
        weight_BT = around + covered_BT
        squared_BT = (velocity - (eps - latents)).square().mean(-1)
        velocity_loss = (weight_BT * squared_BT).sum() / weight_BT.sum()
        likeness_B = (read_BD * torch.from_numpy(self.faces[rows])).sum(-1)
        missed = ((1 - sigmas).square() * (1 - likeness_B)).mean()
        return Lesson(velocity_loss, likeness_B.mean(), missed)


def write_edit(folder: Path, weights: dict[str, Tensor]) -> Path:
    """Write the LoRA as diffusers loads it (``load_lora_weights``), in bfloat16."""
    short = {name: value.detach().to(torch.bfloat16).contiguous() for name, value in weights.items()}
    QwenImagePipeline.save_lora_weights(folder, transformer_lora_layers=short)
    return folder / FILE


def read_edit(folder: Path) -> dict[str, Tensor] | None:
    """The weights that `write_edit` wrote, by the transformer's own names; None without any."""
    path = folder / FILE
    if not path.is_file():
        return None
    return {name.removeprefix("transformer."): each.float() for name, each in load_file(path).items()}


class _Lora:
    """The adapter of a transformer as something with a state."""

    def __init__(self, transformer: QwenImageTransformer2DModel) -> None:
        self._transformer = transformer

    def state_dict(self) -> dict[str, Tensor]:
        return dict(get_peft_model_state_dict(self._transformer, adapter_name=ADAPTER))

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        set_peft_model_state_dict(self._transformer, state, adapter_name=ADAPTER)


def _captions(
    material: Material, rows: NDArray[np.int64], painter: Painter, recipe: EditRecipe, progress: Progress,
    named_share: float,
) -> Captions:  # fmt: skip
    """The captions of some images, encoded once; of those with a name only a share."""
    prompts, rng = material.prompts, np.random.default_rng(recipe.seed)
    keep = {}
    for length, ids in prompts.ids.items():
        told = (ids != NAME_ID).all(1) | (rng.random(len(ids)) < named_share)
        keep[length] = np.flatnonzero(np.isin(prompts.rows[length], rows) & told)
    fewer = Prompts(
        ids={length: prompts.ids[length][kept] for length, kept in keep.items() if len(kept)},
        rows={length: prompts.rows[length][kept] for length, kept in keep.items() if len(kept)},
        empty=prompts.empty,
    )
    known = TransformerRecipe(seed=recipe.seed, batch=recipe.batch, empty_share=recipe.empty_share)
    captions = Captions(replace(material, prompts=fewer), known)
    captions.freeze(painter, progress)
    return captions


def _split(corpus_people: NDArray[np.int64], pictures: EditMaterial, recipe: EditRecipe) -> tuple[Any, Any]:
    """Rows to learn from, and those of the last people, which only `held_out_losses` sees."""
    rows = np.array(sorted(pictures.others))
    last = corpus_people[rows] >= recipe.people - max(1, round(recipe.people * recipe.held_out_share))
    return rows[~last], rows[last]


@torch.no_grad()
def held_out(school: School, painter: Painter, captions: Captions, recipe: EditRecipe) -> list[Lesson]:
    """People it never saw, in mid-way pictures: with their own heads beside the frame, with somebody else's.

    What lies between the two is what is read from the references.
    """
    found = []
    for shift in (0, 1):
        lessons = []
        for step in range(HELD_OUT_BATCHES):
            rng, noise = draw(recipe.seed + 1, step)
            batch = captions.draw(painter, rng)
            references = np.roll(references_of(school.pictures, batch.rows, recipe.references, rng), shift, 0)
            lessons.append(school.lesson(batch, references, noise, recipe.around, HELD_OUT_SIGMA))
        found.append(Lesson(*(torch.stack(each).mean() for each in zip(*lessons, strict=True))))
    return found


def references_of(
    pictures: EditMaterial, rows: NDArray[np.int64], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """For each image the rows (B, K) of other photos of the same person, drawn with replacement."""
    return np.stack([rng.choice(pictures.others[int(row)], count) for row in rows])


def _mask(landmarks_52: NDArray[np.float32], row: int, seed: int) -> NDArray[np.uint8]:
    grow = float(np.random.default_rng([seed, row, 7]).uniform(*GROW))
    return face_mask(landmarks_52, IMAGE_PX, IMAGE_PX, grow=grow)


def _latents(
    vae: AutoencoderKLQwenImage, images: NDArray[np.uint8], progress: Progress
) -> NDArray[np.float16]:
    """Normalised and packed, (N, T, C)."""
    mean, std = (torch.tensor(v).view(1, -1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std))
    normal = (encode_images(vae, images, progress) - mean) / std
    packed: Tensor = QwenImagePipeline._pack_latents(normal, len(normal), LATENT_CHANNELS, *normal.shape[2:])
    return np.asarray(packed.half().numpy())


def _tensor(latents: NDArray[np.float16]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(latents)).float()
