"""The rules on runs that were really broken, and on runs that were not.

`tests.diagnosis.campaign` made the runs, `tests.diagnosis.cases` says what is wrong with each. The rules were written
with those of `SEEN` in view; the others were made and looked at after.
"""

from pathlib import Path

import pytest

from rl.core.config import TrainConfig
from rl.observe.rules import findings, findings_so_far
from rl.study.runs import read_run
from tests.diagnosis.cases import CASES, FAULTY, SEEN, SOUND, Case
from tests.diagnosis.recorded import LOGS, Recorded, recorded


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recorded]:
    folder = tmp_path_factory.mktemp("runs")
    return {case.name: recorded(case.name, folder) for case in CASES}


def rules_of(log: Recorded) -> set[str]:
    return {finding.rule for finding in findings(log.run, log.groups)}


def named_rightly(case: Case, log: Recorded) -> bool:
    """Whether the first finding, the cause, is what was done to the run."""
    return any(finding.rule in case.named for finding in findings(log.run, log.groups)[:1])


def test_every_run_is_recorded_and_no_other() -> None:
    assert {path.name for path in LOGS.glob("*.json.gz")} == {f"{case.name}.json.gz" for case in CASES}
    assert len(FAULTY) >= 20
    assert len({case.kind for case in FAULTY}) >= 10
    assert len(SOUND) >= 20
    assert sum(path.stat().st_size for path in LOGS.iterdir()) < 1.5e6


@pytest.mark.parametrize("seen", [True, False], ids=["developed on", "held out"])
def test_faults_are_named(runs: dict[str, Recorded], seen: bool) -> None:
    cases = [case for case in FAULTY if (case.name in SEEN) is seen]
    missed = [case.name for case in cases if not named_rightly(case, runs[case.name])]
    assert len(missed) <= 0.1 * len(cases), missed


@pytest.mark.parametrize("seen", [True, False], ids=["developed on", "held out"])
def test_sound_runs_raise_no_alarm(runs: dict[str, Recorded], seen: bool) -> None:
    cases = [case for case in SOUND if (case.name in SEEN) is seen]
    alarms = {case.name: rules for case in cases if (rules := rules_of(runs[case.name]))}
    assert len(alarms) <= 0.05 * len(cases), alarms


def test_sound_runs_raise_no_alarm_while_they_go_on(runs: dict[str, Recorded]) -> None:
    """Looked at again and again a rule has many chances to err: of all the looks at all the runs, none may stay."""
    alarms = set()
    for case in SOUND:
        run = runs[case.name].run
        config = TrainConfig.model_validate(run.settings)
        steps = [
            {"step": i + 1, **{name: curve.values[i] for name, curve in run.curves.items()}}
            for i in range(run.last_step or 0)
        ]
        for n in range(10, len(steps), 10):
            for finding in findings_so_far(config, steps[:n], []):
                alarms.add((case.name, finding.rule))
    assert len({name for name, _ in alarms}) <= 0.05 * len(SOUND), alarms


def test_what_is_proposed_can_be_run(runs: dict[str, Recorded]) -> None:
    for log in runs.values():
        config = TrainConfig.model_validate(log.run.settings)
        for finding in findings(log.run, log.groups):
            TrainConfig.model_validate(config.model_dump() | finding.changes)


def test_sound_runs_learn(runs: dict[str, Recorded]) -> None:
    """By what the runs show, whatever the rules say: every sound run got better on held-out problems."""
    for case in SOUND:
        first, *_, last = [
            [question.pass_at(1) or 0.0 for question in evaluated.result.questions]
            for evaluated in runs[case.name].run.evaluations["heldout"]
        ]
        assert sum(last) / len(last) > sum(first) / len(first), case.name


def test_a_recorded_run_is_a_run(tmp_path: Path) -> None:
    log = recorded(SOUND[0].name, tmp_path)
    again = read_run(tmp_path / SOUND[0].name, SOUND[0].name)
    assert again == log.run
    assert len(again.evaluations["heldout"][0].result.questions) == 64
