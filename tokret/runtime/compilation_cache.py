"""Compiled programs that outlive their process: a second start compiles nothing."""

import hashlib
import os
from pathlib import Path

import jax

from tokret.errors import UserError
from tokret.runtime import processor

DEFAULT = "~/.cache/tokret/compiled"
VARIABLE = "JAX_COMPILATION_CACHE_DIR"  # jax's own, which takes precedence


def keep_compiled(folder: str) -> None:
    """Stores what this process compiles, and loads what others compiled, from now on.

    Args:
      folder: may be shared by any programs and machines, since jax distinguishes the
        programs and each kind of processor has a folder of its own in it. "" stores
        nothing. The environment's JAX_COMPILATION_CACHE_DIR takes precedence.

    Raises:
      UserError: if the folder cannot be made.
    """
    if not folder or os.environ.get(VARIABLE):
        return
    own = Path(folder).expanduser() / _processor()
    try:
        own.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"compilation_cache: {own} cannot be made ({error.strerror}); name another "
            'folder, or ""'
        ) from error
    jax.config.update("jax_compilation_cache_dir", str(own))
    # Small programs are many, and cost a start more than they cost the disk.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _processor() -> str:
    """Identifies the processor's instructions: XLA compiles for all of them."""
    return hashlib.sha256(processor.instructions().encode()).hexdigest()[:12]
