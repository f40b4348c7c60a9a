"""The loop of the learner: lease, step, publish, free the slots, log, save.

What follows on a step is done while the gradient of the next one is computed, and before its update: until then the
policy is the version that is published and saved.
"""

import asyncio
import logging
import time
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial

import torch
import torch.distributed as dist

from rl.buffer.courier import Courier
from rl.buffer.ledger import Buffer
from rl.buffer.tables import State
from rl.collect.servers import Servers
from rl.core import metrics
from rl.core.errors import TallyError
from rl.core.rundir import RunDir, name_of
from rl.core.types import Group
from rl.learner import checkpoint
from rl.learner.canary import CANARY_PROMPTS
from rl.learner.policy import Policy
from rl.learner.publish import Proof, Publisher
from rl.learner.record import step_record
from rl.learner.step import Learner, StepStats
from rl.learner.turnstile import Turnstile
from rl.learner.vitals import RankVitals, measure
from rl.problems.models import resolve_model
from rl.problems.order import ProblemOrder
from rl.problems.prompt import Prompter
from rl.problems.sources import load_problems

logger = logging.getLogger(__name__)
LOOK_S = 0.01
HEAL_S = 1.0
"""Between two looks, while the learner waits, whether a server has come back."""
BATCH_LIMIT_S = 1200.0
"""Below what the other ranks wait for rank 0."""


class Training:
    """A run's updates on one rank. Rank 0 leases, publishes, saves and logs; the others follow it.

    The process group must be up.

    Args:
        servers: None for a replay, which publishes nothing.
    """

    def __init__(self, run: RunDir, servers: Servers | None, policy_name: str, vitals: RankVitals) -> None:
        self._run, self._config, self._vitals = run, run.config(), vitals
        config, model = self._config, resolve_model(self._config)
        self._leads = dist.get_rank() == 0
        self._buffer = Buffer(run.buffer_url, capacity=config.buffer, group_size=config.group_size, learner=policy_name)
        self._courier = Courier(run, learner=policy_name)
        vitals.counts = self._buffer.counts
        policy, self._turnstile = Policy(model, config, own_device()), Turnstile()
        self._learner = Learner(policy, config)
        self._order = ProblemOrder(load_problems(config, "train"), config.seed)
        self._publisher = None
        if servers is not None:
            prompter, problems = Prompter(model, config), load_problems(config, "heldout")
            canaries = [prompter.prompt_ids(problem) for problem in problems[:CANARY_PROMPTS]]
            self._publisher = Publisher(
                servers,
                policy,
                policy_name,
                canaries,
                config.temperature,
                enter=self._buffer.proved,
                turnstile=self._turnstile,
            )
        self._following: asyncio.Task[None] | None = None
        """What follows on the last step."""

    async def run(self) -> None:
        """Trains to the last step, or until the run is asked to stop."""
        start = self._resume()
        if self._leads:
            self._vitals.enter("publish")
            await self._publish(start)
            self._save(start)
        self._vitals.ready = lambda: True
        for step in range(start + 1, self._config.steps + 1):
            begin = time.monotonic()
            self._vitals.enter("wait")
            groups = await self._next_batch(step)
            if groups is None:
                logger.info("asked to stop after step %d", step - 1, extra={"step": step - 1})
                await self._followed()
                return self._save(step - 1)
            wait_s = time.monotonic() - begin
            self._vitals.enter("train")
            gradient = await self._turnstile.train(partial(self._learner.gradient, groups, step))
            self._vitals.enter("publish")
            await self._followed()
            stats = self._learner.update(gradient, step)
            if self._leads:
                times = {"wait_s": wait_s, "step_s": time.monotonic() - begin}
                self._following = asyncio.create_task(self._follow(step, groups, stats, times))
        await self._followed()
        logger.info("all %d steps are made", self._config.steps)

    async def _follow(self, step: int, groups: list[Group], stats: StepStats, times: Mapping[str, float]) -> None:
        """What follows on a step."""
        proof = await self._publish(step)
        turn = self._buffer.trained([group.id for group in groups])
        record = step_record(step, groups, turn, stats, proof, self._order, **times)
        self._courier.log(kind="step", samples=step * self._config.batch, **record)
        measure(record, groups)
        logger.debug("step %d", step, extra=record)
        if step % self._config.save_every == 0 or step == self._config.steps or self._evaluates(step):
            self._save(step)

    async def _followed(self) -> None:
        """Waits for all that follows on the last step."""
        if self._following:
            await self._following

    def _resume(self) -> int:
        """Loads the newest commit, if there is one; returns its step."""
        newest = self._buffer.newest_commit()
        if newest is None:
            return 0
        step, name = newest
        self._courier.fetch(self._run.checkpoints / name)
        checkpoint.load(self._run.checkpoints / name, self._learner.policy, self._learner.optimizer)
        return step

    async def _next_batch(self, step: int) -> list[Group] | None:
        """The groups of this step, the same on every rank; None when the run is asked to stop."""
        groups = await self._lease(step) if self._leads else None
        ids = [[group.id for group in groups] if groups is not None else None]
        dist.broadcast_object_list(ids, src=0, device=torch.device("cpu"))
        if self._leads or ids[0] is None:
            return groups
        return self._buffer.load(ids[0])

    async def _lease(self, step: int) -> list[Group] | None:
        wanted = self._config.batch // self._config.group_size
        bound = self._config.staleness_bound
        heal = time.monotonic() + HEAL_S
        end = time.monotonic() + BATCH_LIMIT_S
        while time.monotonic() < end:
            if self._following and self._following.done():
                self._following.result()  # raises what it has failed by
            if self._buffer.stop_asked():
                return None
            if groups := self._buffer.lease(wanted, policy_version=step - 1, max_staleness=bound):
                return groups
            if self._publisher is None:
                fix = "start the replay anew, with another --run-dir"
                raise TallyError(f"no batch is recorded for step {step}, and a replay samples none", fix=fix)
            if step == 1 and self._nothing_verified():
                fix = f"python -m rl.show {self._run.root} --mark error says why"
                raise TallyError("the verifier could mark nothing in twice as many groups as the buffer holds", fix=fix)
            busy = self._following and not self._following.done()
            if (now := time.monotonic()) >= heal and not busy:
                await self._publisher.heal()
                heal = now + HEAL_S
            await asyncio.sleep(LOOK_S)
        books = self._buffer.books()
        fix = "no_signal: easier or harder problems, a larger --group-size; issued: see logs/server.log"
        raise TallyError(f"no complete batch for step {step} in {BATCH_LIMIT_S:.0f} s; groups so far: {books}", fix=fix)

    def _nothing_verified(self) -> bool:
        counts = self._buffer.counts()
        verified = sum(n for state, n in counts.items() if state not in (State.ISSUED, State.UNVERIFIED))
        return not verified and counts[State.UNVERIFIED] >= 2 * self._buffer.capacity_groups

    async def _publish(self, version: int) -> Proof | None:
        if self._publisher is None:
            return None
        proof = await self._publisher.publish(version)
        metrics.PUBLISH_SECONDS.observe(proof.publish_s)
        logger.info("accepted version %d", version, extra={"version": version, **asdict(proof)})
        self._courier.log(kind="publish", step=version, **asdict(proof))
        return proof

    def _save(self, step: int) -> None:
        """Checkpoint and ledger commit together: a resume starts from the commit, and the ledger goes back to it."""
        if not self._leads:
            return
        name = name_of(step)
        folder = self._run.checkpoints / name
        if self._buffer.newest_commit() != (step, name):  # what is committed is never written again
            checkpoint.save(folder, step, self._learner.policy, self._learner.optimizer)
            self._courier.send(folder)
        self._buffer.commit(step, name, evaluate=self._config.eval_sets if self._evaluates(step) else ())
        logger.info("saved %s", name, extra={"step": step, "checkpoint": name})
        if not self._run.spans_machines:  # else the supervisor does it, who has all evaluations
            checkpoint.prune(self._run, self._buffer, self._config.keep)

    def _evaluates(self, step: int) -> bool:
        if self._publisher is None:  # there is no server to ask
            return False
        return step % self._config.eval_every == 0 or step == self._config.steps


def own_device() -> torch.device:
    """A GPU for each rank while they last; CPU where there is none."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", dist.get_rank() % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device
