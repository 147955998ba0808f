"""Prompts hold the persona's token, nobody else's, and no art style unless asked for."""

from __future__ import annotations

import pytest

from oblik.datasets.captions import refuse_style_words
from oblik.errors import InvalidInput, TwoPersonas
from oblik.generation.prompt import compose

SITTER = "<oblik_sitter>"


def test_the_token_is_put_in_front() -> None:
    assert compose("in a park", trigger=SITTER, noun="woman") == "photo of <oblik_sitter> woman, in a park"


def test_the_opening_is_the_one_of_the_captions() -> None:
    words = {"age": "young", "hair_color": "red", "skin": "fair", "eyes": "green", "scene": "beach"}
    prompt = compose("smiling", trigger=SITTER, noun="woman", descriptors=words)
    assert prompt == "photo of <oblik_sitter> young woman with fair skin and red hair, smiling"


def test_a_prompt_that_has_the_token_keeps_its_words() -> None:
    assert (
        compose("  <oblik_sitter>  on a street ", trigger=SITTER, noun="woman")
        == "<oblik_sitter> on a street"
    )


def test_an_article_before_the_token_goes() -> None:
    assert (
        compose("photo of a <oblik_sitter> woman", trigger=SITTER, noun="woman")
        == "photo of <oblik_sitter> woman"
    )


def test_no_words_at_all_is_a_portrait() -> None:
    assert compose("", trigger=SITTER, noun="man") == "photo of <oblik_sitter> man"


def test_another_personas_token_is_refused_even_an_unknown_one() -> None:
    with pytest.raises(TwoPersonas, match="<oblik_alex>"):
        compose("<oblik_sitter> and <oblik_alex>", trigger=SITTER, noun="woman")


def test_a_token_of_another_shape_is_refused_when_it_belongs_to_somebody() -> None:
    with pytest.raises(TwoPersonas, match="zorblax"):
        compose("zorblax in a park", trigger=SITTER, noun="woman", others=["zorblax"])


@pytest.mark.parametrize("text", ["an anime portrait", "in a park, Pixar", "watercolor"])
def test_styles_are_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        compose(text, trigger=SITTER, noun="woman")
    assert "--style" in refused.value.hint
    assert any(word in refused.value.message for word in ("anime", "pixar", "watercolor"))


def test_styles_are_allowed_when_asked_for() -> None:
    assert (
        compose("anime", trigger=SITTER, noun="woman", style=True) == "photo of <oblik_sitter> woman, anime"
    )


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("in the style of Van Gogh", "in the style of"), ("a pencil drawing", "pencil drawing"),
        ("in a park, pencil", "pencil"), ("gouache, warm light", "gouache"),
        ("charcoal portrait", "charcoal portrait"), ("drawn in charcoal", "drawn in charcoal"),
        ("studio Ghibli", "ghibli"), ("pixel art", "pixel art"), ("Pop-Art", "pop art"),
        ("as digital art", "digital art"), ("a cubist face", "cubist"), ("on a fresco", "fresco"),
        ("an oil painting", "oil painting"), ("oil on canvas", "oil on canvas"), ("a painting", "a painting"),
        ("like a Renaissance painting", "like a renaissance painting"), ("two cartoons", "cartoons"),
        ("a 3D render", "render"), ("as an oil painting behind glass", "as an oil painting"),
        ("an oil painting of a woman on the wall", "oil painting"), ("drawn as anime behind her", "anime"),
        ("in a park, oil painting", "oil painting"), ("anime, a poster on the wall", "anime"),
        ("in front of a cartoon landscape", "cartoon"), ("in front of a tree in watercolor", "watercolor"),
        ("beside an oil painting in the style of Monet", "in the style of"),
        ("anime style behind her", "anime"),
    ],
)  # fmt: skip
def test_a_style_is_refused_and_named(text: str, named: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        compose(text, trigger=SITTER, noun="woman")
    assert refused.value.message.startswith(f"{named!r} is an art style")
    with pytest.raises(InvalidInput, match=f"style word '{named}'"):
        refuse_style_words(text)
    assert text in compose(text, trigger=SITTER, noun="woman", style=True)


@pytest.mark.parametrize(
    "text",
    [
        "beside an oil lamp", "in front of an oil rig", "painting a wall", "a pencil behind the ear",
        "pencil skirt", "charcoal suit", "a charcoal grill in a garden", "drawing on a whiteboard",
        "in front of a painting in a museum", "3D glasses", "digital watch", "in a stylish coat",
        "pastel clothes", "ink on the fingers", "in an art gallery", "an oil painting behind her",
        "smiling, with a large oil painting on the wall, daylight", "a poster on the wall",
        "an anime poster behind <oblik_sitter>", "in front of a mural", "standing in front of a huge fresco",
        "looking at an oil painting of a horse", "reading a manga", "in front of an oil painting in a museum",
        "holding a comic book", "in a room with a watercolor hanging above the sofa",
    ],
)  # fmt: skip
def test_what_a_camera_can_see_is_no_style(text: str) -> None:
    assert text in compose(text, trigger=SITTER, noun="woman")
    refuse_style_words(text)
