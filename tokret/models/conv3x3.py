"""3x3 convolutions, each pass in the form that the device is fast at."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from tokret.models.layers import he_normal
from tokret.models.products import precision_of, sum_of_products
from tokret.models.winograd import convolve_tiles, tiles_pay
from tokret.shapes import Array, Float

# From here on a CPU's products are faster at the kernel's gradient than its convolution
# is: positions of the output, and channels on both sides (docs/performance.md).
LEAST_POSITIONS = 2048
LEAST_CHANNELS = 64


class Conv3x3(nn.Module):
    """A 3x3 convolution without bias, with a border of zeros.

    Its kernel is nn.Conv's, [3, 3, in, out].

    Attributes:
      channels: channels of the output.
      dtype: dtype of the computation.
      stride: 1 or 2.
    """

    channels: int
    dtype: Any
    stride: int = 1

    @nn.compact
    def __call__(
        self, x: Float[Array, "b h w c"], *, train: bool
    ) -> Float[Array, "b h2 w2 d"]:
        """Convolves; by tiles where that is faster, which training is not."""
        shape = (3, 3, x.shape[-1], self.channels)
        kernel = self.param("kernel", he_normal, shape, jnp.float32).astype(self.dtype)
        x = x.astype(self.dtype)
        if train or self.stride > 1 or not tiles_pay(x, self.channels):
            return convolve(x, kernel, self.stride)
        return jax.lax.platform_dependent(
            x,
            kernel,
            cpu=convolve_tiles,
            default=functools.partial(convolve, stride=1),
        )


def _convolve(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"], stride: int
) -> Float[Array, "b h2 w2 d"]:
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        [(1, 1), (1, 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=precision_of(x.dtype),
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def convolve(
    x: Float[Array, "b h w c"], kernel: Float[Array, "3 3 c d"], stride: int
) -> Float[Array, "b h2 w2 d"]:
    """Convolves as XLA does; only the kernel's gradient may take another way."""
    return _convolve(x, kernel, stride)


def products_pay(x: Float[Array, "b h w c"], g: Float[Array, "b h2 w2 d"]) -> bool:
    """Whether a CPU's products beat its convolution at the kernel's gradient."""
    wide = min(x.shape[-1], g.shape[-1]) >= LEAST_CHANNELS
    many = g.size // g.shape[-1] >= LEAST_POSITIONS
    return wide and many and jnp.dtype(x.dtype).itemsize >= 4


def gradient_by_convolution(
    x: Float[Array, "b h w c"], g: Float[Array, "b h2 w2 d"], *, stride: int
) -> Float[Array, "3 3 c d"]:
    """The kernel's gradient as JAX derives it.

    XLA takes the photos of a batch for channels and g for a kernel as large as the map:
    vectors as short as the batch, and both arrays transposed before.
    """
    shape = (3, 3, x.shape[-1], g.shape[-1])
    kernel = jax.ShapeDtypeStruct(shape, x.dtype)
    (found,) = jax.linear_transpose(lambda k: _convolve(x, k, stride), kernel)(g)
    return jnp.asarray(found)


def gradient_by_products(
    x: Float[Array, "b h w c"], g: Float[Array, "b h2 w2 d"], *, stride: int
) -> Float[Array, "3 3 c d"]:
    """The kernel's gradient as three products, one a row of the kernel.

    A row's three taps are one product: what they meet stands side by side as channels,
    of g where the stride is 1, else of x, whose columns are fewer then.
    """
    taps, (height, width) = range(3), g.shape[1:3]
    if stride == 1:
        g = jnp.pad(g, ((0, 0), (0, 0), (1, 1), (0, 0)))
        g = jnp.concatenate([g[:, :, 2 - j : 2 - j + width] for j in taps], -1)
    else:
        x = jnp.pad(x, ((0, 0), (0, 0), (1, 1), (0, 0)))
        last = stride * (width - 1) + 1
        x = jnp.concatenate([x[:, :, j : j + last : stride] for j in taps], -1)
    x = jnp.pad(x, ((0, 0), (1, 1), (0, 0), (0, 0)))
    last = stride * (height - 1) + 1
    columns = g.reshape(-1, g.shape[-1])
    rows = [x[:, i : i + last : stride].reshape(-1, x.shape[-1]) for i in taps]
    found = jnp.stack([sum_of_products(row, columns) for row in rows])
    if stride == 1:
        return found.reshape(3, x.shape[-1], 3, -1).swapaxes(1, 2)
    return found.reshape(3, 3, -1, g.shape[-1])


def _forward(x: Array, kernel: Array, stride: int) -> tuple[Array, tuple[Array, Array]]:
    return _convolve(x, kernel, stride), (x, kernel)


def _backward(stride: int, saved: tuple[Array, Array], g: Array) -> tuple[Array, Array]:
    x, kernel = saved
    (to_x,) = jax.linear_transpose(lambda x: _convolve(x, kernel, stride), x)(g)
    derived = functools.partial(gradient_by_convolution, stride=stride)
    if not products_pay(x, g):
        return to_x, derived(x, g)
    products = functools.partial(gradient_by_products, stride=stride)
    return to_x, jax.lax.platform_dependent(x, g, cpu=products, default=derived)


convolve.defvjp(_forward, _backward)
