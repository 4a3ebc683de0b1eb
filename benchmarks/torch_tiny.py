"""The tiny trunk in PyTorch: stride 16, two 3x3 convolutions a block."""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from tokret.convert.torch_token import ArcFace, Token, TokenHead, conv_bn

WIDTH, STAGES = 32, 3


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, the first with the stride, beside a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = conv_bn(inputs, width, 3, stride)
        self.conv2, self.bn2 = conv_bn(width, width, 3)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or inputs != width:
            self.downsample = conv_bn(inputs, width, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[b, inputs, h, w] -> [b, width, h / stride, w / stride]."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        y += self.downsample(x)
        return F.relu(y, inplace=True)


class TinyTrunk(nn.ModuleDict):
    """Stem and three stages of one block."""

    def __init__(self) -> None:
        stem = conv_bn(3, WIDTH, 7, stride=2)
        stem.extend([nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1)])
        stages, channels = {"block1": stem}, WIDTH
        for i in range(STAGES):
            block = BasicBlock(channels, WIDTH * 2**i, 1 if i == 0 else 2)
            stages[f"block{i + 2}"] = nn.Sequential(block)
            channels = WIDTH * 2**i
        super().__init__(stages)
        self.channels = channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """[b, 3, h, w] -> every stage's output [b, c, h', w'], the deepest last."""
        outputs, x = {}, images
        for name, stage in self.items():
            outputs[name] = x = stage(x)
        return outputs


class TinyToken(Token):
    """Token over the tiny trunk.

    Args:
      num_classes: rows of the class matrix, or None for no classifier.
      **head: arguments of `TokenHead`.
    """

    def __init__(self, *, num_classes: int | None = None, **head: Any) -> None:
        nn.Module.__init__(self)
        self.backbone = TinyTrunk()
        self.tr = TokenHead(self.backbone.channels, **head)
        self.classifier = None
        if num_classes is not None:
            self.classifier = ArcFace(num_classes, self.tr.dim)
