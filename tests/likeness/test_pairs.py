"""One score for genuine photos, impostors and pictures; misses keep their place."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from oblik.datasets.manifest import Dataset, Photo, Split, Status
from oblik.errors import InvalidInput, NotFound
from oblik.faces.stack import Face, Image_HW3, Unit_D
from oblik.likeness.pairs import (
    Impostors,
    References,
    centroid,
    centroid_scores,
    impostor_scores,
    leave_one_out,
    nearest_scores,
    score_images,
    unit,
)

Draw = Callable[..., NDArray[np.float32]]
DIMS = 64


class Scripted:
    """A stack that reads the answer from the picture: pixel (0, 0) is the number of faces, (0, 1) whose."""

    name = "scripted"

    def detect(self, image: Image_HW3) -> list[Face]:
        face = Face((0, 0, 1, 1), np.zeros((5, 2), np.float32), 1.0)
        return [face] * int(image[0, 0, 0])

    def embed(self, image: Image_HW3, face: Face) -> Unit_D:
        return np.asarray(np.eye(4, dtype=np.float32)[image[0, 1, 0]])


def picture(faces: int, whose: int) -> Image_HW3:
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0], image[0, 1] = faces, whose
    return image


def test_scores_are_cosines(draw: Draw) -> None:
    probes, references = draw(1, 5, 1)[:, 0], draw(2, 1, 4)[0]
    mean = references.mean(axis=0)
    wanted = probes @ mean / np.linalg.norm(mean)
    np.testing.assert_allclose(centroid_scores(probes, references), wanted, atol=1e-6)
    np.testing.assert_allclose(nearest_scores(probes, references), (probes @ references.T).max(axis=1))
    assert np.linalg.norm(centroid(references)) == pytest.approx(1)


def test_leave_one_out_is_what_it_says(draw: Draw) -> None:
    references = draw(3, 1, 5)[0]
    to_centroid, to_nearest = leave_one_out(references)
    for i in range(5):
        others = np.delete(references, i, axis=0)
        assert to_centroid[i] == pytest.approx(centroid_scores(references[i : i + 1], others)[0], abs=1e-6)
        assert to_nearest[i] == pytest.approx(nearest_scores(references[i : i + 1], others)[0], abs=1e-6)
    assert [len(s) for s in leave_one_out(references[:1])] == [0, 0]


def test_pictures_are_scored_in_order_and_a_miss_keeps_its_place() -> None:
    references = np.eye(4, dtype=np.float32)[:2]
    images = [picture(1, 0), picture(0, 0), Image.fromarray(picture(2, 3))]
    scores = score_images(Scripted(), images, references)
    assert [s.found for s in scores] == [True, False, True]
    assert scores[0].centroid == pytest.approx(np.sqrt(0.5))
    assert scores[0].nearest == pytest.approx(1)
    assert (scores[1].centroid, scores[1].nearest, scores[1].faces) == (None, None, 0)
    assert (scores[2].centroid, scores[2].faces) == (0, 2)


def test_impostors_survive_the_file(tmp_path: Path, impostors: Impostors) -> None:
    impostors.save(tmp_path / "impostors.npz")
    again = Impostors.load(tmp_path / "impostors.npz")
    assert (again.stack, again.source, again.identities) == ("clouds", "310 clouds", 310)
    assert np.abs((again.embeddings_MD * impostors.embeddings_MD).sum(axis=1) - 1).max() < 1e-5
    np.testing.assert_array_equal(again.identity_M, impostors.identity_M)


def test_a_plain_npz_is_enough(tmp_path: Path) -> None:
    path = tmp_path / "impostors.npz"
    np.savez(path, embeddings=3 * np.eye(3), identity=np.array([7, 7, 40]))
    loaded = Impostors.load(path)
    assert loaded.identities == 2
    assert loaded.source == "impostors.npz"
    np.testing.assert_array_equal(loaded.embeddings_MD, np.eye(3))
    with pytest.raises(NotFound):
        Impostors.load(tmp_path / "none.npz")
    np.savez(path, embeddings=np.eye(3), identity=np.array([7]))
    with pytest.raises(InvalidInput):
        Impostors.load(path)


def test_enough_scores_pool_nobody(impostors: Impostors, references: References) -> None:
    scores = impostor_scores(impostors, references.heldout_ND, at_least=3000)
    assert scores.pooled_targets == 0
    wanted = centroid_scores(impostors.embeddings_MD, references.heldout_ND)
    np.testing.assert_array_equal(scores.centroid_S, wanted)


def test_too_few_pool_other_people_scored_the_same_way(draw: Draw, references: References) -> None:
    photos = draw(5, 40, 8)
    few = Impostors(photos.reshape(-1, DIMS), np.repeat(np.arange(40), 8))
    scores = impostor_scores(few, references.heldout_ND, at_least=1000)
    assert scores.pooled_targets == 3
    assert len(scores.centroid_S) == 320 + 3 * 312
    target = int(scores.target_S.max())
    row = scores.target_S == target
    assert target not in scores.probe_S[row]
    probes = few.embeddings_MD[few.identity_M != target]
    np.testing.assert_array_equal(scores.centroid_S[row], centroid_scores(probes, photos[target, :6]))


def test_nobody_stands_in_with_fewer_photos_than_the_persona(draw: Draw, references: References) -> None:
    photos = draw(5, 40, 3)
    few = Impostors(photos.reshape(-1, DIMS), np.repeat(np.arange(40), 3))
    scores = impostor_scores(few, references.heldout_ND, at_least=1000)
    assert scores.pooled_targets == 0
    assert len(scores.centroid_S) == 120


def photo(name: str, split: Split, status: Status = Status.accepted) -> Photo:
    return Photo(source=name, source_sha256=name, status=status, split=split)


def dataset(*photos: Photo) -> Dataset:
    return Dataset(
        persona="subject",
        version="v001",
        trigger="<oblik_subject>",
        class_noun="person",
        created_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
        consent_sha256="0",
        face_stack="clouds",
        short_side_px=128,
        embeddings="faces.npz",
        photos=list(photos),
    )


def test_references_come_from_the_splits(tmp_path: Path) -> None:
    rows = np.eye(5, dtype=np.float32)
    np.savez(tmp_path / "faces.npz", a=rows[0], b=rows[1], c=rows[2], d=rows[3], e=rows[4])
    photos = [
        photo("a", Split.train),
        photo("b", Split.validation),
        photo("c", Split.validation),
        photo("d", Split.stress),
        photo("unseen", Split.stress),
        photo("e", Split.validation, Status.set_aside),
    ]
    references = References.load(dataset(*photos), tmp_path)
    np.testing.assert_array_equal(references.heldout_ND, rows[1:3])
    np.testing.assert_array_equal(references.train_ND, rows[:1])
    np.testing.assert_array_equal(references.stress_ND, rows[3:4])
    assert (references.stress_misses, references.stack) == (1, "clouds")
    with pytest.raises(InvalidInput, match="holds out no photo"):
        References.load(dataset(photo("a", Split.train)), tmp_path)


def test_unit_leaves_zero_alone() -> None:
    found = unit(np.array([[3.0, 4.0], [0.0, 0.0]]))
    np.testing.assert_allclose(found, np.array([[0.6, 0.8], [0.0, 0.0]], np.float32))
