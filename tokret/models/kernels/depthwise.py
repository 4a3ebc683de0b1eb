"""Depthwise convolution, and its gradients.

On a CPU it is the sum of k * k products with shifted inputs: XLA's CPU backend takes
many times longer over a grouped convolution, for which accelerators have kernels. Gain:
8 images of 224 px through EfficientNet-Lite0 in 0.16 instead of 1.97 s of processor
time (docs/performance.md, "Depthwise convolutions as sums of products"). The CPU's
gradients are written out: XLA would make k * k passes over memory for the kernel's, and
spread every product of a strided one over a mostly empty array.
"""

import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from tokret.models.kernels.matmul import convolve, statistics_dtype
from tokret.shapes import Array, Float


def grouped_convolution(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k 1 c"], stride: int
) -> Float[Array, "b h2 w2 c"]:
    """The depthwise convolution of `depthwise`, as one grouped convolution."""
    return convolve(x, kernel, stride, groups=x.shape[-1])


def shifted_products(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k 1 c"], stride: int
) -> Float[Array, "b h2 w2 c"]:
    """The depthwise convolution of `depthwise`, as a sum of k * k products."""
    side = kernel.shape[0]
    height, width = ((n - side) // stride + 1 for n in x.shape[1:3])
    kernel = kernel.astype(statistics_dtype(x))
    y = jnp.zeros((), kernel.dtype)
    for i, j, inputs in _taps(x, side, stride, height, width):
        y = y + inputs * kernel[i, j, 0]
    return y.astype(x.dtype)


def _taps(
    x: Float[Array, "b h w c"], side: int, stride: int, height: int, width: int
) -> Iterator[tuple[int, int, Float[Array, "b h2 w2 c"]]]:
    """Yields each of the kernel's positions: (row, column, its inputs)."""
    for i in range(side):
        for j in range(side):
            rows = slice(i, i + stride * (height - 1) + 1, stride)
            columns = slice(j, j + stride * (width - 1) + 1, stride)
            yield i, j, x[:, rows, columns]


def _kernel_gradient(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k 1 c"],
    g: Float[Array, "b h2 w2 c"],
    stride: int,
) -> Float[Array, "k k 1 c"]:
    """Sums input times the output's gradient for every position of the kernel.

    One reduction of k * k arrays at once: one pass over memory instead of k * k.
    """
    dtype = statistics_dtype(x)
    g = g.astype(dtype)
    taps = _taps(x, kernel.shape[0], stride, *g.shape[1:3])
    products = [inputs * g for _, _, inputs in taps]
    sums = jax.lax.reduce(
        products,
        [jnp.zeros((), dtype)] * len(products),
        lambda a, b: [p + q for p, q in zip(a, b, strict=True)],
        (0, 1, 2),
    )
    return jnp.stack(sums).reshape(kernel.shape).astype(kernel.dtype)


def _input_gradient(
    x: Float[Array, "b h w c"],
    kernel: Float[Array, "k k 1 c"],
    g: Float[Array, "b h2 w2 c"],
    stride: int,
) -> Float[Array, "b h w c"]:
    """Sums, for each input, the kernel times the gradients of its outputs.

    Output row r - d reads input row stride * r + p through the kernel's row
    stride * d + p: so each phase p is a sum of shifted products of its own, and the
    phases interleave.
    """
    b, height, width, c = x.shape
    side, dtype = kernel.shape[0], statistics_dtype(x)
    kernel = kernel.astype(dtype)
    rows, columns = -(-height // stride), -(-width // stride)
    largest = (side - 1) // stride  # the largest d
    padding = [
        (largest, n - m) for n, m in zip((rows, columns), g.shape[1:3], strict=True)
    ]
    g = jnp.pad(g, [(0, 0), *padding, (0, 0)])

    def phase(p: int, q: int) -> Float[Array, "b h2 w2 c"]:
        total = jnp.zeros((b, rows, columns, c), dtype)
        for i in range(p, side, stride):
            for j in range(q, side, stride):
                top, left = largest - i // stride, largest - j // stride
                outputs = g[:, top : top + rows, left : left + columns]
                total = total + outputs * kernel[i, j, 0]
        return total.astype(x.dtype)

    phases = [
        jnp.stack([phase(p, q) for q in range(stride)], axis=3) for p in range(stride)
    ]
    whole = jnp.stack(phases, axis=2)  # [b, rows, stride, columns, stride, c]
    whole = whole.reshape(b, rows * stride, columns * stride, c)
    return whole[:, :height, :width]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def depthwise(
    x: Float[Array, "b h w c"], kernel: Float[Array, "k k 1 c"], stride: int
) -> Float[Array, "b h2 w2 c"]:
    """Convolves each channel with a kernel of its own, without padding.

    Kernels are laid out as nn.Conv's with feature_group_count = c, in the dtype of `x`.
    Sides n become (n - k) // stride + 1.
    """
    return jax.lax.platform_dependent(
        x,
        kernel,
        cpu=functools.partial(shifted_products, stride=stride),
        default=functools.partial(grouped_convolution, stride=stride),
    )


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return depthwise(x, kernel, stride), (x, kernel)


def _backward(stride: int, saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    def shifted(x: Array, kernel: Array, g: Array) -> tuple[Array, Array]:
        arrays = (x, kernel, g, stride)
        return _input_gradient(*arrays), _kernel_gradient(*arrays)

    def grouped(x: Array, kernel: Array, g: Array) -> Any:
        form = functools.partial(grouped_convolution, stride=stride)
        return jax.vjp(form, x, kernel)[1](g)

    gradients: tuple[Array, Array] = jax.lax.platform_dependent(
        *saved, g, cpu=shifted, default=grouped
    )
    return gradients


depthwise.defvjp(_forward, _backward)
