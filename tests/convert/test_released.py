import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tokret.convert.released import from_released, variable_of
from tokret.errors import UserError
from tokret.models.build import build_model


@pytest.mark.parametrize("trunk", ["resnet50", "resnet101"])
def test_every_released_tensor_is_one_variable_of_its_shape(trunk, shared):
    text = (shared / "golden" / "state_dict_names.json").read_text()
    names = json.loads(text)[trunk]
    # Stand-ins of the right shapes, without their memory.
    state_dict = {n: np.broadcast_to(np.float32(0), shape) for n, shape in names}
    converted = from_released(state_dict)
    model = build_model(trunk=trunk, head="token", dtype="float32")
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    wanted = jax.eval_shape(
        lambda x: model.init(jax.random.key(0), x, train=False), images
    )
    assert converted.pop("arcface")["weight"].shape == (100, 1024)
    shapes = jax.tree.map(lambda leaf: leaf.shape, (converted, dict(wanted)))
    assert shapes[0] == shapes[1]


def test_names_without_a_place_are_all_listed():
    state_dict = {
        "tr.query": np.zeros((1, 4, 8)),
        "tr.querry": np.zeros(3),
        "backbone.block2.0.conv1.gamma": np.zeros(3),
        "tr.conv.1.num_batches_tracked": np.zeros(()),
    }
    with pytest.raises(UserError, match=r"2 tensors .*tr\.querry.*conv1\.gamma"):
        from_released(state_dict)


def test_weights_turn_to_flax_layout():
    state_dict = {
        "tr.query": np.arange(8).reshape(1, 2, 4),
        "backbone.block1.0.weight": np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5),
        "tr.encoder.0.mlp.weight": np.arange(6).reshape(2, 3),
    }
    params = from_released(state_dict)["params"]
    kernel = params["trunk"]["conv1"]["kernel"]
    assert kernel.shape == (4, 5, 3, 2)
    source = state_dict["backbone.block1.0.weight"]
    assert kernel[3, 1, 2, 0] == source[0, 2, 3, 1]
    mlp = params["head"]["encoder0"]["mlp"]["kernel"]
    np.testing.assert_array_equal(mlp, state_dict["tr.encoder.0.mlp.weight"].T)
    assert params["head"]["tokenizer"]["query"].shape == (2, 4)
    assert variable_of("tr.conv.1.weight")[0] == ("params", "head/conv_bn/scale")
