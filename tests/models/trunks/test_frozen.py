import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.errors import UserError
from tokret.models.trunks.efficientnet import BlockGroup, EfficientNetLite
from tokret.models.trunks.resnet import BasicBlock, ResNet

TRUNKS = {
    "resnet": functools.partial(ResNet, (1, 1, 1), BasicBlock, 4),
    "second order": functools.partial(
        ResNet, (1, 1, 1), BasicBlock, 4, second_order=True
    ),
    "lite": functools.partial(
        EfficientNetLite, (BlockGroup(1, 3, 1, 1, 4), BlockGroup(2, 3, 2, 2, 6)), 4, 8
    ),
}


def trained(trunk):
    """Variables, gradients and the statistics after a batch in training."""
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 32, 32, 3)))
    variables = jax.jit(trunk.init, static_argnames="train")(
        jax.random.key(0), images, train=False
    )

    @jax.jit
    def gradient(params):
        def loss(params):
            (x, _, stages), after = trunk.apply(
                {**variables, "params": params},
                images,
                train=True,
                mutable=["batch_stats"],
            )
            return jnp.sum(x**3), (after["batch_stats"], stages)

        return jax.grad(loss, has_aux=True)(params)

    stages = jax.jit(lambda: trunk.apply(variables, images, train=False)[2])()
    return variables, gradient(variables["params"]), stages


def moved(tree):
    return any(float(jnp.abs(leaf).max()) > 0 for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    ("name", "stages", "frozen"),
    [
        ("resnet", 2, {"conv1", "bn1", "layer1_block0"}),
        ("second order", 4, {"conv1", "bn1", *(f"layer{i}_block0" for i in (1, 2, 3))}),
        ("lite", 1, {"stem_conv", "stem_bn", "block0"}),
    ],
)
def test_the_first_stages_are_frozen_and_all_others_learn(name, stages, frozen):
    trunk = TRUNKS[name](frozen_stages=stages)
    assert set(trunk.frozen_modules) == frozen
    variables, (grads, (statistics, found)), evaluated = trained(trunk)
    learning = {module for module, tree in grads.items() if moved(tree)}
    assert learning == set(grads) - frozen and learning
    before = variables["batch_stats"]
    for module, tree in statistics.items():
        change = jax.tree.map(jnp.subtract, tree, before[module])
        assert moved(change) == (module not in frozen), module
    end = f"block{stages}"
    np.testing.assert_allclose(found[end], evaluated[end], atol=1e-5)


def test_nothing_and_everything_may_be_frozen():
    for make, stages in ((TRUNKS["resnet"], 4), (TRUNKS["lite"], 2)):
        assert make(frozen_stages=0).frozen_modules == ()
        trunk = make(frozen_stages=stages)
        images = jnp.zeros((1, 16, 16, 3))
        shapes = jax.eval_shape(
            functools.partial(trunk.init, train=False), jax.random.key(0), images
        )
        assert set(trunk.frozen_modules) == set(shapes["params"])
        with pytest.raises(UserError, match="frozen_stages is"):
            make(frozen_stages=stages + 1)
