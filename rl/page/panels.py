"""Which curves of a run are drawn together, in the order of the page; names, units and words are the metrics' own."""

from dataclasses import dataclass

from rl.core.metrics import STEP, Metric

METRICS = {metric.name: metric for metric in STEP}


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One figure, of metrics that share a unit."""

    names: tuple[str, ...]
    log: bool = False
    """Over powers of ten, where all values are above 0."""
    optional: bool = False
    """Shown once its numbers are not the same all the time."""

    @property
    def metrics(self) -> list[Metric]:
        return [METRICS[name] for name in self.names]

    @property
    def unit(self) -> str:
        """Empty where the name says it."""
        unit = METRICS[self.names[0]].unit
        return "" if unit in self.names else unit


PANELS = (
    Panel(names=("reward",)),
    Panel(names=("entropy",)),
    Panel(names=("length",)),
    Panel(names=("grad_norm",), log=True),
    Panel(names=("clipped_low", "clipped_high")),
    Panel(names=("no_signal", "truncated")),
    Panel(names=("staleness_mean", "staleness_max")),
    Panel(names=("mismatch_kl",), log=True),
    Panel(names=("step_s", "wait_s", "train_s", "publish_s")),
    Panel(names=("ess",), optional=True),
    Panel(names=("lr",), optional=True),
    Panel(names=("kl",), optional=True),
    Panel(names=("ratio",), optional=True),
    Panel(names=("unverified",), optional=True),
    Panel(names=("errors",), optional=True),
)
GLOSSARY = [[m.name, m.unit, m.good, m.text] for panel in PANELS for m in panel.metrics]
"""A row for each metric that is drawn."""
