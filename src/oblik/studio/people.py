"""People: who they are, by what right, and how a prompt names them.

In: settings and plain values. Out: personas and proofs. Knows nothing of photos.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from oblik.studio.house import face_caution, home_of, now, pack_of, personas_of
from oblik.studio.operations import operation

if TYPE_CHECKING:
    from oblik.paths import PersonaHome
    from oblik.personas.amend import Change
    from oblik.personas.enrol import Application, NewPersona
    from oblik.personas.erase import Receipt
    from oblik.personas.persona import Consent, Persona
    from oblik.personas.trigger import TokenProof
    from oblik.settings import Settings

REVOKE = "persona revoke"


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
        BackendUnavailable: the key of a real person's vault could be kept nowhere.
    """
    from oblik.personas.enrol import enrol

    with operation(settings, "persona create", application.slug) as details:
        new = enrol(application, personas_of(settings), pack_of(settings).tokenizer_file, now())
        details["consent"] = new.persona.consent.kind
    return new


def list_personas(settings: Settings) -> list[Persona]:
    """Every persona, by slug."""
    return personas_of(settings).list()


def show_persona(settings: Settings, slug: str | None = None) -> Persona:
    """The named persona; without a name the one of ``--persona``, else the active one."""
    return personas_of(settings).get(slug or active_slug(settings))


def use_persona(settings: Settings, slug: str) -> Persona:
    """Make a persona the active one."""
    persona = show_persona(settings, slug)
    with operation(settings, "persona use", persona.slug):
        return personas_of(settings).use(slug)


def edit_persona(settings: Settings, slug: str | None, change: Change) -> Persona:
    """Change descriptors, noun or consent; a new consent needs a newly signed document.

    Raises ConsentError and InvalidInput; then nothing was changed.
    """
    from oblik.personas.amend import amend

    persona, store = show_persona(settings, slug), personas_of(settings)
    with operation(settings, "persona edit", persona.slug):
        changed = amend(persona, change, store.home.persona(persona.slug), now().date())
        return store.save(changed)


def revoke_persona(settings: Settings, slug: str) -> Persona:
    """Withdraw the consent. Nothing can be begun, and what is running stops at its next step."""
    from oblik.personas.amend import revoked

    persona, store = show_persona(settings, slug), personas_of(settings)
    with operation(settings, REVOKE, persona.slug):
        return store.save(revoked(persona, now().date()))


def delete_persona(settings: Settings, slug: str) -> Receipt:
    """Destroy everything of a persona, the vault's key first. The audit log keeps that it was done.

    Raises NotFound when nobody is called so. A persona whose file was damaged can be deleted, too.
    """
    from oblik.personas.erase import erase, require_somebody

    require_somebody(home_of(settings), slug)
    with operation(settings, "persona delete", slug) as details:
        receipt = erase(home_of(settings), slug, now())
        details.update(files=receipt.files, bytes=receipt.bytes, copies=len(receipt.copies))
        details["key_destroyed"] = receipt.key_is_gone
    return receipt


def export_persona(settings: Settings, slug: str, out: Path) -> int:
    """Write everything of a persona into one encrypted archive; return the number of files.

    Raises BackendUnavailable without a passphrase, Conflict when ``out`` exists.
    """
    from oblik.personas.archive import export
    from oblik.personas.audit import AuditLog
    from oblik.personas.keys import require_passphrase, this_machine, wrap

    persona, home = show_persona(settings, slug), home_of(settings)
    with operation(settings, "persona export", persona.slug) as details:
        lines = "".join(f"{line.model_dump_json()}\n" for line in AuditLog(home).about(persona.slug))
        machine = this_machine()
        lock = partial(wrap, passphrase=require_passphrase(machine, new=True))
        files = export(home, persona, out, lock, lines, machine)
        details["files"] = files
    return files


def import_persona(settings: Settings, archive: Path) -> Persona:
    """Bring a persona back from an archive. A consent that was revoked here since then stays revoked.

    Raises Conflict when the slug or trigger is taken here, InvalidInput for a wrong passphrase or file.
    """
    from oblik.personas.archive import bring_back
    from oblik.personas.audit import AuditLog
    from oblik.personas.keys import require_passphrase, this_machine, unwrap

    machine, home = this_machine(), home_of(settings)
    lines = (line for _, line in AuditLog(home).lines() if line is not None and line.what == REVOKE)
    withdrawn = {line.consent for line in lines if line.consent is not None}
    unlock = partial(unwrap, passphrase=require_passphrase(machine, new=False))
    persona = bring_back(home, archive, unlock, machine, now().date(), withdrawn)
    with operation(settings, "persona import", persona.slug):
        if personas_of(settings).active() is None:
            personas_of(settings).use(persona.slug)
    return persona


def vault_protection(settings: Settings, slug: str | None = None) -> str:
    """How the key of a persona's vault is protected, in words; nothing is made."""
    from oblik.errors import NotFound
    from oblik.personas.vault import Vault

    persona = show_persona(settings, slug)
    try:
        return Vault.existing(home_of(settings).persona(persona.slug)).protection
    except NotFound:
        return "empty; its key is made when the first photo is kept"


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

    Raises TokenBroken with the id sequence, and the path of the tokenizer to use, when it falls apart.
    """
    from oblik.errors import TokenBroken
    from oblik.personas.trigger import borrow, check, read_proof, reserve

    persona = show_persona(settings, slug)
    folders = home_of(settings).persona(persona.slug)
    if tokenizer is not None:
        file = tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer
        try:
            return check(file, persona.trigger)
        except TokenBroken as broken:
            raise TokenBroken(broken.message, hint=_tokenizer_to_use(folders)) from broken
    others = [other.trigger for other in list_personas(settings) if other.slug != persona.slug]
    written = read_proof(folders.token)
    prove = borrow if written is not None and written.kind == "existing" else reserve
    return prove(pack_of(settings).tokenizer_file, persona.trigger, others)


def _tokenizer_to_use(folders: PersonaHome) -> str:
    """Where the tokenizer lies that knows the token, or will lie: beside the newest LoRA."""
    from oblik.paths import next_version, versions
    from oblik.training.artifact import TOKENIZER

    there = [file for name in versions(folders.loras) if (file := folders.loras / name / TOKENIZER).is_file()]
    if there:
        return f"use {there[-1]}"
    return f"oblik train writes the one to use: {folders.loras / next_version(folders.loras) / TOKENIZER}"


def caution(settings: Settings, slug: str | None = None) -> str:
    """What somebody must know: a real person, a pack of synthetic people; non-commercial face networks."""
    pack, persona = pack_of(settings), show_persona(settings, slug)
    unreal = pack.manifest.synthetic and persona.consent.kind == "signed"
    said = [pack.manifest.limits if unreal else "", face_caution(pack, settings)]
    return "; ".join(filter(None, said))
