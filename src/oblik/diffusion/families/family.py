"""What a trainer needs from a base model, whatever its architecture.

In: a diffusers pipeline. Out: latents of photos, text states with gradients, noised points and what the
network should say there, samples, an exported LoRA. Knows nothing of personas, datasets and optimisers.

B batch, T image tokens, C channels of a token, L text tokens, D text width, H height, W width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

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


class Family(Protocol):
    """A thin reading of a pipeline; it owns no weights of its own.

    ``network`` is what the LoRA is trained on; ``encoders`` are the text encoders by the names that ComfyUI
    gives them; ``levels`` are fixed times for validation, in the unit of `times`.
    """

    pipeline: Any
    network: Any
    encoders: Mapping[str, Any]
    device: torch.device
    levels: Sequence[float]

    def latents(self, image_HW3: NDArray[np.uint8]) -> Tensor:
        """Normalised latents (T, C), float32, of the posterior's mean."""
        ...

    def face_share(self, mask_HW: NDArray[np.uint8]) -> Tensor:
        """How much of each image token the mask covers, (T,) in 0..1."""
        ...

    def noun_ids(self, noun: str) -> list[int]:
        """Token ids of a word as it stands inside a sentence."""
        ...

    def text(self, prompts: list[str]) -> Text:
        """Encode prompts as the pipeline does; gradients reach the token's embedding and a text LoRA."""
        ...

    def times(self, count: int, image_tokens: int, generator: torch.Generator) -> Tensor:
        """Times (count,) as training draws them."""
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

    def export(self, path: Path, alpha: float, metadata: Mapping[str, str]) -> None:
        """Write the attached LoRA in the form that other programs take."""
        ...


def open_family(name: str, pipeline: Any) -> Family:
    """The family of a pack, around its pipeline. Raises NotFound for a name that is in no table."""
    family: Family = load("family", name, FAMILIES)(pipeline)
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


def pooled_share(mask_HW: NDArray[np.uint8], patch_px: int) -> Tensor:
    """A mask averaged over patches, row by row, (T,) in 0..1."""
    rows, columns = (side // patch_px for side in mask_HW.shape)
    share = torch.from_numpy(mask_HW.copy())[None, None].float() / 255
    return torch.nn.functional.adaptive_avg_pool2d(share, (rows, columns)).flatten()
