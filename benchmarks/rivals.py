"""The other programs that are installed here: PyTorch, Pillow, faiss and NumPy."""

import importlib.util
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np

from benchmarks.targets import judge, targets_table
from tokret.benchmark.rivals import Makers, Rivals, Search
from tokret.errors import UserError


class InstalledRivals(Rivals):
    """Imports each library when it is used: jax has to be set up before PyTorch."""

    def __init__(self) -> None:
        found = importlib.util.find_spec("torch") is not None
        self.packages = ("torch",) if found else ()
        self.note = "" if found else "PyTorch is not installed: pip install torch"

    def forms(self, work: str, trunk: str, dtype: str, *inputs: Any) -> Makers:
        """Returns one call for each of PyTorch's forms, if it has the trunk.

        Extraction is the released loop: one photo at a time, eager, float32.
        """
        if not self.packages:
            return {}
        from benchmarks import torch_forms

        forms = torch_forms.FORMS[dtype] if trunk in torch_forms.TRUNKS else {}
        if work == "extraction" and forms:
            forms = {"one at a time, eager float32": torch_forms.Form()}
        make = getattr(torch_forms, work)
        return {
            name: partial(make, trunk, form, *inputs) for name, form in forms.items()
        }

    def views(self) -> Any:
        """Returns plain Pillow."""
        from benchmarks import pillow_views

        return pillow_views.MAKER

    def searches(self, database: np.ndarray, k: int) -> Mapping[str, Search]:
        """Returns NumPy's search, and faiss's if it is installed.

        faiss searches the mapped database by `knn`, as its flat index does.
        """
        from tokret.retrieval.compression.product import import_faiss

        def by_numpy(queries: np.ndarray) -> object:
            scores = queries @ database.T
            best = np.argpartition(scores, -k, axis=1)[:, -k:]
            values = np.take_along_axis(scores, best, axis=1)
            order = np.argsort(-values, axis=1)
            return np.take_along_axis(best, order, axis=1)

        try:
            faiss = import_faiss()
        except UserError:
            return {"NumPy": by_numpy}
        inner = faiss.METRIC_INNER_PRODUCT

        def by_faiss(queries: np.ndarray) -> object:
            return faiss.knn(queries, database, k, metric=inner)[1]

        return {"NumPy": by_numpy, "faiss": by_faiss}

    def release(self) -> None:
        """Frees PyTorch's cached device memory."""
        if self.packages:
            from benchmarks import torch_forms

            torch_forms.release()

    def judge(self, result: dict[str, Any], report: str) -> tuple[dict[str, Any], str]:
        """Adds the targets that the result has figures of."""
        judged = judge({result["benchmark"]: result})
        targets = [target for target in judged if target["cases"]]
        lines = [report, *([""] if targets else []), *targets_table(targets)]
        return result | {"targets": targets}, "\n".join(lines)
