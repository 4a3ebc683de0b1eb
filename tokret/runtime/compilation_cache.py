"""Compiled programs that outlive their process: a second start compiles nothing."""

import hashlib
import os
from pathlib import Path

import jax

from tokret.errors import UserError
from tokret.runtime import processor

DEFAULT = "~/.cache/tokret/compiled"
VARIABLE = "JAX_COMPILATION_CACHE_DIR"  # jax's own, which comes before ours


def keep_compiled(folder: str) -> None:
    """Keeps what this process compiles, and takes what others compiled, from now on.

    Args:
      folder: where; it may be shared by any programs and machines, since jax knows the
        programs apart and each kind of processor has a folder of its own in it. ""
        keeps nothing. The environment's JAX_COMPILATION_CACHE_DIR comes before it.

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
            f"the cache of compiled programs cannot be at {own} ({error.strerror}); "
            "name another folder (--config.run.compilation_cache, or eval.py's "
            '--compilation_cache), or ""'
        ) from error
    jax.config.update("jax_compilation_cache_dir", str(own))
    # Small programs are many, and cost a start more than they cost the disk.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _processor() -> str:
    """Names the processor's instructions: XLA compiles for all that it finds."""
    return hashlib.sha256(processor.instructions().encode()).hexdigest()[:12]
