"""`oblik dataset`, as typed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from oblik import studio
from oblik.cli import main
from oblik.datasets.edits import offer_captions, working_name
from oblik.datasets.manifest import MANIFEST, Dataset, Photo, Split, Status
from oblik.datasets.versions import hashes, publish
from oblik.errors import InvalidInput
from oblik.flows.impostors import own_file
from oblik.images import save_clean_png
from oblik.likeness.pairs import Impostors
from oblik.paths import Home, atomic_write, private_dir
from oblik.personas.enrol import make_persona, synthetic_consent
from oblik.personas.store import PersonaStore
from oblik.settings import Settings

Oblik = Callable[..., Result]
NOW = datetime(2026, 1, 2, tzinfo=timezone.utc)
GOOD = "photo of <oblik_subject> woman, red clothes"


@pytest.fixture
def oblik(home: Home, tiny_pack: Path) -> Oblik:
    def run(*arguments: str) -> Result:
        return CliRunner().invoke(main, ["--home", str(home.root), "--pack", "tiny", *arguments])

    return run


@pytest.fixture
def datasets(home: Home) -> Path:
    """The datasets of the persona ``subject``: one version of ten pictures, one of them set aside."""
    store = PersonaStore(home)
    consent = synthetic_consent(NOW.date())
    persona = store.create(
        make_persona("subject", consent, NOW, trigger=None, descriptors={"gender": "woman"})
    )
    store.use("subject")
    folder = home.persona("subject").datasets
    building = private_dir(folder / "building")
    photos = []
    for n in range(9):
        name, split = f"images/1x1/{n}.png", list(Split)[n % 3]
        save_clean_png(Image.fromarray(np.full((32, 32, 3), 20 * n, np.uint8)), building / name)
        atomic_write(building / f"images/1x1/{n}.txt", "x\n")
        photos.append(
            Photo(
                source=f"trip/IMG_{n}.jpg", source_sha256=f"{n:064x}", status=Status.accepted, path=name,
                sha256="", split=split, bucket="1:1", width_px=32, height_px=32, group=n,
                caption=f"photo of {persona.trigger} woman", flags={"identity_cosine": 0.9},
            )
        )  # fmt: skip
    aside = {"source": "ben.jpg", "source_sha256": "b" * 64, "reason": "somebody else (likeness 0.1)"}
    photos.append(Photo(**aside, status=Status.set_aside, flags={"identity_cosine": 0.1}))
    photos.append(Photo(source="x.jpg", source_sha256="e" * 64, status=Status.refused, reason="cut off"))
    dataset = Dataset(
        persona="subject", version="v001", trigger=persona.trigger, class_noun="woman", created_at=NOW,
        consent_sha256="c" * 64, face_stack="none", short_side_px=32, embeddings="faces.npz", photos=photos,
    )  # fmt: skip
    atomic_write(building / "faces.npz", b"none")
    dataset = dataset.model_copy(update={"files": hashes(building)})
    atomic_write(building / MANIFEST, dataset.model_dump_json())
    publish(building, folder / "v001")
    offer_captions(folder, dataset)
    return folder


def test_show_list_and_verify(oblik: Oblik, datasets: Path) -> None:
    shown = oblik("dataset", "show")
    assert shown.exit_code == 0, shown.output
    assert "9 of 11 files ready (3 training, 3 validation, 3 stress)" in shown.output
    assert "set aside   ben.jpg: somebody else (likeness 0.1)" in shown.output
    assert "v001" in oblik("dataset", "list").output
    assert oblik("dataset", "verify", "v001").output == "every file is as it was written\n"
    file = datasets / "v001" / "faces.npz"
    file.chmod(0o600)
    file.write_bytes(b"other")
    broken = oblik("dataset", "verify")
    assert (broken.exit_code, broken.output) == (1, "faces.npz was changed\n")
    missing = oblik("dataset", "show", "v007")
    assert missing.exit_code == 2
    assert "hint: oblik dataset list" in missing.output


def test_keep_drop_undo(oblik: Oblik, datasets: Path) -> None:
    kept = oblik("dataset", "keep", "subject", "ben.jpg")
    assert kept.output == "kept      ben.jpg\nnext: oblik dataset build subject PHOTOS\n"
    dropped = oblik("dataset", "drop", "subject", "IMG_1.jpg", "IMG_2.jpg", "--reason", "eyes closed")
    assert "dropped   trip/IMG_2.jpg" in dropped.output
    assert "eyes closed" in (datasets / "decisions.toml").read_text(encoding="utf-8")
    undone = oblik("dataset", "undo", "subject")
    assert "as before trip/IMG_1.jpg" in undone.output
    assert "as before ben.jpg" in oblik("dataset", "undo", "subject", "ben.jpg").output
    assert oblik("dataset", "undo", "subject").exit_code == 2
    for name, problem in (("x.jpg", "cannot be kept: cut off"), ("y.jpg", "no photo is called 'y.jpg'")):
        refused = oblik("dataset", "keep", "subject", name)
        assert refused.exit_code == 2
        assert problem in refused.output


def test_captions_by_table_and_in_place(oblik: Oblik, datasets: Path, tmp_path: Path) -> None:
    table = tmp_path / "captions.csv"
    assert oblik("dataset", "captions", "subject", "--export", str(table)).output.startswith("9 captions in ")
    text = table.read_text(encoding="utf-8-sig")
    torn = text.replace("photo of <oblik_subject> woman", GOOD, 1)
    table.write_text(torn, encoding="utf-8")
    refused = oblik("dataset", "captions", "subject", "--import", str(table))
    assert "more cells than columns at trip/IMG_0.jpg" in refused.output
    table.write_text(torn.replace(GOOD, f'"{GOOD}"'), encoding="utf-8")
    made = oblik("dataset", "captions", "subject", "--import", str(table))
    assert made.exit_code == 0, made.output
    assert "subject v002: 9 of 11 files ready" in made.output
    assert GOOD in oblik("dataset", "show").output
    again = oblik("dataset", "captions", "subject")
    assert "unchanged, v002" in again.output
    name = working_name(Photo(source="trip/IMG_4.jpg", source_sha256=f"{4:064x}", status=Status.accepted))
    (datasets / "captions" / name).write_text(GOOD + ", in a watercolor", encoding="utf-8")
    refused = oblik("dataset", "captions", "subject")
    assert refused.exit_code == 2
    assert "trip/IMG_4.jpg: the style word 'watercolor'" in refused.output
    (datasets / "captions" / name).write_text(GOOD, encoding="utf-8")
    assert "v003" in oblik("dataset", "captions", "subject").output
    assert oblik("dataset", "captions", "subject", "--export", "a", "--import", "b").exit_code == 2


def test_what_build_refuses_before_it_looks(oblik: Oblik, datasets: Path, tmp_path: Path) -> None:
    refused = oblik("dataset", "build", str(tmp_path), "--class-images", "many")
    assert refused.exit_code == 2
    assert "neither a number nor a folder" in refused.output
    assert oblik("dataset", "build", "a", "b", "c").exit_code == 2


def test_mirroring_needs_copies_to_mirror(oblik: Oblik, tmp_path: Path) -> None:
    result = oblik("dataset", "build", str(tmp_path), "--flip")
    assert result.exit_code == 2
    assert "--augment N" in result.output


def test_strangers_are_told_apart_by_the_users_own_other_people(
    home: Home, datasets: Path, tiny_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[object] = []

    def build(*_: object, **named: object) -> Dataset:
        given.append(named["impostors_MD"])
        raise InvalidInput("far enough", hint="")

    monkeypatch.setattr("oblik.datasets.build.build_dataset", build)
    monkeypatch.setattr("oblik.studio.datasets.face_stack_of", lambda *_: SimpleNamespace(name="faces 1"))
    settings = Settings(home=home.root, pack="tiny", face_stack="another")
    faces_MD = np.eye(4, 8, dtype=np.float32)
    for _ in range(2):
        with pytest.raises(InvalidInput, match="far enough"):
            studio.build_dataset(settings, tmp_path)
        Impostors(faces_MD, np.arange(4), "faces 1", "a folder").save(own_file(home, "faces 1"))
    assert given[0] is None
    assert np.array_equal(np.asarray(given[1]), faces_MD)
