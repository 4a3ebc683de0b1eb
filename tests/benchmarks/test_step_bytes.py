import functools

import jax
import jax.numpy as jnp
import pytest

from benchmarks import step_bytes
from benchmarks.plain_flax import PlainResNet, PlainTokenHead
from benchmarks.step_bytes import report
from tokret.benchmark.pods import Pod, ProgramCost, TooLargeError
from tokret.configs import demo
from tokret.errors import UserError
from tokret.models.retrieval_net import RetrievalNet
from tokret.runtime.chips import V5E


@pytest.fixture
def compiles(monkeypatch):
    """Replaces the recipe by a small model, and the compiler by a stub."""
    pod = Pod("v5e:2x1", V5E, tuple(jax.devices()[:2]))
    monkeypatch.setattr(step_bytes, "make_pod", lambda name: pod)
    monkeypatch.setattr(step_bytes, "RECIPE", demo)
    monkeypatch.setattr(step_bytes, "IMAGES", 4)
    monkeypatch.setattr(step_bytes, "PACKAGES", ("jax",))  # libtpu may be missing
    small = RetrievalNet(
        PlainResNet((1,), jnp.float32), PlainTokenHead(jnp.float32, dim=16)
    )
    monkeypatch.setattr(step_bytes, "plain_token", lambda blocks, dtype: small)
    return functools.partial(monkeypatch.setattr, step_bytes, "compile_for_pod")


def test_both_steps_are_lowered_and_compared(compiles):
    texts = []

    def count(lowered):
        texts.append(lowered.as_text())
        return ProgramCost(10, 20, 4e9, 8e9 + 8e9 * len(texts), [])

    compiles(count)
    found = step_bytes.run()
    assert found["ours"] == {"bytes": 4e9, "flop": 1e9, "memory": 30}
    assert found["plain"] == {"bytes": 6e9, "flop": 1e9, "memory": 30}
    assert found["ratio"] == [2 / 3] * 3
    assert found["config"] == "tokret.configs.demo"
    # A batch of 4 a device, of the demo's size; two models.
    assert all("tensor<8x80x80x3xui8>" in text for text in texts)
    assert texts[0] != texts[1]
    assert "plain step for v5e:4x4: 6.00 GB" in report(found)


def test_a_step_that_does_not_fit_is_one_line(compiles):
    def refuse(lowered):
        raise TooLargeError(20, 16)

    compiles(refuse)
    with pytest.raises(UserError, match="does not fit: 20 of 16 bytes"):
        step_bytes.run()
