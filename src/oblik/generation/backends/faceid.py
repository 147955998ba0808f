"""IP-Adapter FaceID: a face as a few more tokens that the U-Net of Stable Diffusion attends to.

In: a pipeline, a plan, face vectors, the pack's weights. Out: what the pipeline's call is told beside its
prompts, and a block inside which the U-Net listens: cross-attention of its own for the face's tokens, added
at the plan's weight (Ye et al. 2023, eq. 5), and the LoRA that FaceID was trained with, at its whole strength
beside the person's at the plan's scale. Afterwards the U-Net is as it was. Knows nothing of masks and steps.

Weights are a pickle as published, read with ``weights_only``: tensors and nothing else. The U-Net is loaded
by diffusers' own mixin, alone: through a whole pipeline that mixin would also switch off a LoRA in the text
encoders and add an image processor that nobody asks.

N photos, D face vector.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers.loaders import IPAdapterMixin
from numpy.typing import NDArray

from oblik.diffusion.lora import ADAPTER as PERSON
from oblik.diffusion.lora import lora_layers
from oblik.errors import BackendUnavailable, PackBroken
from oblik.generation.adapters import faceid_file, pull, stack_command, weights_of
from oblik.generation.backends.shortage import is_shortage
from oblik.generation.backends.tuning import quiet
from oblik.generation.plan import AdapterName, Plan
from oblik.packs.manifest import OpenPack

NAME: AdapterName = "ip-adapter-faceid"
LORA = "faceid_0"
"""What diffusers calls FaceID's LoRA."""
Weights = dict[str, dict[str, torch.Tensor]]


class FaceId:
    """An `oblik.generation.adapters.Adapter`. It keeps the weights from `words` on, in RAM."""

    def words(
        self, pipeline: Any, plan: Plan, vectors_ND: NDArray[np.float32], *, pack: OpenPack, stack: str
    ) -> dict[str, Any]:
        """The faces, side by side (2, N, D) behind as many zeros; without guidance the faces alone.

        Raises:
            BackendUnavailable: the weights were trained with the vectors of another face stack.
            PackBroken: the weights cannot be read, or are those of another model.
        """
        known = faceid_file(pack).face_stack
        if known != stack:
            raise BackendUnavailable(
                f"FaceID in {pack.manifest.name} knows the face vectors of {known!r}, not those of {stack!r}",
                hint=stack_command(known),
            )
        self._file, self._hint = weights_of(NAME, pack), pull(pack, "faceid", "oblik pack verify")
        width = pipeline.unet.config.cross_attention_dim
        self._weights = self._read(pipeline.unet.dtype, (width, vectors_ND.shape[1]))
        faces_1ND = torch.from_numpy(vectors_ND)[None].to(pipeline.unet.dtype)
        halves = [torch.zeros_like(faces_1ND), faces_1ND] if plan.guidance > 1 else [faces_1ND]
        return {"ip_adapter_image_embeds": [torch.cat(halves)]}

    @contextmanager
    def drawing(self, pipeline: Any, plan: Plan) -> Iterator[None]:
        unet = pipeline.unet
        plain, alone = dict(unet.attn_processors), _Alone(unet)
        person = [PERSON] if next(lora_layers(unet), None) else []
        try:
            try:
                with quiet("diffusers.models.modeling_utils"):  # a remark on types that are kept
                    alone.load_ip_adapter(
                        self._weights, subfolder="", weight_name=self._file.name, image_encoder_folder=None
                    )
            except (KeyError, ValueError, RuntimeError) as unfit:
                if is_shortage(unfit):
                    raise
                raise _broken(self._file, unfit, self._hint) from unfit
            alone.set_ip_adapter_scale(plan.references[0].weight)
            if LORA in getattr(unet, "peft_config", {}):
                unet.set_adapters([*person, LORA], [plan.lora_scale] * len(person) + [1.0])
            yield
        finally:
            alone.unload_ip_adapter()
            unet.set_attn_processor(plain)
            if person:
                unet.delete_adapters(LORA)
                unet.set_adapters(person, [plan.lora_scale])
            else:
                unet.unload_lora()

    def _read(self, dtype: torch.dtype, widths: tuple[int, int]) -> Weights:
        """The file's two groups of tensors. ``widths`` are those of a text token and of a face vector."""
        try:
            read = torch.load(self._file, map_location="cpu", weights_only=True)
            groups = {
                name: {key: value.to(dtype) for key, value in read[name].items()}
                for name in ("image_proj", "ip_adapter")
            }
            first, norm = (groups["image_proj"][key] for key in ("proj.0.weight", "norm.weight"))
        except (
            OSError, EOFError, pickle.UnpicklingError, RuntimeError, KeyError, TypeError, AttributeError,
        ) as broken:  # fmt: skip
            if is_shortage(broken):
                raise
            raise _broken(self._file, broken, self._hint) from broken
        if (norm.shape[0], first.shape[1]) != widths:
            found = f"text tokens of {norm.shape[0]} numbers and faces of {first.shape[1]}"
            raise _broken(self._file, f"it is for {found}, not {widths[0]} and {widths[1]}", self._hint)
        return groups


class _Alone(IPAdapterMixin):  # type: ignore[misc]
    """A U-Net as diffusers' mixin wants to find it in a pipeline."""

    def __init__(self, unet: Any) -> None:
        self.unet = unet

    def load_lora_weights(self, weights: dict[str, torch.Tensor], adapter_name: str) -> None:
        """The mixin's call for the LoRA among the weights."""
        with warnings.catch_warnings():  # peft asks whether a second adapter is meant
            warnings.filterwarnings("ignore", "Already found a `peft_config`")
            self.unet.load_lora_adapter(
                weights, prefix="unet", adapter_name=adapter_name, low_cpu_mem_usage=True
            )

    def set_adapters(self, names: list[str], adapter_weights: list[float]) -> None:
        """The mixin's next call."""
        self.unet.set_adapters(names, adapter_weights)


def _broken(file: Path, why: object, hint: str) -> PackBroken:
    return PackBroken(f"the FaceID weights {file.name} cannot be used: {why}", hint=hint)
