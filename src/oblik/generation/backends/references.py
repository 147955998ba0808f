"""Pictures whose faces, and only their faces, are drawn towards reference photos.

In: a plan with references, an adapter, a way to make pictures from words. Out: the pictures. Each is made
twice from the same noise: first without the references, where its face is found; then with them, and at every
step the latents outside the face are replaced by those of the first run (blended latent diffusion, Avrahami,
Fried and Lischinski 2022; the first run's own path takes the place of a noised source). At the end the two
pictures meet in the feathered mask, so a pixel outside of it is the first run's, bit for bit. A picture in
which no face is found, or whose face comes no closer to the photos, stays as it was, and that is noted. Knows
nothing of prompts and packs.

B pictures, H height, W width; latents are packed (B, N, C) or maps (B, C, h, w).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from oblik.errors import InvalidInput
from oblik.faces.masks import OUTLINE, face_mask
from oblik.faces.stack import Face
from oblik.generation.adapters import Sight, best_face, no_closer, open_adapter
from oblik.generation.backends.control import Control, keeping
from oblik.generation.backends.edits import Edits, placed, together
from oblik.generation.plan import Plan, edits_own
from oblik.generation.record import Record, Step
from oblik.packs.manifest import OpenPack

Pixels_BHW3 = NDArray[np.floating[Any]]
EachStep = Callable[[Any, int, Any, dict[str, Any]], dict[str, Any]]
Paint = Callable[[dict[str, Any], EachStep], Pixels_BHW3]
"""The words of a pipeline's call, what is done after each step -> pictures, values 0..1."""


class References:
    """The references of one plan. Photos are read and embedded when this is made, before any weights are."""

    passes, at_once = 2, None

    @classmethod
    def of(
        cls, plan: Plan, pack: OpenPack, sight: Sight | None, made: Mapping[int, Path],
        control: Control | None = None,
    ) -> References | Edits | None:  # fmt: skip
        """The plan's, None where it has none. Raises InvalidInput when nothing can look at photos.

        ``made`` are the pictures that an editing plan begins with; ``control`` may keep poses.
        """
        if not plan.references and not plan.edit:
            return None
        if sight is None:
            raise InvalidInput(
                "references need a face stack, and this engine has none",
                hint="oblik generate --mode reliable",
            )
        if plan.edit or edits_own(plan):
            return Edits(plan, pack, sight, made, control)
        return cls(plan, pack, sight, control)

    def __init__(self, plan: Plan, pack: OpenPack, sight: Sight, control: Control | None) -> None:
        self._plan, self._pack, self._stack, self._control = plan, pack, sight.stack(), control
        self._adapter = open_adapter(plan, pack)
        self._vectors_ND = sight.vectors(plan, self._stack)
        self._drawn: dict[str, Any] = {}
        self._sha256 = sight.sha256(plan, pack)
        self._steps: list[Step] = []

    def begin(self, record: Record) -> None:
        """Put hashes and, as they come, notes into the record."""
        record.references_sha256, self._steps = self._sha256, record.steps
        record.face_stack = self._stack.name

    def encode(self, pipeline: Any, device: torch.device) -> None:
        """Ask the adapter for its words, while the pipeline's text encoder is there."""
        words = self._adapter.words(
            pipeline, self._plan, self._vectors_ND, pack=self._pack, stack=self._stack.name
        )
        self._drawn = placed(words, device)

    def paint(
        self, paint: Paint, pipeline: Any, seeds: tuple[int, ...], words: dict[str, Any], each_step: EachStep
    ) -> Pixels_BHW3:
        """The pictures of some seeds. ``words`` are those of the run without references."""
        path: list[Tensor] = []
        first_BHW3 = paint(words, _then(each_step, lambda latents, _step: _kept(latents, path)))
        faces = [self._face(image, seed) for image, seed in zip(first_BHW3, seeds, strict=True)]
        masks_BHW = np.stack([_mask(face, first_BHW3.shape[1:3]) for face in faces])
        if not masks_BHW.any():
            return first_BHW3

        def blend(latents: Tensor, step: int) -> Tensor:
            inside = inside_face(pipeline, masks_BHW, latents)
            return torch.where(inside, latents, path[step].to(latents.device))

        poses = [None if face is None else face.landmarks for face in faces]
        with keeping(self._control, poses), self._adapter.drawing(pipeline, self._plan):
            drawn_BHW3 = paint(together(words, self._drawn), _then(each_step, blend))
        met_BHW3 = np.asarray(first_BHW3 + masks_BHW[..., None] * (drawn_BHW3 - first_BHW3), first_BHW3.dtype)
        for place, (face, seed) in enumerate(zip(faces, seeds, strict=True)):
            if face is not None and self._stays(first_BHW3[place], met_BHW3[place], seed):
                met_BHW3[place] = first_BHW3[place]
        return met_BHW3

    def _stays(self, before_HW3: NDArray[Any], after_HW3: NDArray[Any], seed: int) -> bool:
        """Whether the references did not help; what is broken is not judged here."""
        if not np.isfinite(after_HW3).all():
            return False
        reason = no_closer(self._stack, self._vectors_ND, _uint8(before_HW3), _uint8(after_HW3))
        if reason:
            self._steps.append(Step(name="reference", kind="note", reason=f"seed {seed} stays: {reason}"))
        return bool(reason)

    def _face(self, image_HW3: NDArray[Any], seed: int) -> Face | None:
        """The face that would be measured."""
        face = best_face(self._stack, _uint8(image_HW3))
        if face is None:
            reason = f"no face is found in the picture of seed {seed}: it stays without references"
            self._steps.append(Step(name="reference", kind="note", reason=reason))
        return face


def _uint8(image_HW3: NDArray[Any]) -> NDArray[np.uint8]:
    return np.asarray(np.round(image_HW3 * 255), np.uint8)


def _mask(face: Face | None, size_px: tuple[int, ...]) -> NDArray[np.float32]:
    """The feathered mask (H, W) of a face, 0..1; empty where there is none."""
    height_px, width_px = size_px
    if face is None:
        return np.zeros((height_px, width_px), np.float32)
    return np.asarray(face_mask(face.landmarks, width_px, height_px, grow=OUTLINE) / 255, np.float32)


def inside_face(pipeline: Any, masks_BHW: NDArray[np.float32], latents: Tensor) -> Tensor:
    """Which values of the latents lie under a mask, even in part; of the latents' own shape."""
    masks_B1HW = torch.from_numpy(masks_BHW)[:, None].to(latents.device)
    if latents.ndim == 4:
        return (F.adaptive_max_pool2d(masks_B1HW, latents.shape[-2:]) > 0).expand_as(latents)
    count, _, packed = latents.shape
    rows, columns = (2 * (side // (pipeline.vae_scale_factor * 2)) for side in masks_BHW.shape[1:])
    cells = F.adaptive_max_pool2d(masks_B1HW, (rows, columns))[:, None].expand(-1, -1, packed // 4, -1, -1)
    inside: Tensor = pipeline._pack_latents(cells.contiguous(), count, packed // 4, rows, columns) > 0
    return inside


def _kept(latents: Tensor, path: list[Tensor]) -> Tensor:
    path.append(latents.detach().to("cpu", copy=True))
    return latents


def _then(each_step: EachStep, change: Callable[[Tensor, int], Tensor]) -> EachStep:
    """``each_step``, and then the latents changed."""

    def both(pipeline: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        tensors = each_step(pipeline, step, time, tensors)
        return tensors | {"latents": change(tensors["latents"], step)}

    return both
