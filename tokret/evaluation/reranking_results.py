"""The same descriptors before and after re-ranking, with what that cost."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from tokret.retrieval.reranking.costs import costed
from tokret.retrieval.reranking.pipeline import Step, check_rankable, run_step
from tokret.retrieval.reranking.ranking import Ranking


def measure_chain(
    before: Mapping[str, Any],
    steps: Sequence[Step],
    ranking: Ranking,
    measure: Callable[[Ranking], Mapping[str, Any]],
) -> dict[str, Any]:
    """Measures a search once more, after a chain of re-rankings.

    Args:
      before: the search's own numbers.
      steps: the chain; empty for the search alone.
      ranking: what was searched.
      measure: gives a ranking's numbers.

    Returns:
      The numbers before; with steps also "reranked": "numbers" after them and "steps",
      for each its name, arguments, seconds and peak_bytes.

    Raises:
      UserError: the chain cannot be run on these descriptors.
    """
    if not steps:
        return dict(before)
    check_rankable(ranking)
    told = []
    for step in steps:
        with tqdm(
            total=len(ranking.queries), unit="query", desc=step.name, disable=None
        ) as bar:
            run = functools.partial(run_step, step, ranking, bar.update)
            ranking, cost = costed(run)
        told.append(
            {"name": step.name, "arguments": dict(step.arguments)} | cost._asdict()
        )
    after = {"numbers": dict(measure(ranking)), "steps": told}
    return {**before, "reranked": after}
