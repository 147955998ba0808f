"""Class images, negatives and variations: made once, without the token, the same for the same seed."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from oblik.datasets.augment import draw, refuse_flips, vary
from oblik.datasets.buckets import buckets_of
from oblik.datasets.build import build_dataset
from oblik.datasets.captions import refuse_style_words, refuse_tokens
from oblik.datasets.extras import Wishes
from oblik.datasets.manifest import Augmentation, Dataset, Kind, Split
from oblik.datasets.regularisation import FIRST_SEED, Painter, cache_folder, painted, prompt_of
from oblik.datasets.versions import verify
from oblik.errors import InvalidInput
from oblik.packs.manifest import Pack
from oblik.paths import Home
from oblik.personas.persona import Persona
from oblik.photos.asymmetry import Asymmetry
from oblik.progress import SilentProgress

if TYPE_CHECKING:
    from tests.datasets.conftest import Phone

NOW = datetime(2026, 6, 1, 9, tzinfo=timezone.utc)
SHA = "ab" * 32


class Brush:
    """Paints noise and remembers what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, tuple[int, ...]]] = []

    def __call__(self, prompt: str, seeds: Sequence[int], size_px: tuple[int, int]) -> list[Image.Image]:
        self.asked.append((prompt, tuple(seeds)))
        width, height = size_px
        return [
            Image.fromarray(np.random.default_rng(s).integers(0, 255, (height, width, 3), dtype=np.uint8))
            for s in seeds
        ]


def build(persona: Persona, phone: Phone, home: Home, pack: Pack, wishes: Wishes) -> Dataset:
    return build_dataset(
        persona, phone.folder, home=home, stack=phone.stack, pack=pack, now=NOW,
        progress=SilentProgress(), wishes=wishes,
    )  # fmt: skip


@given(st.integers(0, 2**31), st.text("0123456789abcdef", min_size=12, max_size=64), st.integers(1, 8))
def test_a_variation_has_one_scale_and_stays_in_the_picture(seed: int, sha256: str, number: int) -> None:
    settings = Augmentation(copies=1, seed=seed, crop=0.15, shift=0.1)
    drawn, _ = draw(settings, sha256, number)
    affine = drawn.affine(96, 128)
    assert affine[0, 0] == affine[1, 1] >= 1.0
    assert affine[0, 1] == affine[1, 0] == 0.0
    assert drawn.flip is False
    corners = np.array([[-0.5, -0.5], [95.5, 127.5]])
    inside = (corners - affine[:, 2]) / affine[0, 0]
    assert inside.min() >= -0.5 - 1e-6
    assert inside[1, 0] <= 95.5 + 1e-6
    assert inside[1, 1] <= 127.5 + 1e-6


def test_a_variation_is_light_and_the_same_every_time() -> None:
    ramp = np.linspace(60, 190, 64, dtype=np.uint8)
    image, mask = np.stack([np.tile(ramp, (64, 1))] * 3, axis=-1), np.full((64, 64), 255, np.uint8)
    settings = Augmentation(copies=2, seed=5)
    one, again, other = (vary(image, mask, settings, SHA, n)[0] for n in (1, 1, 2))
    assert (one == again).all()
    assert (one != other).any()
    assert abs(one.astype(float).mean() - image.mean()) < 20
    assert vary(image, mask, settings, SHA, 1)[1].shape == mask.shape


def test_flips_are_off_and_refused_while_the_face_may_be_asymmetric() -> None:
    assert Augmentation().flip is False
    wanted = Augmentation(copies=1, flip=True)
    for reason, unknown_or_uneven in (("too few", Asymmetry(None, None, 3)), ("differ", Asymmetry(9, 0, 8))):
        with pytest.raises(InvalidInput, match=reason):
            refuse_flips(wanted, unknown_or_uneven)
        refuse_flips(Augmentation(copies=1), unknown_or_uneven)
    refuse_flips(wanted, Asymmetry(2.0, 0.01, 8))
    flips = [draw(Augmentation(copies=8, flip=True), SHA, n)[0].flip for n in range(30)]
    assert len(set(flips)) == 2


@pytest.mark.parametrize("kind", [Kind.class_image, Kind.negative])
def test_prompts_speak_of_strangers(kind: Kind) -> None:
    prompts = {prompt_of(kind, "woman", FIRST_SEED[kind] + n) for n in range(400)}
    assert len(prompts) >= 40
    for prompt in prompts:
        refuse_tokens(prompt, ["<oblik_subject>"])
        refuse_style_words(prompt)
        assert kind is Kind.negative or prompt.startswith("photo of a woman, ")


def test_class_images_are_painted_once_whoever_the_persona_is(pack: Pack, home: Home) -> None:
    brush, buckets = Brush(), buckets_of(64, 16, ["1:1", "3:4"])
    painter = Painter(brush, pack, cache_folder(home, pack))

    def make(count: int, noun: str = "woman") -> list[bytes]:
        found = painted(Kind.class_image, count, noun, buckets, painter, SilentProgress())
        return [stranger.image.tobytes() for stranger in found]

    first = make(6)
    assert [len(seeds) for _, seeds in brush.asked] == [4, 2]
    assert make(6) == first
    assert len(brush.asked) == 2
    assert make(8)[:6] == first
    assert brush.asked[2][1] == (100_006, 100_007)
    make(1, "man")
    assert len(brush.asked) == 4
    with pytest.raises(InvalidInput):
        make(5000)


def test_extras_are_in_the_manifest_and_never_among_the_photos(
    persona: Persona, phone: Phone, home: Home, pack: Pack
) -> None:
    painter = Painter(Brush(), pack, cache_folder(home, pack))
    plain = build(persona, phone, home, pack, Wishes())
    assert plain.extras == []
    wishes = Wishes(class_images=5, negatives=3, augmentation=Augmentation(copies=2), painter=painter)
    dataset = build(persona, phone, home, pack, wishes)
    folder = home.persona("subject").datasets / dataset.version
    assert dataset.version == "v002"
    assert [len(dataset.extra(kind)) for kind in Kind] == [5, 3, 2 * len(dataset.accepted(Split.train))]
    assert len(dataset.accepted()) == len(plain.accepted())
    taught = {photo.source_sha256 for photo in dataset.accepted(Split.train)}
    for extra in dataset.extras:
        with Image.open(folder / extra.path) as image:
            assert image.size == (extra.width_px, extra.height_px)
        assert (folder / extra.path).with_suffix(".txt").read_text("utf-8") == extra.caption + "\n"
        assert (persona.trigger in extra.caption) is (extra.kind is Kind.augmented)
        assert extra.kind is not Kind.augmented or (
            extra.origin in taught and (folder / str(extra.mask)).is_file()
        )
    assert verify(folder) == []
    page = (folder / "report.html").read_text("utf-8")
    assert all(title in page for title in ("Class images", "Negatives", "Variations"))
    assert build(persona, phone, home, pack, wishes) == dataset


def test_a_folder_of_portraits_and_a_caption_with_a_token(
    persona: Persona, phone: Phone, home: Home, pack: Pack, tmp_path: Path
) -> None:
    folder = tmp_path / "people"
    folder.mkdir()
    for n in range(3):
        Brush()("", [n], (200, 150))[0].save(folder / f"{n}.png")
    (folder / "0.txt").write_text("photo of an old man", encoding="utf-8")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8")
    made = build(persona, phone, home, pack, Wishes(class_images=folder)).extra(Kind.class_image)
    assert [extra.caption for extra in made] == ["photo of an old man", *["photo of a woman"] * 2]
    assert {(extra.width_px, extra.height_px) for extra in made} == {(128, 128)}
    (folder / "1.txt").write_text("photo of <oblik_subject>", encoding="utf-8")
    with pytest.raises(InvalidInput, match="token"):
        build(persona, phone, home, pack, Wishes(class_images=folder))
    with pytest.raises(InvalidInput, match="nothing here paints"):
        build(persona, phone, home, pack, Wishes(class_images=4))
    assert [f.name for f in home.persona("subject").datasets.glob(".building*")] == []
