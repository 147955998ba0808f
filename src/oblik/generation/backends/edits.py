"""Editing a frame: only what a mask allows is drawn anew, all else stays bit for bit.

In: a plan with a frame to edit, or one whose own pictures are edited after they were made; an adapter for the
plan's references, where it has any. Out: the edited frames. A window around the mask is drawn at the plan's
size by the inpainting pipeline of the pack's family: at every step the latents outside the mask are those of
the noised frame (blended latent diffusion, Avrahami, Fried and Lischinski 2022). The window is then pasted
into the frame through the alpha map: no byte changes where that is zero. Knows nothing of consent.

One picture is drawn at a time: a picture depends on its seed and not on the others.
H height, W width; pixels are uint8 unless a name says otherwise.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import diffusers
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from oblik.diffusion import samplers
from oblik.diffusion.families.family import family_of
from oblik.diffusion.families.qwen_image import EYES
from oblik.errors import BackendUnavailable, InvalidInput
from oblik.faces.masks import OUTLINE, face_mask
from oblik.faces.stack import FaceStack, Points_52
from oblik.generation.adapters import Sight, best_face, lack, no_closer, open_adapter, weights_of
from oblik.generation.backends.control import Control, keeping
from oblik.generation.backends.edit_reference import LORA, EditReference
from oblik.generation.backends.tuning import forget
from oblik.generation.engine import FIRST
from oblik.generation.frames import Box, cut, paste
from oblik.generation.plan import Plan, edits_own
from oblik.generation.record import Record, Step
from oblik.images import open_upright
from oblik.packs.manifest import OpenPack
from oblik.packs.memory_plan import Beside
from oblik.paths import sha256_file

PIPELINES = {
    "QwenImagePipeline": "QwenImageInpaintPipeline",
    "StableDiffusionPipeline": "StableDiffusionInpaintPipeline",
    "StableDiffusionXLPipeline": "StableDiffusionXLInpaintPipeline",
}
"""The pipeline of diffusers that edits with the parts of another."""


class Place(NamedTuple):
    """A frame, what may change in it, the window that is drawn, and the face that is replaced."""

    frame_HW3: NDArray[np.uint8]
    alpha_HW: NDArray[np.uint8]
    box: Box
    face: Points_52 | None = None


class Edits:
    """What is edited for one plan. Files and photos are read when this is made, before any weights are.

    ``made`` are pictures by seed, for a plan that has no frame of its own: their faces are edited. With a
    ``control`` that keeps poses each face is drawn in that of the one it replaces.
    """

    passes, at_once = 1, 1

    def __init__(
        self, plan: Plan, pack: OpenPack, sight: Sight, made: Mapping[int, Path],
        control: Control | None = None,
    ) -> None:  # fmt: skip
        self._plan, self._pack, self._sight, self._control = plan, pack, sight, control
        self._adapter = open_adapter(plan, pack) if plan.references else None
        self._steps: list[Step] = []
        self._stack = ""
        self._sha256: dict[str, str] = {}
        self._frame_sha256: dict[str, str] = {}
        if plan.references:
            stack = sight.stack()
            self._vectors_ND, self._stack = sight.vectors(plan, stack), stack.name
            self._heads_NHW3 = sight.heads(plan, stack, head_side_px(pack))
            self._sha256 = sight.sha256(plan, pack)
        self._places = self._given(plan, sight) if plan.edit else self._faces(sight, made)
        self._words: dict[int, dict[str, Any]] = {}

    def _given(self, plan: Plan, sight: Sight) -> dict[int, Place]:
        assert plan.edit
        paths = {name: sight.file(plan, name) for name in (plan.edit.image, plan.edit.mask)}
        self._frame_sha256 = {name: sha256_file(path) for name, path in paths.items()}
        frame = np.asarray(open_upright(paths[plan.edit.image]).convert("RGB"))
        alpha = np.asarray(open_upright(paths[plan.edit.mask]).convert("L"))
        if frame.shape[:2] != alpha.shape or not alpha.any():
            raise InvalidInput(
                "the mask is empty or not as large as the frame", hint="oblik edit IMAGE --face"
            )
        if plan.edit.strength * plan.steps < 1:
            raise InvalidInput(
                f"strength {plan.edit.strength:g} of {plan.steps} steps is less than one step",
                hint=f"--strength {1 / plan.steps:.2g} or more",
            )
        box = plan.edit.window or (0, 0, frame.shape[1], frame.shape[0])
        return dict.fromkeys(plan.seeds, Place(frame, alpha, box, self._replaced(frame, alpha, sight)))

    def _replaced(self, frame: NDArray[np.uint8], alpha: NDArray[np.uint8], sight: Sight) -> Points_52 | None:
        """The face that an edit draws over, where its pose is to be kept."""
        if not any(each.image is None for each in self._plan.controls):
            return None
        face = face_inside(frame, alpha, sight.stack())
        if face is None:
            reason = "no face is found where the frame may change: there is no pose to keep"
            self._steps.append(Step(name="pose", kind="note", reason=reason))
        return face

    def _faces(self, sight: Sight, made: Mapping[int, Path]) -> dict[int, Place]:
        places = {}
        for seed, path in made.items():
            frame = np.asarray(open_upright(path).convert("RGB"))
            height_px, width_px = frame.shape[:2]
            face = best_face(sight.stack(), frame)
            if face is None:
                reason = f"no face is found in the picture of seed {seed}: it stays as it is"
                self._steps.append(Step(name="edit", kind="note", reason=reason))
                alpha = np.zeros((height_px, width_px), np.uint8)
            else:
                alpha = face_mask(face.landmarks, width_px, height_px, grow=OUTLINE)
            box = (0, 0, width_px, height_px)
            places[seed] = Place(frame, alpha, box, None if face is None else face.landmarks)
        return places

    def begin(self, record: Record) -> None:
        """Put hashes and, as they come, notes into the record."""
        record.references_sha256, record.edit_sha256 = self._sha256, self._frame_sha256
        record.steps += self._steps
        self._steps = record.steps
        record.face_stack = self._stack or None

    def encode(self, pipeline: Any, device: torch.device) -> None:
        """Ask the adapter for its words, while the pipeline's text encoder is there."""
        if self._adapter is None:
            return
        known: dict[str, Any] | None = None
        for seed in self._plan.seeds:
            words = self._seen(pipeline, seed)
            if words is None:
                known = known or self._adapter.words(
                    pipeline, self._plan, self._vectors_ND, pack=self._pack, stack=self._stack
                )
                words = known
            self._words[seed] = placed(words, device)

    def _seen(self, pipeline: Any, seed: int) -> dict[str, Any] | None:
        if not isinstance(self._adapter, EditReference):
            return None
        frame, alpha = self._window(seed)
        return self._adapter.seeing(pipeline, self._plan, frame, alpha, self._heads_NHW3, self._pack)

    def paint(
        self, _paint: Any, pipeline: Any, seeds: tuple[int, ...], words: dict[str, Any], each_step: Any
    ) -> NDArray[np.float32]:
        """The edited frames of some seeds, values 0..1. ``words`` are the plan's own."""
        return np.stack([self._edited(pipeline, seed, words, each_step) for seed in seeds])

    def _edited(self, pipeline: Any, seed: int, words: dict[str, Any], each_step: Any) -> NDArray[np.float32]:
        frame, alpha, box, _face = self._places[seed]
        if alpha.any():
            said = together(words, self._words.get(seed, {}))
            drawn_HW3 = self._drawn(pipeline, seed, said, each_step)
            if not np.isfinite(drawn_HW3).all():
                return np.full(frame.shape, np.nan, np.float32)  # pasted, it could not be told any more
            edited = paste(frame, drawn_HW3, alpha, box)
            frame = frame if self._stays(frame, edited, seed) else edited
        return np.asarray(frame / 255, np.float32)

    def _stays(self, frame: NDArray[np.uint8], edited: NDArray[np.uint8], seed: int) -> bool:
        """Whether an edit of the plan's own picture did not help. Somebody's frame is always edited."""
        if self._plan.edit:
            return False
        reason = no_closer(self._sight.stack(), self._vectors_ND, frame, edited)
        if reason:
            self._steps.append(Step(name="edit", kind="note", reason=f"seed {seed} stays: {reason}"))
        return bool(reason)

    def _window(self, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        frame, alpha, box, _face = self._places[seed]
        size = (self._plan.width_px, self._plan.height_px)
        return cut(frame, box, size), cut(alpha, box, size)

    def _pose(self, seed: int) -> Points_52 | None:
        """The landmarks of the replaced face in the window as it is drawn."""
        _, _, (left, top, right, bottom), face = self._places[seed]
        if face is None:
            return None
        scale = np.array([self._plan.width_px / (right - left), self._plan.height_px / (bottom - top)])
        return np.asarray((face - (left, top)) * scale, np.float32)

    def _drawn(self, pipeline: Any, seed: int, words: dict[str, Any], each_step: Any) -> NDArray[np.float32]:
        """The window, drawn anew where the alpha map allows."""
        plan, (frame, alpha) = self._plan, self._window(seed)
        family = family_of(self._pack.manifest.family)(pipeline)
        strength = plan.edit.strength if plan.edit else 1.0
        skipped = plan.steps - min(plan.steps, int(plan.steps * strength))
        reading: Any = self._adapter.drawing(pipeline, plan) if self._adapter else nullcontext()
        if isinstance(self._adapter, EditReference):
            reading = self._adapter.reading(pipeline, plan, frame, alpha, self._heads_NHW3, self._pack)

        def later(inpainter: Any, step: int, time: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            changed: dict[str, Any] = each_step(inpainter, step + skipped, time, tensors)
            return changed

        samplers.begin(pipeline, (seed,))
        try:
            with keeping(self._control, [self._pose(seed)]), reading:
                images = _inpainter(pipeline)(
                    image=Image.fromarray(frame),
                    mask_image=Image.fromarray(whole_cells(alpha, 2 * pipeline.vae_scale_factor)),
                    strength=strength,
                    generator=[torch.Generator("cpu").manual_seed(seed)],
                    num_inference_steps=plan.steps,
                    width=plan.width_px,
                    height=plan.height_px,
                    output_type="np",
                    callback_on_step_end=later,
                    **{family.guidance: plan.guidance},
                    **words,
                ).images
        finally:
            forget(family.network)
        return np.asarray(images[0], np.float32)


@contextmanager
def made_first(
    plan: Plan, pack: OpenPack, out_dir: Path, run: Callable[[Path], Record]
) -> Iterator[dict[int, Path]]:
    """The pictures of a plan that edits its own, by seed, while the block lasts; none for another plan.
    ``run`` makes them.

    Raises BackendUnavailable before anything is made, where the pack cannot edit.
    """
    if not edits_own(plan):
        yield {}
        return
    open_adapter(plan, pack)
    folder = out_dir / FIRST
    try:
        record = run(folder)
        yield {picture.seed: folder / picture.file for picture in record.pictures}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def needed(plan: Plan, pack: OpenPack) -> Beside:
    """What the plan's references and edits add to its memory plan."""
    faceid = _faceid_bytes(plan, pack)
    if plan.edit is None and not edits_own(plan):
        return Beside(first_steps=plan.steps if plan.references else 0, lora_bytes=faceid)
    if not any(each.adapter == "edit-reference" for each in plan.references):
        return Beside(alone=True, lora_bytes=faceid)
    head = (head_side_px(pack),) * 2
    shown = ((plan.width_px, plan.height_px), *[head for _ in plan.references])
    lora = pack.folder / LORA
    return Beside(
        shown_px=shown,
        seen=len(shown) if (pack.folder / EYES).is_dir() else 0,
        lora_bytes=lora.stat().st_size if lora.is_file() else 0,
        alone=True,
    )


def _faceid_bytes(plan: Plan, pack: OpenPack) -> int:
    """What FaceID adds to the U-Net; its file holds numbers of two bytes."""
    asked = any(each.adapter == "ip-adapter-faceid" for each in plan.references)
    if not asked or lack("ip-adapter-faceid", pack):
        return 0
    file = weights_of("ip-adapter-faceid", pack)
    return file.stat().st_size * (2 if plan.dtype == "float32" else 1) if file.is_file() else 0


def placed(words: dict[str, Any], device: torch.device) -> dict[str, Any]:
    """An adapter's words on a device; lists are the pipeline's to place."""
    return {name: each if isinstance(each, list) else each.to(device) for name, each in words.items()}


def together(words: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """The words of a call with an adapter's: a prompt that these say goes, in whatever form it is."""
    said = {_prompt_of(key) for key in more}
    return {key: value for key, value in words.items() if _prompt_of(key) not in said} | more


def _prompt_of(argument: str) -> str:
    """``negative_prompt_embeds_mask`` -> ``negative_prompt``: the pipeline takes each in one form only."""
    return argument.removesuffix("_mask").removesuffix("_embeds")


def face_inside(
    frame_HW3: NDArray[np.uint8], alpha_HW: NDArray[np.uint8], stack: FaceStack
) -> Points_52 | None:
    """The landmarks of the best face whose middle may change."""
    for face in stack.detect(frame_HW3):
        column, row = np.rint(face.landmarks.mean(axis=0)).astype(int)
        inside = 0 <= row < alpha_HW.shape[0] and 0 <= column < alpha_HW.shape[1]
        if inside and alpha_HW[row, column]:
            return face.landmarks
    return None


def head_side_px(pack: OpenPack) -> int:
    """Heads are shown at half the length that the pack draws at."""
    multiple = pack.manifest.side_multiple_px
    return max(multiple, pack.manifest.native_size_px // 2 // multiple * multiple)


def whole_cells(alpha_HW: NDArray[np.uint8], cell_px: int) -> NDArray[np.uint8]:
    """255 on every cell that may change, even in part: a latent is drawn anew or kept, never mixed."""
    rows, columns = (side // cell_px for side in alpha_HW.shape)
    cells = alpha_HW.reshape(rows, cell_px, columns, cell_px).any((1, 3))
    return np.kron(cells, np.full((cell_px, cell_px), 255)).astype(np.uint8)


def _inpainter(pipeline: Any) -> Any:
    """The family's inpainting pipeline with this pipeline's parts: nothing is copied or moved."""
    name = type(pipeline).__name__
    if name not in PIPELINES:
        raise BackendUnavailable(f"no editing pipeline goes with {name}", hint="oblik pack list")
    inpainter = getattr(diffusers, PIPELINES[name])(**pipeline.components)
    inpainter.set_progress_bar_config(disable=True)
    return inpainter
