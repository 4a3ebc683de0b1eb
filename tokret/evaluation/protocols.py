"""The numbers of a search by a ground truth, level by level."""

import numpy as np

from tokret.data.ground_truth import GroundTruth
from tokret.retrieval import metrics
from tokret.retrieval.blocks import Database
from tokret.retrieval.compression.database import Compressed
from tokret.retrieval.reranking.ranking import Ranking


def levels_of(ranking: Ranking, truth: GroundTruth) -> dict[str, dict[str, float]]:
    """The numbers of a ranking by a ground truth, by level."""
    by, among, head = ranking.queries, ranking.database, ranking.head
    return metrics.evaluate(by, among, truth, head=head).levels


def levels_among(
    truth: GroundTruth,
    queries: np.ndarray,
    database: Database,
    compressed: Compressed | None,
) -> dict[str, dict[str, float]]:
    """The numbers of a search in a database, or in its codes, by level."""
    by = queries if compressed is None else compressed.ask(queries)
    return metrics.evaluate(by, database, truth).levels
