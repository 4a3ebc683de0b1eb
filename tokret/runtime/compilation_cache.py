"""Compiled programs that outlive their process: a second start compiles nothing."""

import hashlib
import os
from pathlib import Path

from tokret.errors import UserError
from tokret.io.atomic_files import require_folder
from tokret.io.remote.objects import write_object
from tokret.io.remote.urls import check_url, is_url
from tokret.runtime import processor

DEFAULT = "~/.cache/tokret/compiled"
VARIABLE = "JAX_COMPILATION_CACHE_DIR"  # jax's own, which takes precedence
SCHEMES = ("gs", "s3")  # that jax reads and writes (0.10)
README = "Programs that jax compiled for one kind of processor; they may be removed.\n"


def keep_compiled(folder: str) -> None:
    """Stores what this process compiles, and loads what others compiled, from now on.

    Args:
      folder: may serve any programs and machines: each kind of processor has a folder
        of its own in it. "" stores nothing; a URL of `SCHEMES` is read and written by
        jax itself. A folder that jax was given before, as by the environment's
        JAX_COMPILATION_CACHE_DIR, takes precedence.

    Raises:
      UserError: if the folder cannot be made, or the bucket not be written to.
    """
    if not folder:
        return
    if is_url(folder):
        _check_scheme(folder)
    else:
        require_folder(Path(folder).expanduser(), "compilation_cache")
    import jax  # later: `tokret query` may need none

    from tokret.runtime.coordinator import process_index

    chosen = getattr(jax.config, "jax_compilation_cache_dir", None)
    if os.environ.get(VARIABLE) or chosen:
        return
    # XLA compiles for all the instructions of the processor.
    kind = hashlib.sha256(processor.instructions().encode()).hexdigest()[:12]
    own = f"{folder.rstrip('/')}/{kind}" if is_url(folder) else _make(folder, kind)
    if is_url(own) and process_index() == 0:
        # jax only warns, at each program, where it cannot write.
        write_object(f"{own}/README", README.encode())
    jax.config.update("jax_compilation_cache_dir", own)
    # Small programs are many, and cost a start more than they cost the disk.
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)


def _check_scheme(url: str) -> None:
    check_url(url, "compilation_cache")
    if url.partition(":")[0].lower() not in SCHEMES:
        known = " or ".join(f"{scheme}://" for scheme in SCHEMES)
        raise UserError(
            f"compilation_cache: {url} cannot be used; name a local folder or {known}"
        )


def _make(folder: str, kind: str) -> str:
    own = Path(folder).expanduser() / kind
    try:
        own.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"compilation_cache: {own} cannot be made ({error.strerror}); name another "
            'folder, or ""'
        ) from error
    return str(own)
