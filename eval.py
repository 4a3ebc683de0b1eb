"""Evaluates: a checkpoint, or descriptors from anywhere, -> table, results, picture.

    python eval.py --workdir=DIR [--step=N] [--baselines]
    python eval.py --workdir=DIR --benchmark=roxford5k [--data_dir=DIR] [--average]
    python eval.py --workdir=DIR --image_folder=PHOTOS [--longest_side=N] [--scales=1,2]
    python eval.py --descriptors=db.npy --queries=q.npy --ground_truth=gnd.pkl \
        --output=out.json

The first three write DIR/eval/results.json and, for a benchmark with queries,
DIR/eval/queries.png.
"""

from pathlib import Path
from typing import Any

from absl import flags

from tokret import command_line, configuration
from tokret.configuration import part
from tokret.errors import UserError
from tokret.evaluation.benchmarks import evaluate_on
from tokret.evaluation.choices import check_output, choose_dataset, make_settings
from tokret.evaluation.systems import histogram_system, model_systems
from tokret.retrieval import metrics, results
from tokret.retrieval.descriptor_files import read_descriptors
from tokret.retrieval.ground_truth import GroundTruth, read_ground_truth

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


def evaluate_run(workdir: Path, step: int | None, folder: str | None) -> None:
    """Evaluates a checkpoint of a run, beside the baselines if asked."""
    config = configuration.load(workdir / "config.json")
    settings = make_settings(config, LONGEST_SIDE.value, SCALES.value)
    trained, untrained, found_step = model_systems(
        config, settings, workdir, step, AVERAGE.value
    )
    head = part(part(config, "model", dict), "head", str)
    systems = {head: trained}
    if BASELINES.value:
        systems |= {"untrained": untrained(), "colour histogram": histogram_system}
    dataset, name, labelled = choose_dataset(
        config, DATA_DIR.value, folder, BENCHMARK.value
    )

    target = workdir / "eval"
    target.mkdir(exist_ok=True)
    numbers: dict[str, dict[str, Any]] = {}
    for label, system in systems.items():
        print(f"{label} on {name} ...", flush=True)
        picture = target / "queries.png" if label == head else None
        numbers[label] = evaluate_on(dataset, labelled, system, settings, picture)
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
