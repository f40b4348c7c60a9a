"""The other side does the same work: as many samples, of the same problems, and nothing of it is left out."""

from pathlib import Path

import pytest

from rewards import verify
from rl.core.config import TrainConfig
from rl.core.types import Group, Rollout, Sample
from rl.measure.peer import Generation, PeerWork, environment, train
from rl.measure.side import Side
from rl.measure.work import Work

pytest.importorskip("trl", reason="what is measured beside: it is in the dev dependency group")

CONFIG = TrainConfig(model="starter-small", batch=16, buffer=16, group_size=4, max_tokens=12)


def recorded() -> list[Group]:
    work = Work(CONFIG)
    groups = []
    for number, problem in enumerate(work.problems(4)):
        rollouts = [
            Rollout(
                token_ids=[5, 6, 7, 1], sampler_logprobs=[-1.0] * 4, policy_version=0, finish_reason="stop", text=text
            )
            for text in "abcd"
        ]
        samples = [Sample(rollout=rollout, verdict=verify(rollout.text, problem.gold)) for rollout in rollouts]
        ids = work.prompter.prompt_ids(problem)
        groups.append(
            Group(id=number, problem=problem, prompt_ids=ids, policy=None, adapter_sha256=None, samples=samples)
        )
    return groups


@pytest.mark.parametrize("generation", ["transformers", "recorded"])
def test_a_step_of_trls_is_a_step_of_ours(generation: Generation, tmp_path: Path) -> None:
    groups = recorded() if generation == "recorded" else []
    work = PeerWork(config=CONFIG, generation=generation, steps=2, micro=8, groups=groups)
    with Side("TRL", tmp_path / "log", environment(generation, threads=1)) as side:
        steps = side.call(train, work, tmp_path / "trl")
    assert len(steps) == 2
    for step in steps:
        assert step.samples == CONFIG.batch
        assert step.tokens == 64 if groups else 0 < step.tokens <= CONFIG.batch * CONFIG.max_tokens
        assert min(step.generate_s, step.score_s, step.train_s) > 0
        assert step.generate_s + step.score_s + step.train_s <= step.step_s
