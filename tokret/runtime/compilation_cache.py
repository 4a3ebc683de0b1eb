"""Compiled programs that outlive their process: a second start compiles nothing."""

import hashlib
import os
from pathlib import Path

import jax

from tokret.errors import UserError
from tokret.io.atomic_files import require_folder
from tokret.runtime import processor

DEFAULT = "~/.cache/tokret/compiled"
VARIABLE = "JAX_COMPILATION_CACHE_DIR"  # jax's own, which takes precedence


def keep_compiled(folder: str) -> None:
    """Stores what this process compiles, and loads what others compiled, from now on.

    Args:
      folder: may serve any programs and machines: each kind of processor has a folder
        of its own in it. "" stores nothing. A folder that jax was given before, as by
        the environment's JAX_COMPILATION_CACHE_DIR, takes precedence.

    Raises:
      UserError: if the folder cannot be made.
    """
    if not folder:
        return
    require_folder(Path(folder).expanduser(), "compilation_cache")
    chosen = getattr(jax.config, "jax_compilation_cache_dir", None)
    if os.environ.get(VARIABLE) or chosen:
        return
    # XLA compiles for all the instructions of the processor.
    kind = hashlib.sha256(processor.instructions().encode()).hexdigest()[:12]
    own = Path(folder).expanduser() / kind
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
