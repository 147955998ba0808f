"""Where other programs keep their LoRAs, and whether a folder can take one.

In: settings. Out: folders; a `Check` of each with what is wrong with it. What is read of the programs is
their own configuration: Easy Diffusion's ``config.yaml`` (``models_dir``), ComfyUI's
``extra_model_paths.yaml``. Knows nothing of LoRAs.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from oblik.errors import InvalidInput, NotFound, OblikError
from oblik.paths import expanded
from oblik.settings import Settings
from oblik.training.backends.kohya import SCRIPT, SDXL_SCRIPT, find_accelerate

EASY_DIFFUSION, COMFYUI = "easy-diffusion", "comfyui"
NAMES = {EASY_DIFFUSION: ("lora", "Lora"), COMFYUI: ("loras",)}
"""What the folder is called under a program's ``models``, best first."""
ANY = ("loras", "lora", "Lora")
SETTINGS = {EASY_DIFFUSION: "easy_diffusion_dir", COMFYUI: "comfyui_dir"}
GIB = 1024**3
LEAST_FREE_BYTES = 2 * GIB


@dataclass(frozen=True)
class Check:
    """One place of the settings. ``problem`` is empty when nothing is wrong; ``place`` None is not set."""

    name: str
    place: Path | None
    free_bytes: int | None = None
    problem: str = ""


def target(to: str, settings: Settings) -> tuple[str, Path]:
    """The program's name and the folder for LoRAs that ``--to`` means: a program, or a folder.

    Raises InvalidInput when the program's folder is not set, NotFound when there is no folder for LoRAs.
    """
    if to not in SETTINGS:
        return "folder", lora_folder("", expanded(to).absolute())
    root: Path | None = getattr(settings, SETTINGS[to])
    if root is None:
        raise InvalidInput(
            f"{SETTINGS[to]} is not set",
            hint=f"write {SETTINGS[to]} into oblik.toml, then: oblik config test",
        )
    return to, lora_folder(to, root)


def lora_folder(program: str, root: Path) -> Path:
    """The folder for LoRAs below ``root``: a program's, or, without one, of whatever lies there.

    ``root`` may be the folder for LoRAs itself. Raises NotFound, naming what was looked for.
    """
    if not root.is_dir():
        raise NotFound(f"there is no folder {root}", hint="oblik config test")
    looked_for = list(_candidates(program, root))
    for place in looked_for:
        if place.is_dir():
            return place
    if not program:
        return root
    raise NotFound(
        f"{root} has no folder for LoRAs; looked for: {', '.join(str(place) for place in looked_for)}",
        hint="make that folder, then: oblik config test",
    )


def check_all(settings: Settings) -> list[Check]:
    """Every folder of the settings that LoRAs go through, and what sd-scripts needs."""
    script = settings.kohya_script_path
    folder = script if script is None or script.is_dir() else script.parent
    workspace = settings.kohya_workspace or folder
    return [
        _check("home", settings.home, _nearest),
        _check("easy_diffusion_dir", settings.easy_diffusion_dir, lambda r: lora_folder(EASY_DIFFUSION, r)),
        _check("comfyui_dir", settings.comfyui_dir, lambda root: lora_folder(COMFYUI, root)),
        _script("kohya.script_path", folder, SCRIPT),
        _script("kohya.script_path (SDXL)", folder, SDXL_SCRIPT),
        _check("kohya.workspace", workspace, _folder),
        _accelerate(settings, workspace),
    ]


def _candidates(program: str, root: Path) -> Iterator[Path]:
    """Where the folder may be, best first."""
    names = NAMES.get(program, ANY)
    if root.name in names or root.name in ANY:
        yield root
    first, last = _extra_model_paths(root) if program == COMFYUI else ([], [])
    yield from first
    models = [root / "models", root]
    if program == EASY_DIFFUSION and (named := _yaml(root / "config.yaml").get("models_dir")):
        models = [expanded(str(named))]
    for parent in models:
        yield from (parent / name for name in names)
    yield from last


def _extra_model_paths(root: Path) -> tuple[list[Path], list[Path]]:
    """The ``loras`` folders of ComfyUI's extra_model_paths.yaml: those marked as default, and the others."""
    first: list[Path] = []
    last: list[Path] = []
    for group in _yaml(root / "extra_model_paths.yaml").values():
        if not isinstance(group, dict):
            continue
        parent = root / expanded(str(group.get("base_path") or ""))
        places = [
            parent / line.strip() for line in str(group.get("loras") or "").splitlines() if line.strip()
        ]
        (first if group.get("is_default") else last).extend(places)
    return first, last


def _yaml(file: Path) -> dict[str, Any]:
    """The mapping in a program's file, empty when there is none. Raises InvalidInput when it is damaged."""
    import yaml

    if not file.is_file():
        return {}
    try:
        found = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as broken:
        raise InvalidInput(f"{file} cannot be read as YAML", hint=f"mend {file}") from broken
    return found if isinstance(found, dict) else {}


def _check(name: str, place: Path | None, find: Callable[[Path], Path]) -> Check:
    """Whether the folder that ``find`` makes of a setting is there, can be written, and has room."""
    if place is None:
        return Check(name, None)
    try:
        found = find(place)
        with tempfile.TemporaryFile(dir=found):
            pass
    except OblikError as problem:
        return Check(name, place, problem=problem.message)
    except OSError as problem:
        return Check(name, found, problem=f"cannot be written: {problem.strerror}")
    free = shutil.disk_usage(found).free
    low = f"only {free / GIB:.1f} GiB free, {LEAST_FREE_BYTES / GIB:.0f} GiB are advised"
    return Check(name, found, free, low if free < LEAST_FREE_BYTES else "")


def _folder(place: Path) -> Path:
    if not place.is_dir():
        raise NotFound(f"there is no folder {place}", hint="oblik config test")
    return place


def _nearest(place: Path) -> Path:
    """A folder that need not exist yet: it, or the parent that it will be made in."""
    return next(folder for folder in (place, *place.parents) if folder.is_dir())


def _script(name: str, folder: Path | None, file: str) -> Check:
    if folder is None:
        return Check(name, None)
    place = folder / file
    return Check(name, place, problem="" if place.is_file() else "there is no such file")


def _accelerate(settings: Settings, workspace: Path | None) -> Check:
    named = settings.kohya_accelerate_bin
    if workspace is None and named is None:
        return Check("kohya.accelerate_bin", None)
    try:
        return Check("kohya.accelerate_bin", Path(find_accelerate(named, workspace or Path())))
    except OblikError as problem:
        return Check("kohya.accelerate_bin", Path(named) if named else None, problem=problem.message)
