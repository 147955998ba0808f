"""A ControlNet beside the engine's network: pictures that follow a control image.

In: a plan with a control, the family of an open pack. Out: blocks inside which every call of the family's
network hears the net (Zhang, Rao and Agrawala 2023), whichever pipeline calls it: one that makes pictures or
one that edits them. diffusers' control pipelines say the same to the network in their loops (a test compares
the pictures); those for edits of Qwen-Image want a net that reads the masked frame as well, and all take one
image for a whole batch. A kept pose is an image for each picture, drawn from landmarks. Knows nothing of
depths, and of where landmarks come from.

B batch, T tokens, C packed channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from oblik.diffusion.families.family import Family
from oblik.errors import BackendUnavailable, InvalidInput, PackBroken
from oblik.faces.stack import Points_52
from oblik.generation.adapters import Sight
from oblik.generation.control import fitted, lack, net_folder, pose_image
from oblik.generation.plan import Plan
from oblik.generation.record import Record
from oblik.images import open_upright
from oblik.packs.manifest import OpenPack
from oblik.paths import sha256_file

Call = dict[str, Any]


class Net(NamedTuple):
    """An open ControlNet and the folder that it was read from."""

    folder: Path
    network: Any


class Control:
    """The control of one plan. An image that it names is read when this is made, before any weights are."""

    @classmethod
    def of(cls, plan: Plan, pack: OpenPack, sight: Sight | None) -> Control | None:
        """The plan's; None where it has none.

        Raises:
            BackendUnavailable: the pack has no ControlNet; the hint is what does instead.
            InvalidInput: the plan has several controls, nothing knows where images lie, or a pose is to be
                kept where there is no face yet.
        """
        if not plan.controls:
            return None
        if len(plan.controls) > 1:
            raise InvalidInput("a picture follows one control image", hint="oblik generate --help")
        if missing := lack(plan.controls[0].kind, pack):
            raise BackendUnavailable(missing.what, hint=f"{missing.instead}: {missing.hint}")
        if plan.controls[0].image is None and not (plan.references or plan.edit):
            raise InvalidInput("there is no face yet to keep the pose of", hint="oblik generate --pose PHOTO")
        if plan.controls[0].image is not None and sight is None:
            raise InvalidInput(
                "a control image needs the folder of a persona", hint="oblik generate --pose PHOTO"
            )
        return cls(plan, pack, sight)

    def __init__(self, plan: Plan, pack: OpenPack, sight: Sight | None) -> None:
        asked = plan.controls[0]
        folder = net_folder(asked.kind, pack)
        assert folder is not None
        self._folder, self._weight = folder, asked.weight
        self._size_px = (plan.width_px, plan.height_px)
        self._image: Image.Image | None = None
        self._sha256: dict[str, str] = {}
        self._joined: tuple[Net, Family] | None = None
        if asked.image is not None and sight is not None:
            path = sight.file(plan, asked.image)
            self._image = fitted(open_upright(path), self._size_px)
            self._sha256 = {asked.image: sha256_file(path)}

    def begin(self, record: Record) -> None:
        """Put the image's hash into the record."""
        record.references_sha256 = record.references_sha256 | self._sha256

    def join(self, kept: Net | None, family: Family, dtype: torch.dtype, device: torch.device) -> Net:
        """Take the net for this family's network: that of the last run, where it is the same."""
        if kept is None or kept.folder != self._folder or kept.network.dtype != dtype:
            kind = NETS[type(family.network).__name__].net
            try:
                net = getattr(diffusers, kind).from_pretrained(
                    self._folder, torch_dtype=dtype, local_files_only=True
                )
            except (OSError, ValueError) as broken:
                raise PackBroken(
                    f"the ControlNet in {self._folder} cannot be loaded: {broken}", hint="oblik pack verify"
                ) from broken
            kept = Net(self._folder, net.to(device).requires_grad_(False))
        self._joined = kept, family
        return kept

    def following(self) -> AbstractContextManager[None]:
        """Inside, everything follows the plan's own image; where a pose is kept, nothing does yet."""
        return nullcontext() if self._image is None else self._hearing([self._image])

    def keeping(self, faces: Sequence[Points_52 | None]) -> AbstractContextManager[None]:
        """Inside, each picture of a batch keeps the pose of its own face; nothing where the plan has an image
        or nobody has a face."""
        if self._image is not None or all(face is None for face in faces):
            return nullcontext()
        blank = Image.new("RGB", self._size_px)
        return self._hearing([blank if face is None else pose_image(face, *self._size_px) for face in faces])

    @contextmanager
    def _hearing(self, images: Sequence[Image.Image]) -> Iterator[None]:
        assert self._joined is not None
        (_, net), family = self._joined
        beside = NETS[type(family.network).__name__]
        shown = torch.cat([beside.shown(family, np.asarray(image)) for image in images])
        hook = family.network.register_forward_pre_hook(
            beside.told(net, shown.to(family.device, net.dtype), self._weight), with_kwargs=True
        )
        try:
            yield
        finally:
            hook.remove()


def keeping(control: Control | None, faces: Sequence[Points_52 | None]) -> AbstractContextManager[None]:
    """`Control.keeping`; nothing without a control."""
    return nullcontext() if control is None else control.keeping(faces)


def room_beside(plan: Plan, pack: OpenPack, vram_bytes: int | None) -> int | None:
    """What a memory plan may use beside the plan's ControlNet, as large in memory as on disk."""
    folder = net_folder(plan.controls[0].kind, pack) if plan.controls else None
    if folder is None or vram_bytes is None:
        return vram_bytes
    return vram_bytes - sum(file.stat().st_size for file in folder.glob("*.safetensors"))


def _latents(family: Family, image_HW3: Any) -> Tensor:
    """What Qwen-Image's net is shown: the image through the VAE, (1, T, C)."""
    return family.latents(image_HW3)[None]


def _pixels(_family: Family, image_HW3: Any) -> Tensor:
    """What Stable Diffusion's net is shown: (1, 3, H, W) in 0..1."""
    return torch.from_numpy(image_HW3.copy()).permute(2, 0, 1)[None] / 255


def _told_transformer(net: Any, shown_BTC: Tensor, weight: float) -> Any:
    """With guidance the second pass of a step, over the same latents, is told what the first was."""
    last: list[Any] = []

    def before(_network: Any, args: Any, call: Call) -> tuple[Any, Call]:
        noisy_BTC = call["hidden_states"]
        if not last or last[0] is not noisy_BTC:
            names = ("timestep", "encoder_hidden_states", "encoder_hidden_states_mask", "img_shapes")
            last[:] = noisy_BTC, net(
                hidden_states=noisy_BTC, controlnet_cond=_rows(shown_BTC, len(noisy_BTC)),
                conditioning_scale=weight, return_dict=False, **{name: call.get(name) for name in names},
            )  # fmt: skip
        return args, call | {"controlnet_block_samples": last[1]}

    return before


def _told_unet(net: Any, shown_B3HW: Tensor, weight: float) -> Any:
    """With guidance the rows are those of the negative prompt, then those of the prompt."""

    def before(_network: Any, args: Any, call: Call) -> tuple[Any, Call]:
        down, middle = net(
            *args[:2], encoder_hidden_states=call["encoder_hidden_states"],
            controlnet_cond=_rows(shown_B3HW, len(args[0])), conditioning_scale=weight,
            added_cond_kwargs=call.get("added_cond_kwargs"), return_dict=False,
        )  # fmt: skip
        more = {"down_block_additional_residuals": down, "mid_block_additional_residual": middle}
        return args, call | more

    return before


def _rows(shown: Tensor, count: int) -> Tensor:
    return shown.repeat(count // len(shown), *[1] * (shown.ndim - 1))


class Beside(NamedTuple):
    """A net's class in diffusers (which imports it when it is first asked for), how it is shown an image, and
    what is done before each call of the network that it goes with."""

    net: str
    shown: Callable[[Family, Any], Tensor]
    told: Callable[[Any, Tensor, float], Any]


NETS = {
    "QwenImageTransformer2DModel": Beside("QwenImageControlNetModel", _latents, _told_transformer),
    "UNet2DConditionModel": Beside("ControlNetModel", _pixels, _told_unet),
}
"""By the class of the network."""
