"""Several runs side by side: their curves over each other, their newest evaluations, and the settings that differ."""

from collections import defaultdict
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from rl.core.config import HELDOUT
from rl.core.errors import UsageError
from rl.evaluate.result import EvalResult
from rl.observe.findings import compared
from rl.page import words
from rl.page.curves import curves
from rl.page.panels import PANELS, Panel
from rl.page.sight import Sight, check_size
from rl.present.words import setting
from rl.study.runs import NOT_COMPUTED
from rl.study.words import interval

MOST = 7
"""Runs at a time: there are as many colours."""
SINGLE = [Panel(names=(name,), log=panel.log) for panel in PANELS for name in panel.names]
"""Each metric in a figure of its own, with a line for each run."""


def state(sights: Mapping[str, Sight]) -> str:
    """Reads what is new of the runs; the same text as before where that was nothing."""
    said = []
    for sight in sights.values():
        with sight.lock:
            sight.numbers.read()
            numbers = sight.numbers
            said.append(f"{numbers.rewinds}-{numbers.step}-{len(numbers.evals)}-{sight.run.in_progress}")
    return " ".join(said)


def lines(sights: Mapping[str, Sight]) -> dict[str, list[dict[str, Any]]]:
    """Metric → the line of each run that has it, for the script."""
    drawn: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for colour, (name, sight) in enumerate(sights.items()):
        with sight.lock:
            made = curves(sight.numbers)
            if words.newest_evaluation(sight.numbers):
                evaluated = words.evaluation_curves(sight.numbers, HELDOUT)
                own = evaluated["curves"]["pass@1"]
                line = {"steps": evaluated["steps"], "mean": own["value"], "low": own["low"], "high": own["high"]}
                drawn["pass@1"].append({"name": name, "colour": colour, **line})
        for (metric,) in (panel.names for panel in SINGLE):
            if series := made["series"].get(metric):
                line = {key: series[key] for key in ("mean", "low", "high")}
                drawn[metric].append({"name": name, "colour": colour, "steps": made["steps"], **line})
    return drawn


def table(sights: Mapping[str, Sight]) -> list[list[str]]:
    """Of each run its name, and of its newest evaluation the step, pass@1, and the difference to that of the first run
    on the same questions."""
    rows: list[list[str]] = []
    base: EvalResult | None = None
    for name, sight in sights.items():
        with sight.lock:
            newest = words.newest_evaluation(sight.numbers)
        if newest is None:
            rows.append([name, "", words.NO_DATA, ""])
            continue
        result = _result(sight, newest["step"])
        comparison = compared(base, result) if base and result else None
        gain = comparison.pass_at_1 if comparison else None
        base = base or result
        told = interval(gain, "+") if gain else "" if result is base else "not on the same questions"
        rows.append([name, f"{newest['step']:,}", words.estimate(newest["summary"]["pass@1"]), told])
    return rows


def _result(sight: Sight, step: int) -> EvalResult | None:
    with suppress(UsageError):
        check_size(sight.run, HELDOUT, step)
        return EvalResult.load(sight.run.eval_file(HELDOUT, step))
    return None


def differing(sights: Mapping[str, Sight]) -> list[list[str]]:
    """Setting, and its value in each run, where these are not all the same."""
    notices: list[str] = []
    configs = [sight.config(notices)[0] for sight in sights.values()]
    values = [config.model_dump(mode="json") if config else {} for config in configs]
    names = dict.fromkeys(name for own in values for name in own if name not in NOT_COMPUTED)
    rows = {name: [setting(own.get(name)) for own in values] for name in names}
    return [[name, *row] for name, row in rows.items() if len(set(row)) > 1]
