"""Captions: trigger token, class noun, plain descriptors.

In: descriptors (a closed vocabulary of plain words) and, for a persona, the trigger token. Out: one
line of text; and what is wrong with a line that somebody else wrote. What must be learned as identity
(features, proportions, marks) is never described, and art styles are refused by name. The miniature pack
is pretrained on captions of this grammar.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from oblik.errors import InvalidInput

STYLE_WORDS = frozenset(
    "anime cartoon caricature comic watercolor watercolour gouache fresco sketch illustration render cgi "
    "pixar disney ghibli manga chibi vaporwave cyberpunk impressionist impressionism expressionist "
    "expressionism cubist cubism surrealism pointillism lithograph woodcut claymation airbrushed painterly "
    "artstation stylized stylised".split()
)
_MEDIA = "oils?|acrylics?|pencil|charcoal|chalk|crayons?|pastels?|ink|tempera|digital|3d"
_WORKS = "paintings?|drawings?|portraits?|art|artwork|study|style|animation|model"
STYLE = re.compile(
    rf"""\b(?:
    (?P<thing> (?:{"|".join(sorted(STYLE_WORDS))})s? | (?:{_MEDIA})\ (?:{_WORKS}) )
    | in\ (?:the|an?)\ (?:\w+\ ){{0,2}}style\ of | art\ style | oils?\ on\ canvas
    | (?:drawn|sketched|painted|done|drawing|painting|portrait)\ (?:in|with)\ (?:{_MEDIA})
    | (?:painting|drawing)\ (?:of|style) | (?:like|as)\ an?\ (?:\w+\ )?(?:painting|drawing)
    | (?:pixel|pop|concept|line|vector|fan|clip|fantasy)\ art
    | low\ poly | cel\ shad(?:ed|ing) | unreal\ engine | octane\ render
    )\b""",
    re.VERBOSE,
)
"""Art styles by name. What a photo can show as well (an oil lamp, a pencil, painting a wall) counts only
where the words around it make a style of it, or where it stands alone between commas (`_ALONE`). A ``thing``
can be an object in the scene instead (`style_in`)."""
_ALONE = re.compile(rf"(?:an?\ |the\ )?(?:{_MEDIA}|paintings?|drawings?)")
_SIZES = r"(?:(?:large|big|small|huge|old|framed|colou?rful) )*"
_NOUNS = r"(?: (?:painting|drawing|print|poster|mural|picture|book|figure)s?)?"
_PLACED = re.compile(
    rf"{_NOUNS}(?: hanging| hung)? "
    r"(?:behind (?:her|him|them|oblik_\w+)|on (?:the|a) wall|in the background|above (?:the|a) \w+)\b"
)
_LED = re.compile(rf"(?:^|.* )(?:with|and) (?:an? |the )?{_SIZES}$|^(?:an?|the) {_SIZES}$")
_FACED = re.compile(
    r"(?:^|.* )(?:in front of|next to|beside|behind|near|above|below|under|opposite|holding|reading|"
    rf"looking at) (?:an?|the) {_SIZES}$"
)
_ENDED = re.compile(rf"{_NOUNS}(?:$| (?:in|on|at|of|with|and|behind)\b)")
IDENTITY_WORDS = frozenset(
    "mole moles freckle freckles freckled scar scars birthmark dimple dimples wrinkle wrinkles cheekbone "
    "cheekbones jawline nostrils eyelashes eyebrow eyebrows attractive beautiful handsome pretty ugly "
    "gorgeous".split()
)
"""What the token must learn: a caption that names it takes it away from the token."""
MAX_CAPTION = 600
ACCESSORIES = ("glasses", "sunglasses", "scarf", "hat", "mask")
EXPRESSIONS = {"smile": "smiling", "laugh": "laughing", "surprised": "surprised", "serious": "serious"}
SCENES = {
    "studio": "in a studio",
    "office": "in an office",
    "park": "in a park",
    "street": "on a street",
    "beach": "on a beach",
    "room": "in a room",
    "night": "at night",
}
LIGHTS = {
    "studio": "studio light",
    "daylight": "daylight",
    "side": "side light",
    "warm": "warm light",
    "backlit": "backlit",
    "dim": "dim light",
}


def caption(descriptors: Mapping[str, str], *, token: str | None = None, noun: str | None = None) -> str:
    """One caption. Without ``token`` it describes a stranger ("photo of a young woman with ...").

    ``descriptors`` may lack any key; unknown keys are ignored. Keys and words: see the tables above
    and ``miniature/people.py``.
    """
    return ", ".join([_subject(descriptors, token, noun), *phrases(descriptors)])


def refuse_style_words(text: str) -> None:
    """Raise InvalidInput naming the first art style, or else the first identity word, in ``text``."""
    if found := style_in(text):
        raise InvalidInput(
            f"the style word {found!r} does not belong in a photo caption",
            hint="describe what the camera saw; styles are added at generation with --style",
        )
    for word in words_of(text):
        if word in IDENTITY_WORDS:
            raise InvalidInput(
                f"the word {word!r} describes what the token must learn",
                hint="describe what changes from photo to photo: clothes, scene, light, expression",
            )


def style_in(text: str) -> str:
    """The words of ``text`` that name an art style, the first such; empty where none does.

    A work of art that is an object in the scene is no style: where it is said to be at a place ("with an oil
    painting behind her", "on the wall", `_PLACED`) or a place is said to be at it ("in front of a fresco",
    `_FACED`). How a picture is made counts wherever it stands: "as an oil painting", "oil painting of her on
    a beach". What is neither, counts.
    """
    for phrase in re.split(r"[,;.:!?\n]+", text.lower()):
        plain = " ".join(re.sub(r"[^\w']", " ", phrase).split())
        if _ALONE.fullmatch(plain):
            return plain
        for found in STYLE.finditer(plain):
            if not (found.group("thing") and _in_the_scene(plain[: found.start()], plain[found.end() :])):
                return found.group()
    return ""


def _in_the_scene(before: str, after: str) -> bool:
    """Whether what stands between ``before`` and ``after`` is an object that the camera sees."""
    placed = _LED.match(before) and _PLACED.match(after)
    return bool(placed or (_FACED.match(before) and _ENDED.match(after)))


def check_caption(text: str, token: str, others: Iterable[str] = ()) -> str:
    """``text`` on one line, when it is a caption of this persona.

    Raises InvalidInput unless ``token`` is in it exactly once, no other persona's token is, and no style or
    identity word.
    """
    line = " ".join(text.split())
    found = line.count(token)
    if found != 1:
        raise InvalidInput(
            f"a caption holds {token} exactly once, not {found} times: {line[:80]!r}",
            hint=f"write it as: photo of {token} ..., and what changes from photo to photo",
        )
    refuse_tokens(line, others, mine=token)
    refuse_style_words(line.replace(token, " "))
    if len(line) > MAX_CAPTION:
        raise InvalidInput(
            f"a caption has at most {MAX_CAPTION} characters, not {len(line)}",
            hint="say less about the photo",
        )
    return line


def refuse_tokens(text: str, others: Iterable[str] = (), *, mine: str = "") -> None:
    """Raise InvalidInput when ``text`` holds a token of a persona other than ``mine``."""
    rest = text.replace(mine, " ") if mine else text
    found = re.findall(r"<oblik_[\w-]+>", rest) + [other for other in others if other and other in rest]
    if found:
        raise InvalidInput(
            f"{found[0]} is another persona's token", hint="a caption speaks of one person: take it out"
        )


def without_token(text: str, token: str) -> str:
    """The same caption or prompt about a stranger: an article takes the token's place, where it is there.

    A training shows it so that strangers stay strangers, and bleed is measured with it.
    """

    def article(match: re.Match[str]) -> str:
        following = match.group(1)
        return f"{'an' if following[:1].lower() in tuple('aeiou') else 'a'} {following}".rstrip()

    return re.sub(re.escape(token) + r"\s*(\w*)", article, text)


def anybody(text: str, token: str, noun: str) -> str:
    """The same caption about anybody at all: the token and the words that go with it become "a noun".

    What goes with it is what stands between it and the next comma: the person's age, skin and hair.
    """
    somebody = without_token(f"{token} {noun}", token)
    return re.sub(re.escape(token) + r"[^,]*", lambda _: somebody, text)


def words_of(text: str) -> list[str]:
    """The words of a text, in small letters."""
    return re.findall(r"[\w']+", text.lower())


def _subject(descriptors: Mapping[str, str], token: str | None, noun: str | None) -> str:
    noun = noun or descriptors.get("gender", "person")
    age = descriptors.get("age", "")
    who = " ".join(word for word in (token or ("an" if age == "old" else "a"), age, noun) if word)
    traits = [text for text in (_skin(descriptors), _hair(descriptors), _beard(descriptors)) if text]
    return f"photo of {who}" + (f" with {' and '.join(traits)}" if traits else "")


def _skin(descriptors: Mapping[str, str]) -> str:
    return f"{descriptors['skin']} skin" if "skin" in descriptors else ""


def _hair(descriptors: Mapping[str, str]) -> str:
    style, color = descriptors.get("hair_style", ""), descriptors.get("hair_color", "")
    if style == "bald":
        return "bald head"
    return f"{' '.join(word for word in (style, color) if word)} hair" if style or color else ""


def _beard(descriptors: Mapping[str, str]) -> str:
    word = descriptors.get("beard", "none")
    return "" if word == "none" else word


def phrases(descriptors: Mapping[str, str]) -> list[str]:
    """What a caption says after its subject: what is worn, the face's expression, the view, the place."""
    present = descriptors.get("accessories", "")
    worn = [name for name in ACCESSORIES if name in present.split(", ")]
    clothing = descriptors.get("clothing")
    found = [
        f"wearing {' and '.join(worn)}" if worn else "",
        f"{clothing} clothes" if clothing else "",
        EXPRESSIONS.get(descriptors.get("expression", ""), ""),
        "hand at face" if "hand" in present.split(", ") else "",
        f"{descriptors['view']} view" if "view" in descriptors else "",
        descriptors.get("framing", ""),
        SCENES.get(descriptors.get("scene", ""), ""),
        LIGHTS.get(descriptors.get("light", ""), ""),
    ]
    return [phrase for phrase in found if phrase]
