"""Two halves of a batch on two threads: the same loss and gradients as the whole."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from oblik.training.backends.halves import Halves


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.SiLU(), nn.Linear(16, 3))


@pytest.mark.parametrize("count", [1, 2, 5, 12])
def test_loss_and_gradients_are_those_of_the_whole_batch(net: nn.Module, count: int) -> None:
    x, weight = torch.randn(count, 6), torch.rand(count, 3)

    def loss(y: Tensor) -> Tensor:
        return (y.square() * weight / weight.mean()).mean()

    whole = loss(net(x))
    whole.backward()
    expected = [parameter.grad for parameter in net.parameters()]
    unused = nn.Parameter(torch.ones(2))
    for parameter in net.parameters():
        parameter.grad = None
    halves = Halves([*net.parameters(), unused], torch.device("cpu"))
    value = halves.backward(lambda part: net(x[part]), count, loss)
    assert torch.allclose(value, whole.detach())
    for parameter, gradient in zip(net.parameters(), expected, strict=True):
        assert parameter.grad is not None
        assert gradient is not None
        assert torch.allclose(parameter.grad, gradient, atol=1e-6)
    assert unused.grad is None


def test_gradients_can_go_to_what_was_computed_before(net: nn.Module) -> None:
    x = torch.randn(5, 6)
    leaf, expected = x.clone().requires_grad_(), x.clone().requires_grad_()
    net(expected).square().mean().backward()
    net.zero_grad()
    halves = Halves(list(net.parameters()), torch.device("cpu"))
    halves.backward(lambda part: net(leaf[part]), 5, lambda y: y.square().mean(), [leaf])
    assert leaf.grad is not None
    assert expected.grad is not None
    assert torch.allclose(leaf.grad, expected.grad, atol=1e-6)
    assert all(parameter.grad is None for parameter in net.parameters())


def test_without_gradients_the_rows_keep_their_order(net: nn.Module) -> None:
    x = torch.randn(7, 6)
    found = Halves([], torch.device("cpu")).compute(lambda part: net(x[part]), 7)
    assert not found.requires_grad
    assert torch.allclose(found, net(x), atol=1e-6)


def test_on_a_gpu_the_batch_stays_whole() -> None:
    seen: list[slice] = []

    def rows(part: slice) -> Tensor:
        seen.append(part)
        return torch.zeros(4, 1)

    Halves([], torch.device("cuda")).compute(rows, 4)
    assert seen == [slice(0, 4)]
