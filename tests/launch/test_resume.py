"""What `rl.train --resume` may change of a run, and what it says of it."""

from pathlib import Path

import pytest

from rl.core.errors import UsageError
from rl.core.rundir import RunDir
from rl.train import _parser, _resumed
from tests.observe.recorded import new_run


def resume(run: RunDir, *flags: str) -> None:
    with _resumed(_parser().parse_args(["--resume", str(run.root), *flags])):
        pass


@pytest.mark.parametrize(("schedule", "said"), [("linear", "decay now ends at step 400"), ("constant", "")])
def test_a_decay_that_is_made_longer_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], schedule: str, said: str
) -> None:
    run = new_run(tmp_path / "run", "--schedule", schedule)
    resume(run, "--steps", "400", "--keep", "3")
    out = capsys.readouterr().out
    assert (said in out, bool(out)) == (True, bool(said))
    config, sources = run.config(), run.sources()
    assert (config.steps, config.keep) == (400, 3)
    assert (sources["steps"], sources["keep"], sources["lr"]) == ("flag", "flag", "default")


@pytest.mark.parametrize("flags", [["--lr", "1"], ["--eval-on", "gsm8k"], ["--overwrite"], ["--group-size", "4"]])
def test_what_a_run_computes_cannot_be_changed(tmp_path: Path, flags: list[str]) -> None:
    run = new_run(tmp_path / "run")
    before = run.config_file.read_text()
    with pytest.raises(UsageError, match=f"{flags[0]} cannot be changed by --resume"):
        resume(run, *flags)
    assert run.config_file.read_text() == before
