"""faiss where it is installed, and a plain word where it is not."""

import warnings
from types import ModuleType

from tokret.errors import UserError


def import_faiss() -> ModuleType:
    """Returns the library.

    Raises:
      UserError: it is not installed.
    """
    try:
        # Its wrappers are of a kind that later Pythons warn of.
        with warnings.catch_warnings(action="ignore"):
            import faiss
    except ImportError as error:
        raise UserError(
            "product quantisation is trained by faiss, which is missing: "
            "pip install 'tokret[faiss]'"
        ) from error
    module: ModuleType = faiss
    return module
