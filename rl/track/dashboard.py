"""What W&B is to show of a study, as data: a workspace of sections and panels, and a report of the claims.

Online `rl.track.wandb_views` lays it out; offline it is a JSON file.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from rl.core.config import HELDOUT
from rl.core.metrics import AGE, STEP
from rl.core.rundir import RunDir
from rl.study.insights import Insight, Kind
from rl.track.content import AXIS

SECTIONS = {"progress": "Progress", "train": "Training", "sampler": "Sampler", "time": "Time"}
"""Of the metrics of a step, by their section."""
HEADINGS = {
    Kind.BETTER: "What is better",
    Kind.BEST: "The best",
    Kind.NO_DIFFERENCE: "What is not shown",
    Kind.NO_DATA: "No data",
    Kind.CAUTION: "What to keep in mind",
    Kind.SENSITIVITY: "Learning rate",
    Kind.CORRELATION: "Correlations",
    Kind.CRITERION: "Success criteria",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Panel:
    """One chart over the steps, or one table."""

    title: str
    metrics: tuple[str, ...] = ()
    """What is drawn, by the names under which `rl.track.content` logs it."""
    pattern: str = ""
    """Draws all metrics that it matches, instead: a regular expression."""
    table: str = ""
    """Shows this table, instead."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Section:
    name: str
    panels: list[Panel]


@dataclass(frozen=True, kw_only=True, slots=True)
class Dashboard:
    """A workspace and a report, of certain runs of a W&B project."""

    name: str
    project: str
    group: str | None
    """The W&B group of all runs, which is a sweep's name; None where they have none in common."""
    runs: list[str]
    """Their names at W&B."""
    compared_by: list[str]
    """Settings that differ: runs that agree in them are drawn as one, with a band."""
    sections: list[Section]
    answer: str
    claims: dict[str, list[str]]
    """Heading → sentences."""


def dashboard_of(
    name: str, runs: Sequence[RunDir], *, compared_by: Sequence[str], answer: str, insights: Sequence[Insight]
) -> Dashboard:
    """
    Args:
        compared_by: the settings in which the runs' arms differ.
        answer: which run to deploy, or that the evidence does not choose.

    Raises:
        UsageError: a run's configuration cannot be read, or there is no run.
    """
    configs = [run.config() for run in runs]
    groups = {config.wandb_group for config in configs}
    sets = dict.fromkeys(set for config in configs for set in config.eval_sets)
    samples = min(config.eval_samples for config in configs)
    claims = {heading: [i.text for i in insights if i.kind is kind] for kind, heading in HEADINGS.items()}
    return Dashboard(
        name=name,
        project=configs[0].wandb_project,
        group=groups.pop() if len(groups) == 1 else None,
        runs=[run.root.absolute().name for run in runs],
        compared_by=list(compared_by),
        sections=_sections(list(sets), samples),
        answer=answer,
        claims={heading: texts for heading, texts in claims.items() if texts},
    )


def _sections(sets: Sequence[str], samples: int) -> list[Section]:
    """Evaluations first: they are what runs are compared by."""
    training = {
        name: [Panel(title=m.text, metrics=(f"{m.section}/{m.name}",)) for m in STEP if m.section == section]
        for section, name in SECTIONS.items()
    }
    training["Progress"] = [panel for panel in training["Progress"] if panel.metrics != (f"progress/{AXIS}",)]
    ages = [Panel(title=f"{m.name}: {m.text}", pattern=f"age/.*/{m.name}") for m in AGE]
    tables = [Panel(title=f"Questions of {set}", table=f"eval/{set}/questions") for set in sets]
    evaluations = {_heading(set): _estimates(set, samples) for set in sets}
    completions = Panel(title="Completions trained on", table="completions")
    panels = evaluations | training | {"Age": ages, "Tables": [*tables, completions]}
    return [Section(name=name, panels=own) for name, own in panels.items()]


def _heading(set: str) -> str:
    return "Held-out pass@k" if set == HELDOUT else f"pass@k on {set}"


def _estimates(set: str, samples: int) -> list[Panel]:
    """A panel for each estimate that every run has, with both ends of its interval."""
    names = dict.fromkeys(["pass@1", f"pass@{2 ** (samples.bit_length() - 1)}", f"maj@{samples}", "no_answer", "error"])
    places = {name: f"eval/{set}/{name}" for name in names}
    return [
        Panel(title=f"{name} with its 95 % interval", metrics=(place, f"{place}/low", f"{place}/high"))
        for name, place in places.items()
    ]
