"""The audit: sound books balance, and every way of cooking them is found and named."""

import json
import re
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rl.audit import main
from rl.buffer.compact import compact
from rl.buffer.history import History
from rl.buffer.ledger import Buffer
from rl.buffer.replay import Recording
from rl.buffer.tables import State
from rl.core.errors import UsageError
from rl.core.rundir import RunDir
from rl.core.types import Group
from rl.observe.audit import audit, gap
from tests.conftest import SHA256
from tests.observe.recorded import new_run

MakeGroup = Callable[..., Group]
MARKS = {3: "rr", 6: "re", 11: "ww"}
STALE = 9


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory, make_group: MakeGroup) -> RunDir:
    """Two launches: five steps of two groups, of which the fifth was trained again, and a sixth that is leased."""
    run = new_run(tmp_path_factory.mktemp("audit") / "run", "--steps", "7")
    with closing(Buffer(run.buffer_url, capacity=8, group_size=2)) as buffer:
        buffer.enter_problems(40)
        _train(buffer, make_group, "run-ab-0", range(1, 6))
        buffer.rewind(4)
        _train(buffer, make_group, "run-ab-1", range(5, 6))
        _sample(buffer, make_group, "run-ab-1", 5)
        buffer.lease(2, policy_version=5, max_staleness=1)
    return run


def _train(buffer: Buffer, make_group: MakeGroup, policy: str, steps: range) -> None:
    buffer.proved(policy, steps.start - 1, SHA256)
    for step in steps:
        while not (leased := buffer.lease(2, policy_version=step - 1, max_staleness=1)):
            _sample(buffer, make_group, policy, step - 1)
        buffer.proved(policy, step, SHA256)
        buffer.trained([group.id for group in leased])
        if step % 2 == 0:
            buffer.commit(step, f"step-{step:06d}")


def _sample(buffer: Buffer, make_group: MakeGroup, policy: str, version: int) -> None:
    buffer.issue()
    for id in buffer.unfinished()[:2]:
        group = make_group(id, MARKS.get(id, "rw"), version=0 if id == STALE else version)
        buffer.put(replace(group, policy=policy))


@pytest.fixture
def cook(sound: RunDir, tmp_path: Path) -> Callable[[str], RunDir]:
    """A copy of the sound run, in which somebody has run this SQL."""

    def cooked(sql: str) -> RunDir:
        run = RunDir(tmp_path / "cooked")
        shutil.copytree(sound.root, run.root)
        with closing(sqlite3.connect(run.root / "buffer.db")) as db:
            db.create_function("flipped", 1, lambda payload: payload[:-1] + bytes([payload[-1] ^ 1]))
            db.executescript(sql)
        return run

    return cooked


def test_sound_books_balance(sound: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(sound.root)]) == 0
    out = capsys.readouterr().out
    assert "the books balance" in out
    assert "5 steps trained, committed through step 4; 2 groups after it" in out
    assert "of 40 sampled, 10 trained on" in out
    found = audit(sound)
    groups = {state: has.groups for state, has in found.states.items() if has.groups}
    assert groups == {State.TRAINED: 10, State.LEASED: 2, State.NO_SIGNAL: 2} | {
        State.UNVERIFIED: 1,
        State.EXPIRED: 1,
        State.ISSUED: 2,
    }
    assert found.issued == sum(groups.values())
    assert (found.launches, found.versions, found.proved_again, found.proved_again_differently) == (2, 6, 2, 0)
    assert sum(found.staleness.values()) == 10
    assert max(found.staleness) <= found.staleness_bound == 1
    assert [(ages.first, ages.last, ages.groups) for ages in found.staleness_by_step] == [
        (i, i, 2) for i in range(1, 6)
    ]


def test_json_says_the_same(sound: RunDir, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(sound.root), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["balanced"] is True
    assert said["states"]["trained"]["groups"] == 10
    assert not any(said["violations"].values())


# Groups 3 and 11 are without signal, 6 unverified, 9 expired, 15 and 16 leased, 17 and 18 issued; the others trained.
COOKED = {
    "a group is deleted": ("DELETE FROM groups WHERE id = 3", {"ids": "lost: group 3"}),
    "several are": ("DELETE FROM groups WHERE id IN (3, 6, 9)", {"ids": "lost: groups 3, 6, 9"}),
    "a trained group is deleted": (
        "DELETE FROM groups WHERE id = 1",
        {"ids": "lost: group 1", "steps": "step 1 has 1 groups, not 2: group 2"},
    ),
    "a state nobody knows": (
        "UPDATE groups SET state = 'sold' WHERE id = 3",
        {"states": "'sold' is no state: group 3"},
    ),
    "trained in no step": (
        "UPDATE groups SET step = NULL WHERE id = 2",
        {"states": "trained without a step: group 2", "steps": "step 1 has 1 groups, not 2: group 1"},
    ),
    "issued, and sampled": (
        "UPDATE groups SET state = 'issued' WHERE id = 3",
        {"states": "issued, but 6 of 6 facts about samples are there: group 3"},
    ),
    "sampled, by nothing": (
        "UPDATE groups SET tokens = NULL WHERE id = 3",
        {"states": "no_signal, but 5 of 6 facts about samples are there: group 3"},
    ),
    "a sample is missing": ("UPDATE groups SET samples = 1 WHERE id = 3", {"groups": "not 2 samples: group 3"}),
    "an extra group in a step": (
        "UPDATE groups SET state = 'trained', step = 2 WHERE id = 6",
        {"steps": "step 2 has 3 groups, not 2: groups 4–6", "stored": "group 6 is trained, but .* unverified"},
    ),
    "a step is missing": ("UPDATE groups SET step = 9 WHERE step = 6", {"steps": "no group is there of steps 6–8"}),
    "half a step": (
        "UPDATE groups SET state = 'ready' WHERE id = 1",
        {"steps": "the groups of step 1 are not in one state: ready, trained"},
    ),
    "trained before the one before it": (
        "UPDATE groups SET state = 'ready' WHERE step = 4",
        {"steps": "step 5 is trained while step 4 is ready"},
    ),
    "two steps are leased": (
        "UPDATE groups SET state = 'leased' WHERE step = 5",
        {"steps": "step 6 is leased while step 5 is leased"},
    ),
    "out of the order of issue": (
        "UPDATE groups SET step = 5 - step WHERE step IN (2, 3)",
        {"order": "group 8 of step 2 was issued after group 4 of step 3"},
    ),
    "left behind": (
        "UPDATE groups SET state = 'ready' WHERE id = 9",
        {"order": "left behind, though group 16 had its turn: group 9"},
    ),
    "trained too late": (
        "UPDATE groups SET oldest_version = 2 WHERE step = 5",
        {"staleness": "2 steps stale, more than 1: groups 13–14", "stored": "group 14 states oldest_version 2, .* 4"},
    ),
    "trained before it was sampled": (
        "UPDATE groups SET oldest_version = 5 WHERE step = 5",
        {"staleness": "sampled by a version still to be made: groups 13–14"},
    ),
    "thrown away": (
        "UPDATE groups SET state = 'expired', step = NULL WHERE step = 6",
        {"expired": "expired, though never more than 1 steps stale: groups 15–16"},
    ),
    "no proof": (
        "DELETE FROM proofs WHERE version = 0",
        {"proofs": r"sampled by version 0 of run-ab-0 \(abababababab\), but proved was nothing: groups 1–2, 9"},
    ),
    "another adapter": (
        "UPDATE proofs SET sha256 = 'cd' || substr(sha256, 3) WHERE version = 0",
        {"proofs": "but proved was cdababababab: groups 1–2, 9"},
    ),
    "another hash than was sampled by": (
        "UPDATE groups SET adapter_sha256 = 'cd' || substr(adapter_sha256, 3) WHERE id = 1",
        {"proofs": "proved was abababababab: group 1", "stored": "group 1 states adapter_sha256 cdab.*"},
    ),
    "a commit of what is not trained": (
        "INSERT INTO commits VALUES (6, 'step-000006')",
        {"commits": "committed, but only 5 steps are trained: step 6"},
    ),
    "more than fits": (
        "INSERT INTO groups (id, state) SELECT max(id) + 1, 'issued' FROM groups;" * 3,
        {"capacity": "5 groups are in flight or stored, and the buffer holds 4"},
    ),
    "one group twice": (
        "UPDATE payloads SET payload = (SELECT payload FROM payloads WHERE id = 1) WHERE id = 2",
        {"stored": "group 2 holds what was sampled for group 1"},
    ),
    "a flipped bit": (
        "UPDATE payloads SET payload = flipped(payload) WHERE id = 2",
        {"stored": "group 2: .* damaged: its checksum is another"},
    ),
    "what a resume needs is gone": (
        "DELETE FROM payloads WHERE id IN (SELECT id FROM groups WHERE step >= 4)",
        {"stored": "not stored any more, though a resume may need them: groups 13–16"},
    ),
    "another verdict": (
        "UPDATE groups SET state = 'no_signal' WHERE id = 6",
        {"stored": "group 6 is no_signal, but by its verdicts unverified"},
    ),
}


@pytest.mark.parametrize(("sql", "named"), COOKED.values(), ids=COOKED)
def test_cooked_books_are_found(
    cook: Callable[[str], RunDir], sql: str, named: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    run = cook(sql)
    assert main([str(run.root)]) == 1
    out = capsys.readouterr().out
    assert "the books do NOT balance" in out
    broken = audit(run).violations
    for rule, pattern in named.items():
        found = [sentence for sentence in broken[rule] if re.search(f"{pattern}$", sentence)]
        assert found, broken
        assert f"  {rule}: {found[0]}" in out.splitlines()


def test_the_books_of_a_replay_balance_before_and_after_it(sound: RunDir, tmp_path: Path) -> None:
    run = new_run(tmp_path / "replay", "--steps", "4", "--replay", str(sound.root))
    with closing(Recording(sound)) as recording:
        recording.copy_to(run.buffer_url, steps=4)
    found = audit(run)
    assert found.balanced, found.violations
    assert (found.replay, found.steps, found.states[State.READY].groups) == (str(sound.root), 0, 8)
    with closing(Buffer(run.buffer_url, capacity=8, group_size=2)) as buffer:
        for step in range(1, 5):
            buffer.trained([group.id for group in buffer.lease(2, policy_version=step - 1, max_staleness=1)])
    assert audit(run).balanced
    assert audit(run).problems == 40


def test_a_run_in_progress_is_audited(sound: RunDir) -> None:
    with closing(sqlite3.connect(sound.root / "buffer.db", isolation_level=None)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE groups SET state = 'trained' WHERE id = 15")
        assert audit(sound).balanced
        writer.execute("ROLLBACK")


def test_what_cannot_be_audited_is_the_users_error(cook: Callable[[str], RunDir], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a run"):
        main([str(tmp_path)])
    with pytest.raises(UsageError, match="another version of Tally"):
        main([str(cook("ALTER TABLE groups DROP COLUMN adapter_sha256").root)])
    (tmp_path / "cooked/buffer.db").write_bytes(b"no database of SQLite's at all" * 99)
    with pytest.raises(UsageError, match="no database"):
        main([str(tmp_path / "cooked")])
    (tmp_path / "cooked/buffer.db").unlink()
    with pytest.raises(UsageError, match="cannot read the ledger"):
        main([str(tmp_path / "cooked")])


# ---- compaction


def test_compaction_keeps_the_entries_and_what_a_resume_needs(
    cook: Callable[[str], RunDir], capsys: pytest.CaptureFixture[str]
) -> None:
    run = cook("")
    before = audit(run)
    assert main([str(run.root), "--compact"]) == 0
    assert "the samples of 12 groups are gone" in capsys.readouterr().out
    assert audit(run) == before
    assert before.balanced
    with closing(Buffer(run.buffer_url, capacity=8, group_size=2)) as buffer:
        buffer.rewind(4)
        assert [group.id for group in buffer.lease(2, policy_version=4, max_staleness=1)] == [13, 14]
        assert buffer.compacted(after=3) == 2


def test_compaction_frees_the_disk(cook: Callable[[str], RunDir]) -> None:
    run = cook("UPDATE payloads SET payload = randomblob(200000) WHERE id IN (3, 11)")
    compaction = compact(run.buffer_url)
    assert compaction.bytes_before > 400_000
    assert compaction.bytes_after == Path(compaction.ledger).stat().st_size < 200_000, "neither of the two is left"


def test_compaction_is_refused_while_the_run_goes_on_or_does_not_balance(cook: Callable[[str], RunDir]) -> None:
    run = cook("")
    with run.locked(), pytest.raises(UsageError, match="in progress"):
        main([str(run.root), "--compact"])
    with closing(sqlite3.connect(run.root / "buffer.db")) as db:
        db.execute("DELETE FROM groups WHERE id = 3")
        db.commit()
    with pytest.raises(UsageError, match="do not balance"):
        main([str(run.root), "--compact"])
    assert all(row.stored for row in History(run.buffer_url).books().rows if row.problem)


# ---- lengths


def test_the_interval_of_a_gap_holds_the_truth_where_problems_repeat() -> None:
    """400 simulated runs: 80 problems asked twice, of lengths of their own; longer ones are trained on less often."""
    rng, held, truth = np.random.default_rng(0), 0, _long_run_gap()
    for _ in range(400):
        x, trained, problems = _simulated(rng, 80)
        found = gap(x, trained, [True] * len(x), problems)
        assert found
        held += found.low <= truth <= found.high
    assert 0.92 <= held / 400 <= 0.98


def test_a_gap_needs_both_sides_and_two_problems() -> None:
    assert gap([], [], [], []) is None
    assert gap([1.0, 2.0], [False, False], [True, True], ["a", "b"]) is None
    assert gap([1.0, 2.0], [True, False], [True, True], ["a", "a"]) is None


def _simulated(rng: np.random.Generator, n: int) -> tuple[list[float], list[bool], list[str]]:
    own = np.repeat(rng.normal(100, 20, n), 2)
    lengths = own + rng.normal(0, 5, 2 * n)
    trained = rng.random(2 * n) < 1 / (1 + np.exp((own - 100) / 20))
    return lengths.tolist(), trained.tolist(), [f"{i // 2}" for i in range(2 * n)]


def _long_run_gap() -> float:
    x, trained, _ = _simulated(np.random.default_rng(1), 200_000)
    return float(np.mean(np.asarray(x)[trained]) - np.mean(x))
