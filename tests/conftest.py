"""Shapes are checked while the tests run; four CPU devices stand in for a host's."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jaxtyping

# Before any module of tokret is imported: every annotated function and dataclass of it
# then checks its arguments' shapes and dtypes.
jaxtyping.install_import_hook("tokret", "beartype.beartype")
