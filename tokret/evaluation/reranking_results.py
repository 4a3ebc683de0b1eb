"""The numbers of a search after re-ranking, and what that cost."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from tokret.retrieval.reranking.costs import measure_cost
from tokret.retrieval.reranking.pipeline import Step, check_rankable, run_step
from tokret.retrieval.reranking.ranking import Ranking


def measure_reranking(
    steps: Sequence[Step],
    ranking: Ranking,
    measure: Callable[..., Mapping[str, Any]],
) -> dict[str, Any]:
    """Measures a search again after re-rankings.

    Args:
      steps: the re-rankings, in their order.
      ranking: of the search.
      measure: returns the numbers of (queries, database, head).

    Returns:
      Without steps nothing; else "reranked": "numbers" after them and "steps", for each
      its name, arguments, seconds and peak_bytes.

    Raises:
      UserError: a step cannot be run on these descriptors.
    """
    if not steps:
        return {}
    check_rankable(ranking)
    costs = []
    for step in steps:
        count = len(ranking.queries)
        with tqdm(total=count, unit="query", desc=step.name, disable=None) as bar:
            run = functools.partial(run_step, step, ranking, bar.update)
            ranking, cost = measure_cost(run)
        arguments = dict(step.arguments)
        costs.append({"name": step.name, "arguments": arguments} | cost._asdict())
    numbers = dict(measure(ranking.queries, ranking.database, ranking.reranked))
    return {"reranked": {"numbers": numbers, "steps": costs}}
