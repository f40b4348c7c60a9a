"""A learner's rank is measured by its own past: its loop stands still while it computes."""

from collections.abc import Callable

import pytest

from rl.buffer.tables import State
from rl.core import metrics
from rl.core.errors import LedgerError
from rl.core.pulse import SILENCE_LIMIT_S
from rl.core.types import Group
from rl.learner import vitals as module
from rl.learner.vitals import FIRST_LIMIT_S, RankVitals, measure
from tests.observe.recorded import step_record


@pytest.fixture
def pass_s(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets seconds pass."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    return wait


def told(name: str, **labels: str) -> float:
    return metrics.LEARNING.get_sample_value(name, labels) or 0.0


def seconds(phase: str) -> float:
    return told("tally_learner_seconds_total", phase=phase)


def test_a_step_may_take_ten_times_as_long_as_any_before(pass_s: Callable[[float], None]) -> None:
    rank = RankVitals(leads=True)
    pass_s(FIRST_LIMIT_S)
    assert rank.well  # it loads
    rank.enter("train")
    pass_s(FIRST_LIMIT_S)
    assert rank.well  # its first step
    rank.enter("wait")
    rank.enter("train")
    pass_s(10 * FIRST_LIMIT_S)
    assert rank.well
    pass_s(1)
    assert not rank.well
    rank.enter("publish")
    assert rank.well


def test_who_leads_turns_while_it_waits_and_who_follows_cannot_tell(pass_s: Callable[[float], None]) -> None:
    leading, following = RankVitals(leads=True), RankVitals(leads=False)
    for rank in (leading, following):
        for _ in range(2):
            rank.enter("wait")
            pass_s(1)
            rank.enter("train")
        rank.enter("wait")
    for _ in range(100):
        pass_s(1)
        leading.turn()
    assert leading.well
    pass_s(21)
    assert not leading.well
    assert following.well


def test_time_is_counted_by_phase_also_of_the_one_under_way(pass_s: Callable[[float], None]) -> None:
    rank = RankVitals(leads=True)
    before = {phase: seconds(phase) for phase in ("start", "wait", "train")}
    pass_s(2)
    rank.enter("wait")
    pass_s(3)
    rank.refresh()
    assert seconds("wait") - before["wait"] == 3
    pass_s(1)
    rank.enter("train")
    pass_s(5)
    rank.enter("wait")
    rank.refresh()
    assert {phase: seconds(phase) - before[phase] for phase in before} == {"start": 2, "wait": 4, "train": 5}


def states() -> dict[str, float]:
    (family,) = metrics.BUFFER_GROUPS.collect()
    return {sample.labels["state"]: sample.value for sample in family.samples}


def test_groups_are_counted_when_somebody_asks_and_a_ledger_that_cannot_be_read_says_nothing() -> None:
    rank = RankVitals(leads=True)
    rank.counts = lambda: {State.READY: 3, State.TRAINED: 8}
    rank.refresh()
    assert states() == {"ready": 3, "trained": 8}

    def locked() -> dict[State, int]:
        raise LedgerError("another process keeps it locked")

    rank.counts = locked
    rank.refresh()
    assert states() == {}


def test_a_step_is_told_by_the_definitions_of_its_record(make_group: Callable[..., Group]) -> None:
    trained = told("tally_samples_trained_total")
    measure(step_record(4, mismatch_kl=None), [make_group(1, "rw", version=0), make_group(2, "rwe", version=2)])
    assert (told("tally_step"), told("tally_step_grad_norm")) == (4, 0.5)
    assert (told("tally_age_ess_ratio", age="3"), told("tally_age_ess_ratio", age="4")) == (0.94, 0.85)
    assert told("tally_samples_trained_total") - trained == 4


def test_names_of_a_step_say_their_units() -> None:
    names = {field: family.name for field, gauge in metrics.OF_STEP.items() for family in gauge.collect()}
    assert (names["step"], names["step_s"], names["wait_s"]) == (
        "tally_step",
        "tally_step_seconds",
        "tally_step_wait_seconds",
    )
    assert (names["no_signal"], names["mismatch_kl"]) == ("tally_step_no_signal_ratio", "tally_step_mismatch_kl_nats")
    assert names["reward"] == "tally_step_reward"


def test_a_thread_that_trains_for_unusually_long_is_told_though_the_loop_turns(pass_s: Callable[[float], None]) -> None:
    rank = RankVitals(leads=True)
    for _ in range(2):
        rank.enter("train")
        pass_s(1)
    for _ in range(10):
        pass_s(SILENCE_LIMIT_S / 5)
        rank.turn()
    assert not rank.well
