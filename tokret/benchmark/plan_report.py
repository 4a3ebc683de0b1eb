"""A pod's plan in plain text."""

from typing import Any

from tokret.benchmark.collectives import Traffic
from tokret.benchmark.plan import NEIGHBOURS, TRIES
from tokret.runtime.chips import GIB


def report(result: dict[str, Any]) -> str:
    """Formats what `plan.run` returns."""
    chips, model, search = result["chips"], result["model"], result["what"] == "search"
    head = (
        f"{result['what']} of {result['name']} on {result['topology']}: {chips} chips"
    )
    if search:
        head += (
            f"; {result['batch_size']:,} queries, the best {NEIGHBOURS} of "
            f"{result['database']:,} descriptors in {result['store']}"
        )
    else:
        head += (
            f", data {chips // model} x model {model}; batch {result['batch_size']:,}, "
            f"{result['batch_size'] // chips} a chip"
        )
    if result["fits"]:
        return "\n".join([head, *_lines(result, result)])
    needed, available = _gib(result["needed"]), _gib(result["available"])
    lack = f"does not fit: {needed} of {available} GiB a chip"
    if search:
        return "\n".join([head, lack + "; choose more chips, or another store"])
    fitting = result["largest"]
    if fitting is None:
        return "\n".join([head, lack + f"; nor did a smaller batch in {TRIES} tries"])
    most = f"the largest batch found that fits: {fitting['batch_size']:,}"
    return "\n".join([head, lack, most, *_lines(result, fitting)])


def _lines(result: dict[str, Any], cost: dict[str, Any]) -> list[str]:
    """Formats what a batch costs."""
    total = _gib(cost["arguments"] + cost["temporaries"])
    bound = "memory" if cost["memory"] > cost["compute"] else "products"
    unit = "queries/s" if result["what"] == "search" else "images/s"
    lines = [
        f"memory       {total} GiB a chip: arguments {_gib(cost['arguments'])}, "
        f"temporaries {_gib(cost['temporaries'])}",
        f"work         {cost['flop'] / 1e12:.3g} TFLOP and "
        f"{cost['accessed'] / 1e9:.4g} GB a chip",
        f"time         at least {cost['seconds'] * 1e3:.4g} ms, bound by {bound}: "
        f"{cost['compute'] * 1e3:.4g} ms at the peak rate, "
        f"{cost['memory'] * 1e3:.4g} ms at the bandwidth",
        f"rate         at most {cost['rate']:,.0f} {unit}"
        + (f", MFU {cost['mfu']:.0%}" if "mfu" in cost else ""),
    ]
    if result["what"] == "train":
        hours = result["photos"] / cost["rate"] / 3600
        lines.append(
            f"epoch        at least {hours:.3g} hours for {result['photos']:,} photos"
        )
    collectives = map(format_traffic, cost["traffic"])
    return lines + [f"collectives  {text}" for text in collectives]


def format_traffic(fields: dict[str, Any]) -> str:
    """Formats the fields of a `Traffic` in a few words."""
    one = Traffic(**fields)
    group = f" among {one.group_size}" if one.group_size else ""
    largest = f", the largest {one.largest / 1e6:.3g} MB" if one.number > 1 else ""
    return f"{one.number} {one.kind}{group}: {one.bytes / 1e6:.3g} MB{largest}"


def _gib(size: int) -> str:
    return f"{size / GIB:.2f}"
