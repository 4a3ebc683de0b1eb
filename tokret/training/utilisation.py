"""Model FLOP of training, and the images/s at the peak of the devices."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from tokret.models.retrieval_net import RetrievalNet
from tokret.runtime.chips import CHIPS
from tokret.shapes import Array
from tokret.training.state import Classifiers, classifier_inputs


def peak_images(
    devices: Sequence[Any],
    model: RetrievalNet,
    variables: Any,
    classifiers: Classifiers,
    size: int,
) -> float | None:
    """Returns the images/s of training at the devices' published bfloat16 peak.

    Measured images/s, divided by it, are the model FLOP utilisation (MFU). It is None
    for devices, all of one kind, whose peak is unknown. `variables` may be shapes;
    `size` is the side of the training square in pixels.
    """
    chip = CHIPS.get(devices[0].device_kind)
    if chip is None:
        return None
    return chip.peak * len(devices) / training_flop(model, variables, classifiers, size)


def training_flop(
    model: RetrievalNet, variables: Any, classifiers: Classifiers, size: int
) -> float:
    """Counts an image's model FLOP in training.

    It is that of the matrix products and convolutions of the forward and the backward
    pass without `remat`: recomputation does not count, nor do normalisations,
    activations and the update of the weights. For the arguments see `peak_images`.
    """
    once = model.clone(trunk=model.trunk.clone(remat=False))

    def loss(params: Any, batch_stats: Any, images: jax.Array) -> tuple[Array, Any]:
        outputs, _ = once.apply(
            {"params": params, "batch_stats": batch_stats},
            images,
            train=True,
            mutable=["batch_stats"],
            rngs={"dropout": jax.random.key(0)},
        )
        inputs = classifier_inputs(*outputs)
        return sum(map(jnp.sum, inputs.values()), start=jnp.zeros(())), inputs

    image = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
    gradient = jax.make_jaxpr(jax.grad(loss, has_aux=True), return_shape=True)
    traced, (_, inputs) = gradient(variables["params"], variables["batch_stats"], image)
    # Forward, and backward to the descriptors and to the class matrix.
    logits = sum(
        3 * 2 * shape.shape[-1] * classifiers[name].classes
        for name, shape in inputs.items()
    )
    return float(product_flop(traced.jaxpr) + logits)


def product_flop(jaxpr: Any) -> int:
    """Counts the FLOP of a jaxpr's matrix products and convolutions."""
    total = 0
    for equation in jaxpr.eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            depth = math.prod(left[axis] for axis in contracted)
            total += 2 * depth * math.prod(equation.outvars[0].aval.shape)
        elif equation.primitive.name == "conv_general_dilated":
            kernel = equation.invars[1].aval.shape
            outputs = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
            positions = math.prod(equation.outvars[0].aval.shape)
            # The gradient of a strided convolution dilates its input with zeros.
            zeros = math.prod(equation.params["lhs_dilation"])
            total += 2 * positions * math.prod(kernel) // outputs // zeros
        elif equation.primitive.name == "cond":
            # Only one of them runs, such as that for the platform in use.
            branches = (branch.jaxpr for branch in equation.params["branches"])
            total += max(map(product_flop, branches))
        else:
            turns = equation.params.get("length", 1)  # of a scan
            total += turns * sum(map(product_flop, _inner(equation.params)))
    return total


def _inner(params: dict[str, Any]) -> Iterator[Any]:
    """Yields the jaxprs among an equation's parameters."""
    for value in params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if hasattr(item, "jaxpr"):
                yield item.jaxpr
            elif hasattr(item, "eqns"):
                yield item
