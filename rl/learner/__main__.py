"""One learner rank of a run, started by torchrun:

torchrun --nproc-per-node N -m rl.learner RUN --server-url URL --policy NAME
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import asdict

import torch
import torch.distributed as dist

from rl.buffer.ledger import Buffer, State
from rl.collect.client import ServerClient
from rl.core import cli
from rl.core.config import TrainConfig
from rl.core.processes import die_with_parent
from rl.core.rundir import RunDir
from rl.core.types import Group
from rl.core.wait import poll
from rl.learner import checkpoint
from rl.learner.policy import Policy
from rl.learner.publish import Proof, Publisher
from rl.learner.step import Learner, StepStats
from rl.problems.prompt import Prompter
from rl.problems.sources import load_problems, resolve_model

CANARY_PROMPTS = 2
BATCH_LIMIT_S = 1800.0


class Training:
    """The loop of one rank; rank 0 speaks to server, ledger and run directory, the others only to rank 0."""

    def __init__(self, run: RunDir, config: TrainConfig, client: ServerClient, policy_name: str) -> None:
        self._run, self._config, self._client = run, config, client
        self._buffer = Buffer(run.buffer_url, capacity=config.buffer, group_size=config.group_size)
        device = torch.device("cuda", local_rank()) if torch.cuda.is_available() else torch.device("cpu")
        model = resolve_model(config.model)
        policy = Policy(model, config, device)
        self._learner = Learner(policy, config)
        self._main = dist.get_rank() == 0
        prompter = Prompter(model)
        canaries = [prompter.prompt_ids(p) for p in load_problems(config.problems, "heldout")[:CANARY_PROMPTS]]
        self._publisher = Publisher(client, policy, policy_name, canaries, config.temperature)
        self._last_group = 0

    async def run(self) -> None:
        start = self._resume()
        if self._main:
            await self._publisher.publish(start)
            if start == 0:
                self._save(0)
        for step in range(start + 1, self._config.steps + 1):
            begin = time.monotonic()
            groups = self._next_batch(step)
            if groups is None:
                if self._main:
                    self._save(step - 1)
                return
            leased = time.monotonic()
            stats = self._learner.step(groups, step)
            if not self._main:
                continue
            proof = await self._publisher.publish(step)
            self._buffer.trained([group.id for group in groups])
            self._log(step, groups, stats, proof, wait_s=leased - begin, step_s=time.monotonic() - begin)
            if step == self._config.steps or step % self._config.save_every == 0 or self._evaluates(step):
                self._save(step)

    def _resume(self) -> int:
        """Loads the newest commit, if there is one; returns its step."""
        newest = self._buffer.newest_commit()
        if newest is None:
            return 0
        step, name = newest
        checkpoint.load(self._run.checkpoints / name, self._learner.policy, self._learner.optimizer)
        self._last_group = self._buffer.last_trained()
        return step

    def _next_batch(self, step: int) -> list[Group] | None:
        """The groups of this step, the same on every rank; None when the run is asked to stop."""
        leased: list[list[Group] | None] = [self._lease(step) if self._main else None]
        ids = [[group.id for group in leased[0]] if leased[0] is not None else None]
        dist.broadcast_object_list(ids, src=0, device=torch.device("cpu"))
        if self._main or ids[0] is None:
            return leased[0]
        return self._buffer.load(ids[0])

    def _lease(self, step: int) -> list[Group] | None:
        groups = self._config.batch // self._config.group_size
        for _ in poll("a complete batch", every_s=0.005, limit_s=BATCH_LIMIT_S):
            if self._buffer.stop_asked():
                return None
            leased = self._buffer.lease(groups, policy_version=step - 1, max_staleness=self._config.staleness_bound)
            if leased:
                return leased
        raise AssertionError("poll ends by an error")

    def _save(self, step: int) -> None:
        """Checkpoint and ledger commit together: a resume starts from the commit, and the ledger goes back to it."""
        saved = checkpoint.save(self._run.checkpoints, step, self._learner.policy, self._learner.optimizer)
        self._buffer.commit(step, saved.name, evaluate=self._evaluates(step))

    def _evaluates(self, step: int) -> bool:
        return step % self._config.eval_every == 0 or step == self._config.steps

    def _log(
        self,
        step: int,
        groups: Sequence[Group],
        stats: StepStats,
        proof: Proof,
        *,
        wait_s: float,
        step_s: float,
    ) -> None:
        first, self._last_group = self._last_group + 1, groups[-1].id
        turn = self._buffer.turn(first, self._last_group)
        in_turn = sum(turn.states.values())
        samples = [sample for group in groups for sample in group.verified]
        rollouts = [sample.rollout for sample in samples]
        staleness = [step - 1 - rollout.policy_version for rollout in rollouts]
        self._run.log(
            kind="step",
            step=step,
            reward=turn.reward,
            reward_trained=sum(s.verdict.reward or 0.0 for s in samples) / len(samples),
            no_signal=turn.states.get(State.NO_SIGNAL, 0) / in_turn,
            unverified=turn.states.get(State.UNVERIFIED, 0),
            errors=sum(len(group.samples) for group in groups) - len(samples),
            length=sum(len(r.token_ids) for r in rollouts) / len(rollouts),
            truncated=sum(r.finish_reason == "length" for r in rollouts) / len(rollouts),
            staleness_mean=sum(staleness) / len(staleness),
            staleness_max=max(staleness),
            samples=step * self._config.batch,
            **asdict(stats),
            mismatch_kl=proof.mismatch_kl,
            logprob_gap=proof.logprob_gap,
            moved=proof.moved,
            publish_s=proof.publish_s,
            wait_s=wait_s,
            step_s=step_s,
        )


def local_rank() -> int:
    return dist.get_rank() % max(1, torch.cuda.device_count())


async def train(run: RunDir, server_url: str, policy_name: str) -> None:
    config = run.config()
    async with ServerClient(server_url) as client:
        training = Training(run, config, client, policy_name)
        if dist.get_rank() == 0:
            await client.wait_ready()
        await training.run()


def main(argv: list[str]) -> None:
    die_with_parent()
    args = cli.process_args(argv, "rl.learner", "One learner rank of a run; start it by torchrun.")
    dist.init_process_group("cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo")
    try:
        asyncio.run(train(RunDir(args.run), args.server_url, args.policy))
    finally:
        dist.destroy_process_group()


if __name__ == "__main__":
    cli.run(main)
