"""The two halves of a batch, forward and backward, on two threads at once.

In: a function that computes some rows of a batch, a loss over all rows. Out: the loss, and gradients on the
parameters. Small operators gain nothing from a second core inside each of them (OpenMP's threads sleep and
wake for every one); on a CPU a thread for each half does. There it is always two halves, so that the number
of cores does not change what is learned. Knows nothing of what is computed.

B batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor, nn

Rows = Callable[[slice], Tensor]


class Halves:
    """Two threads that wait for work, each running its operators alone.

    On a GPU the batch stays ``whole``, and where blocks of the network come and go: two threads would need
    two of them at once.
    """

    def __init__(
        self, parameters: Sequence[nn.Parameter], device: torch.device, *, whole: bool = False
    ) -> None:
        self._parameters = list(parameters)
        halved = device.type == "cpu" and not whole
        pool = ThreadPoolExecutor(2, "half", torch.set_num_threads, (1,)) if halved else None
        self._map = pool.map if pool else map

    def compute(self, rows: Rows, count: int) -> Tensor:
        """``rows`` of the whole batch, without gradients. Shape (B, ...)."""

        def half(part: slice) -> Tensor:
            with torch.no_grad():
                return rows(part)

        return torch.cat(list(self._map(half, self._parts(count))))

    def backward(
        self, rows: Rows, count: int, loss: Callable[[Tensor], Tensor], leaves: Sequence[Tensor] = ()
    ) -> Tensor:
        """Add the gradients of ``loss(rows of the whole batch)`` to the parameters', or to those of the
        ``leaves`` where some are given; returns the loss."""
        parts, towards = self._parts(count), leaves or self._parameters
        outputs = list(self._map(rows, parts))
        whole = torch.cat([output.detach() for output in outputs]).requires_grad_()
        value = loss(whole)
        (slope,) = torch.autograd.grad(value, whole)

        def back(output: Tensor, part: slice) -> tuple[Tensor | None, ...]:
            return torch.autograd.grad(output, towards, slope[part], allow_unused=True)

        gradients = list(self._map(back, outputs, parts))
        for parameter, *shares in zip(towards, *gradients, strict=True):
            known = [share for share in shares if share is not None]
            if known:
                gradient = torch.stack(known).sum(0)
                parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
        return value.detach()

    def _parts(self, count: int) -> list[slice]:
        middle = count // 2
        if self._map is map or not middle:
            return [slice(0, count)]
        return [slice(0, middle), slice(middle, count)]
