"""The miniature's two face networks.

`Landmarks` finds five points as heatmaps and says whether a face is there; `Embedder` turns an
aligned 112x112 face into a vector whose cosine tells people apart. Both are plain convolutions, so
that they export to ONNX as they are. Knows nothing of training.

B batch, C channel, H height, W width; images RGB in [-1, 1].
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

EMBEDDING = 128


class Residual(nn.Module):
    """Two 3x3 convolutions with batch norm and PReLU (the improved unit of ArcFace, section 3.2.1)."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.BatchNorm2d(channels_in),
            nn.Conv2d(channels_in, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.PReLU(channels),
            nn.Conv2d(channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        same = stride == 1 and channels_in == channels
        self.skip: nn.Module = (
            nn.Identity()
            if same
            else nn.Sequential(
                nn.Conv2d(channels_in, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )
        )

    def forward(self, x_BCHW: Tensor) -> Tensor:
        return torch.add(self.body(x_BCHW), self.skip(x_BCHW))


class Embedder(nn.Module):
    """(B, 3, 112, 112) -> (B, 128), not normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 24, 3, 2, 1, bias=False),
            nn.BatchNorm2d(24),
            nn.PReLU(24),
            Residual(24, 32, 2),
            Residual(32, 32, 1),
            Residual(32, 64, 2),
            Residual(64, 64, 1),
            Residual(64, 128, 2),
            Residual(128, 128, 1),
            nn.BatchNorm2d(128),
            nn.Conv2d(128, 128, 7, groups=128, bias=False),
            nn.Flatten(),
            nn.Linear(128, EMBEDDING, bias=False),
            nn.BatchNorm1d(EMBEDDING),
        )

    def forward(self, face: Tensor) -> Tensor:
        return torch.as_tensor(self.net(face))


class Landmarks(nn.Module):
    """(B, 3, 128, 128) -> heatmap logits (B, 5, 64, 64) and a presence logit (B, 1)."""

    def __init__(self) -> None:
        super().__init__()
        self.down1 = _conv(3, 16, 2)
        self.down2 = nn.Sequential(_conv(16, 32, 2), _conv(32, 32, 1))
        self.down3 = nn.Sequential(_conv(32, 64, 2), _conv(64, 64, 1))
        self.down4 = nn.Sequential(_conv(64, 96, 2), _conv(96, 96, 1), _conv(96, 96, 1))
        self.up3 = _conv(96 + 64, 48, 1)
        self.up2 = _conv(48 + 32, 32, 1)
        self.up1 = _conv(32 + 16, 24, 1)
        self.heatmaps = nn.Conv2d(24, 5, 3, 1, 1)
        self.presence = nn.Linear(96, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        x1 = self.down1(image)
        x2 = self.down2(x1)
        x3 = self.down3(x2)
        x4 = self.down4(x3)
        y = self.up3(torch.cat([_double(x4), x3], 1))
        y = self.up2(torch.cat([_double(y), x2], 1))
        y = self.up1(torch.cat([_double(y), x1], 1))
        return self.heatmaps(y), self.presence(x4.mean((2, 3)))


def _conv(channels_in: int, channels: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


def _double(x: Tensor) -> Tensor:
    return nn.functional.interpolate(x, scale_factor=2.0, mode="nearest")
