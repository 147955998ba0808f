"""Reference adapters: ways to draw a picture towards a person's photos, and what a pack lacks for each.

In: a pack, a plan's references. Out: the adapter that the pack can run, a sentence for each that it cannot,
and the photos as face vectors of the one face stack. The Protocol mentions no tensor library; beside it
stands the table of those that are built. Knows nothing of networks.

N photos, D face vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from oblik.errors import BackendUnavailable, InvalidInput, NotFound, PackBroken
from oblik.faces.crops import head_crop
from oblik.faces.stack import Face, FaceStack
from oblik.generation.plan import AdapterName, Plan
from oblik.images import open_upright
from oblik.packs.manifest import InnerPath, OpenPack
from oblik.paths import sha256_file
from oblik.registry import load


class Adapter(Protocol):
    """What turns faces into something a pipeline is told beside, or in place of, the prompt."""

    def words(
        self, pipeline: Any, plan: Plan, vectors_ND: NDArray[np.float32], *, pack: OpenPack, stack: str
    ) -> dict[str, Any]:
        """Arguments of the pipeline's call, beside or in place of its prompts, that draw towards these faces.

        ``plan.references`` says how strongly; ``stack`` names the face stack of the vectors.

        Raises:
            BackendUnavailable: the pack's part was trained with the vectors of another face stack.
        """
        ...

    def drawing(self, pipeline: Any, plan: Plan) -> AbstractContextManager[None]:
        """Inside, the pipeline's networks understand what `words` told; afterwards they are as before."""
        ...


class Lack(NamedTuple):
    """What a pack cannot do, what does instead, and the next command."""

    what: str
    instead: str
    hint: str

    def sentence(self) -> str:
        """One line for a person."""
        return f"{self.what}; {self.instead}: {self.hint}"


class Kind(NamedTuple):
    """One kind of adapter: the families that know it, the pack's file or folder that it reads, what a pack of
    another family is told; ``get`` is how a pack of these families comes to the part: an option of the
    catalogue, or a command."""

    families: tuple[str, ...]
    part: str
    stranger: str
    instead: str
    hint: str
    get: str


BACKENDS = {
    "identity-tokens": "oblik.generation.backends.identity_tokens:IdentityTokens",
    "ip-adapter-faceid": "oblik.generation.backends.faceid:FaceId",
    "edit-reference": "oblik.generation.backends.edit_reference:EditReference",
}
EXTRAS: dict[str, str] = {}
KINDS: dict[AdapterName, Kind] = {
    "identity-tokens": Kind(
        ("qwen_image",),
        "identity/projector.safetensors",
        "identity tokens are for Qwen-Image",
        "a larger picture with more steps and a stronger LoRA is what is left",
        "oblik generate PROMPT --mode reliable --lora-scale 0.9",
        "oblik adapter train",
    ),
    "ip-adapter-faceid": Kind(
        ("stable_diffusion",),
        "faceid/faceid.json",
        "no FaceID adapter exists for this family",
        "identity tokens do the same, in packs that have them",
        "oblik pack list",
        "faceid",
    ),
    "edit-reference": Kind(
        ("qwen_image",),
        "edit",
        "editing with references is Qwen-Image-Edit's",
        "identity tokens at a larger weight draw the face again, in packs that have them; else a better LoRA "
        "from more photos is what is left",
        "oblik dataset build PHOTOS && oblik train",
        "edit",
    ),
}
STEERING: tuple[AdapterName, ...] = ("identity-tokens", "ip-adapter-faceid")
"""Those that draw a picture made from words towards a person, the preferred one first."""


class FaceIdFile(BaseModel):
    """``faceid.json``: the name of the face stack that FaceID was trained with, and the weights beside it."""

    model_config = ConfigDict(extra="forbid")

    face_stack: str = Field(min_length=1)
    weights: InnerPath


def faceid_file(pack: OpenPack) -> FaceIdFile:
    """What the pack says of its FaceID. Raises PackBroken when that cannot be read."""
    file = pack.find(KINDS["ip-adapter-faceid"].part)
    try:
        return FaceIdFile.model_validate_json(file.read_bytes())
    except (OSError, ValidationError) as broken:
        hint = pull(pack, "faceid", "oblik pack verify")
        raise PackBroken(f"{file} cannot be read: {broken}", hint=hint) from broken


def weights_of(name: AdapterName, pack: OpenPack) -> Path:
    """The file or folder that an adapter of the pack reads; it need not exist."""
    part = pack.find(KINDS[name].part)
    return part.parent / faceid_file(pack).weights if name == "ip-adapter-faceid" else part


def stack_command(name: str) -> str:
    """The next command of somebody who needs the face stack called ``name``."""
    from oblik.packs.catalogue import catalogue

    for entry in catalogue().values():
        if entry.faces and entry.faces.name == name:
            return f"oblik --face-stack {entry.name} generate ..."
    return "no pack in the catalogue has that face stack: oblik pack list"


def lack(name: AdapterName, pack: OpenPack) -> Lack | None:
    """What the pack lacks for this adapter; None where it can be used."""
    kind, manifest, hint = KINDS[name], pack.manifest, KINDS[name].hint
    if manifest.family not in kind.families:
        what = f"{name}: {kind.stranger}, {manifest.name} is of the family {manifest.family}"
    elif not pack.find(kind.part).exists():
        what = f"{name}: the pack {manifest.name} has no {kind.part}"
        hint = kind.get if kind.get.startswith("oblik ") else pull(pack, kind.get, hint)
    else:
        return None
    return Lack(what, kind.instead if hint == kind.hint else f"{kind.instead}; or get it", hint)


def pull(pack: OpenPack, option: str, otherwise: str = "oblik pack list") -> str:
    """The command that brings an option of the pack, where the catalogue offers it."""
    from oblik.packs.catalogue import catalogue

    entry = catalogue().get(pack.manifest.name)
    if entry is None or option not in entry.options:
        return otherwise
    return f"oblik pack pull {entry.name} --with {option}"


def usable(pack: OpenPack, among: Sequence[AdapterName] = STEERING) -> AdapterName | None:
    """The first adapter of ``among`` that the pack can run; None without any."""
    return next((name for name in among if lack(name, pack) is None), None)


def editing(pack: OpenPack) -> AdapterName | None:
    """The adapter that draws a face into a frame: the editing one, else the preferred of `STEERING`."""
    return usable(pack, ("edit-reference", *STEERING))


def open_adapter(plan: Plan, pack: OpenPack) -> Adapter:
    """The adapter of the plan's references.

    Raises:
        BackendUnavailable: the pack cannot run it; the message says what it lacks.
        InvalidInput: the references ask for several adapters or strengths at once.
    """
    asked = {(reference.adapter, reference.weight) for reference in plan.references}
    if len(asked) != 1:
        raise InvalidInput(
            "the references of one plan share an adapter and a weight", hint="oblik generate --help"
        )
    if not all(reference.face_mask_only for reference in plan.references):
        raise InvalidInput(
            "references change the face only: face_mask_only = true", hint="oblik generate --help"
        )
    name = plan.references[0].adapter
    if missing := lack(name, pack):
        raise BackendUnavailable(missing.what, hint=f"{missing.instead}: {missing.hint}")
    adapter: Adapter = load("reference adapter", name, BACKENDS, EXTRAS)()
    return adapter


@dataclass(frozen=True)
class Sight:
    """What an engine may look with: the folder of all personas, where reference photos lie, and the one
    face stack, opened when it is first needed."""

    personas: Path
    stack: Callable[[], FaceStack]

    def photos(self, plan: Plan) -> list[Path]:
        """The files of the plan's references, each inside the folder of the plan's persona.

        Raises:
            InvalidInput: there is no persona, or a photo lies outside its folder.
            NotFound: a photo is not there.
        """
        return [self.file(plan, reference.image) for reference in plan.references]

    def file(self, plan: Plan, name: str) -> Path:
        """A file of the plan's persona: a reference, an edit's frame or mask; raises as `photos`."""
        home = (self.personas / (plan.persona or "")).resolve()
        if home.parent != self.personas.resolve():
            raise InvalidInput("a reference needs a persona", hint="oblik persona list")
        path = (home / name).resolve()
        if not path.is_relative_to(home):
            raise InvalidInput(
                f"the reference {name!r} is not of the persona {plan.persona!r}",
                hint="references are photos of the persona's own dataset",
            )
        if not path.is_file():
            raise NotFound(f"the reference {name!r} is not there", hint="oblik dataset build PHOTOS")
        return path

    def sha256(self, plan: Plan, pack: OpenPack) -> dict[str, str]:
        """Hashes of the plan's references, and of its adapter's file where that is no part of the pack's
        version: trained here, or put there by hand. Raises as `photos`."""
        files = zip(plan.references, self.photos(plan), strict=True)
        found = {reference.image: sha256_file(path) for reference, path in files}
        parts = pack.manifest.components.values()
        versioned = {pack.folder / file.path for part in parts for file in part.files}
        name = plan.references[0].adapter
        read: list[AdapterName] = [name, "identity-tokens"] if name == "edit-reference" else [name]
        for each in read:
            adapter = weights_of(each, pack)
            if adapter.is_file() and adapter not in versioned:
                found[adapter.name] = sha256_file(adapter)
        return found

    def vectors(self, plan: Plan, stack: FaceStack) -> NDArray[np.float32]:
        """Unit face vectors (N, D) of the plan's references. InvalidInput where a photo has no face."""
        return np.stack([stack.embed(pixels, face) for pixels, face in self._faces(plan, stack)])

    def heads(self, plan: Plan, stack: FaceStack, side_px: int) -> NDArray[np.uint8]:
        """The heads (N, side, side, 3) on the plan's references; raises as `vectors`."""
        return np.stack([
            head_crop(pixels, face.landmarks, side_px) for pixels, face in self._faces(plan, stack)
        ])  # fmt: skip

    def _faces(self, plan: Plan, stack: FaceStack) -> Iterator[tuple[NDArray[np.uint8], Face]]:
        for path in self.photos(plan):
            pixels_HW3 = np.asarray(open_upright(path).convert("RGB"))
            face = best_face(stack, pixels_HW3)
            if face is None:
                raise InvalidInput(f"no face is found in {path.name}", hint="choose another photo")
            yield pixels_HW3, face


def best_face(stack: FaceStack, pixels_HW3: NDArray[np.uint8]) -> Face | None:
    """The face that everything else measures too: the best one found."""
    return next(iter(stack.detect(pixels_HW3)), None)


def no_closer(
    stack: FaceStack, vectors_ND: NDArray[np.float32], before_HW3: NDArray[np.uint8],
    after_HW3: NDArray[np.uint8],
) -> str:  # fmt: skip
    """Why a face that references drew is not taken: it is no closer to them than the one before; else ""."""
    mean_D = vectors_ND.mean(axis=0)
    cosines = []
    for pixels_HW3 in (before_HW3, after_HW3):
        face = best_face(stack, pixels_HW3)
        if face is None:
            cosines.append(-1.0)
        else:
            cosines.append(float(stack.embed(pixels_HW3, face) @ mean_D / np.linalg.norm(mean_D)))
    before, after = cosines
    return "" if after > before else f"its face comes no closer to the photos ({before:.2f}, now {after:.2f})"
