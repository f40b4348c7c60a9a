"""The benchmark of the ledger runs to its end and compares with a run that it is given."""

from pathlib import Path

import pytest

from rl.buffer.bench import made_group, main, taken_through
from rl.core.errors import UsageError
from tests.observe.recorded import fill_ledger, new_run, step_record
from tests.postgres import Server


@pytest.mark.parametrize("place", ["folder", "database"])
def test_the_benchmark_says_what_the_ledger_costs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest, place: str
) -> None:
    run = new_run(tmp_path / "run")
    fill_ledger(run, [("right", "wrong")] * 8)
    for step in range(1, 5):
        run.log(**step_record(step))
    url = request.getfixturevalue("database_url") if place == "database" else None
    where = ["--folder", str(tmp_path)] if url is None else ["--buffer-url", url]
    main([str(run.root), "--samples", "64", "--tokens", "5", *where])
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:5]] == ["4", "8", "16", "64"]
    assert any(line.startswith("compacted:") for line in lines)
    assert f"{run.root}: a step of 4 samples of 3 tokens took 500.0 ms, 400.0 ms without waiting (4 steps)" in lines
    assert not list(tmp_path.glob("bench-*")), "what it made is gone"
    if url is not None:
        server: Server = request.getfixturevalue("postgres")
        assert not server.ask("SELECT nspname FROM pg_namespace WHERE nspname LIKE 'bench-%'", url.rpartition("/")[2])


def test_a_run_without_steps_is_no_measure(tmp_path: Path) -> None:
    run = new_run(tmp_path / "run")
    fill_ledger(run, [("right", "wrong")] * 2)
    with pytest.raises(UsageError, match="no step"):
        main([str(run.root), "--samples", "64", "--tokens", "1"])


@pytest.mark.parametrize("size", [48, 64, 512])
def test_groups_of_any_size_are_taken_through(tmp_path: Path, size: int) -> None:
    clock = taken_through(f"sqlite:///{tmp_path}/buffer.db", made_group(size, 1), samples=2 * size)
    assert len(clock.seconds["put"]) >= 2
    assert len(clock.seconds["trained"]) == 2


def test_the_groups_are_those_of_a_run() -> None:
    group = made_group(8, 100)
    assert group.has_signal
    assert {len(sample.rollout.token_ids) for sample in group.samples} == {100}
