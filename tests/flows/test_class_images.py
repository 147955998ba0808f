"""An engine as the function that paints strangers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from oblik.flows.class_images import painter_of, why_unpainted
from oblik.generation.engine import Engine
from oblik.progress import SilentProgress

if TYPE_CHECKING:
    from tests.flows.conftest import World


def test_the_bare_pack_paints_each_seed(world: World) -> None:
    opened: list[Engine] = []

    def engine() -> Engine:
        opened.append(world.engine)
        return world.engine

    painter = painter_of(
        world.pack,
        engine,
        home=world.home,
        progress=SilentProgress(),
        now=world.now,
    )
    assert opened == []
    made = [painter.paint("photo of a woman", seeds, (64, 64)) for seeds in ((1, 2), (3,))]
    assert [len(pictures) for pictures in made] == [2, 1]
    assert len(opened) == 1
    plan = world.engine.plans[0]
    assert (plan.persona, plan.lora, plan.seeds, plan.prompt) == (None, None, (1, 2), "photo of a woman")
    assert painter.cache.name == f"{world.pack.manifest.name}-{world.pack.manifest.version}"


def test_what_a_pack_advises_is_painted_only_on_a_card(world: World) -> None:
    advised = world.pack.manifest.model_copy(update={"training": {"class_images": 200}})
    pack = world.pack.model_copy(update={"manifest": advised})
    assert why_unpainted(world.pack, "cpu") == ""
    assert why_unpainted(pack, "cuda") == ""
    assert "days" in why_unpainted(pack, "cpu")
    foreign = advised.model_copy(update={"family": "other"})
    assert "nothing here paints" in why_unpainted(pack.model_copy(update={"manifest": foreign}), "cuda")
