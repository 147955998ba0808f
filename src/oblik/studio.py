"""The one door: what every surface (command line, HTTP, bot) may ask for.

In: settings and plain values. Out: nouns and paths. Each function does one thing a person would ask for;
stages are imported when they are needed, so importing this module is cheap. Knows nothing of terminals,
requests or pages.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from oblik.datasets.manifest import Dataset
    from oblik.faces.stack import FaceStack
    from oblik.flows.demo import DemoResult
    from oblik.flows.generate import Replay
    from oblik.generation.record import Record
    from oblik.likeness.findings import LikenessReport
    from oblik.packs.manifest import OpenPack
    from oblik.paths import Home
    from oblik.personas.enrol import Application, NewPersona
    from oblik.personas.persona import Consent, Persona
    from oblik.personas.store import PersonaStore
    from oblik.personas.trigger import TokenProof
    from oblik.progress import Progress
    from oblik.settings import Settings
    from oblik.training.artifact import LoraArtifact


PACKS_OWN = "pack"


class BuiltDataset(NamedTuple):
    """A dataset, where it lies, and whether it was there already."""

    dataset: Dataset
    folder: Path
    unchanged: bool


def home_of(settings: Settings) -> Home:
    """The folders under ``settings.home``."""
    from oblik.paths import Home

    return Home(settings.home)


def pack_of(settings: Settings) -> OpenPack:
    """The active pack."""
    from oblik.packs.store import open_pack

    return open_pack(settings.pack, home_of(settings))


def face_stack_of(pack: OpenPack, settings: Settings) -> FaceStack:
    """The one face stack of datasets, adapters and measurements: the pack's own, unless set otherwise."""
    from oblik.faces.stack import open_stack

    if settings.face_stack != PACKS_OWN:
        return open_stack(settings.face_stack)
    options = {"backend": "onnx", **pack.manifest.face_stack}
    if options["backend"] == "onnx":
        options.setdefault("folder", pack.faces_folder)
    return open_stack(**options)


def personas_of(settings: Settings) -> PersonaStore:
    """The personas under ``settings.home``."""
    from oblik.personas.store import PersonaStore

    return PersonaStore(home_of(settings))


def now() -> datetime:
    """The wall clock, read at the door and nowhere else."""
    return datetime.now(timezone.utc).replace(microsecond=0)


def make_consent(*, synthetic: bool = False, **typed: Any) -> Consent | None:
    """A consent record from what was ``typed`` (see `oblik.personas.enrol.signed_consent`); None when
    nothing was. ``synthetic`` is for rendered people."""
    from oblik.personas.enrol import signed_consent, synthetic_consent

    return synthetic_consent(now().date()) if synthetic else signed_consent(**typed)


def create_persona(settings: Settings, application: Application) -> NewPersona:
    """Create a persona with a consent record and reserve its trigger on the active pack.

    Raises:
        ConsentError: there is no consent, or a signed one without a document.
        InvalidInput: a slug, trigger or descriptor that cannot be used.
        Conflict: the slug or trigger is taken.
        TokenBroken: the trigger is not one new id of the pack's tokenizer.
    """
    from oblik.personas.enrol import enrol

    return enrol(application, personas_of(settings), pack_of(settings).tokenizer_file, now())


def list_personas(settings: Settings) -> list[Persona]:
    """Every persona, by slug."""
    return personas_of(settings).list()


def show_persona(settings: Settings, slug: str | None = None) -> Persona:
    """The named persona; without a name the one of ``--persona``, else the active one."""
    return personas_of(settings).get(slug or active_slug(settings))


def use_persona(settings: Settings, slug: str) -> Persona:
    """Make a persona the active one."""
    return personas_of(settings).use(slug)


def chosen_slug(settings: Settings) -> str | None:
    """The slug of ``--persona``, else of the active persona, else None."""
    return settings.persona or personas_of(settings).active()


def active_slug(settings: Settings) -> str:
    """The slug that commands mean when none is typed. Raises NotFound when there is none."""
    from oblik.errors import NotFound

    slug = chosen_slug(settings)
    if slug is None:
        raise NotFound("no persona is active", hint="oblik persona create SLUG, or oblik persona use SLUG")
    return slug


def check_token(settings: Settings, slug: str | None = None, tokenizer: Path | None = None) -> TokenProof:
    """Prove that the persona's trigger is one id, on the active pack or on a given ``tokenizer.json``.

    Raises TokenBroken with the id sequence when it falls apart.
    """
    from oblik.personas.trigger import check, reserve

    persona = show_persona(settings, slug)
    if tokenizer is not None:
        return check(tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer, persona.trigger)
    others = [other.trigger for other in list_personas(settings) if other.slug != persona.slug]
    return reserve(pack_of(settings).tokenizer_file, persona.trigger, others)


def build_dataset(
    settings: Settings, photos: Path, slug: str | None = None, *, progress: Progress | None = None
) -> BuiltDataset:
    """Turn a folder of photos into the next version of the persona's dataset.

    Raises:
        ConsentError: the consent does not cover portraits.
        InvalidInput: fewer than 8 usable photos.
        BackendUnavailable: the pack's face stack needs something that is not installed.
    """
    from oblik.datasets.build import build_dataset as build
    from oblik.likeness.pairs import Impostors
    from oblik.paths import latest_version
    from oblik.progress import SilentProgress

    persona, pack, home = show_persona(settings, slug), pack_of(settings), home_of(settings)
    datasets = home.persona(persona.slug).datasets
    before, strangers = latest_version(datasets), pack.faces_folder / "impostors.npz"
    comparable = strangers.is_file() and settings.face_stack == PACKS_OWN
    known = Impostors.load(strangers).embeddings_MD if comparable else None
    dataset = build(
        persona, photos, home=home, stack=face_stack_of(pack, settings), pack=pack.manifest, now=now(),
        progress=progress or SilentProgress(), impostors_MD=known,
    )  # fmt: skip
    return BuiltDataset(dataset, datasets / dataset.version, unchanged=dataset.version == before)


def caution(settings: Settings, slug: str | None = None) -> str:
    """What somebody must know who works for a real person with a pack of synthetic people; else empty."""
    pack, persona = pack_of(settings).manifest, show_persona(settings, slug)
    return pack.limits if pack.synthetic and persona.consent.kind == "signed" else ""


def list_datasets(settings: Settings, slug: str | None = None) -> list[Dataset]:
    """Every version of the persona's dataset, oldest first."""
    from oblik.datasets.manifest import read_dataset
    from oblik.paths import versions

    persona = show_persona(settings, slug)
    folder = home_of(settings).persona(persona.slug).datasets
    return [read_dataset(folder / version) for version in versions(folder)]


class Trained(NamedTuple):
    """A finished LoRA and where it lies."""

    artifact: LoraArtifact
    folder: Path


class Generated(NamedTuple):
    """A batch of pictures and where it lies."""

    record: Record
    folder: Path


class Measured(NamedTuple):
    """What was found about a folder of pictures."""

    report: LikenessReport
    folder: Path


def portrayed(settings: Settings, slug: str | None = None) -> Persona:
    """The persona, once its consent covers portraits today; nothing is opened before."""
    from oblik.personas.persona import Scope

    persona = show_persona(settings, slug)
    persona.consent.require(Scope.portraits, now().date())
    return persona


def train(
    settings: Settings,
    slug: str | None = None,
    *,
    dataset: str | None = None,
    asked: Mapping[str, Any] | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Trained:
    """Train the next LoRA of the persona on its newest dataset, or on the one named.

    ``asked`` overrides the pack's training settings; ``resume`` goes on with a run that was stopped.
    """
    from oblik.flows.train import TrainOrder
    from oblik.flows.train import train as run
    from oblik.progress import SilentProgress
    from oblik.training.artifact import read_artifact
    from oblik.training.trainer import open_trainer

    persona = portrayed(settings, slug)
    folder = run(
        persona, TrainOrder(dataset, asked or {}, resume), home=home_of(settings), pack=pack_of(settings),
        trainer=open_trainer(device=settings.device), progress=progress or SilentProgress(), now=now(),
    )  # fmt: skip
    return Trained(read_artifact(folder), folder)


def generate(
    settings: Settings,
    text: str,
    slug: str | None = None,
    *,
    asked: Mapping[str, Any] | None = None,
    lora: bool = True,
    token: bool = True,
    style: bool = False,
    preset: str = "fast",
    progress: Progress | None = None,
) -> Generated:
    """Make portraits of the persona in the words of ``text``; ``asked`` are values of a plan."""
    from oblik.flows.generate import Order, plan_order
    from oblik.flows.generate import generate as run
    from oblik.generation.engine import open_engine
    from oblik.generation.presets import find_preset
    from oblik.progress import SilentProgress

    persona, pack, home = portrayed(settings, slug), pack_of(settings), home_of(settings)
    others = [other.trigger for other in list_personas(settings) if other.slug != persona.slug]
    order = Order(text, asked or {}, lora=lora, token=token, style=style)
    plan = plan_order(order, persona, find_preset(preset, home.root / "presets"), pack, home, others)
    record, folder = run(
        persona, plan, home=home, pack=pack, engine=open_engine(device=settings.device),
        progress=progress or SilentProgress(), now=now(),
    )  # fmt: skip
    return Generated(record, folder)


def measure_likeness(
    settings: Settings,
    folder: Path | None = None,
    slug: str | None = None,
    *,
    without_token: Path | None = None,
    progress: Progress | None = None,
) -> Measured:
    """Calibrate for the persona and score a folder of pictures; without a folder the newest batch."""
    from oblik.flows.calibrate import measure, newest_pictures, open_ruler
    from oblik.progress import SilentProgress

    persona, pack, home = portrayed(settings, slug), pack_of(settings), home_of(settings)
    folder = folder or newest_pictures(persona, home)
    ruler = open_ruler(persona, home=home, pack=pack, stack=face_stack_of(pack, settings))
    report = measure(
        persona, folder, ruler, progress=progress or SilentProgress(), now=now(), without_token=without_token
    )
    return Measured(report, folder)


def replay(
    settings: Settings, place: Path, *, keep: Path | None = None, progress: Progress | None = None
) -> Replay:
    """Run a record again and compare the bytes; ``keep`` is where the new pictures stay."""
    from tempfile import TemporaryDirectory

    from oblik.flows.generate import replay as run
    from oblik.generation.engine import open_engine
    from oblik.generation.record import read_record
    from oblik.progress import SilentProgress

    plan = read_record(place).plan
    persona = portrayed(settings, plan.persona) if plan.persona else None
    pack = pack_of(settings.model_copy(update={"pack": plan.pack}))
    with TemporaryDirectory(prefix="oblik-replay-") as scratch:
        return run(
            place, persona, home=home_of(settings), pack=pack, engine=open_engine(device=settings.device),
            progress=progress or SilentProgress(), now=now(), out_dir=keep or Path(scratch),
        )  # fmt: skip


def run_demo(
    settings: Settings,
    out: Path,
    *,
    seed: int | None = None,
    photos: int | None = None,
    portraits: int | None = None,
    training: Mapping[str, Any] | None = None,
    plan: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> DemoResult:
    """The whole flow on a rendered stranger into ``out``; finished stages are not done again."""
    from oblik.flows.demo import DemoOrder
    from oblik.flows.demo import run_demo as run
    from oblik.flows.workshop import open_workshop
    from oblik.progress import SilentProgress

    pack = pack_of(settings.model_copy(update={"home": out.absolute() / "home"}))
    wanted = {"seed": seed, "photos": photos, "portraits": portraits}
    given = {name: value for name, value in wanted.items() if value is not None}
    order = DemoOrder(out, train=training or {}, plan=plan or {}, **given)
    workshop = open_workshop(pack, lambda: face_stack_of(pack, settings), settings.device)
    return run(order, workshop, progress=progress or SilentProgress(), now=now())
