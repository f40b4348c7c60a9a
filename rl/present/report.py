"""Writes a report: one page that needs no other file and no network, and beside it what other programs read.

report.html        the page
report.md          the same as Markdown, with the PNG pictures beside it
insights.json      every claim as data
runs.csv           settings, status and results of each run
evaluations.csv    every metric of every evaluation, with its interval
curves.csv         every training metric at every step
"""

from pathlib import Path

import msgspec

from rl.core.errors import UsageError
from rl.observe.show import printable
from rl.present.contents import document
from rl.present.document import Document, to_markdown
from rl.present.files import write_csv
from rl.present.ink import COLOURS
from rl.present.study import Study

PAGE, TEXT, INSIGHTS = "report.html", "report.md", "insights.json"


def write_report(study: Study, folder: Path) -> Path:
    """Writes the report of a study, in place of an earlier one; returns the page.

    Raises:
        UsageError: the folder cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        report = document(study, folder)
        write_csv(study, folder)
        (folder / INSIGHTS).write_bytes(msgspec.json.format(msgspec.json.encode(study.insights), indent=2) + b"\n")
        (folder / TEXT).write_text(to_markdown(report), encoding="utf-8")
        page = folder / PAGE
        page.write_text(_page(report), encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write into {folder}: {error.strerror}", fix="name a folder by --out") from None
    return page


def _page(report: Document) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["printable"] = printable
    environment.filters["kind"] = lambda block: type(block).__name__
    return environment.get_template("page.html").render(report=report, colours=COLOURS)
