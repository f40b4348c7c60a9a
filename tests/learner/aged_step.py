"""One update of the starter model on a batch of several ages, under torchrun with any number of ranks: rank 0 writes
what it did by age.

torchrun --nproc-per-node N aged_step.py OUT.json
"""

import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import torch
import torch.distributed as dist

from rl.core.config import TrainConfig
from rl.core.types import Group
from rl.learner.policy import Policy
from rl.learner.step import Learner
from rl.problems.starter import STARTER_MODEL
from tests.learner.batch import make_batch

CONFIG = TrainConfig(batch=32, buffer=256, micro_tokens=300)
STEP = 8
STALENESS = (0, 3, 7)


def aged_batch(policy: Policy) -> list[Group]:
    """Each group has samples of every staleness in `STALENESS`."""
    groups = make_batch(CONFIG, policy)
    for group in groups:
        for i, sample in enumerate(group.samples):
            version = STEP - 1 - STALENESS[i % len(STALENESS)]
            group.samples[i] = replace(sample, rollout=replace(sample.rollout, policy_version=version))
    return groups


if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    learner = Learner(Policy(str(STARTER_MODEL), CONFIG, torch.device("cpu")), CONFIG)
    stats = learner.step(aged_batch(learner.policy), STEP)
    if dist.get_rank() == 0:
        Path(sys.argv[1]).write_text(json.dumps(asdict(stats)))
    dist.destroy_process_group()
