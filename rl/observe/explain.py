"""What each metric is, for people who look at one."""

from itertools import groupby

from rich.console import Console
from rich.table import Table
from rich.text import Text

from rl.core.errors import UsageError
from rl.core.metrics import AGE, EVAL, PUBLISH, STEP, SUMMARY

KINDS = {"step": STEP, "step by age": AGE, "publish": PUBLISH, "eval": EVAL, "eval summary": SUMMARY}


def explain(word: str) -> None:
    """Prints every metric whose name or sentence has the word; all of them where it is empty.

    Raises:
        UsageError: none has it.
    """
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    for head in ("metric", "unit", "good", "what it is"):
        table.add_column(head, no_wrap=head != "what it is")
    for kind, metrics in KINDS.items():
        found = [metric for metric in metrics if word.casefold() in f"{metric.name} {metric.text}".casefold()]
        for section, of_section in groupby(found, key=lambda metric: metric.section):
            table.add_row(Text(f"{kind}: {section}" if kind == "step" else kind, style="dim"))
            for metric in of_section:
                table.add_row(metric.name, metric.unit, metric.good, metric.text)
    if not table.row_count:
        raise UsageError(f"no metric has {word!r} in its name or sentence", fix="--explain alone lists all of them")
    Console(highlight=False, markup=False).print(table)
