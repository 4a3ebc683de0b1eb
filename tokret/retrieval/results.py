"""Numbers leave here: results.json, with the environment they came from, and a table.

The released model moved by up to 4.5 points between two machines, so a number without
commit, versions, device and precision is not a result.
"""

import json
import math
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

import tokret
from tokret.io.atomic_files import write_whole

WIDTH = 88
_LEVELS = {"easy": "Easy", "medium": "Medium", "hard": "Hard"}
_NUMBER_WIDTH = 7


@dataclass(frozen=True)
class TableRow:
    """One system on one benchmark.

    Attributes:
      system: what was measured, such as "R50-Token".
      benchmark: on what, such as "roxford5k".
      numbers: fractions: {"easy": {"mAP": ..., "mP@10": ...}, "medium": ..., "hard":
        ...}, or of leave-one-out {"mAP": ..., "recall@1": ..., "mAP@10": ...}.
    """

    system: str
    benchmark: str
    numbers: Mapping[str, Any]


def write_results(
    path: str | Path,
    benchmarks: Mapping[str, Mapping[str, Any]],
    environment: Mapping[str, Any],
    baselines: Mapping[str, Any] | None = None,
    *,
    merge: bool = False,
) -> None:
    """Writes results.json; whoever reads it sees the old file or the whole new one.

    Args:
      path: the file; its folder must exist.
      benchmarks: by name, the numbers as fractions; NaN (nothing was asked) becomes
        null.
      environment: what `environment` collects.
      baselines: by system, its own `benchmarks`, measured in the same run.
      merge: keep what is in the file of other benchmarks, if it was measured in the
        very same environment.

    Raises:
      UserError: the file cannot be written.
    """
    path = Path(path)
    content: dict[str, Any] = {"benchmarks": benchmarks, "environment": environment}
    if baselines:
        content["baselines"] = baselines
    if merge:
        content = _merged(path, content)
    text = json.dumps(_without_nan(content), indent=2, allow_nan=False) + "\n"
    write_whole(path, text)


def _merged(path: Path, content: dict[str, Any]) -> dict[str, Any]:
    """Adds what is in a file of other benchmarks in the same environment."""
    try:
        old, new = json.loads(path.read_text()), content["benchmarks"]
        if old["environment"] != content["environment"]:
            return content
        systems = {**old.get("baselines", {}), **content.get("baselines", {})}
        baselines = {
            name: {
                **old.get("baselines", {}).get(name, {}),
                **content.get("baselines", {}).get(name, {}),
            }
            for name in systems
        }
        merged = {
            # What was measured last stands last.
            "benchmarks": {
                **{k: v for k, v in old["benchmarks"].items() if k not in new},
                **new,
            },
            "environment": content["environment"],
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return content  # not a file of ours, or none
    return merged | ({"baselines": baselines} if baselines else {})


def environment(precision: str) -> dict[str, Any]:
    """What a number depends on besides weights and data.

    Args:
      precision: how descriptors were computed, such as "float32".

    Returns:
      commit, versions, platform, device (kind, count and backend) and precision.
    """
    device = jax.devices()[0]
    versions = {name: _version(name) for name in ("jax", "jaxlib", "flax", "numpy")}
    return {
        "commit": commit(Path(tokret.__file__).resolve().parents[1]),
        "versions": {
            "tokret": tokret.__version__,
            "python": platform.python_version(),
            **versions,
        },
        "platform": platform.platform(),
        "device": {
            "kind": device.device_kind,
            "count": jax.device_count(),
            "backend": device.platform,
        },
        "precision": precision,
    }


def commit(root: Path) -> str:
    """The git commit of a checkout.

    Args:
      root: the checkout's top folder.

    Returns:
      The commit's hash, with "-dirty" behind it where tracked files were changed;
      "unknown" where `root` is not the top of a checkout or git is not installed.
    """
    try:
        # An installed package may lie deep inside some other project's checkout.
        if Path(_git(root, "rev-parse", "--show-toplevel")) != root.resolve():
            return "unknown"
        head = _git(root, "rev-parse", "HEAD")
        changes = _git(root, "status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return f"{head}-dirty" if changes else head


def table(rows: Sequence[TableRow]) -> str:
    """Results as plain text, in percent.

    Args:
      rows: in the order to print; leave-one-out benchmarks get a table of their own
        behind the others.

    Returns:
      Lines of at most 88 characters, no newline at the end; a dash for NaN.
    """
    revisited = [row for row in rows if "easy" in row.numbers]
    labelled = [row for row in rows if "easy" not in row.numbers]
    names = tuple(_LEVELS.values())
    parts = []
    if revisited:
        numbers = [
            [row.numbers[level][key] for key in ("mAP", "mP@10") for level in _LEVELS]
            for row in revisited
        ]
        parts.append(_layout(revisited, {"mAP": names, "mP@10": names}, numbers))
    if labelled:
        keys = ("mAP", "recall@1", "recall@5", "recall@10", "mAP@10")
        columns = ("mAP", "R@1", "R@5", "R@10", "mAP@10")
        pairs = [[row.numbers[key] for key in keys] for row in labelled]
        parts.append(_layout(labelled, {"": columns}, pairs))
    return "\n\n".join(parts)


def _layout(
    rows: Sequence[TableRow],
    groups: Mapping[str, tuple[str, ...]],
    numbers: Sequence[Sequence[float]],
) -> str:
    """One table: group titles where there are any, heads, a rule, the rows."""
    columns = [column for group in groups.values() for column in group]
    room = WIDTH - _NUMBER_WIDTH * len(columns) - 2 * len(groups) - 2
    benchmark = max(len("benchmark"), *(len(row.benchmark) for row in rows))
    benchmark = min(benchmark, room // 2)
    system = max(len("system"), *(len(row.system) for row in rows))
    system = min(system, room - benchmark)

    def line(first: str, second: str, cells: Sequence[str]) -> str:
        text = f"{_cut(first, system):{system}}  {_cut(second, benchmark):{benchmark}}"
        rest = iter(cells)
        for group in groups.values():
            text += "  " + "".join(f"{next(rest):>{_NUMBER_WIDTH}}" for _ in group)
        return text

    titles = " " * (system + 2 + benchmark)
    for title, group in groups.items():
        titles += "  " + f" {title} ".center(_NUMBER_WIDTH * len(group) - 2, "-").rjust(
            _NUMBER_WIDTH * len(group)
        )
    head = line("system", "benchmark", columns)
    body = [
        line(row.system, row.benchmark, [_percent(value) for value in values])
        for row, values in zip(rows, numbers, strict=True)
    ]
    above = [titles] if any(groups) else []
    return "\n".join([*above, head, "-" * len(head), *body])


def _percent(fraction: float) -> str:
    return "-" if math.isnan(fraction) else f"{100 * fraction:.2f}"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "~"


def _without_nan(value: Any) -> Any:
    """JSON has no NaN; readers in other languages stop at Python's."""
    if isinstance(value, Mapping):
        return {key: _without_nan(inner) for key, inner in value.items()}
    if isinstance(value, float) and math.isnan(value):
        return None
    return value


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "unknown"


def _git(root: Path, *arguments: str) -> str:
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, timeout=30
    )
    return done.stdout.strip()
