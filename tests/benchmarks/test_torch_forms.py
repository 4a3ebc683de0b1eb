import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch")

from benchmarks import torch_forms  # noqa: E402 (torch may be missing)
from benchmarks.torch_forms import TRUNKS, Form  # noqa: E402
from tokret.convert.torch_token import Token  # noqa: E402
from tokret.models.build import build_model  # noqa: E402


def test_the_tiny_trunks_are_of_one_size():
    model = build_model(trunk="tiny", head="token", dtype="float32")
    shapes = jax.eval_shape(
        lambda: model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), train=False)
    )
    ours = sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))
    theirs = Token(**TRUNKS["tiny"]).eval()
    assert ours == sum(leaf.numel() for leaf in theirs.parameters())
    features = theirs(torch.zeros(1, 3, 64, 48))[1]["block4"]
    assert features.shape == (1, 128, 4, 3)


# Compiling takes a minute.
@pytest.mark.parametrize("form", [Form(), Form(half=True, channels_last=True)])
def test_forms_infer_and_train(form):
    images = np.random.default_rng(0).standard_normal((2, 32, 32, 3), np.float32)
    torch_forms.inference("tiny", form, images)()
    pixels = np.zeros((2, 32, 32, 3), np.uint8)
    step = torch_forms.training("tiny", form, pixels, np.array([0, 2], np.int32), 3, 2)
    step()
    step()


def test_one_at_a_time_takes_any_shape():
    photos = [np.zeros((side, 40, 3), np.uint8) for side in (33, 48)]
    torch_forms.extraction("tiny", Form(), photos, (1.0, 2**-0.5))()
