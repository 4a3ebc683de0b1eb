"""Evaluates: a checkpoint, or descriptors from anywhere, -> table, results, picture.

    python eval.py --workdir=DIR [--step=N] [--baselines]
    python eval.py --checkpoint=DIR/checkpoints/STEP [--baselines]
    python eval.py --workdir=DIR --benchmark=roxford5k [--data_dir=DIR] [--ema]
    python eval.py --workdir=DIR --image_folder=PHOTOS [--longest_side=N] [--scales=1,2]
    python eval.py --workdir=DIR --benchmark=revisitop1m --extract_only
    python eval.py --descriptors=db.npy --queries=q.npy --ground_truth=gnd.pkl \
        --output=out.json

Any of them with --rerank=aqe:n=10,alpha=3 is measured before and after re-ranking, with
--distractors=DESCRIPTORS alone and among these too, with --compress=pq128,pq1024,int8,
bf16 once more in fewer bytes, and with --whiten=DESCRIPTORS after PCA whitening that is
learned from these (a store or an .npy file; WHITENING.safetensors is taken as it is).
The first four write DIR/eval/results.json and, unless --no-report is given,
DIR/eval/report.html with the pictures queries.png and tokens.png. Descriptors stay in
DIR/eval/descriptors, a folder for each dataset, checkpoint and way of describing; a run
that was killed goes on with them, and what is there is not computed again.
`--descriptors` and `--queries` take such a folder (.../query, .../database) too.
Several processes, started as for train.py, describe together; the first alone measures
and writes.
"""

import dataclasses
import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokret import command_line
from tokret.command_line import Processes
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


@dataclasses.dataclass(frozen=True)
class Options:
    """What is evaluated, on which photos, and how.

    Attributes:
      workdir: folder of a run of train.py.
      step: checkpoint of the run, or the word best; None: the newest.
      checkpoint: a checkpoint's own folder.
      baselines: also the untrained model and a colour histogram.
      ema: the EMA of the weights, if the run keeps one.
      image_folder: folder of class folders; every photo is a query among all others.
      longest_side: of a photo, in pixels; None: the run's.
      scales: factors of the image size, as 1,0.7; None: the run's.
      benchmark: a prepared dataset with queries, such as roxford5k.
      data_dir: folder of prepared datasets; None: the run's.
      descriptors: of the database: .npy [N, D], or a store.
      queries: descriptors of the queries: .npy [Q, D], or a store.
      ground_truth: gnd_NAME.pkl or .json.
      skip_bad: skip queries whose photo is bad, rather than stop.
      extract_only: extract descriptors and measure nothing: any dataset will do.
      rerank: re-rankings, as aqe:n=10,alpha=3 or dba,aqe,diffusion:top=500.
      distractors: images that are relevant to no query: .npy [M, D], or a store.
      compress: compressed forms: pq128 (or any number of bytes), int8, bf16.
      whiten: whitening, .safetensors, or what to learn it from: .npy, a store.
      whiten_dims: dimensions that whitening keeps; None: all.
      report: write report.html and the pictures.
      report_queries: the most queries that the report shows.
      report_side: longest side of the report's photos, in pixels.
      compilation_cache: folder of compiled programs; "" keeps none.
      output: results of descriptors, a .json file.
    """

    workdir: str | None = None
    step: str | None = None
    checkpoint: str | None = None
    baselines: bool = False
    ema: bool = False
    image_folder: str | None = None
    longest_side: int | None = None
    scales: tuple[float, ...] | None = None
    benchmark: str | None = None
    data_dir: str | None = None
    descriptors: str | None = None
    queries: str | None = None
    ground_truth: str | None = None
    skip_bad: bool = False
    extract_only: bool = False
    rerank: str | None = None
    distractors: str | None = None
    compress: tuple[str, ...] | None = None
    whiten: str | None = None
    whiten_dims: int | None = None
    report: bool = True
    report_queries: int = 200
    report_side: int = 192
    compilation_cache: str = DEFAULT
    output: str | None = None

    @property
    def variants(self) -> Variants:
        """What is measured beside the benchmark alone."""
        return make_variants(
            self.distractors, self.compress, self.whiten, self.whiten_dims
        )

    @property
    def reranking(self) -> Any:
        """The chain of re-rankings."""
        return parse_chain(self.rerank) if self.rerank is not None else ()


def evaluate_run(checkpoint: Path, target: Path, options: Options) -> None:
    """Evaluates a checkpoint, beside the baselines if asked."""
    rerank = options.reranking
    variants = options.variants
    if options.extract_only and (options.baselines or rerank or variants):
        raise UserError(
            "--extract_only measures nothing: leave out --baselines, --rerank, "
            "--distractors, --compress and --whiten"
        )
    limits = Limits(queries=options.report_queries, side=options.report_side)
    config = read_config(checkpoint)
    settings = make_settings(config, options.longest_side, options.scales)
    where = (config, options.data_dir, options.image_folder, options.benchmark)
    dataset, name, labelled = cluster.first_alone(
        lambda: choose_dataset(*where, ask=not options.extract_only), "dataset"
    )
    trained, untrained = model_systems(
        config, settings, checkpoint, options.ema, target / STORES / name, tell
    )
    benchmark = Benchmark(
        dataset, labelled, settings.longest_side, options.skip_bad, rerank
    )
    head = part(part(config, "model", dict), "head", str)
    systems: dict[str, System] = {head: trained}
    if options.baselines:
        systems |= {"untrained": untrained(), "colour histogram": histogram_system}
    if not cluster.is_first():
        help_describe(systems, benchmark)
        return
    target.mkdir(exist_ok=True)
    if options.extract_only:
        tell_bad(trained(benchmark.parts()))
        print(f"written: {trained.folder}")
        return

    variants = variants.checked(trained.record(Images((), (), (), ())))
    variants.save(target / "whitening.safetensors")
    numbers: dict[str, dict[str, Any]] = {}
    shown: list[Answers] = []
    for label, system in systems.items():
        tell(f"{label} on {name} ...")
        show = shown.append if label == head and options.report else None
        # Distractors and a whitening are of the trained model's own descriptors.
        extra = variants if label == head else Variants()
        case = dataclasses.replace(benchmark, variants=extra)
        numbers[label] = case.evaluate(system, show, tell_bad)
    rows, costs = table_rows(name, numbers), cost_lines(numbers)
    measured = {name: numbers.pop(head)}
    baselines = {label: {name: found} for label, found in numbers.items()}
    environment = conditions(config, settings, checkpoint, options.ema, variants)
    path = target / "results.json"
    found = results.Results(measured, environment, baselines)
    results.write_results(path, found, merge=True)
    print("\n".join([text_table(rows), *costs]))
    for answers in shown:
        summary = Summary(head, rows, environment)
        present(target, answers, summary, trained.look, limits)
    print(f"written: {target}")


def conditions(
    config: Config,
    settings: Extraction,
    checkpoint: Path,
    ema: bool,
    variants: Variants,
) -> dict[str, Any]:
    """Says what the numbers depend on."""
    dtype = part(part(config, "model", dict), "dtype", str)
    return results.environment(dtype) | {
        "checkpoint_step": step_of(checkpoint),
        "ema": ema,
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
    descriptors: str, queries: str, ground_truth: str, output: str, options: Options
) -> None:
    """Scores descriptors from anywhere: their dot products, by a ground truth."""
    rerank = options.reranking
    check_output(Path(output), [descriptors, queries, ground_truth])
    gnd: GroundTruth = read_ground_truth(ground_truth)
    q = read_side(queries, gnd.queries, "qimlist")
    db = read_side(descriptors, gnd.images, "imlist", like=q)
    tell_bad({"qimlist": q.described, "imlist": db.described})
    kept = good_queries(q.described, options.skip_bad)
    stored = db.described.descriptors
    variants = options.variants.checked(db.record, stored.shape[1])
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


def main(
    evaluation: Options,
    processes: Processes = Processes(),  # noqa: B008 (frozen)
) -> None:
    """Evaluates a checkpoint, or descriptors from anywhere.

    Args:
      evaluation: one of --workdir, --checkpoint and --descriptors is needed.
      processes: those that extract descriptors together.
    """
    options = evaluation
    processes.join()
    keep_compiled(options.compilation_cache)
    names = ("descriptors", "queries", "ground_truth", "output")
    files: dict[str, Any] = {name: getattr(options, name) for name in names}
    trained = options.workdir is not None or options.checkpoint is not None
    if trained and not any(files.values()):
        chosen = choose_checkpoint(options.workdir, options.checkpoint, options.step)
        evaluate_run(*chosen, options)
    elif not trained and any(files.values()):
        own = [
            *("step", "image_folder", "longest_side", "scales", "benchmark"),
            *("data_dir", "baselines", "ema", "extract_only"),
        ]
        if any(getattr(options, name) not in (None, False) for name in own):
            raise UserError(
                f"{', '.join(f'--{name}' for name in own)} go with --workdir, "
                "not with --descriptors"
            )
        missing = [f"--{name}" for name, value in files.items() if not value]
        if missing:
            raise UserError(f"descriptors need {', '.join(missing)} too")
        if cluster.is_first():
            evaluate_files(**files, options=options)
    else:
        raise UserError(
            "eval.py needs either --workdir=DIR or --checkpoint=FOLDER, or "
            "--descriptors, --queries, --ground_truth and --output, not both"
        )
    cluster.wait_for_first()


if __name__ == "__main__":
    sys.exit(command_line.run(main, sys.argv[1:], "eval.py"))
