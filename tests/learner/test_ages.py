"""What an update did by age is what its tokens of that age say, however the batch is split."""

import json
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from rl.core.kinds import ImportanceMode, LossKind
from rl.core.metrics import AGE
from rl.learner.ages import AGES, age_classes
from rl.learner.collate import pack, rows_of
from rl.learner.policy import Policy
from rl.learner.step import Learner, StepStats
from rl.problems.starter import STARTER_MODEL
from tests.learner.aged_step import CONFIG, STALENESS, STEP, aged_batch

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def aged_step(**settings: Any) -> tuple[StepStats, dict[int, list[tuple[float, float]]]]:
    """An update's statistics, and by staleness its tokens' (log policy − log sampler, advantage) before it."""
    config = CONFIG.model_copy(update=settings)
    learner = Learner(Policy(str(STARTER_MODEL), config, CPU), config)
    groups = aged_batch(learner.policy)
    tokens: dict[int, list[tuple[float, float]]] = {}
    for row in rows_of(groups, config, STEP):
        with torch.no_grad():
            d_T = learner.policy(pack([row]))[0].double() - torch.tensor(row.sampler_logprobs, dtype=torch.float64)
        tokens.setdefault(row.staleness, []).extend((d, row.advantage) for d in d_T.tolist())
    return learner.step(groups, STEP), tokens


def test_the_numbers_of_an_age_are_those_of_its_tokens() -> None:
    stats, tokens = aged_step()
    assert [*stats.by_age] == [str(age) for age in STALENESS]
    for age, (_, of_age) in zip(STALENESS, stats.by_age.items(), strict=True):
        d_N, advantage_N = torch.tensor(tokens[age], dtype=torch.float64).T
        ratio_N = d_N.exp()
        clipped_N = ((ratio_N < 0.8) & (advantage_N < 0)) | ((ratio_N > 1.2) & (advantage_N > 0))
        assert 0 < clipped_N.sum() < len(d_N)
        assert of_age.tokens == len(d_N)
        assert of_age.clipped == pytest.approx(float(clipped_N.double().mean()))
        assert of_age.mismatch_kl == pytest.approx(float((ratio_N - 1 - d_N).mean()), rel=1e-4)
        assert of_age.ess == pytest.approx(float(ratio_N.sum() ** 2 / (len(d_N) * (ratio_N**2).sum())), rel=1e-5)


@pytest.mark.parametrize("settings", [{"loss": LossKind.GSPO}, {"importance": ImportanceMode.SEQUENCE_TRUNCATE}])
def test_the_mismatch_does_not_depend_on_the_loss(settings: dict[str, Any]) -> None:
    stats, _ = aged_step()
    others, _ = aged_step(**settings)
    assert [s.mismatch_kl for s in others.by_age.values()] == [s.mismatch_kl for s in stats.by_age.values()]


def test_the_ages_add_up_to_the_step() -> None:
    stats, _ = aged_step()
    ages = stats.by_age.values()
    assert sum(age.tokens for age in ages) == stats.tokens
    clipped = sum(age.tokens * age.clipped for age in ages) / stats.tokens
    assert clipped == pytest.approx(stats.clipped_low + stats.clipped_high)
    assert {metric.name for metric in AGE} == asdict(next(iter(ages))).keys()


def test_two_learners_see_the_ages_of_one(tmp_path: Path) -> None:
    out = tmp_path / "two.json"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*command, "-m", "tests.learner.aged_step", str(out)], check=True, capture_output=True)
    one, two = asdict(aged_step()[0]), json.loads(out.read_text())
    assert two["by_age"].keys() == one["by_age"].keys()
    for age, of_age in one["by_age"].items():
        assert two["by_age"][age] == pytest.approx(of_age, rel=1e-4)
        assert two["by_age"][age]["tokens"] == of_age["tokens"]
    timed = {"train_s", "by_age"}
    assert {k: v for k, v in two.items() if k not in timed} == pytest.approx(
        {k: v for k, v in one.items() if k not in timed}, rel=1e-4, abs=1e-6
    )


@pytest.mark.parametrize("version", [STEP, STEP - 1 - CONFIG.staleness_bound - 1])
def test_a_sample_of_no_allowed_version_is_refused(version: int) -> None:
    learner = Learner(Policy(str(STARTER_MODEL), CONFIG, CPU), CONFIG)
    groups = aged_batch(learner.policy)
    last = groups[-1].verified[-1]
    samples = [
        replace(sample, rollout=replace(sample.rollout, policy_version=version)) if sample is last else sample
        for sample in groups[-1].samples
    ]
    before = learner.policy.adapter_bytes()
    with pytest.raises(
        ValueError, match=f"the samples of step {STEP} are .* 0 to {CONFIG.staleness_bound} are allowed"
    ):
        learner.step([*groups[:-1], replace(groups[-1], samples=samples)], STEP)
    assert learner.policy.adapter_bytes() == before


@pytest.mark.parametrize("bound", [*range(20), 63, 64, 500])
def test_every_staleness_has_one_class(bound: int) -> None:
    classes = age_classes(bound)
    assert len(classes) <= AGES
    assert [staleness for ages in classes for staleness in ages] == list(range(bound + 1))
    assert all(staleness in classes[staleness // len(classes[0])] for staleness in range(bound + 1))
    assert bound >= AGES or all(len(ages) == 1 for ages in classes)


def test_wide_classes_are_named_by_their_ends() -> None:
    stats, _ = aged_step(buffer=21 * CONFIG.batch)
    assert [*stats.by_age] == ["0-2", "3-5", "6-8"]
