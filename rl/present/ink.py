"""How figures look, and their way into the page and into files.

A figure is drawn once, in light colours: that is the PNG. In the page it is SVG, whose colours are variables of the
page's style, so that it follows light and dark; without colours, markers and dashes tell the arms apart.
"""

import io
import re
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from rl.present.document import Picture

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7f7f7f")
"""Of Okabe and Ito, without black, which a dark page hides, and without yellow, which a light one does."""
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">", "p")
DASHES: tuple[str | tuple[int, tuple[int, ...]], ...] = ("-", "--", ":", "-.", (0, (5, 1, 1, 1, 1, 1)))
INK, GRID = "#1b1f24", "#c9ced6"
STYLE: dict[Any, Any] = {
    "axes.edgecolor": INK,
    "axes.grid": True,
    "axes.labelcolor": INK,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": "medium",
    "font.size": 9.0,
    "grid.color": GRID,
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "svg.fonttype": "none",
    "svg.hashsalt": "tally",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
}
DPI = 144

matplotlib.use("Agg")
matplotlib.rcParams.update(STYLE)


def look(number: int) -> dict[str, Any]:
    """Colour, marker and dashes of arm `number`: 385 that differ in at least one."""
    n_colours, n_markers = len(COLOURS), len(MARKERS)
    return {
        "color": COLOURS[number % n_colours],
        "marker": MARKERS[number % n_markers],
        "linestyle": DASHES[number // n_colours % len(DASHES)],
    }


def canvas(columns: int, rows: int = 1, *, width: float = 3.3, height: float = 2.7) -> tuple[Figure, list[Axes]]:
    """Panels, row by row; sizes in inches."""
    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


def picture(figure: Figure, file: Path, *, alt: str, caption: str) -> Picture:
    """Saves the PNG and returns the figure for the page.

    Raises:
        OSError: the file cannot be written.
    """
    text = io.StringIO()
    figure.savefig(file, dpi=DPI)
    figure.set_layout_engine("none")  # it is laid out now
    figure.savefig(text, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    return Picture(file=file.name, alt=alt, caption=caption, svg=_inlined(text.getvalue(), file.stem, alt))


def _inlined(svg: str, name: str, alt: str) -> str:
    """An SVG file as an element of a page: its colours are the page's, its ids are its own."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'(\bid="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    for number, colour in enumerate(COLOURS):
        svg = svg.replace(colour, f"var(--arm{number})")
    svg = svg.replace(INK, "currentColor").replace(GRID, "var(--line)")
    label = escape(alt, {'"': "&quot;"})
    size = re.compile(r'width="([^"]*)" height="[^"]*"')
    return size.sub(lambda found: f'style="--width: {found[1]}" role="img" aria-label="{label}"', svg, count=1)
