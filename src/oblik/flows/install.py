"""Copies of a LoRA outside the home folder: into another program, or exported. Each is remembered first.

In: a finished artifact, a folder. Out: files there, written whole, and the list that `persona delete` works
through. Consent is asked at the door. Knows nothing of tensors.
"""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from oblik.errors import BackendError, Conflict, InvalidInput
from oblik.packs.manifest import OpenPack
from oblik.paths import PersonaHome, atomic_file, private_dir, sha256_file
from oblik.personas.installations import Fate, Installation, installations, record, remove_all
from oblik.personas.persona import Consent
from oblik.training.artifact import MANIFEST, TOKEN, WEIGHTS, LoraArtifact
from oblik.training.safetensors_header import copy_renamed, tensors_in

FORMATS = ("comfyui", "diffusers", "kohya")
TEXT_ENCODER = "text_encoder.safetensors"
EMBEDDINGS = "embeddings"
"""Where textual inversions lie in ComfyUI and Easy Diffusion."""
WEIGHT_FILES = {".safetensors", ".ckpt", ".pt", ".sft"}
ROOM_BYTES = 64 * 1024**2
EXPORTED = "export"
LOADS = {
    "comfyui": "Put {file} into ComfyUI's models/loras; any LoRA loader reads it.",
    "diffusers": 'pipeline.load_lora_weights(".", weight_name="{file}")',
    "kohya": "{file} has the key names of sd-scripts (lora_unet_...lora_down/up.weight).",
}


@dataclass(frozen=True)
class Source:
    """A finished artifact and whose it is."""

    home: PersonaHome
    folder: Path
    artifact: LoraArtifact

    @property
    def name(self) -> str:
        """The base name of copies. Programs that know a LoRA by its base name need it to be unique."""
        return f"{self.artifact.persona}-{self.artifact.version}"


def install(source: Source, program: str, folder: Path, now: datetime) -> list[Path]:
    """Copy the LoRA, and its text encoder's part where there is one, under a name that nothing there has.

    The text encoder's part is a LoRA too, and lies beside it. Stable Diffusion's token is a textual inversion
    and goes into the ``embeddings`` beside ``folder``, where there is one; a prompt then says
    ``embedding:<slug>-<version>``. No program reads another text encoder's token; it stays at home.

    Installing again writes the same files again. Raises BackendError when there is no room.
    """
    parts = [(WEIGHTS, folder, ""), (TEXT_ENCODER, folder, "-text-encoder")]
    embeddings, token = folder.parent / EMBEDDINGS, source.folder / TOKEN
    if embeddings.is_dir() and token.is_file() and _of_stable_diffusion(source.folder / WEIGHTS):
        parts.append((TOKEN, embeddings, ""))
    made = []
    for file, place, ending in parts:
        if (source.folder / file).is_file():
            copy = _free_name(source, place, ending)
            _place(source, source.folder / file, copy, program, now)
            made.append(copy)
    return made


def uninstall(home: PersonaHome, version: str | None, program: str | None) -> list[tuple[Installation, Fate]]:
    """Take copies back: of one version or of all, from one program or from everywhere."""

    def wanted(known: Installation) -> bool:
        return version in (None, known.version) and program in (None, known.program)

    return remove_all(home, wanted)


def export(
    source: Source, folder: Path, form: str, consent: Consent, pack: OpenPack | None, now: datetime
) -> list[Path]:
    """Write the LoRA in one form, all that belongs to it, and a README with consent and licences.

    Raises InvalidInput for another form, Conflict when a file is already there.
    """
    if form not in FORMATS:
        raise InvalidInput(f"{form!r} is no format", hint=f"one of: {', '.join(FORMATS)}")
    weights = f"{source.name}.safetensors"
    found = {weights: source.folder / WEIGHTS, "lora.json": source.folder / MANIFEST}
    for name in (TOKEN, TEXT_ENCODER, *_tokenizer(source.folder)):
        if (source.folder / name).is_file():
            found[name] = source.folder / name
    readme = "README.txt"
    if taken := [name for name in (*found, readme) if (folder / name).exists()]:
        raise Conflict(f"{folder / taken[0]} is already there", hint="choose an empty folder")
    private_dir(folder)
    with tempfile.TemporaryDirectory(dir=source.home.loras, prefix=".export-") as scratch:
        if form == "kohya" and source.artifact.trainer != "kohya":
            found[weights] = Path(scratch) / weights
            copy_renamed(source.folder / WEIGHTS, found[weights], kohya_name)
        found[readme] = Path(scratch) / readme
        found[readme].write_text(read_me(source, weights, form, consent, pack), encoding="utf-8")
        for name, file in found.items():
            _place(source, file, folder / name, EXPORTED, now)
    return [folder / name for name in found]


def kohya_name(name: str) -> str:
    """The name that sd-scripts gives to one of our tensors: lora_A is lora_down, dots become underscores.

    A LoRA of Stable Diffusion has such names already.
    """
    if name.startswith("lora_"):
        return name
    module, ending = name, ""
    for ours, theirs in {
        ".lora_A.weight": ".lora_down.weight", ".lora_B.weight": ".lora_up.weight", ".alpha": ".alpha",
    }.items():  # fmt: skip
        if name.endswith(ours):
            module, ending = name.removesuffix(ours), theirs
    return f"lora_unet_{module.removeprefix('diffusion_model.').replace('.', '_')}{ending}"


def read_me(source: Source, weights: str, form: str, consent: Consent, pack: OpenPack | None) -> str:
    """What somebody must know who finds this folder."""
    artifact = source.artifact
    who = "a rendered person, who does not exist" if consent.kind == "synthetic" else "a real person"
    scopes = ", ".join(sorted(scope.value for scope in consent.scopes))
    until = f" until {consent.expires_on}" if consent.expires_on else ""
    lines = [
        f"LoRA {artifact.version} of {artifact.persona}, trained by Oblik on {artifact.pack}.",
        "",
        "Consent",
        f"  It shows {who}. The consent of {consent.signed_on}{until} allows: {scopes}.",
        "  Whoever has this folder can make pictures of this person: pass it on only with their consent.",
        f"  `oblik persona delete {artifact.persona}` removes these files while they lie here unchanged.",
        "",
        "Licences of the base model, which bind what is made from it",
    ]
    lines += [f"  {line}" for line in licences(pack)] or ["  the pack is not on this machine: look it up"]
    lines += ["", "Use", "  " + LOADS[form].format(file=weights)]
    if artifact.token_id >= 0:
        lines += [
            f"  The trigger {artifact.trigger} is a new word: id {artifact.token_id} of tokenizer/; its",
            f"  embedding is the row in {TOKEN}. Without both it is read as the letters it is made of.",
        ]
    else:
        lines.append(f"  The trigger is {artifact.trigger}, read as the letters that it is made of.")
    return "\n".join(lines) + "\n"


def licences(pack: OpenPack | None) -> list[str]:
    """One line for each part of a pack."""
    parts = pack.manifest.components if pack else {}
    return [
        f"{name}: {part.licence}, commercial use {'allowed' if part.commercial_use else 'NOT allowed'}"
        for name, part in parts.items()
    ]


def _of_stable_diffusion(weights: Path) -> bool:
    """Whether a LoRA has sd-scripts' names, as those of Stable Diffusion alone do."""
    return all(name.startswith("lora_") for name in tensors_in(weights))


def _tokenizer(folder: Path) -> list[str]:
    found = (file for place in ("tokenizer", "tokenizer_2") for file in sorted((folder / place).rglob("*")))
    return [file.relative_to(folder).as_posix() for file in found if file.is_file()]


def _free_name(source: Source, folder: Path, ending: str) -> Path:
    """``slug-version.safetensors``; with a number where another file below ``folder`` has that base name."""
    ours = {
        Path(known.path) for known in installations(source.home) if known.version == source.artifact.version
    }
    taken = {
        file.stem.casefold()
        for file in folder.rglob("*")
        if file.suffix.lower() in WEIGHT_FILES and file.absolute() not in ours
    }
    stem, number = source.name + ending, 1
    while (name := stem if number == 1 else f"{stem}-{number}").casefold() in taken:
        number += 1
    return folder / f"{name}.safetensors"


def _place(source: Source, file: Path, copy: Path, program: str, now: datetime) -> None:
    """Remember the copy, then write it whole: a copy that nobody remembers cannot be taken back."""
    if shutil.disk_usage(copy.parent if copy.parent.is_dir() else source.home.root).free < (
        file.stat().st_size + ROOM_BYTES
    ):
        raise BackendError(f"there is no room for {copy.name} in {copy.parent}", hint="oblik config test")
    record(source.home, copy, sha256_file(file), program, now, source.artifact.version)
    try:
        with file.open("rb") as content, atomic_file(copy) as written:
            shutil.copyfileobj(content, written)
    except OSError as problem:
        remove_all(source.home, lambda known: known.path == str(copy) and not copy.exists())
        raise BackendError(
            f"{copy} cannot be written: {problem.strerror}", hint="oblik config test"
        ) from problem
