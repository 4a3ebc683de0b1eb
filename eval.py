"""Evaluates: a checkpoint, or descriptors from anywhere, -> table, results, picture.

    python eval.py --workdir=DIR [--step=N] [--baselines]
    python eval.py --checkpoint=DIR/checkpoints/STEP [--baselines]
    python eval.py --workdir=DIR --benchmark=roxford5k [--data_dir=DIR] [--average]
    python eval.py --workdir=DIR --image_folder=PHOTOS [--longest_side=N] [--scales=1,2]
    python eval.py --workdir=DIR --benchmark=revisitop1m --describe
    python eval.py --descriptors=db.npy --queries=q.npy --ground_truth=gnd.pkl \
        --output=out.json

Any of them with --rerank=aqe:n=10,alpha=3 is measured before and after re-ranking, with
--distractors=DESCRIPTORS alone and among these too, with --compress=pq128,pq1024,int8,
bf16 once more in fewer bytes, and with --whiten=DESCRIPTORS after PCA whitening that is
learned from these (a store or an .npy file; WHITENING.safetensors is taken as it is).
The first four write DIR/eval/results.json and, unless --noreport is given,
DIR/eval/report.html with the pictures queries.png and tokens.png. Descriptors stay in
DIR/eval/descriptors, a folder for each dataset, checkpoint and way of describing; a run
that was killed goes on with them, and what is there is not computed again.
`--descriptors` and `--queries` take such a folder (.../query, .../database) too.
Several processes, started as for train.py, describe together; the first alone measures
and writes.
"""

import dataclasses
import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from absl import flags

from tokret import command_line
from tokret.configuration import Config, part
from tokret.data.ground_truth import (
    GroundTruth,
    keep_queries,
    read_ground_truth,
)
from tokret.errors import UserError
from tokret.evaluation.benchmarks import (
    Benchmark,
    bad_counts,
    bad_words,
    good_queries,
)
from tokret.evaluation.descriptor_inputs import read_side
from tokret.evaluation.options import (
    check_output,
    choose_checkpoint,
    choose_dataset,
    make_settings,
)
from tokret.evaluation.protocols import levels_among, levels_of
from tokret.evaluation.report import present
from tokret.evaluation.reranking_results import measure_chain
from tokret.evaluation.systems import (
    Described,
    ModelSystem,
    System,
    histogram_system,
    model_systems,
)
from tokret.evaluation.variants import Variants, make_variants
from tokret.retrieval import results
from tokret.retrieval.answers import Answers
from tokret.retrieval.extraction import Extraction
from tokret.retrieval.report.page import Summary
from tokret.retrieval.report.writer import Limits
from tokret.retrieval.reranking.pipeline import parse_chain
from tokret.retrieval.reranking.ranking import Ranking
from tokret.retrieval.store.record import Images
from tokret.retrieval.tables import cost_lines, table_rows, text_table
from tokret.runtime import cluster
from tokret.runtime.compilation_cache import DEFAULT, keep_compiled
from tokret.training.checkpoint_description import read_config
from tokret.training.weights import step_of

STORES = "descriptors"  # below DIR/eval

WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run of train.py.")
STEP = flags.DEFINE_string(
    "step", None, "Checkpoint, or the word best; the newest if not given."
)
CHECKPOINT = flags.DEFINE_string(
    "checkpoint", None, "A checkpoint's own folder, wherever it lies."
)
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
DESCRIPTORS = flags.DEFINE_string(
    "descriptors", None, "Database: .npy [N, D], or a store."
)
QUERIES = flags.DEFINE_string("queries", None, "Queries: .npy [Q, D], or a store.")
GROUND_TRUTH = flags.DEFINE_string("ground_truth", None, "gnd_NAME.pkl or .json.")
SKIP_BAD = flags.DEFINE_bool(
    "skip_bad", False, "Leave out queries whose photo is bad, rather than stop."
)
DESCRIBE = flags.DEFINE_bool(
    "describe", False, "Describe the photos and measure nothing: any dataset will do."
)
RERANK = flags.DEFINE_string(
    "rerank", None, "Re-rankings, as aqe:n=10,alpha=3 or dba,aqe,diffusion:top=500."
)
DISTRACTORS = flags.DEFINE_string(
    "distractors", None, "Images that answer no query: .npy [M, D], or a store."
)
COMPRESS = flags.DEFINE_list(
    "compress", None, "Forms: pq128 (or any number of bytes), int8, bf16."
)
WHITEN = flags.DEFINE_string(
    "whiten", None, "Whitening, .safetensors, or what to learn it from: .npy, a store."
)
WHITEN_DIMS = flags.DEFINE_integer(
    "whiten_dims", None, "Dimensions that whitening keeps; all if not given."
)
REPORT = flags.DEFINE_bool("report", True, "Write report.html and the pictures.")
REPORT_QUERIES = flags.DEFINE_integer(
    "report_queries", 200, "Most queries that the report shows."
)
REPORT_SIDE = flags.DEFINE_integer(
    "report_side", 192, "Longest side of the report's photos, in pixels."
)
COMPILATION_CACHE = flags.DEFINE_string(
    "compilation_cache", DEFAULT, 'Where compiled programs lie; "" keeps none.'
)
OUTPUT = flags.DEFINE_string("output", None, "Where results of descriptors go, .json.")


def chosen_variants() -> Variants:
    """Reads the flags of what is measured beside the benchmark alone."""
    return make_variants(
        DISTRACTORS.value, COMPRESS.value, WHITEN.value, WHITEN_DIMS.value
    )


def evaluate_run(checkpoint: Path, target: Path, folder: str | None) -> None:
    """Evaluates a checkpoint, beside the baselines if asked."""
    rerank = parse_chain(RERANK.value) if RERANK.value is not None else ()
    variants = chosen_variants()
    if DESCRIBE.value and (BASELINES.value or rerank or variants):
        raise UserError(
            "--describe measures nothing: leave out --baselines, --rerank, "
            "--distractors, --compress and --whiten"
        )
    limits = Limits(queries=REPORT_QUERIES.value, side=REPORT_SIDE.value)
    config = read_config(checkpoint)
    settings = make_settings(config, LONGEST_SIDE.value, SCALES.value)
    where = (config, DATA_DIR.value, folder, BENCHMARK.value)
    dataset, name, labelled = cluster.first_alone(
        lambda: choose_dataset(*where, ask=not DESCRIBE.value), "dataset"
    )
    trained, untrained = model_systems(
        config, settings, checkpoint, AVERAGE.value, target / STORES / name, tell
    )
    benchmark = Benchmark(
        dataset, labelled, settings.longest_side, SKIP_BAD.value, rerank
    )
    head = part(part(config, "model", dict), "head", str)
    systems: dict[str, System] = {head: trained}
    if BASELINES.value:
        systems |= {"untrained": untrained(), "colour histogram": histogram_system}
    if not cluster.is_first():
        help_describe(systems, benchmark)
        return
    target.mkdir(exist_ok=True)
    if DESCRIBE.value:
        tell_bad(trained(benchmark.parts()))
        print(f"written: {trained.folder}")
        return

    variants = variants.checked(trained.record(Images((), (), (), ())))
    variants.save(target / "whitening.safetensors")
    numbers: dict[str, dict[str, Any]] = {}
    shown: list[Answers] = []
    for label, system in systems.items():
        tell(f"{label} on {name} ...")
        show = shown.append if label == head and REPORT.value else None
        # Distractors and a whitening are of the trained model's own descriptors.
        extra = variants if label == head else Variants()
        case = dataclasses.replace(benchmark, variants=extra)
        numbers[label] = case.evaluate(system, show, tell_bad)
    rows, costs = table_rows(name, numbers), cost_lines(numbers)
    measured = {name: numbers.pop(head)}
    baselines = {label: {name: found} for label, found in numbers.items()}
    environment = conditions(config, settings, checkpoint, variants)
    path = target / "results.json"
    found = results.Results(measured, environment, baselines)
    results.write_results(path, found, merge=True)
    print("\n".join([text_table(rows), *costs]))
    for answers in shown:
        summary = Summary(head, rows, environment)
        present(target, answers, summary, trained.look, limits)
    print(f"written: {target}")


def conditions(
    config: Config, settings: Extraction, checkpoint: Path, variants: Variants
) -> dict[str, Any]:
    """Says what the numbers depend on."""
    dtype = part(part(config, "model", dict), "dtype", str)
    return results.environment(dtype) | {
        "checkpoint_step": step_of(checkpoint),
        "averaged_weights": AVERAGE.value,
        "longest_side": settings.longest_side,
        "scales": list(settings.scales),
        **variants.environment(),
    }


def help_describe(systems: Mapping[str, System], benchmark: Benchmark) -> None:
    """Describes a share of the photos; the first process measures and writes."""
    for system in systems.values():
        if isinstance(system, ModelSystem):
            system(benchmark.parts())


def tell(line: str) -> None:
    """Says at once what is going on."""
    print(line, flush=True)


def tell_bad(found: Mapping[str, Described]) -> None:
    """Says which photos could not be described, and why."""
    for name, described in found.items():
        if described.bad:
            tell(f"{len(described.bad)} bad photos of the {name}:")
            for line in bad_words(described):
                tell(line)


def evaluate_files(
    descriptors: str, queries: str, ground_truth: str, output: str
) -> None:
    """Scores descriptors from anywhere: their dot products, by a ground truth."""
    rerank = parse_chain(RERANK.value) if RERANK.value is not None else ()
    check_output(Path(output), [descriptors, queries, ground_truth])
    gnd: GroundTruth = read_ground_truth(ground_truth)
    q = read_side(queries, gnd.queries, "qimlist")
    db = read_side(descriptors, gnd.images, "imlist", like=q)
    tell_bad({"qimlist": q.described, "imlist": db.described})
    kept = good_queries(q.described, SKIP_BAD.value)
    stored = db.described.descriptors
    variants = chosen_variants().checked(db.record, stored.shape[1])
    asked = variants.whiten(q.described.descriptors[kept])
    database = variants.whiten(stored)
    truth = keep_queries(gnd, kept)
    measure = functools.partial(levels_of, truth=truth)
    ranking = Ranking(asked, database)
    found = measure_chain(measure(ranking), rerank, ranking, measure)
    found |= variants.measure(asked, database, functools.partial(levels_among, truth))
    environment = results.environment(str(stored.dtype)) | variants.environment()
    measured = {gnd.name: found | bad_counts(db.described, q.described)}
    variants.save(Path(output).with_suffix(".whitening.safetensors"))
    results.write_results(Path(output), results.Results(measured, environment))
    numbers = {Path(descriptors).stem: found}
    rows = table_rows(gnd.name, numbers)
    print("\n".join([text_table(rows), *cost_lines(numbers)]))
    print(f"written: {output}")


def main() -> None:
    """Reads the flags."""
    keep_compiled(COMPILATION_CACHE.value)
    names = ("descriptors", "queries", "ground_truth", "output")
    files: dict[str, Any] = {name: flags.FLAGS[name].value for name in names}
    trained = WORKDIR.value is not None or CHECKPOINT.value is not None
    if trained and not any(files.values()):
        chosen = choose_checkpoint(WORKDIR.value, CHECKPOINT.value, STEP.value)
        evaluate_run(*chosen, FOLDER.value)
    elif not trained and any(files.values()):
        own = (STEP, FOLDER, LONGEST_SIDE, SCALES, BENCHMARK, DATA_DIR)
        asked = BASELINES.value or AVERAGE.value or DESCRIBE.value
        if any(flag.value is not None for flag in own) or asked:
            raise UserError(
                "--step, --image_folder, --benchmark, --data_dir, --baselines, "
                "--average, --longest_side, --scales and --describe go with --workdir, "
                "not with --descriptors"
            )
        missing = [f"--{name}" for name, value in files.items() if not value]
        if missing:
            raise UserError(f"descriptors need {', '.join(missing)} too")
        if cluster.is_first():
            evaluate_files(**files)
    else:
        raise UserError(
            "eval.py needs either --workdir=DIR or --checkpoint=FOLDER, or "
            "--descriptors, --queries, --ground_truth and --output, not both"
        )
    cluster.wait_for_first()


if __name__ == "__main__":
    command_line.run(main)
