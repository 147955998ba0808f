"""``oblik doctor``: what this machine can do, and what is missing.

In: the settings, the installed packages' metadata, the operating system. Out: a page of tables with
ok, note or missing, and the next commands to type; exit status 3 when something needed is missing.
Imports no tensor library and opens no connection. Knows nothing of how packs are run.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from oblik.cli.pack import condition
from oblik.errors import OblikError
from oblik.paths import Home
from oblik.settings import ENV_PREFIX, Settings, origins

if TYPE_CHECKING:
    from rich.console import Console

GIB = 1024**3
ADVISED_DISK_BYTES = 200 * GIB
ADVISED_RAM_BYTES = 4 * GIB
NEEDED = (
    "torch",
    "diffusers",
    "transformers",
    "peft",
    "onnxruntime",
    "opencv-python-headless",
    "pillow-heif",
)
EXTRAS = {
    "dlib": (("dlib",), "face stack for real photographs"),
    "quantised": (("torchao",), "weights packed as they are read"),
    "gpu": (("bitsandbytes", "nvidia-ml-py"), "NF4 weights and temperature of an NVIDIA GPU"),
    "c2pa": (("c2pa-python", "cryptography"), "signed content credentials in pictures"),
    "restore": (("spandrel", "spandrel-extra-arches"), "GFPGAN and CodeFormer for `oblik restore`"),
}
MARKS = {"ok": "[green]ok[/green]", "note": "[yellow]note[/yellow]", "missing": "[red]missing[/red]"}


@dataclass(frozen=True)
class Finding:
    """One line of the page. ``hint`` is the next thing to do about it, if there is one."""

    name: str
    state: Literal["ok", "note", "missing"]
    detail: str
    hint: str = ""


@click.command()
@click.pass_obj
def command(settings: Settings) -> None:
    """Say what this machine can do and what is missing."""
    sections = {
        "Machine": list(machine(settings.home)),
        "Libraries": list(libraries()),
        "Packs": list(packs(settings)),
        "Extras": list(extras()),
    }
    _print_settings(settings)
    for title, findings in sections.items():
        _print_findings(title, findings)
    found = [finding for findings in sections.values() for finding in findings]
    hints = [*unknown_variables(), *(finding.hint for finding in found if finding.hint)]
    click.echo("\nNext:" if hints else "\nNothing is missing. Next: oblik demo")
    for hint in dict.fromkeys(hints):
        click.echo(f"  {hint}")
    if any(finding.state == "missing" for finding in found):
        raise SystemExit(3)


def machine(home: Path) -> Iterator[Finding]:
    """Python, processor, memory, disk, accelerator."""
    import psutil

    yield Finding("Python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    yield Finding("CPU cores", "ok", str(usable_cores()))
    memory = psutil.virtual_memory()
    enough = memory.available >= ADVISED_RAM_BYTES
    yield Finding(
        "Memory",
        "ok" if enough else "note",
        f"{memory.available / GIB:.1f} GiB free of {memory.total / GIB:.1f}",
        "" if enough else "close other programs: the embedded pack wants 4 GiB of free memory",
    )
    free = shutil.disk_usage(existing(home)).free
    roomy = free >= ADVISED_DISK_BYTES
    yield Finding(
        "Free disk",
        "ok" if roomy else "note",
        f"{free / GIB:.0f} GiB at {home}" + ("" if roomy else "; enough for the embedded pack"),
        "" if roomy else "for real packs keep 200 GiB free: set OBLIK_HOME to a larger disk",
    )
    yield from accelerators()


def accelerators() -> Iterator[Finding]:
    """GPUs as the driver names them, and whether the installed torch can use them."""
    gpus = nvidia_gpus()
    build = installed("torch") or ""
    for gpu in gpus:
        yield Finding("GPU", "ok", gpu)
    if gpus and build.endswith("+cpu"):
        hint = f"a GPU is idle: install torch {build.partition('+')[0]} with CUDA"
        yield Finding("torch for GPU", "note", f"torch {build} has no CUDA", hint)
    if not gpus and sys.platform == "darwin" and platform.machine() == "arm64":
        yield Finding("GPU", "ok", "Apple silicon, device mps")
    elif not gpus:
        yield Finding("GPU", "note", "none found; the embedded pack runs on the CPU")


def libraries() -> Iterator[Finding]:
    """Versions of what the default path needs, from their metadata."""
    for name in NEEDED:
        found = installed(name)
        hint = "" if found else "pip install --requirement requirements.lock"
        yield Finding(name, "ok" if found else "missing", found or "not installed", hint)


def packs(settings: Settings) -> Iterator[Finding]:
    """Every pack on this machine, and the one that the settings name."""
    from oblik.packs.store import list_packs

    try:
        present = list_packs(Home(settings.home))
    except OblikError as problem:
        yield Finding("packs", "missing", problem.message, problem.hint)
        return
    for pack in present:
        problems = condition(pack)
        yield Finding(
            pack.manifest.name,
            "missing" if problems else "ok",
            "; ".join(problems) or f"{pack.manifest.version}, {pack.manifest.native_size_px} px",
            f"oblik pack verify {pack.manifest.name}" if problems else "",
        )
    if settings.pack not in {pack.manifest.name for pack in present}:
        yield Finding(settings.pack, "missing", "named by the settings, not installed", "oblik pack list")
        return
    yield faces(settings)


def faces(settings: Settings) -> Finding:
    """Whose face networks are used, and under which licence."""
    from oblik import studio

    try:
        base = studio.pack_of(settings)
        source = studio.face_pack_of(base, settings)
    except OblikError as problem:
        return Finding("face stack", "note", problem.message, problem.hint)
    caution = studio.face_caution(base, settings)
    name = source.manifest.name if source else settings.face_stack
    return Finding("face stack", "note" if caution else "ok", caution or name)


def extras() -> Iterator[Finding]:
    """Optional packages. None of them is needed by the embedded pack."""
    for name, (distributions, purpose) in EXTRAS.items():
        absent = [package for package in distributions if not installed(package)]
        detail = f"{purpose}: pip install 'oblik[{name}]'" if absent else purpose
        yield Finding(name, "note" if absent else "ok", detail)


def unknown_variables() -> list[str]:
    """A remark for each ``OBLIK_*`` variable that names no setting: most likely a slip."""
    known = {f"{ENV_PREFIX}{name.upper()}" for name in Settings.model_fields}
    return [
        f"{name} names no setting"
        for name in sorted(os.environ)
        if name.startswith(ENV_PREFIX) and name not in known
    ]


def usable_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def existing(path: Path) -> Path:
    """``path`` or its nearest parent that exists."""
    return next(folder for folder in (path, *path.parents) if folder.exists())


def installed(name: str) -> str | None:
    """The version of a distribution, or None."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def nvidia_gpus() -> list[str]:
    """One line for each GPU that ``nvidia-smi`` names."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return []
    query = [program, "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return [line.strip() for line in answer.splitlines() if line.strip()]


def _print_settings(settings: Settings) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table("setting", "value", "from", title="Settings", title_justify="left", box=None)
    for name, origin in origins(settings).items():
        value = getattr(settings, name)
        table.add_row(name, "" if value is None else escape(str(value)), escape(origin))
    _console().print(table)


def _print_findings(title: str, findings: list[Finding]) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, show_header=False, padding=(0, 2, 0, 0))
    for finding in findings:
        table.add_row(MARKS[finding.state], escape(finding.name), escape(finding.detail))
    _console().print()
    _console().print(table)


def _console() -> Console:
    from rich.console import Console

    return Console(highlight=False)
