"""The options of eval.py, and what they choose: checkpoint, settings and dataset."""

import dataclasses
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokret.config.parsing import parse_group
from tokret.config.tree import Config, ExtractionConfig, InferenceConfig
from tokret.data import datasets
from tokret.data.datasets import DATA_DIR, Dataset
from tokret.data.decoding import MAX_PIXELS
from tokret.errors import UserError
from tokret.evaluation.variants import Variants, make_variants
from tokret.io.remote.outputs import prepare_file
from tokret.io.remote.urls import url_of
from tokret.option_types import RemotePath
from tokret.retrieval.report.writer import ReportLimits
from tokret.retrieval.reranking.pipeline import Step, parse_pipeline
from tokret.runtime.compilation_cache import DEFAULT
from tokret.training.checkpoints import list_steps
from tokret.training.remote_runs import fetch_run
from tokret.training.weights import find_checkpoint, is_checkpoint


@dataclasses.dataclass(frozen=True)
class Options:
    """What is evaluated, on which photos, and how."""

    workdir: RemotePath | None = None  # folder of a run of train.py.
    step: str | None = None  # checkpoint of the run, or best; None: the newest.
    checkpoint: RemotePath | None = None  # a checkpoint's own folder.
    baselines: bool = False  # also the untrained model and a colour histogram.
    ema: bool = False  # the EMA of the weights, if the run keeps one.
    image_folder: str | None = None  # folder of class folders; each photo is a query.
    longest_side: int | None = None  # of a photo, in pixels; None: the run's.
    scales: tuple[float, ...] | None = None  # of the image, as 1,0.7; None: the run's.
    benchmark: str | None = None  # a prepared dataset with queries, such as roxford5k.
    data_dir: str | None = None  # folder of prepared datasets; None: the run's.
    descriptors: RemotePath | None = None  # of the database: .npy [N, D], or a store.
    queries: RemotePath | None = None  # of the queries: .npy [Q, D], or a store.
    ground_truth: RemotePath | None = None  # gnd_NAME.pkl or .json.
    skip_bad: bool = False  # skip photos and queries that are bad, rather than stop.
    max_pixels: int = MAX_PIXELS  # of a photo of image_folder; a larger one is bad.
    extract_only: bool = False  # only extract descriptors, of any dataset.
    rerank: str | None = None  # as aqe:n=10,alpha=3 or dba,aqe,diffusion:top=500.
    distractors: RemotePath | None = None  # of no query: .npy [M, D], a store.
    compress: tuple[str, ...] | None = None  # pq128 (or other bytes), int8, bf16.
    whiten: RemotePath | None = None  # .safetensors, or learned from .npy, store.
    whiten_dims: int | None = None  # dimensions that whitening keeps; None: all.
    report: bool = True  # write report.html and the pictures.
    report_queries: int = 200  # the most queries that the report shows.
    report_side: int = 192  # longest side of the report's photos, in pixels.
    compilation_cache: str = DEFAULT  # folder of compiled programs; "" keeps none.
    output: RemotePath | None = None  # results of descriptors, a .json file.

    @property
    def variants(self) -> Variants:
        """The variants of the search, which are measured too."""
        return make_variants(
            self.distractors, self.compress, self.whiten, self.whiten_dims
        )

    @property
    def steps(self) -> Sequence[Step]:
        """The re-rankings."""
        return () if self.rerank is None else parse_pipeline(self.rerank)

    @property
    def limits(self) -> ReportLimits:
        """How much the report shows."""
        return ReportLimits(queries=self.report_queries, side=self.report_side)


def choose_checkpoint(
    workdir: Path | None, checkpoint: Path | None, step: str | None
) -> tuple[Path, Path]:
    """Returns a checkpoint's folder, and the folder of its results.

    The checkpoint is that of a step (None: the newest) of the run in `workdir`, or
    `checkpoint` itself. Results are in `eval` of its run, or beside a checkpoint that
    is not in a run. Of a run in object storage what lists its checkpoints is fetched.

    Raises:
      UserError: if there is no such checkpoint, or two are named.
    """
    if checkpoint is None:
        run = fetch_run(workdir or Path())
        return find_checkpoint(run, step), run / "eval"
    if workdir is not None:
        raise UserError("checkpoint: workdir names a run, which has its own; name one")
    folder = fetch_run(checkpoint).resolve()
    if steps := list_steps(folder):
        example = step or str(steps[-1])
        raise UserError(
            f"checkpoint: {checkpoint} is a run's folder; name workdir={checkpoint} "
            f"with step={example}, or its checkpoint {folder}/checkpoints/{example}"
        )
    if step is not None:
        raise UserError(
            "step: chooses among the checkpoints of a workdir; checkpoint names one "
            "already, remove step"
        )
    if not folder.is_dir():
        raise UserError(
            f"checkpoint={checkpoint} is not a folder; name one such as "
            "DIR/checkpoints/STEP"
        )
    if not is_checkpoint(folder):
        raise UserError(
            f"checkpoint={checkpoint} is no checkpoint; name one such as "
            "DIR/checkpoints/STEP"
        )
    run = folder.parent
    return folder, (run.parent if run.name == "checkpoints" else run) / "eval"


def make_settings(
    config: InferenceConfig, longest_side: int | None, scales: Sequence[float] | None
) -> ExtractionConfig:
    """Returns how descriptors are extracted; None for the config's own value.

    Raises:
      UserError: if a value is out of range.
    """
    given: dict[str, Any] = {}
    if longest_side is not None:
        given["longest_side"] = longest_side
    if scales is not None:
        given["scales"] = list(scales)
    return parse_group(ExtractionConfig, dataclasses.asdict(config.evaluation) | given)


def choose_dataset(
    config: InferenceConfig,
    data_dir: str | None,
    image_folder: str | None,
    benchmark: str | None,
    measure: bool = True,
    skip_bad: bool = False,
    max_pixels: int = MAX_PIXELS,
) -> tuple[Dataset, str, str]:
    """Prepares the dataset to evaluate on: by default the run's.

    Args:
      config: the run's.
      data_dir: folder of prepared datasets; None for the run's.
      image_folder: folder of class folders.
      benchmark: a dataset's name.
      measure: whether it must have a ground truth.
      skip_bad: whether bad photos of `image_folder` are skipped.
      max_pixels: of a photo of `image_folder`.

    Returns:
      The dataset, its name in results, and its split of labelled photos ("" if it has
      queries).

    Raises:
      UserError: if it cannot be prepared, or has no ground truth.
    """
    if data_dir is None:
        data_dir = config.run.data_dir if isinstance(config, Config) else DATA_DIR
    prepare = datasets.prepare
    if isinstance(config, Config):
        prepare = functools.partial(prepare, cache_gib=config.run.cache_gib)
    if image_folder is not None:
        if not image_folder:
            raise UserError("image_folder: is empty; name a folder of class folders")
        fields: dict[str, Any] = {"name": "image_folder", "root": image_folder}
        fields |= {"validation_fraction": 0.0, "skip_bad": skip_bad}
        fields["max_pixels"] = max_pixels
        try:
            dataset = prepare(data_dir, **fields)
        except UserError as error:
            raise UserError(re.sub(r"\Aroot\b", "image_folder", str(error))) from error
        return dataset, Path(image_folder).resolve().name, "train"
    if benchmark is not None:
        dataset = prepare(data_dir, name=benchmark)
    elif isinstance(config, Config):
        dataset = prepare(data_dir, **dataclasses.asdict(config.data))
    else:
        raise UserError(
            "these weights were converted, not trained on a dataset; name an "
            "image_folder of class folders, or a prepared benchmark such as roxford5k"
        )
    split = "benchmark" if dataset.leave_one_out else ""
    if measure and dataset.ground_truth is None and not split:
        raise UserError(
            f"dataset {dataset.name} has no queries of its own; name an image_folder "
            "of class folders, a benchmark such as roxford5k, or train with "
            "data.benchmark_fraction"
        )
    return dataset, dataset.name, split


def check_output(output: Path, inputs: Sequence[Path]) -> None:
    """Raises a UserError if an output overwrites an input or cannot be written."""
    if output.suffix != ".json" or output.is_dir():
        raise UserError(f"output={output} must be a file that ends in .json")
    if url_of(output) is None and not output.parent.is_dir():
        raise UserError(f"output={output}: make the folder {output.parent} first")
    prepare_file(output, "output")
    for path in inputs:
        if (
            output == path
            or output.exists()
            and path.exists()
            and output.samefile(path)
        ):
            raise UserError(f"output={output} would overwrite an input; rename it")
