"""The noun `Order`: one YAML file that asks for a series of pictures of one person.

In: plain values, read by `oblik.generation.order_file`. Out: a validated order, the pictures it asks for as
a flat list of `Job`, the JSON Schema for editors. Ranges are those of `Plan`, taken over field by field.
Knows nothing of personas, packs and engines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    TypeAdapter,
    create_model,
    model_validator,
)

from oblik.errors import InvalidInput
from oblik.generation.plan import Control, Plan
from oblik.generation.sizes import LONGEST_PX, SHORTEST_PX, aspect_of, laid_over, refuse_two_ways

MOST_OF_AN_ITEM, MOST_PICTURES = 1000, 10_000
QUALITY = "standard"
OPEN = (
    "negative_prompt", "lora_scale", "batch", "sampler", "steps", "guidance", "width_px", "height_px",
    "dtype", "mode", "attention", "guidance_at_once", "cache_threshold", "compiled",
)  # fmt: skip
"""What of a plan an order may set, beside size by shape and controls. The rest is the order's own, or follows
from the persona."""

_STRICT = ConfigDict(frozen=True, extra="forbid")
_NAME = r"^[A-Za-z0-9][A-Za-z0-9_-]{0,39}$"


def _optional(name: str) -> Any:
    """A field of `Plan` with its range, as one that may be left out."""
    field = Plan.model_fields[name]
    kind: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    return (kind | None, None)


def _shape(text: str) -> str:
    try:
        aspect_of(text)
    except InvalidInput as refused:
        raise ValueError(refused.message.removeprefix("aspect: ")) from None
    return text


class _Shaped(BaseModel):
    """What stands for other values of a plan: a size by its shape, and files that become control images."""

    model_config = _STRICT

    short_side_px: int | None = Field(None, ge=SHORTEST_PX, le=LONGEST_PX, description="The shorter side.")
    aspect: Annotated[str, AfterValidator(_shape)] | None = Field(None, description="Such as 3:4.")
    controls: tuple[Control, ...] | None = Field(
        None, max_length=1, description="What the pictures follow: a photo, or a finished control image."
    )

    @model_validator(mode="after")
    def _one_size(self) -> _Shaped:
        try:
            refuse_two_ways(self.model_dump(exclude_none=True))
        except InvalidInput as refused:
            raise ValueError(refused.message) from None
        return self


Values: type[BaseModel] = create_model(
    "Values", __base__=_Shaped, __doc__="Values of a plan.", **{name: _optional(name) for name in OPEN}
)

Seed = Annotated[int, Field(ge=0, lt=2**63)]
Seeds = Annotated[tuple[Seed, ...], Field(min_length=1, max_length=MOST_OF_AN_ITEM)]
Words = Annotated[str, Field(min_length=1, max_length=2000)]
Wishes = Annotated[Values, Field(description="Values of a plan, as `oblik generate --help` names them.")]


class _Counted(BaseModel):
    """How many pictures: seeds one by one, or ``count`` of them from ``seed`` upwards."""

    model_config = _STRICT

    seeds: Seeds | None = Field(None, description="One picture for each seed.")
    count: int | None = Field(None, ge=1, le=MOST_OF_AN_ITEM, description="That many pictures.")
    seed: Seed | None = Field(None, description="The first seed of `count`.  [1]")

    @model_validator(mode="after")
    def _one_way(self) -> _Counted:
        if self.seeds is not None and (self.count is not None or self.seed is not None):
            raise ValueError("seeds excludes count and seed")
        if self.seeds is not None and len(set(self.seeds)) < len(self.seeds):
            raise ValueError("a seed stands there twice: the picture would be the same")
        return self

    def asked_seeds(self) -> tuple[int, ...] | None:
        if self.seeds is not None or (self.count is None and self.seed is None):
            return self.seeds
        first = 1 if self.seed is None else self.seed
        return tuple(range(first, first + (self.count or 1)))


class Item(_Counted):
    """One entry of a catalogue; what it leaves out is as the order says."""

    prompt: Words
    name: str | None = Field(None, pattern=_NAME, description="Names the folder.  [item-<number>]")
    quality: str | None = Field(None, min_length=1, description="Another quality level or preset.")
    style: bool | None = Field(None, description="Allow art styles in the prompt.")
    plan: Wishes | None = None


class _Order(BaseModel):
    model_config = _STRICT

    name: str = Field(pattern=_NAME, description="Names the order and its folder.")
    persona: str = Field(min_length=1, description="The one person in all of its pictures.")
    quality: str = Field(QUALITY, min_length=1, description="A quality level or any other preset.")
    folder: str | None = Field(
        None, min_length=1, description="Where the pictures go, from this file on.  [in the person's gallery]"
    )
    lora: str | None = Field(None, pattern=r"^v\d{3,}$", description="Version of the LoRA.  [the one in use]")
    style: bool = Field(False, description="Allow art styles in the prompts.")
    plan: Wishes | None = None


class Series(_Order, _Counted):
    """One prompt, many seeds."""

    type: Literal["series"]
    prompt: Words


class Catalogue(_Order, _Counted):
    """Many prompts, each with its own wishes."""

    type: Literal["catalogue"]
    items: tuple[Item, ...] = Field(min_length=1, max_length=MOST_OF_AN_ITEM)

    @model_validator(mode="after")
    def _names_differ(self) -> Catalogue:
        names = Counter(name.lower() for name in self.names())
        if twice := [name for name, times in names.items() if times > 1]:
            raise ValueError(f"two items are called {twice[0]!r}")
        return self

    def names(self) -> list[str]:
        """What each item is called."""
        return [item.name or f"item-{place}" for place, item in enumerate(self.items, start=1)]


class Grid(_Order):
    """Every prompt with every seed."""

    type: Literal["grid"]
    prompts: tuple[Words, ...] = Field(min_length=1, max_length=MOST_OF_AN_ITEM)
    seeds: Seeds


Order = Series | Catalogue | Grid
ORDER: TypeAdapter[Order] = TypeAdapter(Annotated[Order, Field(discriminator="type")])


@dataclass(frozen=True)
class Job:
    """Pictures of one prompt. ``place`` is where the prompt stands in the file; ``asked`` are values of a
    plan; ``seeds`` None leaves them to the preset; ``at`` is where a value of the plan was asked for."""

    name: str
    text: str
    quality: str
    style: bool
    seeds: tuple[int, ...] | None
    asked: dict[str, Any]
    place: tuple[str | int, ...]
    item: tuple[str | int, ...] = ()
    own: frozenset[str] = frozenset()

    def at(self, value: str) -> tuple[str | int, ...]:
        """Where ``value`` stands: in the plan of the ``item`` that has it as its ``own``, or the order's."""
        return (*self.item, "plan", value) if value in self.own else ("plan", value)


def jobs_of(order: Order) -> list[Job]:
    """What the order asks for, prompt by prompt."""
    return list(_jobs(order))


def _jobs(order: Order) -> Iterator[Job]:
    wishes = _given(order.plan)
    if isinstance(order, Series):
        yield Job(
            "series", order.prompt, order.quality, order.style, order.asked_seeds(), wishes, ("prompt",)
        )
    elif isinstance(order, Grid):
        for place, prompt in enumerate(order.prompts):
            where = ("prompts", place)
            yield Job(f"prompt-{place + 1}", prompt, order.quality, order.style, order.seeds, wishes, where)
    else:
        for place, (name, item) in enumerate(zip(order.names(), order.items, strict=True)):
            own = _given(item.plan)
            yield Job(
                name,
                item.prompt,
                item.quality or order.quality,
                order.style if item.style is None else item.style,
                item.asked_seeds() or order.asked_seeds(),
                laid_over(wishes, own),
                ("items", place, "prompt"),
                ("items", place),
                frozenset(own),
            )


def json_schema() -> dict[str, Any]:
    """The schema of an order's file, for editors that complete and check YAML."""
    schema = ORDER.json_schema()
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Oblik order", **schema}


def _given(values: BaseModel | None) -> dict[str, Any]:
    return values.model_dump(exclude_none=True) if values else {}
