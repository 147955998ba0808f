"""What a trainer, an engine and a planner need of a base model, whatever its architecture.

In: a pack, then its diffusers pipeline. Out: latents of photos, text states with gradients, noised points
and what the network should say there, the words of a call to the pipeline, samples, a LoRA written and read,
bytes counted. Knows nothing of personas, datasets and optimisers.

B batch, T image tokens, C channels of a token, L text tokens, D text width, H height, W width.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oblik.diffusion.quantize import Quantisation, Scheme
from oblik.packs.manifest import OpenPack
from oblik.registry import load

FAMILIES = {
    "qwen_image": "oblik.diffusion.families.qwen_image:QwenImage",
    "stable_diffusion": "oblik.diffusion.families.stable_diffusion:StableDiffusion",
}


class Text(NamedTuple):
    """Text states (B, L, D); for padded batches their mask (B, L); for SDXL the pooled states (B, P)."""

    states: Tensor
    mask: Tensor | None = None
    pooled: Tensor | None = None

    def of(self, rows: Tensor | slice) -> Text:
        """The states of some rows."""
        mask, pooled = (None if part is None else part[rows] for part in self[1:])
        return Text(self.states[rows], mask, pooled)

    def to(self, device: torch.device) -> Text:
        """The same on a device."""
        mask, pooled = (None if part is None else part.to(device) for part in self[1:])
        return Text(self.states.to(device), mask, pooled)


class Packing(NamedTuple):
    """How weights are held: ``dtype``; packing and device of the network's blocks, then of text encoders."""

    dtype: torch.dtype
    how: Quantisation
    device: torch.device
    text_how: Scheme
    text_device: torch.device


class Family(Protocol):
    """A thin reading of a pipeline; it owns no weights of its own.

    ``network`` is what the LoRA is trained on; ``encoders`` are the text encoders by the names that ComfyUI
    gives them; ``levels`` are fixed times for validation, in the unit of `times`; ``guidance`` is what the
    pipeline calls the scale of guidance. For a memory plan: the formats that the network and the text encoder
    can be packed into from a folder, and whether modulation can be baked.
    """

    pipeline: Any
    network: Any
    encoders: Mapping[str, Any]
    levels: Sequence[float]
    guidance: str
    made_from_folder: Sequence[str]
    text_formats: Sequence[str]
    bakes: bool

    @staticmethod
    def open(pack: OpenPack, packing: Packing) -> Any:
        """The pack's pipeline, never from the net. OSError and ValueError mean that a file is broken."""
        ...

    @staticmethod
    def count(architecture: Any, asked: Any) -> Any:
        """Every byte of an `Architecture` for what is asked: `Counted`."""
        ...

    @staticmethod
    def keeps_eyes(pack: OpenPack) -> bool:
        """Whether the text encoder of this pack keeps its vision tower."""
        ...

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        ...

    def freeze(self) -> None:
        """Make ready for training: no weight of the base takes gradients."""
        ...

    def quicken(self) -> None:
        """Make ready for pictures: what this device computes faster another way is computed that way."""
        ...

    def drop_unread(self) -> None:
        """Drop what neither training nor portraits ever ask of the networks."""
        ...

    def latents(self, image_HW3: NDArray[np.uint8]) -> Tensor:
        """Normalised latents (T, C), float32, of the posterior's mean."""
        ...

    def face_share(self, mask_HW: NDArray[np.uint8]) -> Tensor:
        """How much of each image token the mask covers, (T,) in 0..1."""
        ...

    def noun_ids(self, noun: str) -> list[int]:
        """Token ids of a word as it stands inside a sentence."""
        ...

    def text(self, prompts: list[str], device: torch.device | None = None) -> Text:
        """Encode prompts as the pipeline does, on a device; gradients reach the token and a text LoRA."""
        ...

    def words(self, text: Text, negative: Text | None) -> dict[str, Any]:
        """Encoded text as the pipeline takes it in a call."""
        ...

    def noise(self, seeds: Sequence[int], size_px: tuple[int, int]) -> Tensor:
        """The starting noise of the seeds, as the pipeline takes it; of a seed the same in every batch."""
        ...

    def times(self, count: int, image_tokens: int, generator: torch.Generator) -> Tensor:
        """Times (count,) as training draws them."""
        ...

    def on_grid(self, time_B: Tensor) -> Tensor:
        """Drawn times, each moved to the nearest that a memory plan may have baked."""
        ...

    def noised(self, x0_BTC: Tensor, eps_BTC: Tensor, time_B: Tensor) -> Tensor:
        """The point at that time between image and noise."""
        ...

    def target(self, x0_BTC: Tensor, eps_BTC: Tensor, time_B: Tensor) -> Tensor:
        """What the network should say there."""
        ...

    def predict(self, noisy_BTC: Tensor, time_B: Tensor, text: Text, size_px: tuple[int, int]) -> Tensor:
        """What the network says, for images of (width, height)."""
        ...

    def sample(
        self, text: Text, negative: Text, seeds: list[int], size_px: tuple[int, int], steps: int,
        guidance: float,
    ) -> list[Any]:  # fmt: skip
        """One picture (PIL) for each row of ``text``, by the pipeline's own sampler."""
        ...

    def export(self, folder: Path, alpha: float, metadata: Mapping[str, str]) -> None:
        """Write the attached LoRA, that of the text encoders too, in the form that other programs take."""
        ...

    def load_lora(self, folder: Path) -> None:
        """Attach an artifact's LoRA, never fused. Raises LoraBroken unless every key matched."""
        ...

    def scale_lora(self, factor: float) -> None:
        """How strongly it acts."""
        ...


def family_of(name: str) -> Any:
    """The class of a family. Raises NotFound for a name that is in no table."""
    library = logging.getLogger("transformers")
    before = library.level
    library.setLevel(logging.ERROR)  # diffusers' imports make it remark on packages that nobody needs here
    try:
        return load("family", name, FAMILIES)
    finally:
        library.setLevel(before)


def open_family(name: str, pipeline: Any) -> Family:
    """The family of a pack, around its pipeline, ready for training. Raises NotFound."""
    family: Family = family_of(name)(pipeline)
    family.freeze()
    return family


def stack(texts: Sequence[Text]) -> Text:
    """Texts of one row each as one batch, padded; no mask when all are equally long."""
    states = [text.states[0] for text in texts]
    lengths = torch.tensor([len(s) for s in states])
    padded = torch.nn.utils.rnn.pad_sequence(states, batch_first=True)
    pooled = [text.pooled for text in texts if text.pooled is not None]
    together = torch.cat(pooled) if pooled else None
    if bool((lengths == lengths[0]).all()):
        return Text(padded, None, together)
    mask = (torch.arange(padded.shape[1])[None] < lengths[:, None]).long().to(padded.device)
    return Text(padded, mask, together)


def drawn(seeds: Sequence[int], shape: tuple[int, ...]) -> Tensor:
    """Normal noise (B, *shape) in float32 from the CPU, a generator for each seed."""
    return torch.stack([torch.randn(shape, generator=torch.Generator("cpu").manual_seed(s)) for s in seeds])


def pooled_share(mask_HW: NDArray[np.uint8], patch_px: int) -> Tensor:
    """A mask averaged over patches, row by row, (T,) in 0..1."""
    rows, columns = (side // patch_px for side in mask_HW.shape)
    share = torch.from_numpy(mask_HW.copy())[None, None].float() / 255
    return torch.nn.functional.adaptive_avg_pool2d(share, (rows, columns)).flatten()
