"""What a search for learning rates found, as lines of a table and as a picture."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from rl.learner.rates import LOWEST_ESS, Judged, Verdict
from rl.present.ink import DPI, INK, canvas, look

SIDE = 2.0
"""Factor by which the axis reaches beyond the rates."""


def lines(judged: Sequence[Judged]) -> Iterator[str]:
    yield f"{'lr':>8}{'moved':>9}{'ess':>6}  {'gain of reward':26}{'clip':>6}{'grad':>8}  verdict"
    for found in judged:
        trial, gain = found.trial, found.trial.gain
        cells = [
            f"{trial.lr:8.2g}",
            f"{_cell(trial.moved, '.2g'):>9}{_cell(trial.ess, '.2f'):>6}",
            f"  {f'{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]' if gain else '–':26}",
            f"{_cell(trial.clipped, '.1%'):>6}{_cell(trial.grad_norm, '.2g'):>8}",
            f"  {found.verdict}{': ' if found.why else ''}{found.why}",
        ]
        yield "".join(cells)


def draw(judged: Sequence[Judged], title: str, path: Path) -> None:
    """Gain and effective completions by rate; the usable range is shaded.

    Raises:
        OSError: the file cannot be written.
    """
    figure, (above, below) = canvas(1, 2, width=7.0, height=3.0)
    trials = [found.trial for found in judged]
    told = [(t.lr, t.gain) for t in trials if t.gain]
    errors = [[g.value - g.low for _, g in told], [g.high - g.value for _, g in told]]
    above.errorbar([lr for lr, _ in told], [g.value for _, g in told], yerr=errors, capsize=3, **look(0))
    above.axhline(0, color=INK, linewidth=0.8)
    above.set(title=title.replace("; ", "\n"), ylabel="gain of reward, 95 % interval")
    measured = [(t.lr, t.ess) for t in trials if t.ess is not None]
    below.plot([lr for lr, _ in measured], [share for _, share in measured], **look(0))
    below.axhline(LOWEST_ESS, color=INK, linewidth=0.8, linestyle="--", label="below: too far to tell")
    below.set(xlabel="learning rate", ylabel="effective completions (share)", ylim=(0, 1.05))
    below.legend()
    usable = [found.trial.lr for found in judged if found.verdict is Verdict.USABLE]
    for axis in (above, below):
        axis.set(xscale="log", xlim=(trials[0].lr / SIDE, trials[-1].lr * SIDE))
        if usable:
            axis.axvspan(usable[0], usable[-1], alpha=0.12, linewidth=0)
    figure.savefig(path, dpi=DPI)


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)
