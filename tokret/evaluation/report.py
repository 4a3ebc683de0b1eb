"""Answers -> report.html, and pictures for papers."""

from pathlib import Path

from tokret.retrieval.answers import Answers
from tokret.retrieval.pictures import ranking_picture
from tokret.retrieval.ranking_pictures import pick_queries, ranking_rows
from tokret.retrieval.report.page import Summary
from tokret.retrieval.report.token_maps import TokenMapper
from tokret.retrieval.report.token_picture import token_picture, token_rows
from tokret.retrieval.report.writer import Limits, write_report


def write_report_and_pictures(
    folder: Path,
    answers: Answers,
    summary: Summary,
    token_maps: TokenMapper,
    limits: Limits,
) -> None:
    """Writes report.html, queries.png and, for a head that has maps, tokens.png.

    Args:
      folder: must exist.
      answers: of the system on the benchmark.
      summary: what the page shows beside the queries.
      token_maps: from views to their maps.
      limits: how much the report shows.

    Raises:
      UserError: if a photo cannot be decoded, or a file not be written.
    """
    write_report(folder / "report.html", answers, summary, token_maps, limits)
    ranking_picture(ranking_rows(answers), folder / "queries.png")
    rows = token_rows(answers, pick_queries(answers.precision, 3), token_maps)
    if rows:
        token_picture(rows, folder / "tokens.png")
    else:
        # It is of an earlier evaluation of another head.
        (folder / "tokens.png").unlink(missing_ok=True)
