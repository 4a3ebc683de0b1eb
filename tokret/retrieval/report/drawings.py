"""The page's drawings, as SVG: curves, and where positives lie.

Lines differ by their dashes and marks by their heights, not by colour alone.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from tokret.retrieval.report.text import escaped
from tokret.shapes import Float, Int

WIDTH, HEIGHT = 440, 300
LEFT, TOP, RIGHT, BOTTOM = 40, 12, 14, 40
TICKS = (0, 25, 50, 75, 100)
STEPS = 480  # places for marks on a strip, and for queries on a curve


def curves(lines: Mapping[str, Float[np.ndarray, " r"]], title: str) -> str:
    """Precision over recall.

    Args:
      lines: by protocol, precisions at evenly spaced recalls from 0 to 1.
      title: what the drawing is called where it cannot be seen.
    """
    body = [_axes("recall, %", "precision, %", [f"{tick}" for tick in TICKS])]
    for name, values in lines.items():
        body.append(_line(values, f"line {name}"))
    return _svg(body, title)


def falling(values: Float[np.ndarray, " q"], title: str) -> str:
    """Average precision of every query, from the best to the worst.

    Args:
      values: fractions, in any order.
      title: as of `curves`.
    """
    count = len(values)
    # A hundred thousand queries need no more places than a screen has.
    chosen = np.linspace(0, count - 1, min(count, STEPS)).round().astype(int)
    steps = np.repeat(-np.sort(-values)[chosen], 2)
    at = np.repeat(np.linspace(0, 1, len(chosen) + 1), 2)[1:-1]
    labels = [f"{round(count * tick / 100)}" for tick in TICKS]
    body = [_axes("queries, best first", "average precision, %", labels)]
    body.append(_line(steps, "line main", at))
    return _svg(body, title)


def _svg(body: Sequence[str], title: str) -> str:
    return (
        f'<svg class="chart" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'aria-label="{escaped(title)}">{"".join(body)}</svg>'
    )


def _axes(across: str, up: str, labels: Sequence[str]) -> str:
    """Grid, ticks in percent upwards and `labels` across, and what they count."""
    parts = []
    for tick, label in zip(TICKS, labels, strict=True):
        x, y = _place(tick / 100, tick / 100)
        low, high = _place(0.0, 0.0)[1], _place(0.0, 1.0)[1]
        left, right = _place(0.0, 0.0)[0], _place(1.0, 0.0)[0]
        parts.append(f'<path class="grid" d="M{left} {y}H{right}M{x} {low}V{high}"/>')
        parts.append(f'<text x="{left - 7}" y="{y + 4}" class="end">{tick}</text>')
        parts.append(f'<text x="{x}" y="{low + 16}" class="middle">{label}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 6}" class="middle axis">{across}</text>'
    )
    centre = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text class="middle axis" transform="translate(11 {centre}) rotate(-90)">'
        f"{up}</text>"
    )
    return "".join(parts)


def _line(
    values: Float[np.ndarray, " n"],
    kind: str,
    at: Float[np.ndarray, " n"] | None = None,
) -> str:
    across = np.linspace(0, 1, len(values)) if at is None else at
    points = [
        "{:.1f},{:.1f}".format(*_place(float(x), float(y)))
        for x, y in zip(across, values, strict=True)
    ]
    return f'<polyline class="{escaped(kind)}" points="{" ".join(points)}"/>'


def _place(x: float, y: float) -> tuple[float, float]:
    """Shares of the axes -> the drawing's units."""
    across = LEFT + x * (WIDTH - LEFT - RIGHT)
    return round(across, 1), round(HEIGHT - BOTTOM - y * (HEIGHT - TOP - BOTTOM), 1)


def strip(positives: Mapping[str, Int[np.ndarray, " _"]], items: int) -> str:
    """Where a query's positives lie among all items, ranks on a logarithmic axis.

    Args:
      positives: by kind, ranks from 0; kind "hard" is drawn half as high.
      items: how many are ranked.
    """
    end = np.log(max(items, 2))
    # In percent: the strip is as wide as the page lets it be, its text is not.
    parts = ['<line class="ground" x1="2%" x2="96%" y1="20" y2="20"/>']
    ticks = [10**power for power in range(13) if 10**power < 0.6 * items]
    for tick in [*ticks, items]:
        x = f"{2 + 94 * np.log(tick) / end:.2f}%"
        parts.append(f'<line class="ground" x1="{x}" x2="{x}" y1="20" y2="24"/>')
        parts.append(f'<text x="{x}" y="36" class="middle">{tick:,}</text>')
    parts.append(
        f'<svg x="2%" width="94%" height="20" viewBox="0 0 {STEPS} 20" '
        'preserveAspectRatio="none">'
    )
    for kind, ranks in positives.items():
        top = 9 if kind == "hard" else 1
        # Thousands of positives fall onto a few hundred places.
        places = sorted(set((STEPS * np.log1p(ranks) / end).round().astype(int)))
        marks = "".join(f"M{place} {top}V19" for place in places)
        parts.append(f'<path class="at {escaped(kind)}" d="{marks}"/>')
    return f'<svg class="strip" aria-hidden="true">{"".join(parts)}</svg></svg>'
