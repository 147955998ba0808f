"""A linear layer with its LoRA in one function: no passes between its products, and little kept.

In: peft's LoRA layers on frozen linear layers. Out: the same layers, names and files, computing the same
(tests/diffusion/test_lean_lora.py). peft scales and adds in passes of their own, and keeps what those need.
Knows nothing of the network around.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from peft.tuners.lora.layer import Linear
from torch import Tensor, nn


class LeanLora(Linear):  # type: ignore[misc]
    """peft's layer with another forward; where another type, dropout or a second LoRA is in play, peft's."""

    def forward(self, x: Tensor, *args: Any, gelu: bool = False, **words: Any) -> Tensor:
        """The layer on x, or on GELU(x)."""
        names = [name for name in self.active_adapters if name in self.lora_A]
        if args or words or len(names) != 1 or not self._is_plain(x, names[0]):
            out: Tensor = super().forward(_bent(x) if gelu else x, *args, **words)
            return out
        name, base = names[0], self.base_layer
        down, up = self.lora_A[name].weight, self.lora_B[name].weight
        product: Tensor = _Product.apply(  # type: ignore[no-untyped-call]
            x, base.weight, base.bias, down, up, self.scaling[name], gelu
        )
        return product

    def _is_plain(self, x: Tensor, name: str) -> bool:
        weight, down = self.base_layer.weight, self.lora_A[name].weight
        return (
            not (self.disable_adapters or self.merged or weight.requires_grad)
            and name not in self.lora_variant
            and isinstance(self.lora_dropout[name], nn.Identity)
            and x.dtype == weight.dtype == down.dtype
        )


def make_lean(network: nn.Module) -> None:
    """Change every LoRA on a plain linear layer in place; packed weights keep their own."""
    for layer in network.modules():
        if type(layer) is not Linear or type(layer.base_layer) is not nn.Linear:
            continue
        if type(layer.base_layer.weight) is nn.Parameter:
            layer.__class__ = LeanLora


def _bent(x: Tensor) -> Tensor:
    return F.gelu(x, approximate="tanh")


class _Product(torch.autograd.Function):
    """y = f W^T + b + s (f A^T) B^T, f = x or GELU(x); Hu et al. 2021, eq. 3. W and b are constants.

    Kept are x and f A^T; GELU is computed again, for its result is what needs most room in a block.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, down: Tensor, up: Tensor, scale: float,
        gelu: bool,
    ) -> Tensor:  # fmt: skip
        rows = (_bent(x) if gelu else x).flatten(0, -2)
        low = rows @ down.T
        out = rows @ weight.T if bias is None else torch.addmm(bias, rows, weight.T)
        out.addmm_(low, up.T, alpha=scale)
        ctx.save_for_backward(x, low, weight, down, up)
        ctx.scale, ctx.gelu = scale, gelu
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, low, weight, down, up = ctx.saved_tensors
        grad_rows = grad.flatten(0, -2)
        back = grad_rows @ up
        rows = (_bent(x) if ctx.gelu else x).flatten(0, -2)
        grad_down, grad_up = (back.T @ rows).mul_(ctx.scale), (grad_rows.T @ low).mul_(ctx.scale)
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x = (grad_rows @ weight).addmm_(back, down, alpha=ctx.scale).view(x.shape)
            if ctx.gelu:
                grad_x = torch.ops.aten.gelu_backward(grad_x, x, approximate="tanh")
        return grad_x, None, None, grad_down, grad_up, None, None
