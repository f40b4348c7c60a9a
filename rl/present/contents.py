"""What stands in a report, in the order in which it is read: the answer, what limits it, then everything behind it."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rl.core.rundir import RunDir
from rl.evaluate.arms import MARGIN
from rl.evaluate.stats import LEVEL
from rl.present import figures, tables
from rl.present.document import Block, Bullets, Document, Paragraph, Section
from rl.present.progress import Progress, progress_of
from rl.present.samples import examples
from rl.present.study import Study
from rl.study.insights import Insight, Kind
from rl.study.words import listing

ARM = "An arm is one configuration: its runs differ in nothing but their seed, and what is compared is arms."
LEVELS = (
    "Intervals are 95 % intervals. Those of comparisons and gains are a little wider, of "
    f"{100 * (1 - LEVEL / MARGIN):.1f} % before they are corrected for their number: with few questions all claims of "
    "a study would else be wrong in a little more than 5 %. Those in tables and figures of pass rates are for one "
    "number each, not corrected for how many there are."
)


def document(study: Study, folder: Path) -> Document:
    """The report of a study; its pictures are written into `folder`.

    Raises:
        OSError: a picture cannot be written.
    """
    numbers = {arm.name: number for number, arm in enumerate(study.arms)}
    progress = progress_of(study)
    sections = [
        _findings(study),
        _limits(study, progress),
        _configuration(study),
        Section(title="Runs", blocks=[tables.statuses(study)]),
        _pass_rates(study, progress, numbers, folder),
        _training(study, numbers, folder),
        _results(study, progress, numbers, folder),
        _learning_rates(study, folder),
        _criteria(study),
        _samples(study),
        _provenance(study, folder),
    ]
    told = [section for section in sections if section.blocks]
    return Document(title=f"Report: {study.title}", answer=study.answer, sections=told)


def _of(study: Study, *kinds: Kind) -> list[Insight]:
    return [insight for kind in kinds for insight in study.insights if insight.kind is kind]


def _said(insights: Sequence[Insight]) -> list[str]:
    return [insight.text for insight in insights]


def _findings(study: Study) -> Section:
    blocks: list[Block] = [Paragraph(text=study.reason)] if study.reason else []
    if len(study.runs) > 1:
        blocks.append(Paragraph(text=ARM))
    if said := _said(_of(study, Kind.BEST, Kind.BETTER, Kind.NO_DIFFERENCE)):
        blocks.append(Bullets(items=said))
    elif len(study.arms) > 1:
        blocks.append(Paragraph(text="No comparison can be made from what was measured."))
    return Section(title="What the evidence says", blocks=blocks)


def _limits(study: Study, progress: Sequence[Progress]) -> Section:
    said = [f"Left out: {text}" for text in study.left_out]
    said += _said(_of(study, Kind.NO_DATA, Kind.CAUTION)) + tables.not_finite(study)
    for own in dict.fromkeys(own.set for own in progress if own.apart):
        names = [other.name for other in progress if other.set == own]
        said.append(f"Not measured alike, so shown apart and not compared: {listing(names)}.")
    return Section(title="What to keep in mind", blocks=[Bullets(items=said or ["Nothing in particular."])])


def _configuration(study: Study) -> Section:
    blocks: list[Block] = [*tables.configuration(study)]
    if not blocks:
        blocks.append(Paragraph(text="No data: the files state no settings."))
    return Section(title="Configuration", blocks=blocks)


def _pass_rates(study: Study, progress: Sequence[Progress], numbers: dict[str, int], folder: Path) -> Section:
    blocks: list[Block] = []
    for own in progress:
        if picture := figures.draw_progress(own, numbers, folder):
            blocks.append(picture)
        blocks += [tables.by_steps(own, metric) for metric in own.metrics[:2]]
        costs = [tables.by_cost(own, own.metrics[0], axis) for axis in list(figures.AXES)[1:]]
        blocks += [table for table in costs if table]
    if len(study.arms) > 1 and blocks:
        text = (
            "Runs of different batch sizes are not comparable by steps alone: at the same step they have seen "
            "different numbers of samples. So figures and tables come by updates, by samples consumed and by time of "
            "training, in which evaluations and starts are not counted."
        )
        blocks.insert(0, Paragraph(text=text))
    sets = dict.fromkeys(name for run in study.runs for name in run.evaluations)
    if len(study.runs) > 1 or not progress:  # of one run alone the tables above say as much
        blocks += [tables.by_run(study, set) for set in sets]
    blocks += tables.of_other_tools(study)
    title = "Pass rate at each checkpoint" if sets else "Results at each step"
    if not blocks and any(run.ours for run in study.runs):
        blocks.append(Paragraph(text="No data: nothing was measured at any step."))
    return Section(title=title, blocks=blocks)


def _training(study: Study, numbers: dict[str, int], folder: Path) -> Section:
    picture = figures.draw_curves(study, numbers, folder)
    final = tables.last_values(study)
    blocks: list[Block] = [block for block in (picture, final) if block]
    return Section(title="Training curves", blocks=blocks)


def _results(study: Study, progress: Sequence[Progress], numbers: dict[str, int], folder: Path) -> Section:
    blocks: list[Block] = []
    for own in [own for own in progress if own.set == study.set]:
        if picture := figures.draw_results(own, numbers, folder):
            blocks.append(picture)
    blocks += [tables.results(own) for own in progress]
    blocks += [table for table in (tables.gains(study, progress), tables.stated(study)) if table]
    missing = Paragraph(text="No data: there is no evaluation, and no final result is stated.")
    return Section(title="Results, and what they cost", blocks=blocks or [missing])


def _learning_rates(study: Study, folder: Path) -> Section:
    insights = _of(study, Kind.SENSITIVITY, Kind.CORRELATION)
    blocks: list[Block] = [Bullets(items=_said(insights))] if insights else []
    groups = [insight.data for insight in insights if insight.kind is Kind.SENSITIVITY]
    if groups:
        blocks.append(figures.draw_sensitivity(groups, folder))
    return Section(title="Learning rate", blocks=blocks)


def _criteria(study: Study) -> Section:
    claims = _of(study, Kind.CRITERION)
    return Section(title="Success criteria", blocks=[tables.criteria(claims)] if claims else [])


def _samples(study: Study) -> Section:
    chosen = examples(study)
    intro = (
        "The first completion of each run before and after training. Nobody chose the problems: one was gained most, "
        "one was lost most, and the others are drawn without a look at the results."
    )
    return Section(title="Completions", blocks=[Paragraph(text=intro), *chosen] if chosen else [])


def _provenance(study: Study, folder: Path) -> Section:
    made = shlex.join(["python", "-m", "rl.report", *map(str, study.sources), *study.asked, "--out", str(folder)])
    items = [f"This report is made by: {made}", "Every claim is a record of insights.json, with the numbers behind it."]
    items.append(LEVELS)
    if any(run.ours for run in study.runs):
        items += [
            "Pass rates, intervals and completions come from each run's evals/, and are in evaluations.csv.",
            "Training curves, times and tokens come from each run's metrics.jsonl, and are in curves.csv.",
            "Settings come from each run's config.json, and are in runs.csv.",
        ]
    if not all(run.ours for run in study.runs):
        items.append("What other tools measured is as their files state it; it is in runs.csv and curves.csv, too.")
    return Section(title="Provenance", blocks=[Bullets(items=items), tables.origins(study, _launches)])


def _launches(run: RunDir) -> list[dict[str, Any]]:
    """As recorded; nothing where the file is no list of launches."""
    try:
        recorded = json.loads(run.provenance_file.read_text())
    except (OSError, ValueError):
        return []
    return [launch for launch in recorded if isinstance(launch, dict)] if isinstance(recorded, list) else []
