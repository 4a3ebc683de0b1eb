"""Flags over a run's own config: on which photos, how described, and where to."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokret.configuration import Config, call, part
from tokret.data import datasets
from tokret.data.datasets import Dataset
from tokret.errors import UserError
from tokret.retrieval.extraction import Extraction
from tokret.training.weights import find_checkpoint


def choose_checkpoint(
    workdir: str | None, checkpoint: str | None, step: str | None
) -> tuple[Path, Path]:
    """Finds what to evaluate, and where its results go.

    Args:
      workdir: --workdir, of a run.
      checkpoint: --checkpoint, the folder of one alone.
      step: --step, of the run.

    Returns:
      The checkpoint's folder, and a folder beside those of its run, or beside itself
      where it lies alone.

    Raises:
      UserError: if there is no such checkpoint, or two are named.
    """
    if checkpoint is None:
        run = Path(workdir or "").expanduser()
        return find_checkpoint(run, step), run / "eval"
    if workdir is not None or step is not None:
        raise UserError(
            "--checkpoint names one checkpoint, and --workdir with --step another; "
            "leave one out"
        )
    folder = Path(checkpoint).expanduser().resolve()
    if not folder.is_dir():
        raise UserError(
            f"--checkpoint={checkpoint} is not a folder; name one such as "
            "DIR/checkpoints/STEP"
        )
    run = folder.parent
    return folder, (run.parent if run.name == "checkpoints" else run) / "eval"


def make_settings(
    config: Config, longest_side: int | None, scales: Sequence[float] | None
) -> Extraction:
    """Reads how descriptors are made off a run's config.

    Args:
      config: the run's.
      longest_side: --longest_side, which comes before the config's.
      scales: --scales, which come before the config's.

    Raises:
      UserError: if a value cannot be.
    """
    fields = part(config, "evaluation", dict)
    given: dict[str, Any] = {}
    if longest_side is not None:
        given["longest_side"] = longest_side
    if scales is not None:
        given["scales"] = list(scales)
    return call(Extraction, "evaluation", fields | given)


def choose_dataset(
    config: Config,
    data_dir: str | None,
    folder: str | None,
    benchmark: str | None,
    ask: bool = True,
) -> tuple[Dataset, str, str]:
    """Prepares what to evaluate on.

    Args:
      config: the run's, whose dataset is taken where nothing is named.
      data_dir: --data_dir, where prepared datasets lie; None takes the run's.
      folder: --image_folder, of class folders.
      benchmark: --benchmark, a dataset's name.
      ask: whether there must be something to ask for.

    Returns:
      The dataset, its name in results, and its labelled split ("" if it has queries).

    Raises:
      UserError: if it is not there, or has nothing to ask for.
    """
    data_dir = data_dir or part(part(config, "run", dict), "data_dir", str)
    if folder is not None:
        if not folder:
            raise UserError("--image_folder is empty; name a folder of class folders")
        dataset = datasets.prepare(
            data_dir, name="image_folder", root=folder, validation_fraction=0.0
        )
        return dataset, Path(folder).resolve().name, "train"
    if benchmark is not None:
        dataset = datasets.prepare(data_dir, name=benchmark)
    elif "data" in config:
        dataset = datasets.prepare(data_dir, **part(config, "data", dict))
    else:
        raise UserError(
            "these weights were converted, not trained on a dataset; name photos to "
            "evaluate on: --image_folder=FOLDER_OF_CLASS_FOLDERS, or a prepared "
            "benchmark: --benchmark=roxford5k"
        )
    labelled = "benchmark" if dataset.leave_one_out else ""
    if ask and dataset.ground_truth is None and not labelled:
        raise UserError(
            f"dataset {dataset.name} has no queries of its own; name photos to "
            "evaluate on: --image_folder=FOLDER_OF_CLASS_FOLDERS, "
            "--benchmark=roxford5k, or train with --config.data.benchmark_fraction"
        )
    return dataset, dataset.name, labelled


def check_output(output: Path, inputs: Sequence[str]) -> None:
    """Refuses an output that would overwrite an input or cannot be written.

    Raises:
      UserError: which of the two it is.
    """
    if output.suffix != ".json" or output.is_dir():
        raise UserError(f"--output={output} must be a file that ends in .json")
    if not output.parent.is_dir():
        raise UserError(f"--output={output}: make the folder {output.parent} first")
    for name in inputs:
        if output.exists() and Path(name).exists() and output.samefile(name):
            raise UserError(f"--output={output} would overwrite an input; rename it")
