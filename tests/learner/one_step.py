"""One update of the starter model on a fixed batch, under torchrun with any number of ranks: rank 0 writes the adapter.

torchrun --nproc-per-node N one_step.py OUT.safetensors [--flag value …]
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from rl.core import cli
from rl.learner.policy import Policy
from rl.learner.step import Learner
from rl.problems.starter import STARTER_MODEL
from tests.learner.batch import make_batch

if __name__ == "__main__":
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    parser = cli.Parser()
    cli.add_config_flags(parser)
    config = cli.resolve(parser.parse_args(sys.argv[2:])).config
    learner = Learner(Policy(str(STARTER_MODEL), config, torch.device("cpu")), config)
    for step in (1, 2):
        learner.step(make_batch(config, learner.policy, seed=step), step)
    if dist.get_rank() == 0:
        Path(sys.argv[1]).write_bytes(learner.policy.adapter_bytes())
    dist.destroy_process_group()
