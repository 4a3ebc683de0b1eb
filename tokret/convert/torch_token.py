"""Token in PyTorch: a second implementation, for parity and comparisons of speed.

Tensors have the names of the released state dict, so that the authors' checkpoints load
with `strict=True`. Needs the extra: pip install torch.

For speed: `.to(memory_format=torch.channels_last)`, under which local features become a
matrix without a copy, and `torch.compile` around a function that returns only the
results it needs: other intermediates are then not kept.
"""

import math
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CLIP = 1e-6  # the released code keeps cosines this far from -1 and 1


def conv_bn(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Makes a convolution without bias and its batch norm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 convolutions beside a shortcut."""

    expansion = 4  # its last convolution has 4 times the width of its first

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = self.expansion * width
        self.conv1, self.bn1 = conv_bn(inputs, width, 1)
        self.conv2, self.bn2 = conv_bn(width, width, 3, stride)
        self.conv3, self.bn3 = conv_bn(width, outputs, 1)
        same = stride == 1 and inputs == outputs
        self.downsample = nn.Identity() if same else conv_bn(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """[b, inputs, h, w] -> [b, 4 width, h / stride, w / stride]."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        y += self.downsample(x)
        return F.relu(y, inplace=True)


class ResNet(nn.ModuleDict):
    """Stem and stages, `block1`, `block2` and so on.

    Args:
      blocks: blocks in each stage; all stages but the first begin with stride 2.
      width: channels of the stem and width of the first stage's blocks.
      block: a class like `Bottleneck`.
    """

    def __init__(self, blocks: Sequence[int], width: int, block: Any) -> None:
        stem = conv_bn(3, width, 7, stride=2)
        stem.extend([nn.ReLU(inplace=True), nn.MaxPool2d(3, stride=2, padding=1)])
        stages, channels = {"block1": stem}, width
        for i, count in enumerate(blocks):
            stage = nn.Sequential()
            for j in range(count):
                stride = 2 if i > 0 and j == 0 else 1
                stage.append(block(channels, width * 2**i, stride))
                channels = block.expansion * width * 2**i
            stages[f"block{i + 2}"] = stage
        super().__init__(stages)
        self.channels = channels

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """[b, 3, h, w] -> every stage's output [b, c, h', w'], the deepest last."""
        outputs, x = {}, images
        for name, stage in self.items():
            outputs[name] = x = stage(x)
        return outputs


class DropPath(nn.Module):
    """Drops a residual branch of whole examples and scales up what is left."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate

    def forward(self, x: Tensor) -> Tensor:
        """[b, n, d] -> the same, in training with some examples zeroed."""
        if not self.training or self.rate == 0:
            return x
        return x * F.dropout(x.new_ones(x.shape[0], 1, 1), self.rate)


class Attention(nn.Module):
    """Multi-head attention with biases everywhere; its output starts at zero."""

    def __init__(self, width: int, num_heads: int, dropout: float) -> None:
        super().__init__()
        self.num_heads, self.dropout = num_heads, dropout
        self.q, self.k, self.v, self.proj = (nn.Linear(width, width) for _ in range(4))
        for layer in (self.q, self.k, self.v):
            nn.init.trunc_normal_(layer.weight, std=0.02)
            nn.init.zeros_(layer.bias)
        nn.init.zeros_(self.proj.weight)
        nn.init.zeros_(self.proj.bias)

    def forward(self, x: Tensor, source: Tensor) -> Tensor:
        """[b, n, d] gathers from [b, m, d] -> [b, n, d]."""
        queries, keys, values = (
            y.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # [b, h, n, d/h]
            for y in (self.q(x), self.k(source), self.v(source))
        )
        rate = self.dropout if self.training else 0.0
        y = F.scaled_dot_product_attention(queries, keys, values, dropout_p=rate)
        y = self.proj(y.transpose(1, 2).flatten(2))  # [b, n, d]
        return F.dropout(y, self.dropout, self.training)


class EncoderLayer(nn.Module):
    """Self-attention among the local features; no layer norm, no non-linearity."""

    def __init__(
        self, width: int, num_heads: int, dropout: float, drop_path: float
    ) -> None:
        super().__init__()
        self.attn = Attention(width, num_heads, dropout)
        self.bn = nn.BatchNorm1d(width)
        self.mlp = nn.Linear(width, width)
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tensor) -> Tensor:
        """[b, n, d] -> [b, n, d]."""
        x = x + self.drop_path(self.attn(x, x))
        y = self.bn(x.flatten(0, 1))  # [b * n, d]: no transposition of positions
        return x + self.drop_path(self.mlp(y).view_as(x))


def _mlp(width: int, dropout: float) -> nn.Sequential:
    """Makes two linear layers with an exact GELU between."""
    layers: dict[str, nn.Module] = {
        "fc1": nn.Linear(width, 2 * width),
        "gelu": nn.GELU(),
        "dropout1": nn.Dropout(dropout),
        "fc2": nn.Linear(2 * width, width),
        "dropout2": nn.Dropout(dropout),
    }
    return nn.Sequential(OrderedDict(layers))


class DecoderLayer(nn.Module):
    """Tokens look at the local features again, then at each other."""

    def __init__(
        self, width: int, num_heads: int, dropout: float, drop_path: float
    ) -> None:
        super().__init__()
        self.self_attn = Attention(width, num_heads, dropout)
        self.cross_attn = Attention(width, num_heads, dropout)
        self.bn1, self.bn2 = nn.LayerNorm(width), nn.LayerNorm(width)  # as released
        self.mlp = _mlp(width, dropout)
        self.drop_path = DropPath(drop_path)

    def forward(self, tokens: Tensor, x: Tensor) -> Tensor:
        """Tokens [b, l, d] and local features [b, n, d] -> tokens [b, l, d]."""
        tokens = tokens + self.drop_path(self.cross_attn(self.bn1(tokens), x))
        tokens = tokens + self.drop_path(self.mlp(tokens))
        y = self.bn2(tokens)
        return tokens + self.drop_path(self.self_attn(y, y))


class TokenHead(nn.Module):
    """The trunk's feature map, of some channels, -> the embedding.

    Defaults are the released ones; `tokret.models.heads.token.head.TokenHead` documents
    the arguments.
    """

    def __init__(
        self,
        channels: int,
        *,
        dim: int = 1024,
        width: int = 1024,
        tokens: int = 4,
        num_heads: int = 8,
        attention_layers: int = 1,
        refinement_layers: int = 2,
        dropout: float = 0.1,
        drop_path: float = 0.1,
    ) -> None:
        super().__init__()
        self.dim = dim
        layer = (width, num_heads, dropout, drop_path)
        self.query = nn.Parameter(torch.randn(1, tokens, width))
        self.token_norm = nn.Sequential(nn.Linear(width, width), nn.LayerNorm(width))
        encoder = (EncoderLayer(*layer) for _ in range(attention_layers))
        decoder = (DecoderLayer(*layer) for _ in range(refinement_layers))
        self.encoder, self.decoder = nn.ModuleList(encoder), nn.ModuleList(decoder)
        self.conv = nn.Sequential(nn.Conv2d(channels, width, 1), nn.BatchNorm2d(width))
        self.proj = nn.Sequential(nn.Linear(tokens * width, dim), nn.BatchNorm1d(dim))

    def forward(self, features: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """[b, c, h, w] -> the embedding [b, dim] and the head's intermediates."""
        x = self.conv(features).flatten(2).transpose(1, 2)  # [b, n, d]
        taps = {"local": x}
        for encode in self.encoder:
            x = encode(x)
        # Softmax over the TOKENS at each position.
        weights = (x @ self.query[0].T).softmax(dim=-1).transpose(1, 2)  # [b, l, n]
        tokens = self.token_norm(weights.to(x.dtype) @ x)  # [b, l, d]
        maps = weights.unflatten(-1, features.shape[2:])  # [b, l, h, w]
        taps |= {"lfsa": x, "attention": maps, "tokens": tokens}
        for i, refine in enumerate(self.decoder):
            taps[f"refined{i}"] = tokens = refine(tokens, x)
        return self.proj(tokens.flatten(1)), taps


class ArcFace(nn.Module):
    """The class matrix and its logits, without arccos (tokret.models.arcface)."""

    def __init__(
        self, classes: int, dim: int, scale: float = 32.0, margin: float = 0.2
    ) -> None:
        super().__init__()
        self.scale, self.margin = scale, margin
        self.weight = nn.Parameter(torch.empty(classes, dim))
        nn.init.xavier_uniform_(self.weight)

    def forward(self, embeddings: Tensor, labels: Tensor) -> Tensor:
        """Embeddings [b, dim] and labels [b] -> logits [b, classes]."""
        # In half precision 1 - CLIP is 1, where the sine has no gradient.
        with torch.autocast(embeddings.device.type, enabled=False):
            vectors = F.normalize(embeddings.to(self.weight.dtype), dim=-1)
            cosine = F.linear(vectors, F.normalize(self.weight, dim=-1))
            cosine = cosine.clamp(-1 + CLIP, 1 - CLIP)
            at_label = cosine.gather(1, labels[:, None])  # [b, 1]
            sine = (1 - at_label.square()).sqrt()
            moved = at_label * math.cos(self.margin) - sine * math.sin(self.margin)
            moved = torch.where(at_label >= -math.cos(self.margin), moved, at_label)
            return self.scale * cosine.scatter(1, labels[:, None], moved)


class Token(nn.Module):
    """Images -> descriptors, as released; the defaults are R50-Token's.

    Args:
      blocks: blocks in each of the trunk's stages; (3, 4, 23, 3) is ResNet-101.
      trunk_width: channels of the trunk's stem.
      block: class of the trunk's blocks.
      num_classes: rows of the class matrix `classifier`, or None for no classifier.
      **head: arguments of `TokenHead`.
    """

    def __init__(
        self,
        *,
        blocks: Sequence[int] = (3, 4, 6, 3),
        trunk_width: int = 64,
        block: Any = Bottleneck,
        num_classes: int | None = None,
        **head: Any,
    ) -> None:
        super().__init__()
        self.backbone = ResNet(blocks, trunk_width, block)
        self.tr = TokenHead(self.backbone.channels, **head)
        self.classifier = None
        if num_classes is not None:
            self.classifier = ArcFace(num_classes, self.tr.dim)

    def forward(self, images: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """Computes descriptors; in training, `classifier` takes the embedding.

        Args:
          images: normalised RGB images [b, 3, h, w].

        Returns:
          L2-normalised descriptors [b, dim] and, by tokret's names: block1, ...
          [b, c, h', w'], local and lfsa [b, h' * w', width], attention [b, tokens,
          h', w'], tokens and refined0, ... [b, tokens, width], and embedding [b, dim],
          the descriptor before normalisation.
        """
        stages = self.backbone(images)
        *_, features = stages.values()
        embedding, taps = self.tr(features)
        embedding = embedding.to(torch.promote_types(embedding.dtype, torch.float32))
        descriptor = F.normalize(embedding, dim=-1)
        return descriptor, {**stages, **taps, "embedding": embedding}


@torch.no_grad()
def embed(model: Token, images: Tensor, scales: Sequence[float]) -> Tensor:
    """Extracts the normalised mean of the descriptors at several scales.

    Args:
      model: in evaluation mode.
      images: normalised RGB images [b, 3, h, w].
      scales: factors of the sides.

    Returns:
      L2-normalised descriptors [b, dim].
    """
    mode: dict[str, Any] = {"mode": "bilinear", "align_corners": False}
    found = [
        model(images if s == 1 else F.interpolate(images, scale_factor=s, **mode))[0]
        for s in scales
    ]
    return F.normalize(torch.stack(found).mean(dim=0), dim=-1)
