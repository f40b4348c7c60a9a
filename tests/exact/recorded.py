"""A run as a replay needs it: a ledger of batches made by hand, trained and committed; no server has sampled them."""

from contextlib import closing
from dataclasses import replace
from pathlib import Path

import torch

from rewards.verdict import Mark, Verdict
from rl.buffer.ledger import Buffer
from rl.core import cli
from rl.core.rundir import RunDir, name_of
from rl.core.types import Group
from rl.learner.policy import Policy
from rl.problems.sources import fingerprint
from rl.problems.starter import STARTER_MODEL
from tests.conftest import SHA256
from tests.learner.batch import make_batch

STEPS = 12
SHAPE = ["--group-size", "4", "--batch", "16", "--buffer", "64", "--wandb", "off"]
SAVES = ["--save-every", "3", "--schedule", "cosine", "--warmup", "3", "--loss", "gspo", "--kl-coef", "0.01"]


def record_run(root: Path) -> RunDir:
    """A run of `STEPS` steps; each leaves a group without signal beside it."""
    parser = cli.Parser()
    cli.add_config_flags(parser)
    run = RunDir(root)
    run.create(cli.resolve(parser.parse_args([*SHAPE, *SAVES, "--steps", str(STEPS)])))
    config = run.config()
    run.problems_file.write_text(fingerprint(config) + "\n")
    torch.set_num_threads(1)
    policy = Policy(str(STARTER_MODEL), config, torch.device("cpu"))
    with closing(Buffer(run.buffer_url, capacity=config.buffer, group_size=config.group_size)) as buffer:
        buffer.commit(0, name_of(0))
        for step in range(1, STEPS + 1):
            version = max(0, step - 2)
            buffer.proved("p", version, SHA256)
            batch = make_batch(config, policy, seed=step)
            buffer.issue()
            for id, group in zip(buffer.unfinished(), [without_signal(batch[0]), *batch], strict=False):
                buffer.put(sampled_by(version, replace(group, id=id)))
            leased = buffer.lease(len(batch), policy_version=step - 1, max_staleness=config.staleness_bound)
            buffer.trained([group.id for group in leased])
        buffer.commit(STEPS, name_of(STEPS))
    return run


def without_signal(group: Group) -> Group:
    verdict = Verdict(mark=Mark.WRONG, reason="by hand", answer=None, gold="2")
    return replace(group, samples=[replace(sample, verdict=verdict) for sample in group.samples])


def sampled_by(version: int, group: Group) -> Group:
    samples = [replace(s, rollout=replace(s.rollout, policy_version=version)) for s in group.samples]
    return replace(group, policy="p", adapter_sha256=SHA256, samples=samples)
