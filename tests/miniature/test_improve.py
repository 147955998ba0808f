"""A pack can be gone on from: its parts come back as they were."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file

from oblik.miniature.architecture import new_projector, new_vae
from oblik.miniature.build import special_ids, write_pack
from oblik.miniature.face_networks import Embedder, Landmarks
from oblik.miniature.faces_pack import export_networks
from oblik.miniature.improve import (
    EMBEDDER,
    START,
    START_EMBEDDER,
    START_VAE,
    VAE,
    adopt,
    carry_latents,
    carry_names,
    carry_projector,
)
from oblik.miniature.train_transformer import Painter
from oblik.miniature.vocabulary import train_tokenizer


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch calls its own TorchScript exporter old
def test_every_network_comes_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokenizer = train_tokenizer(["photo of a young woman"] * 3)
    painter, embedder, landmarks = Painter(1, special_ids(tokenizer)), Embedder(), Landmarks()
    before = {name: value.clone() for name, value in painter.state_dict().items()}
    write_pack(tmp_path / "pack", painter, new_vae(0), tokenizer)
    export_networks(tmp_path / "pack" / "faces", embedder, landmarks)
    adopt(tmp_path / "pack", tmp_path / "work")
    start = load_file(tmp_path / "work" / START)
    assert start.keys() <= before.keys()
    assert before.keys() - start.keys() <= {"text_encoder.lm_head.weight"}
    assert all(torch.allclose(start[name], before[name], rtol=2e-2, atol=1e-3) for name in start)
    for name, net in (("embedder", embedder), ("landmarks", landmarks)):
        found = load_file(tmp_path / "work" / f"{name}.safetensors")
        kept = {key: value for key, value in net.state_dict().items() if "num_batches" not in key}
        assert all(torch.equal(found[key], value) for key, value in kept.items())


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_learns_further_is_only_the_start(tmp_path: Path) -> None:
    tokenizer = train_tokenizer(["photo of a young woman"] * 3)
    write_pack(tmp_path / "pack", Painter(1, special_ids(tokenizer)), new_vae(0), tokenizer)
    export_networks(tmp_path / "pack" / "faces", Embedder(), Landmarks())
    adopt(tmp_path / "pack", tmp_path / "work", faces=True, vae=True)
    work = tmp_path / "work"
    assert (work / START_EMBEDDER).exists()
    assert (work / START_VAE).exists()
    assert not (work / EMBEDDER).exists()
    assert not (work / VAE).exists()


def test_names_stay_when_the_embedder_changes() -> None:
    torch.manual_seed(0)
    projector = new_projector()
    old = torch.nn.functional.normalize(torch.randn(2000, 128), dim=1)
    turned = old @ torch.linalg.qr(torch.randn(128, 128)).Q
    with torch.no_grad():
        names = projector(old)
        before = torch.nn.functional.mse_loss(projector(turned), names)
    missed = carry_projector(projector, old.numpy(), turned.numpy(), steps=1500)
    with torch.no_grad():
        after = torch.nn.functional.mse_loss(projector(turned), names)
    assert missed < 0.2
    assert after < before / 4


def test_the_start_is_carried_once(tmp_path: Path) -> None:
    torch.manual_seed(0)
    other = {"transformer.weight": torch.ones(3)}
    named = {f"projector.{name}": value for name, value in new_projector().state_dict().items()}
    save_file({**other, **named}, tmp_path / START)
    old = torch.nn.functional.normalize(torch.randn(300, 128), dim=1).numpy()
    asked = []

    def before() -> NDArray[np.float32]:
        asked.append(1)
        return old

    for _ in range(2):
        carry_names(tmp_path, before, -old)
    after = load_file(tmp_path / START)
    assert asked == [1]
    assert after.keys() == {*other, *named}
    assert torch.equal(after["transformer.weight"], other["transformer.weight"])
    assert not torch.equal(after["projector.0.weight"], named["projector.0.weight"])


def test_a_transformer_follows_its_vae_to_other_latents(tmp_path: Path) -> None:
    torch.manual_seed(0)
    old, turn, shift = torch.randn(500, 6), torch.linalg.qr(torch.randn(6, 6)).Q, torch.randn(6)
    new = old @ turn + shift
    into, out = torch.nn.Linear(6, 9), torch.nn.Linear(9, 6)
    layers = {"transformer.img_in": into, "transformer.proj_out": out}
    start = {
        f"{name}.{key}": value for name, net in layers.items() for key, value in net.state_dict().items()
    }
    save_file(start, tmp_path / START)
    for _ in range(2):  # the second time nothing is left to do
        carry_latents(tmp_path, lambda: old, new)
    carried = load_file(tmp_path / START)
    linear = torch.nn.functional.linear
    hidden = linear(new, carried["transformer.img_in.weight"], carried["transformer.img_in.bias"])
    assert torch.allclose(hidden, into(old), atol=1e-4)
    drawn = linear(hidden, carried["transformer.proj_out.weight"], carried["transformer.proj_out.bias"])
    assert torch.allclose(drawn, out(hidden) @ turn, atol=1e-4)
