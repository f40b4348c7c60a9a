"""rl.bench measures what it says, and says what was wrong with what it was asked."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from rl.bench import PARTS, USUAL
from rl.core.config import TrainConfig
from rl.core.errors import TallyError
from rl.learner.policy import Policy
from rl.measure.against_trl import Choice, sizes, tried
from rl.measure.learning import flops_per_token
from rl.measure.publishing import Publish, Window, figures_of
from rl.measure.whole import WARM_UP
from rl.measure.work import Pairs, quantiles
from rl.problems.starter import STARTER_MODELS

BENCH = [sys.executable, "-m", "rl.bench", "--model=starter-small", "--batch=32", "--buffer=64", "--steps=10"]


def test_ratios_are_of_pairs() -> None:
    figures = Pairs(ours=[2.0, 30.0, 4.0], theirs=[1.0, 10.0, 4.0]).figures("a", "b")
    assert figures == {"a": 4.0, "b": 4.0, "ratio": 2.0, "ratios": [2.0, 3.0, 1.0]}


def test_the_99th_of_a_few_is_the_largest() -> None:
    assert quantiles([0.3, 0.1, 0.2]) == {"p50_s": 0.2, "p99_s": 0.3}


@pytest.mark.parametrize(("batch", "expected"), [(512, [64, 512]), (256, [64, 256]), (64, [64]), (48, [48])])
def test_trl_is_tried_with_the_whole_batch_too(batch: int, expected: list[int]) -> None:
    assert sizes(batch) == expected


def test_what_trl_has_no_memory_for_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    small, large = ("vllm", 64, 1), ("vllm", 512, 1)

    def rate(choice: Choice) -> float:
        if choice == large:
            raise TallyError("CUDA out of memory")
        return 7.0

    assert tried([small, large], rate) == {small: 7.0}
    assert "'micro': 512" in capsys.readouterr().err
    with pytest.raises(TallyError, match="out of memory"):
        tried([large], rate)


def test_a_loss_by_publishing_is_that_of_the_rate_at_which_was_published() -> None:
    """Three seconds a publish, which takes a fifth of the tokens: one in 30 s takes a tenth of that."""
    publishes = [Publish(version=v, begin=3.0 * v, load_s=0.1, first_token_s=0.5 + v) for v in (0, 1)]
    with_ = Window(seconds=6.0, tokens=480, publishes=publishes, arrived={0: 1.25})
    figures = figures_of([with_], [Window(seconds=2.0, tokens=200, publishes=[])])
    assert figures["lost"] == pytest.approx(0.2)
    assert figures["every_s"] == 3.0
    assert figures["lost_at_one_in_30_s"] == pytest.approx(0.02)
    assert figures["first_token"] == {"p50_s": 1.0, "p99_s": 1.5}
    assert figures["first_group"]["p50_s"] == 1.25, "of those whose groups came"


def test_flops_of_a_token_by_hand() -> None:
    """The starter: 4 layers of width 128 with 4 heads of 32 and an MLP of 384, a vocabulary of 260; LoRA of rank 2."""
    config = TrainConfig(lora_rank=2)
    policy = Policy(str(STARTER_MODELS["starter"]), config, torch.device("cpu"))
    frozen = 4 * (4 * 128 * 128 + 3 * 128 * 384) + 260 * 128
    adapter = 4 * 2 * (4 * (128 + 128) + 3 * (128 + 384))
    assert flops_per_token(policy, length=10.0) == 4 * frozen + 6 * adapter + 12 * 4 * 4 * 32 * 10


@pytest.mark.e2e
def test_every_part_is_measured(tmp_path: Path) -> None:
    command = [*BENCH, f"--parts={','.join(PARTS)}", "--rounds=1", "--json", f"--folder={tmp_path / 'bench'}"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    *said, last = answer.stdout.splitlines()
    result = json.loads(last)
    for part in USUAL:
        assert any(line.startswith(part.replace("_", " ")) for line in said)
        rates = [value for name, value in result[part].items() if name.endswith("_per_s")]
        assert rates
        assert min(rates) > 0
    whole = result["end_to_end"]
    assert {"server", "learner", "collector", "verifier"} <= whole["peak_memory_bytes"].keys()
    assert all(0 <= share < 1 for share in whole["idle"].values())
    assert whole["learner_waits"] <= whole["idle"]["learner"]
    assert whole["samples_per_s"] >= whole["trained_samples_per_s"]
    assert 0 < result["learner"]["mfu"] < 1
    first_token = result["publishing"]["first_token"]
    assert 0 < result["publishing"]["engine_load"]["p50_s"] < first_token["p50_s"] <= first_token["p99_s"]
    assert result["verifier"]["checks"] == 32 * (10 - WARM_UP)
    growth = result["growth"]
    assert min(growth[name]["ratio"] for name in ("buffer", "problems", "length")) > 0
    assert growth["steps"] == 100 - WARM_UP - 1
    assert {"server", "learner", "collector"} <= growth["grown_bytes"].keys()
    assert result["settings"]["batch"] == 32


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--parts=lerner"], "lerner"),
        (["--rounds=0"], "--rounds 0"),
        (["--steps=3"], "--steps 3"),
        (["--batch=31"], "31"),
    ],
)
def test_what_cannot_be_measured_is_said(flags: list[str], said: str) -> None:
    answer = subprocess.run([*BENCH, *flags], capture_output=True, text=True, check=False)
    assert answer.returncode == 2
    assert said in answer.stderr
    assert "Traceback" not in answer.stderr
