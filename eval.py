"""Evaluates: a checkpoint, or descriptors from anywhere, -> table, results, picture.

    python eval.py --workdir=DIR [--step=N] [--baselines]
    python eval.py --workdir=DIR --benchmark=roxford5k [--data_dir=DIR] [--average]
    python eval.py --workdir=DIR --image_folder=PHOTOS [--longest_side=N] [--scales=1,2]
    python eval.py --descriptors=db.npy --queries=q.npy --ground_truth=gnd.pkl \
        --output=out.json

The first three write DIR/eval/results.json and, for a benchmark with queries,
DIR/eval/queries.png.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from tqdm import tqdm

from tokret import command_line, configuration
from tokret.configuration import Config, call, part
from tokret.data import datasets
from tokret.data.datasets import Dataset
from tokret.data.streams import decoded
from tokret.data.views import View
from tokret.errors import UserError
from tokret.models import build_model
from tokret.retrieval import metrics, results
from tokret.retrieval.descriptor_files import read_descriptors
from tokret.retrieval.extraction import Extraction, extract, make_describe
from tokret.retrieval.ground_truth import (
    GroundTruth,
    from_revisited,
    read_ground_truth,
)
from tokret.retrieval.histogram import colour_histogram
from tokret.retrieval.pictures import ranking_picture
from tokret.retrieval.rankings import ranking_rows
from tokret.training.start import Start
from tokret.training.weights import replicated, restore_weights

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run of train.py.")
STEP = flags.DEFINE_integer("step", None, "Checkpoint; the newest if not given.")
BASELINES = flags.DEFINE_bool(
    "baselines", False, "Also the untrained model and a colour histogram."
)
AVERAGE = flags.DEFINE_bool(
    "average", False, "The moving average of weights, if the run keeps one."
)
FOLDER = flags.DEFINE_string(
    "image_folder", None, "Folder of class folders; every photo asks all others."
)
LONGEST_SIDE = flags.DEFINE_integer(
    "longest_side", None, "Of a photo, in pixels; the run's own if not given."
)
SCALES = flags.DEFINE_list(
    "scales", None, "Factors of the sides, as 1,0.7; the run's own if not given."
)
BENCHMARK = flags.DEFINE_string(
    "benchmark", None, "A prepared dataset with queries, such as roxford5k."
)
DATA_DIR = flags.DEFINE_string(
    "data_dir", None, "Where prepared datasets lie; the run's own if not given."
)
DESCRIPTORS = flags.DEFINE_string("descriptors", None, "Database, .npy [N, D].")
QUERIES = flags.DEFINE_string("queries", None, "Queries, .npy [Q, D].")
GROUND_TRUTH = flags.DEFINE_string("ground_truth", None, "gnd_NAME.pkl or .json.")
OUTPUT = flags.DEFINE_string("output", None, "Where results of descriptors go, .json.")

# Views -> descriptors [n, d]: a model with its weights, or a baseline.
System = Callable[[Sequence[View]], np.ndarray]


def model_systems(
    config: Config, settings: Extraction, workdir: Path, step: int | None
) -> tuple[System, Callable[[], System], int]:
    """Returns the trained model, a maker of the untrained one, and the step."""
    model = call(build_model, "model", part(config, "model", dict))
    describe = make_describe(model, settings.scales)

    def system(variables: Any) -> System:
        def run(views: Sequence[View]) -> np.ndarray:
            with tqdm(total=len(views), unit="photo", disable=None) as bar:
                return extract(
                    describe,
                    variables,
                    views,
                    settings=settings,
                    progress=bar.update,
                )

        return run

    def initial() -> Any:
        # The key of tokret.training.state.init_state: the weights training began with.
        key, _ = jax.random.split(jax.random.key(part(config, "seed", int)))
        return model.init(key, np.zeros((1, 64, 64, 3), np.float32), train=False)

    shapes = replicated(jax.eval_shape(initial))
    trained, found = restore_weights(workdir, shapes, step, averaged=AVERAGE.value)

    def untrained() -> System:
        start = call(Start, "init", part(config, "init", dict))
        drawn = jax.jit(initial)()
        return system(start.overlay(drawn, shapes, part(config, "model", dict)))

    return system(trained), untrained, found


def histogram_system(views: Sequence[View]) -> np.ndarray:
    """Describes views by their colours alone."""
    return np.stack([colour_histogram(view.pixels()) for view in views])


def view_of(record: Mapping[str, Any], longest_side: int, box: Any = None) -> View:
    """Makes a view of a dataset's record."""
    name = record["filename"].decode()
    return View(
        record["image"], name, None if box is None else tuple(box), longest_side
    )


def evaluate_benchmark(
    dataset: Dataset, system: System, settings: Extraction, picture: Path | None
) -> dict[str, Any]:
    """Measures a system on a dataset's queries, database and ground truth."""
    assert dataset.ground_truth is not None
    truth = from_revisited(dataset.ground_truth, dataset.name)
    boxes = [None] * len(truth.queries) if truth.boxes is None else truth.boxes
    queries, database = dataset.records("query"), dataset.records("database")
    side = settings.longest_side
    asked = [view_of(queries[i], side, box) for i, box in enumerate(boxes)]
    stored = [view_of(record, side) for record in database]
    described = system([*asked, *stored])
    q, db = described[: len(asked)], described[len(asked) :]
    found = metrics.evaluate(q, db, truth)
    if picture is not None:
        rows = ranking_rows(
            (q, db),
            truth,
            found.average_precision["medium"],
            lambda i: decoded(queries[i]),
            lambda i: decoded(database[i]),
        )
        ranking_picture(rows, picture)
    return dict(found.levels)


def evaluate_labelled(
    dataset: Dataset, split: str, system: System, settings: Extraction
) -> dict[str, Any]:
    """Measures a system on labelled photos, each of which asks all the others."""
    records, side = dataset.records(split), settings.longest_side
    told = dataset.leave_one_out if split == "benchmark" else None
    labels = told["labels"] if told else [record["label"] for record in records]
    boxes = told["boxes"] if told else [None] * len(labels)
    if len(set(labels)) == len(labels):
        raise UserError(
            f"no class of {dataset.builder.builder_config.description} has two photos: "
            "none could be found by another"
        )
    cropped = [i for i, box in enumerate(boxes) if box is not None]
    asked = [view_of(records[i], side, boxes[i]) for i in cropped]
    described = system([*asked, *(view_of(record, side) for record in records)])
    database = described[len(asked) :]
    queries = np.array(database)
    queries[cropped] = described[: len(asked)]
    found = metrics.leave_one_out(database, np.array(labels), queries=queries)
    return {"all": found}


def make_settings(config: Config) -> Extraction:
    """Reads how descriptors are made off a run's config and the flags."""
    fields = part(config, "evaluation", dict)
    given: dict[str, Any] = {}
    if LONGEST_SIDE.value is not None:
        given["longest_side"] = LONGEST_SIDE.value
    if SCALES.value is not None:
        try:
            given["scales"] = [float(scale) for scale in SCALES.value]
        except ValueError as error:
            raise UserError(f"--scales must be numbers with commas: {error}") from error
    return call(Extraction, "evaluation", fields | given)


def chosen_dataset(config: Config, folder: str | None) -> tuple[Dataset, str, str]:
    """Returns what to evaluate on, its name, and its labelled split ("" if none)."""
    run = part(config, "run", dict)
    data_dir = DATA_DIR.value or part(run, "data_dir", str)
    if folder is not None:
        if not folder:
            raise UserError("--image_folder is empty; name a folder of class folders")
        dataset = datasets.prepare(
            data_dir, name="image_folder", root=folder, validation_fraction=0.0
        )
        return dataset, Path(folder).resolve().name, "train"
    if BENCHMARK.value is not None:
        dataset = datasets.prepare(data_dir, name=BENCHMARK.value)
    elif "data" in config:
        dataset = datasets.prepare(data_dir, **part(config, "data", dict))
    else:
        raise UserError(
            "these weights were converted, not trained on a dataset; name photos to "
            "evaluate on: --image_folder=FOLDER_OF_CLASS_FOLDERS, or a prepared "
            "benchmark: --benchmark=roxford5k"
        )
    labelled = "benchmark" if dataset.leave_one_out else ""
    if dataset.ground_truth is None and not labelled:
        raise UserError(
            f"dataset {dataset.name} has no queries of its own; name photos to "
            "evaluate on: --image_folder=FOLDER_OF_CLASS_FOLDERS, "
            "--benchmark=roxford5k, or train with --config.data.benchmark_fraction"
        )
    return dataset, dataset.name, labelled


def evaluate_run(workdir: Path, step: int | None, folder: str | None) -> None:
    """Evaluates a checkpoint of a run, beside the baselines if asked."""
    config = configuration.load(workdir / "config.json")
    settings = make_settings(config)
    trained, untrained, found_step = model_systems(config, settings, workdir, step)
    head = part(part(config, "model", dict), "head", str)
    systems = {head: trained}
    if BASELINES.value:
        systems |= {"untrained": untrained(), "colour histogram": histogram_system}
    dataset, name, labelled = chosen_dataset(config, folder)

    target = workdir / "eval"
    target.mkdir(exist_ok=True)
    numbers: dict[str, dict[str, Any]] = {}
    for label, system in systems.items():
        print(f"{label} on {name} ...", flush=True)
        if labelled:
            numbers[label] = evaluate_labelled(dataset, labelled, system, settings)
        else:
            picture = target / "queries.png" if label == head else None
            numbers[label] = evaluate_benchmark(dataset, system, settings, picture)
    rows = [
        results.TableRow(label, name, found.get("all", found))
        for label, found in numbers.items()
    ]
    measured = {name: numbers.pop(head)}
    baselines = {label: {name: found} for label, found in numbers.items()}
    environment = results.environment(
        part(part(config, "model", dict), "dtype", str)
    ) | {
        "checkpoint_step": found_step,
        "averaged_weights": AVERAGE.value,
        "longest_side": settings.longest_side,
        "scales": list(settings.scales),
    }
    path = target / "results.json"
    results.write_results(path, measured, environment, baselines, merge=True)
    print(results.table(rows))
    print(f"written: {target}")


def evaluate_files(
    descriptors: str, queries: str, ground_truth: str, output: str
) -> None:
    """Scores descriptors from anywhere: their dot products, by a ground truth."""
    check_output(Path(output), [descriptors, queries, ground_truth])
    gnd: GroundTruth = read_ground_truth(ground_truth)
    q = read_descriptors(queries, rows=len(gnd.queries), name="qimlist")
    db = read_descriptors(
        descriptors, rows=len(gnd.images), name="imlist", dims=q.shape[1]
    )
    levels = metrics.evaluate(q, db, gnd).levels
    environment = results.environment(str(db.dtype))
    results.write_results(Path(output), {gnd.name: levels}, environment)
    print(results.table([results.TableRow(Path(descriptors).stem, gnd.name, levels)]))
    print(f"written: {output}")


def check_output(output: Path, inputs: Sequence[str]) -> None:
    """Refuses an output that would overwrite an input or cannot be written."""
    if output.suffix != ".json" or output.is_dir():
        raise UserError(f"--output={output} must be a file that ends in .json")
    if not output.parent.is_dir():
        raise UserError(f"--output={output}: make the folder {output.parent} first")
    for name in inputs:
        if output.exists() and Path(name).exists() and output.samefile(name):
            raise UserError(f"--output={output} would overwrite an input; rename it")


def main() -> None:
    """Reads the flags."""
    names = ("descriptors", "queries", "ground_truth", "output")
    files: dict[str, Any] = {name: flags.FLAGS[name].value for name in names}
    if WORKDIR.value is not None and not any(files.values()):
        workdir = Path(WORKDIR.value).expanduser()
        evaluate_run(workdir, STEP.value, FOLDER.value)
    elif WORKDIR.value is None and any(files.values()):
        own = (STEP, FOLDER, LONGEST_SIDE, SCALES, BENCHMARK, DATA_DIR)
        asked = BASELINES.value or AVERAGE.value
        if any(flag.value is not None for flag in own) or asked:
            raise UserError(
                "--step, --image_folder, --benchmark, --data_dir, --baselines, "
                "--average, --longest_side and --scales go with --workdir, not with "
                "--descriptors"
            )
        missing = [f"--{name}" for name, value in files.items() if not value]
        if missing:
            raise UserError(f"descriptors need {', '.join(missing)} too")
        evaluate_files(**files)
    else:
        raise UserError(
            "eval.py needs either --workdir=DIR, or --descriptors, --queries, "
            "--ground_truth and --output, not both"
        )


if __name__ == "__main__":
    command_line.run(main)
