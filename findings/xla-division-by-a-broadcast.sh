#!/bin/bash
# jax 0.10.2 on a CPU, beside NumPy 2.4.6.
# Expected: float32 division is exact to the last bit, as IEEE 754 asks, in NumPy, in PyTorch
# and in JAX: XLA's CPU compiler has had fast math off by default for years.
# What happens: where the divisor is broadcast, a scalar, one number a channel or one norm a
# row, XLA computes its reciprocal once and multiplies. A fifth to a quarter of the results differ
# from the quotient in the last bit, without jax.jit too. With a divisor that has the shape
# of the dividend the quotient is exact.
# Why it matters: (pixels - mean) / std and x / norm(x) are both of this form. Inputs and unit
# descriptors of a port differ from the original's in the last bit before any layer has run,
# so golden values of one framework cannot be compared bit by bit in float32, and descriptors
# that were normalised by NumPy are not those that the model normalises: near-equal scores
# change places. Parity has to be tested in float64 or with a tolerance, and descriptors
# that are compared should be normalised in one place.
set -eu
D=$(mktemp -d); trap 'rm -rf "$D"' EXIT
"${PYTHON:-python3}" -m venv "$D/v"
"$D/v/bin/pip" install -q --disable-pip-version-check jax==0.10.2 jaxlib==0.10.2 numpy==2.4.6
JAX_PLATFORMS=cpu "$D/v/bin/python" - <<'P'
import jax
import jax.numpy as jnp
import numpy as np

print("jax", jax.__version__, "numpy", np.__version__)


def differ(found, exact):
    return int(np.count_nonzero(np.asarray(found) != exact))


pixels = np.arange(256, dtype=np.float32)
std = np.float32(0.229 * 255)
exact = pixels / std
divide = jax.jit(lambda x, s: x / s)
counts = {
    "constant in jit": differ(jax.jit(lambda x: x / std)(pixels), exact),
    "argument of jit": differ(divide(pixels, std), exact),
    "without jit": differ(jnp.asarray(pixels) / std, exact),
    "times 1 / std in NumPy": differ(pixels * (np.float32(1) / std), exact),
    "of the full shape": differ(divide(pixels, np.full(256, std)), exact),
}
for name, count in counts.items():
    print(f"256 pixel values / std, {name}: {count} differ")
assert len({*counts.values()} - {0}) == 1 and counts["of the full shape"] == 0

rows = np.random.default_rng(0).standard_normal((1000, 1024)).astype(np.float32)
norms = np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True).astype(np.float32)
share = differ(divide(rows, norms), rows / norms) / rows.size
full = differ(divide(rows, np.repeat(norms, 1024, axis=1)), rows / norms)
print(f"1,000 descriptors / their norms: {share:.0%} of the numbers differ")
print(f"by norms of the full shape: {full} differ")
assert 0.1 < share < 0.6 and full == 0
P
echo "as described"
