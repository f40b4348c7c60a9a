"""What stands in a report, in the order in which it is read: the answer, what limits it, then everything behind it."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rl.core.rundir import RunDir
from rl.present import figures, tables
from rl.present.document import Block, Bullets, Document, Paragraph, Section
from rl.present.progress import Progress, progress_of
from rl.present.samples import examples
from rl.present.study import Study
from rl.study.insights import Insight, Kind
from rl.study.words import listing


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
        _provenance(study),
    ]
    return Document(title=f"Report: {study.title}", answer=study.answer, sections=sections)


def _of(study: Study, *kinds: Kind) -> list[Insight]:
    return [insight for kind in kinds for insight in study.insights if insight.kind is kind]


def _said(insights: Sequence[Insight]) -> list[str]:
    return [insight.text for insight in insights]


def _findings(study: Study) -> Section:
    blocks: list[Block] = [Paragraph(text=study.reason)] if study.reason else []
    if said := _said(_of(study, Kind.BEST, Kind.BETTER, Kind.NO_DIFFERENCE)):
        blocks.append(Bullets(items=said))
    else:
        blocks.append(Paragraph(text="No comparison can be made from what was measured."))
    return Section(title="What the evidence says", blocks=blocks)


def _limits(study: Study, progress: Sequence[Progress]) -> Section:
    said = [f"Left out: {text}" for text in study.left_out]
    said += _said(_of(study, Kind.NO_DATA, Kind.CAUTION)) + tables.not_finite(study)
    names = [own.name for own in progress if own.file.startswith(f"{study.set}-")]
    if names:
        said.append(f"Not the same problems, so shown apart and not compared: {listing(names)}.")
    return Section(title="What to keep in mind", blocks=[Bullets(items=said or ["Nothing in particular."])])


def _configuration(study: Study) -> Section:
    blocks: list[Block] = [*tables.configuration(study)]
    if len(study.arms) == 1 and study.runs[0].ours:
        blocks.insert(0, Paragraph(text="There is one arm: its runs differ in their seed at the most."))
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
    if blocks:
        text = (
            "Runs of different batch sizes are not comparable by steps alone: at the same step they have seen "
            "different numbers of samples. So figures and tables come by updates, by samples consumed and by time of "
            "training, in which evaluations and starts are not counted."
        )
        blocks.insert(0, Paragraph(text=text))
    blocks += tables.of_other_tools(study)
    title = "Pass rate at each checkpoint" if progress else "Results at each step"
    return Section(title=title, blocks=blocks or [Paragraph(text="No data: nothing was measured at any step.")])


def _training(study: Study, numbers: dict[str, int], folder: Path) -> Section:
    picture = figures.draw_curves(study, numbers, folder)
    final = tables.last_values(study)
    blocks: list[Block] = [block for block in (picture, final) if block]
    return Section(title="Training curves", blocks=blocks or [Paragraph(text="No data: there is no step.")])


def _results(study: Study, progress: Sequence[Progress], numbers: dict[str, int], folder: Path) -> Section:
    blocks: list[Block] = []
    compared = [own for own in progress if own.file.split("-")[0] == study.set]
    for own in compared[:1]:
        last = [(name, points[-1]) for name, points in own.arms.items() if points]
        if picture := figures.draw_results(last, own.metrics[0], numbers, folder):
            blocks.append(picture)
    blocks += [tables.results(own) for own in progress]
    blocks += [table for table in (tables.gains(study, study.set), tables.stated(study)) if table]
    missing = Paragraph(text="No data: there is no evaluation, and no final result is stated.")
    return Section(title="Results, and what they cost", blocks=blocks or [missing])


def _learning_rates(study: Study, folder: Path) -> Section:
    insights = _of(study, Kind.SENSITIVITY, Kind.CORRELATION)
    blocks: list[Block] = []
    if insights:
        blocks.append(Bullets(items=_said(insights)))
        groups = [insight.data for insight in insights if insight.kind is Kind.SENSITIVITY]
        if groups:
            blocks.append(figures.draw_sensitivity(groups, folder))
    else:
        text = "Nothing is said of the learning rate: that takes at least three different rates with a result."
        blocks.append(Paragraph(text=text))
    return Section(title="Learning rate", blocks=blocks)


def _criteria(study: Study) -> Section:
    claims = _of(study, Kind.CRITERION)
    block = tables.criteria(claims) if claims else Paragraph(text="None were set.")
    return Section(title="Success criteria", blocks=[block])


def _samples(study: Study) -> Section:
    chosen = examples(study)
    intro = (
        "The first completion of each run before and after training. Nobody chose the problems: one was gained most, "
        "one was lost most, and the others are drawn without a look at the results."
    )
    missing = "No data: there is no problem that every run was asked twice."
    return Section(title="Completions", blocks=[Paragraph(text=intro if chosen else missing), *chosen])


def _provenance(study: Study) -> Section:
    made = shlex.join(["python", "-m", "rl.report", *map(str, study.sources)])
    items = [f"This report is made by: {made}", "Every claim is a record of insights.json, with the numbers behind it."]
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
    try:
        return list(json.loads(run.provenance_file.read_text()))
    except (OSError, ValueError):
        return []
