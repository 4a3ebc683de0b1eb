"""Trains Token: photos with labels -> weights.

    tokret train --config=configs/demo.py --workdir=DIR [--config.FIELD=VALUE ...]
    python train.py ...

The same command again resumes the run. DIR holds config.json, checkpoints/,
metrics.jsonl and tensorboard/.
"""

if __name__ == "__main__":  # before imports that take seconds
    import sys

    from tokret.__main__ import run

    run("train", sys.argv[1:], "train.py")

import contextlib
import dataclasses
import math
import shlex
import signal
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from tokret.command_line import Processes
from tokret.config import stored
from tokret.config.files import load_config
from tokret.config.parsing import naming
from tokret.config.tree import Config
from tokret.errors import StoppedError, UserError
from tokret.io.atomic_files import require_folder
from tokret.io.remote.retrying import UnavailableError
from tokret.io.remote.uploading import Uploads, publish
from tokret.io.remote.urls import shown, with_urls
from tokret.option_types import RemotePath
from tokret.runtime import cluster
from tokret.runtime.compilation_cache import keep_compiled
from tokret.training.checkpoint_digests import UnreadableError
from tokret.training.checkpoints import Checkpoints, list_steps
from tokret.training.input_batches import PhotoInput
from tokret.training.input_order import describe_order
from tokret.training.interruption import StopRequests, stop_requests
from tokret.training.profiling import Profile, parse_steps
from tokret.training.remote_runs import fetch_run
from tokret.training.reporting import Reporter
from tokret.training.workdir import Workdir

if TYPE_CHECKING:
    from tokret.training.setup import TrainingSetup
    from tokret.training.state import TrainState


def validate(
    setup: "TrainingSetup", state: Any, photos: PhotoInput
) -> dict[str, float]:
    """Returns mean loss, top1 and top5 over all validation photos."""
    batches, skipped = photos.validation()
    sums: dict[str, float] = {}
    for batch in batches:
        arrays = (batch[name] for name in ("images", "labels", "weights"))
        found = setup.programs.validate(state, *arrays)
        sums = {k: sums.get(k, 0.0) + float(v) for k, v in found.items()}
    skipped.report()
    count = sums.pop("count")
    if not count:
        raise UserError(
            f"none of the {len(photos.dataset.records('validation'))} validation "
            "photos can be decoded; check the disk, or prepare the dataset again"
        )
    return {name: total / count for name, total in sums.items()}


def check_finite(
    metrics: dict[str, float], reporter: Reporter, photos: PhotoInput, saved: int | None
) -> None:
    """Reports an update that was skipped; stops a run that makes no more updates."""
    step, count = int(metrics["last_nonfinite_step"]), int(metrics["nonfinite_steps"])
    reporter.nonfinite_step(count, step, lambda: photos.file_names(step))
    in_row = int(metrics["consecutive_nonfinite_steps"])
    allowed = photos.config.updates.max_nonfinite_steps
    if in_row > allowed or not math.isfinite(metrics["weight_norm"]):
        raise UserError(
            f"{in_row} updates in a row were non-finite, the last of them step {step}; "
            "lower config.schedule.base_lr and use another workdir (checkpoints of "
            f"this run: {'none' if saved is None else f'up to step {saved}'})"
        )


def restore_newest(
    abstract: Any, workdir: Path, checkpoints: Checkpoints
) -> "TrainState | None":
    """Restores the newest checkpoint that can be read, None if there is none.

    Those after it are moved away.

    Raises:
      UserError: if there are checkpoints and none can be read; all stay.
    """
    damaged: dict[int, str] = {}
    for step in reversed(list_steps(workdir)):
        state, problem = None, ""
        try:
            state = checkpoints.restore(abstract, step)
        except UnreadableError as error:
            problem = with_urls(error.damage)
        # If one process cannot read it, none of them uses it.
        problem = max(cluster.gather_texts(problem))
        if problem:
            damaged[step] = problem
            continue
        for newer, reason in damaged.items():
            moved = checkpoints.move_damaged(newer)
            if cluster.is_first():
                line = f"warning: {reason}; moved to {shown(moved)}"
                print(with_urls(line), file=sys.stderr, flush=True)
        checkpoints.prune()
        return state
    if damaged:
        raise UserError(
            f"workdir: no checkpoint of {workdir} is whole: "
            f"{'; '.join(damaged.values())}; name another workdir, or move "
            f"{workdir / 'checkpoints'} away to start again from step 0"
        )
    return None


@contextlib.contextmanager
def naming_what_is_saved(workdir: Path) -> Iterator[None]:
    """Adds to the error of object storage that fails what is saved of the run."""
    try:
        yield
    except UnavailableError as error:
        if not cluster.is_first():  # its copy does not list what was saved since
            raise
        steps = list_steps(workdir)
        saved = f"saved up to step {steps[-1]}" if steps else "no step is saved"
        raise UnavailableError(f"{error}; {saved}") from error


def settle(uploads: Uploads, folder: Workdir) -> None:
    """Uploads what a checkpoint comes after, and checks that the folder is ours."""
    uploads.flush()
    folder.check(now=True)


class Run(NamedTuple):
    """What a run trains with."""

    setup: "TrainingSetup"
    photos: PhotoInput
    reporter: Reporter
    checkpoints: Checkpoints
    folder: Workdir
    stop_requested: StopRequests


def train(config: Config, workdir: Path, traced: range = range(0)) -> None:
    """Starts or resumes a run, and trains to its end."""
    # Flax, Optax and the model are imported once the command line and the config are
    # checked.
    from tokret.training.initial_weights import check_initial_weights, weights_source
    from tokret.training.setup import initial_state, prepare_run

    require_folder(fetch_run(workdir), "workdir")
    if not list_steps(workdir):  # before photos are prepared, which may take hours
        with naming("config.init", type(config.init)):
            check_initial_weights(config.init, config.model)
    dataset, setup = prepare_run(config)
    with naming("config.run", type(config.run)):
        keep_compiled(config.run.compilation_cache)
    state = None if list_steps(workdir) else initial_state(config, setup.programs)
    cluster.wait("all have listed the workdir's checkpoints")
    config = dataclasses.replace(config, dataset=dataset.identity())

    # From here on something is written into the workdir.
    with (
        Workdir(workdir) as folder,
        naming_what_is_saved(workdir),
        Uploads() as uploads,
        stop_requests() as stop_requested,
        Checkpoints(workdir, config, lambda: settle(uploads, folder)) as checkpoints,
    ):
        recorded = checkpoints.recorded_config()
        if cluster.is_first():
            stored.record(config, workdir / "config.json", recorded)
            publish(workdir / "config.json")
        # A resumed run starts from its newest checkpoint; a new one from the weights
        # that config.init names, of the whole model or its trunk, else the seed's.
        if list_steps(workdir):  # perhaps saved by another run since it was looked at
            state = restore_newest(setup.programs.abstract, workdir, checkpoints)
        state = state or initial_state(config, setup.programs)
        first, steps = int(state.step), setup.schedule.steps
        if first >= steps:
            print(
                f"{shown(workdir)} is finished: {config.epochs} epochs, {steps} steps; "
                f"to train it further add {stored.lengthening(config)}",
                flush=True,
            )
            return
        print(
            f"{dataset.name}: {len(dataset.records('train'))} photos of "
            f"{dataset.classes} classes; steps {first} to {steps}, "
            f"{setup.epoch_steps} an epoch; {setup.mesh.size} "
            f"{jax.devices()[0].device_kind}"
            + (f"; {order}" if (order := describe_order(config, dataset)) else "")
            + (
                f"; resumes from checkpoint {first}"
                if first
                else f"; starts from {weights_source(config.init)}"
            ),
            flush=True,
        )
        reporter = Reporter(
            workdir,
            first_step=first,
            steps=steps,
            batch_size=config.batch_size,
            nonfinite_steps=int(state.nonfinite_steps),
            peak_images=setup.peak_images,
            uploads=uploads,
        )
        photos = PhotoInput(config, dataset, setup.mesh, reporter.print_line)
        run = Run(setup, photos, reporter, checkpoints, folder, stop_requested)
        profile = Profile(workdir / "profile", traced, uploads)
        with contextlib.closing(reporter), contextlib.closing(profile):
            take_steps(run, state, profile)
    # Once the last checkpoint is complete.
    reporter.print_line(
        f"finished: {shown(workdir / 'checkpoints' / str(steps))}; evaluate it with "
        f"tokret eval --workdir={shlex.quote(shown(workdir))}"
    )


def take_steps(run: Run, state: "TrainState", profile: Profile) -> None:
    """Trains from a state to the last step; logs, validates and saves on the way."""
    setup, photos, reporter = run.setup, run.photos, run.reporter
    options = photos.config.run
    first, steps = int(state.step), setup.schedule.steps
    batches, skipped = photos.training(first)
    for step in range(first + 1, steps + 1):
        with reporter.waiting():
            batch = next(batches)
        # No implicit transfers between host and device.
        with profile.step(step), jax.transfer_guard("disallow"):
            state, metrics = setup.programs.train(
                state, batch["images"], batch["labels"]
            )
        reporter.advance()
        if reporter.output_is_closed:
            run.stop_requested.request(128 + signal.SIGPIPE)
        stops = run.stop_requested(step)
        ends_epoch = step % setup.epoch_steps == 0
        validates = ends_epoch and photos.dataset.has("validation")
        saves = step % options.checkpoint_every == 0 or step == steps or stops
        saves = saves or (validates and bool(options.keep_best))
        if step % options.log_every == 0 or saves:
            found = jax.device_get(metrics)
            values = {name: float(value) for name, value in found.items()}
            check_finite(values, reporter, photos, run.checkpoints.latest_step())
            values["learning_rate"] = float(setup.schedule(step - 1))
            values["skipped"] = skipped.report()
            run.folder.check()
            run.checkpoints.check()
            reporter.train(step, values)
        # Before saving: a run that is killed here validates again.
        measured = {}
        if validates:
            measured = validate(setup, state, photos)
            reporter.validation(step, step // setup.epoch_steps, measured)
        if ends_epoch:
            skipped.new_epoch()
        if saves:
            run.folder.check()
            run.checkpoints.save(state, measured)
        if stops and step < steps:
            raise StoppedError(
                f"stopped after step {step} of {steps}, which is saved; the same "
                "command resumes from there",
                run.stop_requested.status,
            )


def main(
    config: str,
    workdir: RemotePath,
    profile: str | None = None,
    fields: Sequence[str] = (),
    processes: Processes = Processes(),  # noqa: B008 (frozen)
) -> None:
    """Trains a model, or resumes its training: photos with labels -> weights.

    Any field of the config can be changed: --config.FIELD=VALUE.

    Args:
      config: the config file, such as configs/demo.py.
      workdir: the folder of the run, or its URL in object storage.
      profile: steps to trace, as 10:20; the trace is written to WORKDIR/profile.
      fields: changes to the config.
      processes: those that train together.
    """
    processes.join()
    train(load_config(config, fields), workdir, parse_steps(profile))
