"""The command line: precedence, sources, and errors that say what, where and how to fix it."""

import subprocess
import sys
from pathlib import Path

import pytest

from rl.core import cli
from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.core.kinds import ImportanceMode, LossKind


def resolve(*argv: str) -> cli.Resolved:
    parser = cli.Parser(prog="python -m rl.train")
    cli.add_config_flags(parser)
    return cli.resolve(parser.parse_args(argv))


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('lr = 1e-5\nbatch = 64\nloss = "dapo"\n')
    resolved = resolve("--config", str(file), "--lr", "2e-6", "--importance", "token_mask", "--grad-checkpointing")
    config = resolved.config
    assert (config.lr, config.batch, config.loss, config.group_size) == (2e-6, 64, LossKind.DAPO, 8)
    assert config.importance is ImportanceMode.TOKEN_MASK
    assert config.grad_checkpointing
    sources = resolved.sources
    assert (sources["lr"], sources["batch"], sources["group_size"]) == ("flag", str(file), "default")
    assert any(line.split() == ["batch", "64", str(file)] for line in resolved.lines())


@pytest.mark.parametrize(
    ("argv", "what", "fix"),
    [
        (["--lrr", "1"], "'--lrr'", "--lr"),
        (["--learning-rate", "1"], "'--learning-rate'", "here it is --lr"),
        (["--num-generations", "4"], "'--num-generations'", "here it is --group-size"),
        (["--gruop-size", "4"], "'--gruop-size'", "--group-size"),
        (["--batch", "30"], "batch 30 is not a multiple of group_size 8: try --batch 24 or 32", ""),
        (["--buffer", "4"], "buffer 4 is not a multiple of group_size 8: try --buffer 8", ""),
        (["--buffer", "16"], "cannot hold one batch of 32: try --buffer 32", ""),
        (["--extraction", "lenient", "--reward", "my:own"], "extraction lenient says nothing to the reward my:own", ""),
        (["--lr", "fast"], "--lr fast (flag)", "learning rate"),
        (["--lr", "-1"], "--lr -1 (flag)", "learning rate"),
        (["--loss", "ppo"], "--loss ppo (flag)", "estimator"),
        (["--learners", "64"], "leaves some of 64 learners without a sample", ""),
        (["--warmup", "999"], "warmup 999 is longer than the run", ""),
        (["--warmup", "2.5"], "warmup 2.5 is no number of steps, nor a share below 1: try --warmup 3", ""),
        (["--lr-floor", "0.5"], "lr_floor 0.5 says nothing to a constant rate: try --schedule linear", ""),
        (["--lr"], "--lr: expected one argument", "--help"),
        (["--config", "no/such.toml"], "cannot read --config no/such.toml", "existing"),
    ],
)
def test_bad_input_says_what_and_how_to_fix_it(argv: list[str], what: str, fix: str) -> None:
    with pytest.raises(UsageError) as error:
        resolve(*argv)
    assert what in str(error.value)
    assert fix in error.value.fix
    assert error.value.exit_code == 2


@pytest.mark.parametrize(
    ("text", "what", "fix"),
    [
        ("lrr = 1", "unknown key 'lrr'", "lr"),
        ("lr =", "is not TOML", "lr = 2e-6"),
        ("[a]\nlr = 1", "unknown key 'a'", ""),
    ],
)
def test_bad_file_is_refused(tmp_path: Path, text: str, what: str, fix: str) -> None:
    file = tmp_path / "run.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=what) as error:
        resolve("--config", str(file))
    assert fix in error.value.fix


@pytest.mark.parametrize(
    ("buffer", "batch", "bound"), [(64, 64, 0), (256, 32, 7), (96, 64, 1), (128, 64, 1), (136, 64, 2)]
)
def test_staleness_follows_from_the_buffer(buffer: int, batch: int, bound: int) -> None:
    config = TrainConfig(buffer=buffer, batch=batch)
    assert config.staleness_bound == bound
    assert f"at most {bound} steps stale" in "\n".join(config.consequences())
    assert config.model_copy(update={"max_staleness": 0}).staleness_bound == 0


def test_a_rate_for_full_fine_tuning_is_named() -> None:
    assert "full fine-tuning" in "\n".join(TrainConfig(lr=2e-6).consequences())
    assert "full fine-tuning" not in "\n".join(TrainConfig(lr=1e-4).consequences())


def test_of_full_fine_tuning_nothing_is_said_that_is_known_of_lora() -> None:
    for lr in (2e-6, 5e-2):
        said = "\n".join(TrainConfig(tuning="full", lr=lr).consequences())
        assert "--lora-rank and --lora-alpha say nothing to it" in said
        assert "LoRA" not in said


def test_learning_rate_schedules() -> None:
    linear = TrainConfig(lr=1.0, steps=10, warmup=2, schedule="linear")
    assert [linear.lr_at(step) for step in (1, 2, 3, 10)] == pytest.approx([0.5, 1.0, 1.0, 0.125])
    cosine = TrainConfig(lr=1.0, steps=4, schedule="cosine")
    assert [cosine.lr_at(step) for step in (1, 2, 3, 4)] == pytest.approx([1.0, 0.853553, 0.5, 0.146447], abs=1e-6)
    assert {TrainConfig(lr=0.5, steps=9).lr_at(step) for step in range(1, 10)} == {0.5}
    half = TrainConfig(lr=1.0, steps=10, warmup=2, schedule="linear", lr_floor=0.5)
    assert [half.lr_at(step) for step in (1, 2, 3, 7, 10)] == pytest.approx([0.5, 1.0, 1.0, 0.75, 0.5625])


def test_warm_up_is_in_steps_or_a_share_of_them() -> None:
    shares = [(0.05, 200, 10), (0.05, 201, 11), (0.07, 100, 7), (0.5, 3, 2), (10, 200, 10), (1, 200, 1), (0, 200, 0)]
    assert [TrainConfig(warmup=share, steps=steps).warmup_steps for share, steps, _ in shares] == [
        n for *_, n in shares
    ]
    share, steps = (TrainConfig(lr=1.0, steps=40, warmup=w, schedule="cosine") for w in (0.1, 4))
    assert [share.lr_at(step) for step in range(1, 41)] == [steps.lr_at(step) for step in range(1, 41)]


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ("raise UsageError('no such thing', fix='name another')", 2, "error: no such thing\n  fix: name another\n"),
        ("raise TallyError('it died')", 3, "error: it died\n"),
        ("raise ExceptionGroup('tasks', [ExceptionGroup('more', [TallyError('it died')])])", 3, "error: it died\n"),
        (
            "open('/dev/full', 'w').write('a record' * 9999)",
            3,
            "error: No space left on device\n  fix: make room on the disk, or mend it, and go on\n",
        ),
        ("return 7", 7, ""),
    ],
)
def test_commands_end_with_a_sentence_and_an_exit_code(body: str, code: int, said: str) -> None:
    script = f"from rl.core import cli\nfrom rl.core.errors import *\ndef main(argv):\n    {body}\ncli.run(main)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (code, said, "")


def test_a_defect_of_ours_shows_where_it_is_and_ends_with_what_it_is() -> None:
    script = "from rl.core import cli\ndef main(argv):\n    raise KeyError('oops')\ncli.run(main)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1] == "error: KeyError: 'oops'"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"lr": 2e-6, "buffer": 512},
        {"model": "Qwen/Qwen2.5-0.5B", "max_tokens": 40},  # a default of the starter alone
        {"model": "Qwen/Qwen2.5-0.5B", "random_weights": "scaled", "wandb_adapter": True},
    ],
)
def test_what_must_be_given_again_is_what_the_model_has_not_by_default(given: dict[str, object]) -> None:
    config = cli.completed(given, dict.fromkeys(given, "flag")).config
    assert cli.changed(config.model_dump(mode="json")) == given
    parser = cli.Parser()
    cli.add_config_flags(parser)
    assert cli.resolve(parser.parse_args(cli.as_flags(given))).config == config
