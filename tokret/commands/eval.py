"""Evaluates a checkpoint, or descriptors of any origin: table, results, report.

    tokret eval --workdir=DIR [--step=N] [--baselines]
    tokret eval --checkpoint=DIR/checkpoints/STEP [--baselines]
    tokret eval --workdir=DIR --benchmark=roxford5k [--data_dir=DIR] [--ema]
    tokret eval --workdir=DIR --image_folder=PHOTOS [--longest_side=N] [--scales=1,2]
    tokret eval --workdir=DIR --benchmark=revisitop1m --extract_only
    tokret eval --descriptors=db.npy --queries=q.npy --ground_truth=gnd.pkl \
        --output=out.json

Options for more rows of the table: --rerank=aqe:n=10,alpha=3 for the search after
re-ranking, --distractors=DESCRIPTORS for the search among these too, and
--compress=pq128,pq1024,int8,bf16 for the search in compressed descriptors.
--whiten=DESCRIPTORS learns a PCA whitening from these (a store or an .npy file) and
applies it to all descriptors; --whiten=WHITENING.safetensors applies a learned one.

The first four commands write DIR/eval/results.json and, without --no-report,
DIR/eval/report.html with the pictures queries.png and tokens.png. Descriptors are kept
in DIR/eval/descriptors, a store for each dataset, checkpoint and settings: a run that
was killed resumes, and existing descriptors are not computed again. `--descriptors` and
`--queries` take such a store (.../database, .../query) too. Several processes, started
as for train.py, extract together; only the first one measures and writes.
"""

if __name__ == "__main__":  # before imports that take seconds
    import sys

    from tokret.__main__ import run

    run("eval", sys.argv[1:], "eval.py")

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokret.command_line import Processes, log
from tokret.data.ground_truth import read_ground_truth
from tokret.errors import UserError
from tokret.evaluation.benchmarks import Benchmark, evaluate
from tokret.evaluation.descriptor_inputs import read_descriptor_input
from tokret.evaluation.image_sets import DescriptorSet, image_sets
from tokret.evaluation.leave_one_out_benchmark import LeaveOneOutBenchmark
from tokret.evaluation.options import (
    Options,
    check_output,
    choose_checkpoint,
    choose_dataset,
    make_settings,
)
from tokret.evaluation.revisited_benchmark import RevisitedBenchmark
from tokret.evaluation.systems import (
    ModelSystem,
    System,
    histogram_system,
    model_systems,
)
from tokret.evaluation.variants import Variants
from tokret.io.remote.fetching import fetch, require
from tokret.io.remote.outputs import prepare_folder
from tokret.io.remote.uploading import publish
from tokret.retrieval import results
from tokret.retrieval.answers import Answers
from tokret.retrieval.report.page import Summary
from tokret.retrieval.report.writer import write_report_and_pictures
from tokret.retrieval.store.record import Images
from tokret.retrieval.tables import TableRow, cost_lines, table_rows, text_table
from tokret.runtime import cluster
from tokret.runtime.compilation_cache import keep_compiled
from tokret.runtime.ending import keeps
from tokret.training.checkpoint_metadata import read_config, read_metadata
from tokret.training.remote_runs import drop_arrays

STORES = "descriptors"  # below DIR/eval
FILES = ("descriptors", "queries", "ground_truth", "output")
ONLY_OF_RUNS = (
    *("step", "image_folder", "longest_side", "scales", "benchmark", "data_dir"),
    *("baselines", "ema", "extract_only"),
)


def evaluate_run(options: Options) -> None:
    """Evaluates a checkpoint, and the baselines if they are wanted."""
    checkpoint, target = same_checkpoint(options)
    steps, limits = options.steps, options.limits
    variants = variants_for(target, options)
    if options.extract_only and (options.baselines or steps or variants):
        raise UserError(
            "--extract_only measures nothing: remove --baselines, --rerank, "
            "--distractors, --compress and --whiten"
        )
    config = read_config(checkpoint)
    settings = make_settings(config, options.longest_side, options.scales)
    choice = (config, options.data_dir, options.image_folder, options.benchmark)
    dataset, name, split = cluster.first_alone(
        lambda: choose_dataset(
            *choice,
            measure=not options.extract_only,
            skip_bad=options.skip_bad,
            max_pixels=options.max_pixels,
        ),
        "dataset",
    )
    stores = target / STORES / name
    keeps(f"extracted descriptors are kept in {stores}; the same command resumes")
    images = image_sets(dataset, split, settings.longest_side)
    # The systems: the checkpoint's model first, by the name of its head.
    trained, untrained = model_systems(
        config, settings, checkpoint, options.ema, stores, log
    )
    drop_arrays(checkpoint)
    head, dtype = config.model.head, config.model.dtype
    systems: dict[str, System] = {head: trained}
    if options.baselines:
        systems |= {"untrained": untrained(), "colour histogram": histogram_system}
    if not cluster.is_first():
        for system in systems.values():
            if isinstance(system, ModelSystem):
                system(images)
        return
    target.mkdir(exist_ok=True)
    if options.extract_only:
        log_bad(trained(images))
        log(f"written: {trained.folder}")
        return
    # The numbers of each; variants of the search are measured for the model alone,
    # since distractors and whitening are of its own descriptors.
    benchmark: Benchmark
    if split:
        benchmark = LeaveOneOutBenchmark.of(dataset, split, images)
    else:
        benchmark = RevisitedBenchmark.of(dataset, images)
    benchmark.check(steps, distractors=variants.distractors is not None)
    variants = variants.checked(trained.record(Images((), (), (), ())))
    variants.save(target / "whitening.safetensors")
    numbers: dict[str, dict[str, Any]] = {}
    shown: list[Answers] = []
    for label, system in systems.items():
        log(f"{label} on {name} ...")
        found = system(images)
        log_bad(found)
        numbers[label] = evaluate(
            benchmark,
            found,
            steps=steps,
            variants=variants if label == head else Variants(),
            skip_bad=options.skip_bad,
            report=shown.append if label == head and options.report else None,
        )
    # results.json, the table, the report.
    environment = results.environment(dtype) | {
        "checkpoint_step": read_metadata(checkpoint).step,
        "ema": options.ema,
        "longest_side": settings.longest_side,
        "scales": list(settings.scales),
        **variants.environment(),
    }
    rows = print_table(name, numbers)
    measured = {name: numbers.pop(head)}
    baselines = {label: {name: found} for label, found in numbers.items()}
    content = results.Results(measured, environment, baselines)
    file = fetch(target / "results.json")
    results.write_results(file, content, merge=True)
    for answers in shown:
        summary = Summary(head, rows, environment)
        write_report_and_pictures(target, answers, summary, trained.token_maps, limits)
    publish(file)
    log(f"written: {target}")


def same_checkpoint(options: Options) -> tuple[Path, Path]:
    """Returns `choose_checkpoint` of the first process: a run may save meanwhile."""
    checkpoint, target = choose_checkpoint(
        options.workdir, options.checkpoint, options.step
    )
    first = cluster.gather_texts(checkpoint.name)[0]
    if first != checkpoint.name:
        return choose_checkpoint(options.workdir, options.checkpoint, first)
    return checkpoint, target


def variants_for(target: Path, options: Options) -> Variants:
    """Checks early where results are written, and reads what variants need.

    Only the first process measures and writes.
    """
    if not cluster.is_first():
        return Variants()
    prepare_folder(target, "workdir" if options.workdir else "checkpoint")
    return options.variants


def check_kind(options: Options) -> bool:
    """Returns whether a checkpoint is evaluated, rather than descriptors in files.

    Raises:
      UserError: for options that are missing, or of the other kind.
    """
    sources, of_files, of_runs = (
        [f"--{name}" for name in names if getattr(options, name) not in (None, False)]
        for names in (("workdir", "checkpoint"), FILES, ONLY_OF_RUNS)
    )
    if sources and of_files:
        target = choose_checkpoint(options.workdir, options.checkpoint, options.step)[1]
        raise UserError(
            f"{', '.join(of_files)}: only for descriptors in files, not with "
            f"{', '.join(sources)}, whose results are written to {target}; remove one "
            "or the other"
        )
    if sources:
        return True
    if not of_files:
        raise UserError(
            "--workdir=DIR or --checkpoint=FOLDER is missing, which names what is "
            "evaluated; or, for descriptors in files, --descriptors, --queries, "
            "--ground_truth and --output"
        )
    if of_runs:
        raise UserError(
            f"{', '.join(of_runs)}: only for a run or a checkpoint, not with "
            f"{', '.join(of_files)}; remove one or the other"
        )
    missing = [f"--{name}" for name in FILES if not getattr(options, name)]
    if missing:
        raise UserError(f"descriptors need {', '.join(missing)} too")
    return False


def evaluate_files(options: Options) -> None:
    """Evaluates descriptors of any origin by a ground truth: their dot products."""
    paths: list[Path] = [getattr(options, name) for name in FILES]
    descriptors, queries_file, ground_truth, output = paths
    check_output(output, paths[:3])
    truth = read_ground_truth(require(ground_truth))
    steps, variants = options.steps, options.variants
    queries = read_descriptor_input(queries_file, truth.queries, "qimlist")
    database = read_descriptor_input(descriptors, truth.images, "imlist")
    dims = queries.descriptors.shape[1]
    database.check_model("descriptors", "queries", queries.record, dims)
    found = {"query": queries, "database": database}
    log_bad(found)
    variants = variants.checked(database.record, dims)
    numbers = evaluate(
        RevisitedBenchmark(truth),
        found,
        steps=steps,
        variants=variants,
        skip_bad=options.skip_bad,
    )
    variants.save(output.with_suffix(".whitening.safetensors"))
    environment = (
        results.environment(str(database.descriptors.dtype)) | variants.environment()
    )
    content = results.Results({truth.name: numbers}, environment)
    results.write_results(output.resolve(), content)
    publish(output)
    print_table(truth.name, {descriptors.stem: numbers})
    log(f"written: {output}")


def log_bad(found: Mapping[str, DescriptorSet]) -> None:
    """Prints which photos have no descriptor, and why."""
    for name, each in found.items():
        for line in each.report_bad(name):
            log(line)


def print_table(benchmark: str, numbers: Mapping[str, Any]) -> list[TableRow]:
    """Prints the table of systems with their costs, and returns its rows."""
    rows = table_rows(benchmark, numbers)
    log("\n".join([text_table(rows), *cost_lines(numbers)]))
    return rows


def main(
    evaluation: Options,
    processes: Processes = Processes(),  # noqa: B008 (frozen)
) -> None:
    """Evaluates a checkpoint, or descriptors of any origin.

    Args:
      evaluation: one of --workdir, --checkpoint and --descriptors is needed.
      processes: those that extract descriptors together.
    """
    options = evaluation
    processes.join()
    keep_compiled(options.compilation_cache)
    if check_kind(options):
        evaluate_run(options)
    elif cluster.is_first():
        evaluate_files(options)
    cluster.wait_for_first()
