"""What the command says of a report, beside writing it."""

import shlex

from rl.present import tables
from rl.present.document import plain_table
from rl.present.progress import progress_of
from rl.present.study import Study
from rl.study.insights import Kind

EXPORT = "python -m rl.export {path} --best"
SAID = (Kind.NO_DATA, Kind.BEST, Kind.BETTER, Kind.NO_DIFFERENCE)
LINES, ARMS = 12, 8
"""Claims, and arms of the table, that are printed; the report has all."""


def said(study: Study) -> str:
    """The answer, the claims behind it, and each arm against its own start."""
    claims = [insight.text for kind in SAID for insight in study.insights if insight.kind is kind]
    more = len(claims) - LINES
    lines = [f"* {text}" for text in claims[:LINES]] + ([f"* {more} more are in the report"] if more > 0 else [])
    left_out = [f"* left out: {text}" for text in study.left_out]
    gains = tables.gains(study, progress_of(study))
    parts = [study.answer, "\n".join(left_out + lines), plain_table(gains) if gains and len(gains.rows) <= ARMS else ""]
    return "\n\n".join(filter(None, parts))


def what_next(study: Study) -> str:
    """The command for the run to deploy; empty where the evidence chooses none, several, or one of another tool."""
    chosen = [i.data for i in study.insights if i.kind is Kind.DEPLOY and i.data.get("choice")]
    path = chosen[0].get("path") if len(chosen) == 1 else None
    return f"; next: {EXPORT.format(path=shlex.quote(path))}" if path else ""
