"""python -m tests.learner.peak MODEL TOKENS: peak memory of a forward and a backward pass beyond what was there before,
in bytes. Its own process, as a peak is that of all that was ever there."""

import sys
from pathlib import Path

import torch

from rl.core.config import TrainConfig
from rl.learner.collate import Row, micro_batches
from rl.learner.policy import Policy

PROMPT, COMPLETION = 32, 224
CLEAR_PEAK = "5"
"""What makes the kernel forget the peak, written to `clear_refs`."""


def resident(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith(field))


def passes(policy: Policy, tokens: int) -> None:
    draw = torch.Generator().manual_seed(0)

    def row() -> Row:
        prompt, completion = (torch.randint(1000, (n,), generator=draw).tolist() for n in (PROMPT, COMPLETION))
        return Row(
            prompt_ids=prompt,
            completion_ids=completion,
            sampler_logprobs=[-1.0] * COMPLETION,
            advantage=1.0,
            token_weight=1.0,
        )

    for batch in micro_batches([row() for _ in range(tokens // (PROMPT + COMPLETION))], policy.micro_tokens):
        policy(batch).sum().backward()


def main() -> None:
    model, tokens = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(1)
    policy = Policy(model, TrainConfig(model=model, micro_tokens=tokens), torch.device("cpu"))
    for parameter in policy.parameters():
        parameter.data = parameter.data.clone()  # weights are read from their file when they are used first
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text(CLEAR_PEAK)
    passes(policy, tokens)
    print(resident("VmHWM") - before)


if __name__ == "__main__":
    main()
