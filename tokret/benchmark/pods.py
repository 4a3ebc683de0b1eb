"""TPU pods as targets of compilation: libtpu compiles for any on any machine."""

import importlib.util
import os
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
from jax.experimental import topologies

from tokret.benchmark.collectives import Collective, read_collectives
from tokret.errors import UserError
from tokret.runtime import chips
from tokret.runtime.chips import GIB, Chip

CHIPS = {chip.name: chip for chip in (chips.V4, chips.V5E, chips.V5P, chips.V6E)}
# Keeps libtpu from querying the cloud for where it runs, and from logging.
QUIET = {
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-4",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_STDERR_LOG_LEVEL": "3",
    "TPU_MIN_LOG_LEVEL": "3",
    "TPU_LOG_DIR": "disabled",
}
_SIZES = {"K": 2**10, "M": 2**20, "G": GIB, "T": 2**40}


class Pod(NamedTuple):
    """A pod, or a slice of one."""

    name: str  # its kind and topology, as v5e:16x16
    chip: Chip  # the published figures of each chip
    devices: tuple[Any, ...]  # one a chip, to compile for


class ProgramCost(NamedTuple):
    """What one run of a compiled program costs each device."""

    arguments: int  # bytes of its arguments, and of results that do not replace them
    temporaries: int  # bytes of temporary memory and of its code
    flop: float  # floating-point operations, each loop's body counted once
    accessed: float  # bytes read and written in the device's memory, loops likewise
    collectives: list[Collective]  # operations between devices


class TooLargeError(Exception):
    """A program needs more bytes of memory than a device has available."""

    def __init__(self, needed: int, available: int) -> None:
        super().__init__(f"{needed} of {available} bytes")
        self.needed, self.available = needed, available


def make_pod(topology: str) -> Pod:
    """Returns a pod by its kind and topology, as v5e:16x16 or v4:2x2x4.

    Raises:
      UserError: if there is no such pod, or libtpu is missing or in use.
    """
    match = re.fullmatch(
        rf"({'|'.join(CHIPS)}):(\d{{1,3}}(?:x\d{{1,3}}){{1,2}})", topology
    )
    if not match:
        raise UserError(
            f"topology: {topology!r} is unknown; name a kind ({', '.join(CHIPS)}) and "
            "the sides of its torus, as v5e:16x16 or v4:2x2x4"
        )
    if importlib.util.find_spec("libtpu") is None:
        lack = "libtpu, which compiles for TPUs, is not installed"
        raise UserError(f"{lack}: pip install 'jax[tpu]'")
    os.environ.update(QUIET)
    # Other processes may compute meanwhile: nothing here uses a TPU.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    # One device a chip, as they run.
    options: Any = {"chip_config_name": "megacore"} if match[1] == "v4" else {}
    sides = [min(int(side), 2) for side in match[2].split("x")]
    if len(sides) == 2:
        options["chips_per_host_bounds"] = (*sides, 1)
    try:
        found = topologies.get_topology_desc(topology, "tpu", **options)
    except jax.errors.JaxRuntimeError as error:
        if "lockfile" in str(error):
            raise UserError(
                "another process uses libtpu (its lock is /tmp/libtpu_lockfile): wait "
                "until it ends, or unset ALLOW_MULTIPLE_LIBTPU_LOAD, so that it is 1"
            ) from error
        raise UserError(f"topology: {topology}: {error}") from error
    return Pod(topology, CHIPS[match[1]], tuple(found.devices))


def compile_for_pod(
    lowered: Any, options: Mapping[str, Any] | None = None
) -> ProgramCost:
    """Compiles what `jax.jit(...).lower` returned for a pod, and returns its cost.

    Raises:
      TooLargeError: if it does not fit into a device's memory.
    """
    try:
        compiled = lowered.compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        raise too_large(str(error)) or error from error
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis()
    return ProgramCost(
        arguments=memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes,
        temporaries=memory.temp_size_in_bytes + memory.generated_code_size_in_bytes,
        flop=cost.get("flops", 0.0),
        accessed=cost.get("bytes accessed", 0.0),
        collectives=read_collectives(compiled.as_text()),
    )


def too_large(message: str) -> TooLargeError | None:
    """Reads the compiler's message that memory ran out; None if it is another.

    It names the memory of the whole program, or of its temporaries alone.
    """
    between = r"of|\) exceeds available HBM \("
    size = r"([\d.]+)([KMGT])"
    match = re.search(rf"{size} ?(?:{between}) ?{size}", message)
    if "RESOURCE_EXHAUSTED" not in message or not match:
        return None
    numbers = zip(match.groups()[::2], match.groups()[1::2], strict=True)
    return TooLargeError(*(int(float(n) * _SIZES[unit]) for n, unit in numbers))
