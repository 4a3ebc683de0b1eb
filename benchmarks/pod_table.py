"""The released recipe on TPU pods: a table, made row by row; a later run resumes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import marked_lines
from tokret.benchmark import plan
from tokret.benchmark.plan import PlanRequest, format_traffic
from tokret.benchmark.pods import CHIPS
from tokret.benchmark.timing import environment
from tokret.config import files
from tokret.errors import UserError
from tokret.io.atomic_files import write_whole
from tokret.runtime.chips import GIB
from tokret.runtime.progress import progress_bar

R50, R101 = "gldv2_r50", "gldv2_r101"
# The rows that take long, to search for a smaller batch, come last.
ROWS = (
    PlanRequest("train", R101, "v5e:16x16", 4, 8192),
    PlanRequest("train", R101, "v5e:8x8", 4, 4096),
    PlanRequest("train", R101, "v5e:4x4", 1, 1024),
    PlanRequest("search", R101, "v5e:4x4", 1, 1024),
    PlanRequest("search", R101, "v5e:4x4", 1, 1024, store="bfloat16"),
    PlanRequest("search", R101, "v5e:4x4", 1, 1024, database=10**8, store="bfloat16"),
    PlanRequest("search", R101, "v5e:16x16", 1, 1024, database=10**8),
    PlanRequest("search", R101, "v5e:16x16", 1, 1024, database=10**8, store="bfloat16"),
    PlanRequest("train", R50, "v5e:4x4", 1, 1024),
    PlanRequest("train", R101, "v6e:4x4", 1, 1024),
    PlanRequest("train", R101, "v4:2x2x4", 1, 1024),
    PlanRequest("train", R101, "v5p:2x2x4", 1, 1024),
    PlanRequest("extract", R101, "v5e:4x4", 1, 128),
    PlanRequest("train", R50, "v5e:16x16", 4, 8192),
    PlanRequest("train", R101, "v6e:16x16", 4, 8192),
    PlanRequest("train", R101, "v5e:4x4", 1, 2048),
)
MARK = "pods"
HEAD = """Written by `python -m benchmarks pod_table --file={name}`, which compiles each
row's program for a pod without having one; nothing was run. Each row is the very step
that `train.py` ran at that commit, in bfloat16, with GLDv2-clean's 81,313 classes at
512 pixels; an epoch is the author's 4,003 steps of 320 photos. The recipe's own batch
is 320: larger ones show what fits, and their learning rates are untried.

Memory is a chip's, as the compiler lays it out. The time is a lower bound: the larger
of the program's FLOP at the chip's published peak and its bytes at the published
bandwidth (`tokret/runtime/chips.py` names the sources), as if communication hid behind
them. So images/s, MFU and hours an epoch are limits, not measurements. Collectives are
those of a step, with the bytes of their results on a chip; the largest kinds are named.
"""

# By kind of program: the text over its table.
WORDS: dict[str, tuple[str, ...]] = {
    "train": (),
    "extract": (
        "Descriptors of photos of 1,024 x 1,024 at three scales, as `eval.py` makes "
        "them, of a batch that is split over the pod:",
        "",
    ),
    "search": (
        f"The best {plan.NEIGHBOURS} of a database on the chips, of 1,024 dimensions, "
        "for 1,024 queries at once. A float32 product is six bfloat16 passes, three "
        "for bfloat16 descriptors. Comparing scores to select the best is not counted, "
        "nor merging the chips' lists on the hosts. [performance.md](performance.md) "
        "has the bytes:",
        "",
    ),
}


def key(row: PlanRequest) -> str:
    """Names a row among those that are done."""
    searched = f" in {row.database} {row.store}" if row.what == "search" else ""
    return (
        f"{row.what} {row.name} {row.topology} model {row.model} "
        f"batch {row.batch_size}{searched}"
    )


def run(path: Path) -> int:
    """Compiles for the rows that are not done yet, and writes the table: its rows.

    It replaces the lines between a page's marks. Every row is kept in
    measurements/NAME.json beside the page once it is done.

    Raises:
      UserError: if it cannot be written, or nothing can be compiled.
    """
    marked_lines.require(path, MARK)
    kept = path.parent / "measurements" / f"{path.stem}.json"
    done = _read(kept)
    kept.parent.mkdir(exist_ok=True)
    # Before anything is written, which would be a change since the commit.
    made = environment(*plan.PACKAGES)
    for row in progress_bar(ROWS, unit="row"):
        if key(row) not in done:
            found = plan.run(files.load_config(row.name), row)
            done[key(row)] = found | {"environment": made}
            text = json.dumps({"benchmark": "pods", "rows": done}, indent=1)
            write_whole(kept, text + "\n")
        rows = {key(row): done[key(row)] for row in ROWS if key(row) in done}
        marked_lines.replace(path, MARK, tables(rows, path))
    return len(rows)


def tables(rows: dict[str, dict[str, Any]], path: Path) -> list[str]:
    """Makes the lines of what is done, a table for each kind of program."""
    lines = HEAD.format(name=path).split("\n")
    for what, words in WORDS.items():
        found = [row for row in rows.values() if row["what"] == what]
        if found:
            lines += [*words, *_table(found), ""]
    packages = ("jax", "libtpu", "flax")
    versions = [row["environment"]["versions"] for row in rows.values()]
    each = {", ".join(f"{name} {v[name]}" for name in packages) for v in versions}
    made = "; ".join(sorted(each))
    return [*lines, f"Made with {made}."]


def _table(rows: list[dict[str, Any]]) -> list[str]:
    lines = []
    for row in rows:
        lines.append(_cells(row))
        if not row["fits"] and row["largest"]:
            lines.append(_cells({**row, **row["largest"]}))
    titles = list(lines[0])
    cells = (titles, ["---"] * len(titles), *(line.values() for line in lines))
    return [f"| {' | '.join(line)} |" for line in cells]


def _cells(row: dict[str, Any]) -> dict[str, str]:
    """Returns a row's cells by title; what does not fit has no figures."""
    fits, pod = row["fits"], row["topology"]
    memory = CHIPS[pod.partition(":")[0]].memory
    used = row["arguments"] + row["temporaries"] if fits else row["needed"]
    bound = {
        "bound by": lambda: "memory" if row["memory"] > row["compute"] else "products"
    }
    figures: dict[str, Callable[[], str]]
    if row["what"] == "search":
        cells = {"pod": pod, "descriptors": f"{row['database']:,}"}
        cells["store"] = row["store"]
        figures = {
            "ms": lambda: f"{row['seconds'] * 1e3:,.1f}",
            **bound,
            "queries/s": lambda: f"{row['rate']:,.0f}",
        }
    else:
        cells = {"recipe": row["name"], "pod": pod}
        cells["data x model"] = f"{row['chips'] // row['model']} x {row['model']}"
        cells["batch"] = f"{row['batch_size']:,}"
        train = row["what"] == "train"
        figures = {
            "ms": lambda: f"{row['seconds'] * 1e3:,.0f}",
            **bound,
            "images/s": lambda: f"{row['rate']:,.0f}",
            "MFU": lambda: f"{row['mfu']:.0%}" if "mfu" in row else "",
            "h/epoch" if train else "h/million": lambda: (
                f"{(row['photos'] if train else 10**6) / row['rate'] / 3600:.2g}"
            ),
            "collectives": lambda: _collectives(row["traffic"]),
        }
    cells |= {"fits": "yes" if fits else "no"}
    cells["GiB a chip"] = f"{used / GIB:.1f} of {memory / GIB:g}"
    cells |= {title: figure() if fits else "" for title, figure in figures.items()}
    commit = row["environment"]["commit"]
    dirty = "-dirty" if commit.endswith("-dirty") else ""
    return cells | {"commit": commit[:7] + dirty}


def _collectives(traffic: list[dict[str, Any]]) -> str:
    largest = sorted(traffic, key=lambda each: -each["bytes"])[:2]
    return "; ".join(map(format_traffic, largest)) or "none"


def _read(path: Path) -> dict[str, dict[str, Any]]:
    if not path.exists():
        return {}
    try:
        rows: dict[str, dict[str, Any]] = json.loads(path.read_text())["rows"]
        tables(rows, path)  # has all that a row needs
    except (
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        RecursionError,
    ) as error:
        raise UserError(
            f"{path} has no rows of this table ({error}); move it away"
        ) from error
    return rows
