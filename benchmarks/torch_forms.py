"""Token in PyTorch, in the forms that a user might run it in.

PyTorch's defaults stay but for cuDNN's choice of the fastest kernel: on a GPU its
float32 convolutions run in TF32, while tokret's do not.
"""

import gc
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokret.benchmark.rivals import Call
from tokret.convert.torch_token import Token, conv_bn, embed
from tokret.models.preprocessing import IMAGENET


class BasicBlock(nn.Module):
    """The tiny trunk's two 3x3 convolutions, the first with the stride."""

    expansion = 1

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


# Arguments of `Token`.
TRUNKS: dict[str, dict[str, Any]] = {
    "resnet50": {"blocks": (3, 4, 6, 3)},
    "resnet101": {"blocks": (3, 4, 23, 3)},
    "tiny": {"blocks": (1, 1, 1), "trunk_width": 32, "block": BasicBlock},
}


class Form(NamedTuple):
    """How PyTorch runs."""

    half: bool = False  # bfloat16 by autocast
    channels_last: bool = False  # NHWC memory layout
    compiled: bool = False  # by torch.compile

    @property
    def layout(self) -> torch.memory_format:
        """Of images and weights."""
        return torch.channels_last if self.channels_last else torch.contiguous_format


FORMS: dict[str, dict[str, Form]] = {
    "float32": {
        "eager": Form(),
        "channels-last": Form(channels_last=True),
        "compiled": Form(channels_last=True, compiled=True),
    },
    "bfloat16": {
        "eager float32": Form(),
        "bf16 channels-last": Form(half=True, channels_last=True),
        "bf16 compiled": Form(half=True, channels_last=True, compiled=True),
    },
}


def device() -> torch.device:
    """Returns a GPU if PyTorch has one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def release() -> None:
    """Frees the device memory that nothing refers to."""
    gc.collect()
    torch.compiler.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _token(trunk: str, form: Form, classes: int | None = None) -> Token:
    torch.backends.cudnn.benchmark = True
    torch.manual_seed(0)
    model = Token(**TRUNKS[trunk], num_classes=classes).to(device())
    return model.to(memory_format=form.layout)


def _images(images: np.ndarray, form: Form) -> Tensor:
    """[b, h, w, 3] -> [b, 3, h, w] on the device."""
    tensor = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    return tensor.to(device()).contiguous(memory_format=form.layout)


def _finished() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def inference(trunk: str, form: Form, images: np.ndarray) -> Call:
    """Makes a call that embeds normalised images [b, h, w, 3] once."""
    model, inputs = _token(trunk, form).eval(), _images(images, form)
    run: Any = lambda x: model(x)[0]  # noqa: E731 (compiled or not, the same name)
    run = torch.compile(run, dynamic=False) if form.compiled else run

    def call() -> None:
        with (
            torch.inference_mode(),
            torch.autocast(inputs.device.type, torch.bfloat16, enabled=form.half),
        ):
            run(inputs)
        _finished()

    return call


def training(
    trunk: str,
    form: Form,
    images: np.ndarray,
    labels: np.ndarray,
    classes: int,
    steps: int,
) -> Call:
    """Makes a call of some steps by one batch: the released SGD, images as bytes."""
    model = _token(trunk, form, classes).train()
    inputs = _images(images, form)
    targets = torch.from_numpy(labels).long().to(device())
    optimiser = torch.optim.SGD(
        model.parameters(), lr=0.01, momentum=0.9, nesterov=True, weight_decay=1e-4
    )
    mean, std = _pixel_scale()

    def loss(pixels: Tensor, labels: Tensor) -> Tensor:
        embedding = model((pixels.float() / 255 - mean) / std)[1]["embedding"]
        assert model.classifier is not None
        return F.cross_entropy(model.classifier(embedding, labels), labels)

    run: Any = torch.compile(loss, dynamic=False) if form.compiled else loss

    def call() -> None:
        for _ in range(steps):
            optimiser.zero_grad()
            with torch.autocast(inputs.device.type, torch.bfloat16, enabled=form.half):
                value = run(inputs, targets)
            value.backward()
            optimiser.step()
        _finished()

    return call


def extraction(
    trunk: str, form: Form, photos: Sequence[np.ndarray], scales: Sequence[float]
) -> Call:
    """Makes the released loop: photos [h, w, 3] one at a time; eager, float32.

    Photos are bytes on the device. cuDNN does not search for the fastest kernels, which
    it would do again for nearly every photo, since shapes differ.
    """
    model = _token(trunk, form).eval()
    torch.backends.cudnn.benchmark = False
    inputs = [_images(photo[None], form) for photo in photos]
    mean, std = _pixel_scale()

    def call() -> None:
        for photo in inputs:
            embed(model, (photo.float() / 255 - mean) / std, scales).cpu()

    return call


def _pixel_scale() -> tuple[Tensor, Tensor]:
    mean, std = (
        torch.tensor(values, device=device()).view(1, 3, 1, 1) for values in IMAGENET
    )
    return mean, std
