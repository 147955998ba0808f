"""Stacked Muon makes the steps of torch's Muon."""

from __future__ import annotations

from copy import deepcopy

import torch

from oblik.miniature.muon import StackedMuon


def test_it_follows_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    shapes = [(24, 24), (24, 24), (48, 24), (24, 96)]
    mine = [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]
    theirs = deepcopy(mine)
    stacked = StackedMuon(mine, lr=0.01, weight_decay=0.1)
    stock = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    begin = [p.detach().clone() for p in mine]
    for _ in range(3):
        for one, other in zip(mine, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        stacked.step()
        stock.step()
    for start, one, other in zip(begin, mine, theirs, strict=True):
        moved = (other - start).norm()
        assert (one - other).norm() < 0.03 * moved
        assert moved > 0.1
