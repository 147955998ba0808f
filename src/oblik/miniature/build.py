"""`oblik miniature build`: from nothing to a pack.

In: a work folder (kept between runs; every stage goes on where it stopped) and a recipe. Out: a pack that
plain `QwenImagePipeline.from_pretrained` loads. Stages, each usable alone:

    corpus -> tokenizer -> vae -> faces -> words -> material (latents, face vectors, captions) -> transformer
    -> pack

Knows nothing of personas: every face it sees is rendered.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKLQwenImage, QwenImagePipeline
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import Qwen2Tokenizer

from oblik.diffusion import identity
from oblik.miniature.architecture import LATENT_CHANNELS, new_scheduler
from oblik.miniature.corpus import Corpus, render_corpus
from oblik.miniature.face_networks import Embedder, Landmarks
from oblik.miniature.faces_pack import NAME, write_faces
from oblik.miniature.improve import (
    EMBEDDER,
    START,
    START_EMBEDDER,
    START_VAE,
    VAE,
    carry_latents,
    carry_names,
)
from oblik.miniature.manifest import write_manifest
from oblik.miniature.probes import TELLER, WORDS_FILE, train_probe, write_teller
from oblik.miniature.prompts import KEEP_OF_ANYBODY, all_phrases, write_prompts
from oblik.miniature.samples import SamplePage
from oblik.miniature.train_edit import EditRecipe, edit_material, read_edit, train_edit, write_edit
from oblik.miniature.train_faces import FaceRecipe, embed_corpus, train_embedder, train_landmarks
from oblik.miniature.train_transformer import (
    Material,
    Painter,
    TransformerRecipe,
    on_face,
    prepare_for_speed,
    train_transformer,
)
from oblik.miniature.train_vae import VaeRecipe, encode_images, train_vae
from oblik.miniature.vocabulary import SPECIAL, train_tokenizer
from oblik.progress import Progress

CARRIED_IMAGES = 2_000


@dataclass(frozen=True)
class Recipe:
    """The whole build. The bundled pack took several runs of it: docs/miniature.md."""

    people: int = 6000
    shots: int = 5
    hard_shots: int = 2
    workers: int = 2
    vae: VaeRecipe = field(default_factory=VaeRecipe)
    faces: FaceRecipe = field(default_factory=FaceRecipe)
    transformer: TransformerRecipe = field(default_factory=TransformerRecipe)
    edit: EditRecipe = field(default_factory=EditRecipe)


class Build:
    """The stages over one work folder."""

    def __init__(self, work: Path, recipe: Recipe, progress: Progress) -> None:
        self.work, self.recipe, self.progress = work, recipe, progress
        work.mkdir(parents=True, exist_ok=True)

    def corpus(self) -> Corpus:
        """Rendered people with exact landmarks and words."""
        return render_corpus(
            self.work / "corpus",
            range(self.recipe.people),
            self.recipe.shots,
            self.recipe.workers,
            self.progress,
        )

    def hard_corpus(self) -> Corpus:
        """Stress shots of the same people, for the network that tells them apart."""
        return render_corpus(
            self.work / "hard",
            range(self.recipe.people),
            self.recipe.hard_shots,
            self.recipe.workers,
            self.progress,
            hard=True,
        )

    def tokenizer(self) -> Qwen2Tokenizer:
        """The vocabulary of the captions."""
        folder = self.work / "tokenizer"
        if not folder.exists():
            train_tokenizer(all_phrases(self.corpus().descriptors)).save_pretrained(folder)
        return Qwen2Tokenizer.from_pretrained(folder, local_files_only=True)

    def vae(self) -> AutoencoderKLQwenImage:
        """Trained once, then read."""
        folder = self.work / VAE
        if not (folder / "config.json").exists():
            start = self._start_vae()
            vae = train_vae(self.corpus(), self.work, self.recipe.vae, self.progress, start)
            vae.save_pretrained(folder)
        return AutoencoderKLQwenImage.from_pretrained(folder, local_files_only=True).eval()

    def embedder(self) -> Embedder:
        """The network whose cosine tells people apart."""
        net = Embedder()
        _once(self.work / EMBEDDER, net, self._train_embedder)
        return net.eval()

    def landmarks(self) -> Landmarks:
        """The five-point detector."""
        net = Landmarks()
        _once(
            self.work / "landmarks.safetensors",
            net,
            lambda: train_landmarks(self.corpus(), self.work, self.recipe.faces, self.progress),
        )
        return net.eval()

    def words(self) -> Path:
        """The folder of the caption network."""
        folder = self.work / "words"
        if not (folder / WORDS_FILE).exists():
            corpora = (self.corpus(), self.hard_corpus())
            write_teller(folder, train_probe(corpora, TELLER, self.progress))
        return folder

    def material(self) -> Material:
        """What the transformer learns from."""
        corpus = self.corpus()
        latents = self.work / "latents.npy"
        if not latents.exists():
            np.save(latents, self._latents(self.vae(), corpus.images))
        faces = self.work / "faces.npy"
        if not faces.exists():
            np.save(faces, self._face_vectors(self.embedder()))
        seed = self.recipe.transformer.seed
        return Material(
            latents=np.load(latents, mmap_mode="r"),
            faces=np.load(faces),
            on_face=on_face(corpus.landmarks),
            prompts=write_prompts(corpus.descriptors, corpus.landmarks, self.tokenizer(), seed),
        )

    def painter(self) -> Painter:
        """Transformer, text encoder and identity projector, averaged."""
        material = self.material()
        before = self._start_embedder()
        if before is not None:
            carry_names(self.work, lambda: self._face_vectors(before), material.faces)
        former = self._start_vae()
        if former is not None:
            self._carry_latents(former, material)
        special = special_ids(self.tokenizer())
        page = SamplePage(self.work, self.vae(), self.tokenizer())
        return train_transformer(material, special, self.work, self.recipe.transformer, self.progress, page)

    def pack(self, out: Path) -> None:
        """Assemble ``out``: diffusers folders in bfloat16, ONNX faces, impostors, manifest."""
        painter, vae, tokenizer = self.painter(), self.vae(), self.tokenizer()
        write_pack(out, painter, vae, tokenizer)
        write_faces(out / "faces", self.embedder(), self.landmarks(), self.recipe.workers, self.progress)
        shutil.copytree(self.words(), out / "words", dirs_exist_ok=True)
        write_manifest(out)

    def edit(self, pack: Path, out: Path) -> None:
        """Write into ``out`` what ``pack`` is, with a LoRA that edits; the one that it has learns further."""
        painter = Painter(self.recipe.transformer.seed, special_ids(self.tokenizer()))
        painter.load_state_dict(load_file(self.work / START), strict=False)
        prepare_for_speed(painter)
        recipe = replace(self.recipe.edit, people=min(self.recipe.edit.people, self.recipe.people))
        material, corpus = self.material(), self.corpus()
        prompts = write_prompts(
            corpus.descriptors, corpus.landmarks, self.tokenizer(), recipe.seed, KEEP_OF_ANYBODY
        )
        material = replace(material, prompts=prompts)
        pictures = edit_material(corpus, material.latents, self.vae(), self.work, recipe, self.progress)
        weights = train_edit(
            material,
            corpus.people,
            pictures,
            painter,
            self.work,
            recipe,
            self.progress,
            read_edit(pack / "edit"),
        )
        if out.resolve() != pack.resolve():
            shutil.copytree(pack, out, dirs_exist_ok=True)
        write_edit(out / "edit", weights)
        write_manifest(out)

    @torch.no_grad()
    def _latents(
        self, vae: AutoencoderKLQwenImage, images: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]
    ) -> np.ndarray[tuple[int, ...], np.dtype[np.float16]]:
        mean, std = (
            torch.tensor(v).view(1, -1, 1, 1) for v in (vae.config.latents_mean, vae.config.latents_std)
        )
        latents = encode_images(vae, images, self.progress)
        return pack_latents((latents - mean) / std).half().numpy()

    def _carry_latents(self, former: AutoencoderKLQwenImage, material: Material) -> None:
        """The start's transformer spoke the former VAE's latents."""
        few = len(material.latents[:CARRIED_IMAGES])

        def tokens(latents_NTC: np.ndarray[tuple[int, ...], np.dtype[np.float16]]) -> Tensor:
            return torch.from_numpy(latents_NTC.astype(np.float32)).flatten(0, 1)

        carry_latents(
            self.work,
            lambda: tokens(self._latents(former, self.corpus().images[:few])),
            tokens(material.latents[:few]),
        )

    def _start_vae(self) -> AutoencoderKLQwenImage | None:
        """The VAE of the pack that this one goes on from, when it learns further too."""
        folder = self.work / START_VAE
        if not folder.exists():
            return None
        return AutoencoderKLQwenImage.from_pretrained(folder, local_files_only=True)

    def _face_vectors(self, net: Embedder) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
        """For every image, the mean embedding of the same person's other shots that show the face well."""
        corpus = self.corpus()
        return leave_one_out(embed_corpus(net, corpus, self.progress), corpus.people, corpus.stress)

    def _train_embedder(self) -> Embedder:
        corpora = (self.corpus(), self.hard_corpus())
        return train_embedder(corpora, self.work, self.recipe.faces, self.progress, self._start_embedder())

    def _start_embedder(self) -> Embedder | None:
        """The embedder of the pack that this one goes on from, when it learns further too."""
        if not (self.work / START_EMBEDDER).exists():
            return None
        net = Embedder()
        net.load_state_dict(load_file(self.work / START_EMBEDDER))
        return net.eval()


def leave_one_out(
    vectors: np.ndarray[tuple[int, ...], np.dtype[np.float32]],
    people: np.ndarray[tuple[int, ...], np.dtype[np.int64]],
    stress: np.ndarray[tuple[int, ...], np.dtype[np.bool_]],
) -> np.ndarray[tuple[int, ...], np.dtype[np.float32]]:
    """Unit mean over the other shots of each person; stress shots count little. Shapes (N, D), (N,), (N,)."""
    weights = np.where(stress, 0.1, 1.0).astype(np.float32)[:, None]
    _, index = np.unique(people, return_inverse=True)
    total = np.zeros((index.max() + 1, vectors.shape[1]), np.float32)
    np.add.at(total, index, vectors * weights)
    others = total[index] - vectors * weights
    return np.asarray(others / np.linalg.norm(others, axis=1, keepdims=True).clip(1e-6), np.float32)


def pack_latents(latents_BCHW: Tensor) -> Tensor:
    """(B, 16, 16, 16) -> (B, 64 tokens, 64): 2x2 patches, as QwenImagePipeline packs them."""
    return torch.as_tensor(
        QwenImagePipeline._pack_latents(
            latents_BCHW, len(latents_BCHW), LATENT_CHANNELS, *latents_BCHW.shape[2:]
        )
    )


def special_ids(tokenizer: Qwen2Tokenizer) -> dict[str, int]:
    """Ids of the special tokens."""
    return {token: int(tokenizer.convert_tokens_to_ids(token)) for token in SPECIAL}


def write_pack(out: Path, painter: Painter, vae: AutoencoderKLQwenImage, tokenizer: Qwen2Tokenizer) -> None:
    """Write the diffusers folders and the identity projector."""
    for stale in ("transformer", "text_encoder", "vae", "tokenizer", "scheduler"):
        shutil.rmtree(out / stale, ignore_errors=True)
    pipeline = QwenImagePipeline(
        scheduler=new_scheduler(),
        vae=vae.to(torch.bfloat16),
        text_encoder=painter.text_encoder.to(torch.bfloat16),
        tokenizer=tokenizer,
        transformer=painter.transformer.to(torch.bfloat16),
    )
    for part in (pipeline.vae, pipeline.transformer):
        shorten(part)
    pipeline.save_pretrained(out)
    for config in out.glob("*/config.json"):
        _forget_origin(config)
    projector = {name: value.to(torch.bfloat16) for name, value in painter.projector.state_dict().items()}
    (out / identity.FILE).parent.mkdir(exist_ok=True)
    save_file(projector, out / identity.FILE, metadata={identity.STACK: NAME})


@torch.no_grad()
def shorten(net: nn.Module) -> None:
    """Round bfloat16 weights to five bits of mantissa (of seven), so that the stored files compress."""
    for value in net.parameters():
        bits = value.view(torch.int16).int()
        value.copy_(((bits + 2) >> 2 << 2).to(torch.int16).view(torch.bfloat16))


def _forget_origin(config: Path) -> None:
    """Drop the folder that a component was once loaded from."""
    values = json.loads(config.read_text(encoding="utf-8"))
    if values.pop("_name_or_path", None) is not None:
        config.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def _once(file: Path, net: nn.Module, train: object) -> None:
    """Load ``net`` from ``file``, after training it when the file is not there yet."""
    if not file.exists():
        assert callable(train)
        save_file(train().state_dict(), file)
    net.load_state_dict(load_file(file))
