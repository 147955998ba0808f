"""The tools of a whole flow, and the person who sits for the demo.

In: an open pack, a face stack, a device. Out: a `Workshop`, whose costly tools open when a stage
first needs them, and the persona of a seed. Knows nothing of the stages' order.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from oblik.datasets.sources import CaptionSource, usual_source
from oblik.errors import Conflict
from oblik.faces.stack import FaceStack
from oblik.generation.engine import Engine
from oblik.packs.manifest import OpenPack
from oblik.personas.enrol import DESCRIPTORS, make_persona, synthetic_consent
from oblik.personas.persona import Persona
from oblik.personas.store import PersonaStore
from oblik.personas.trigger import reserve, write_proof
from oblik.training.trainer import Trainer, open_trainer


@dataclass(frozen=True)
class Workshop:
    """The tools of every stage; what is costly to open is opened when a stage needs it.

    ``shoot`` renders a phone folder: seed, number of photos, folder. ``descriptors`` says in plain
    words who the seed's sitter is (gender, age, skin, hair).
    """

    pack: OpenPack
    stack: Callable[[], FaceStack]
    captions: Callable[[], CaptionSource]
    trainer: Callable[[], Trainer]
    engine: Callable[[], Engine]
    shoot: Callable[[int, int, Path], object]
    descriptors: Callable[[int], Mapping[str, str]]


def open_workshop(
    pack: OpenPack, stack: Callable[[], FaceStack], engine: Callable[[], Engine], device: str
) -> Workshop:
    """The real tools; tensor libraries are imported by the first stage that needs them."""
    from oblik.miniature.people import Person
    from oblik.miniature.shoot import shoot

    return Workshop(
        pack=pack,
        stack=stack,
        captions=lambda: usual_source(pack),
        trainer=lambda: open_trainer(device=device),
        engine=engine,
        shoot=shoot,
        descriptors=lambda seed: Person.from_seed(seed).descriptors,
    )


def sitter(store: PersonaStore, seed: int, workshop: Workshop, now: datetime) -> Persona:
    """The persona of a seed: created once, with the consent record of somebody who does not exist.

    Raises Conflict when the renderer draws somebody else for the seed than it did before.
    """
    words = {
        key: word for key, word in workshop.descriptors(seed).items() if key in DESCRIPTORS and word != "none"
    }
    slug = f"sitter-{seed}"
    made = make_persona(slug, synthetic_consent(now.date()), now, trigger=None, descriptors=words)
    known = {persona.slug: persona for persona in store.list()}
    if slug not in known:
        others = [other.trigger for other in known.values()]
        proof = reserve(workshop.pack.tokenizer_file, made.trigger, others)
        store.create(made)
        write_proof(proof, store.home.persona(slug).token)
    elif known[slug].descriptors != made.descriptors:
        raise Conflict(f"{slug} is already somebody else here", hint="choose another folder with --out")
    return store.use(slug)
