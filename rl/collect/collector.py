"""The collector: free slots → problems → completions → verdicts → groups in the buffer.

It works continuously: every free slot becomes a request at once, every finished request a stored group. What bounds it
is the capacity of the buffer.
"""

import asyncio
from collections.abc import Callable, Sequence
from statistics import fmean

from rewards import VerifierPool
from rl.buffer.ledger import Buffer
from rl.buffer.tables import State
from rl.collect.servers import Servers
from rl.core import metrics
from rl.core.config import TrainConfig
from rl.core.errors import DivergedError, PublishError, TallyError
from rl.core.types import Group, Problem, Rollout, Sample
from rl.problems.order import ProblemOrder
from rl.problems.prompt import Prompter
from rl.problems.sources import load_problems
from rollout_server.schema import GenerateRequest, Sampling

IDLE_S = 0.025
"""Between two looks for a free slot."""
REPLAY_LIMIT_S = 1800.0
"""For one step that is trained again."""
TIED_LIMIT = 512
"""Groups without signal, one after the other, that end a run. Where one sample in 500 is right, and a group has 8, a
group has signal in 1.6 % of cases, and so many tied ones follow each other in less than one case of 3,000."""
COLLAPSED = 0.5
"""Mean reward of tied groups below which a trained policy has not simply learned all that there is."""
ATTEMPTS = 3
"""At a group whose samples the ledger refuses: they are of a version that no server has proved."""


async def sample_group(
    servers: Servers,
    verifiers: VerifierPool,
    prompter: Prompter,
    problem: Problem,
    *,
    group_id: int,
    n: int,
    sampling: Sampling,
    policy: str | None,
    policy_version: int | None = None,
) -> Group:
    """n verified completions of one problem, in one request.

    Args:
        policy: None for the base model, whose samples have version 0.
        policy_version: None for the newest that the server has accepted.

    Raises:
        ServerError: a server refused, or none has served for too long.
    """
    prompt_ids = prompter.prompt_ids(problem)
    request = GenerateRequest(
        policy=policy, policy_version=policy_version, prompts=[prompt_ids], n=n, sampling=sampling
    )
    with metrics.GROUPS_IN_FLIGHT.track_inprogress(), metrics.GENERATE_SECONDS.time():
        answer = await servers.generate(request)
    (completions,) = answer.completions
    texts = [prompter.text(c.token_ids) for c in completions]
    with metrics.VERIFY_SECONDS.time():
        verdicts = await verifiers.verify(texts, problem.gold)
    samples = [
        Sample(
            rollout=Rollout(
                token_ids=completion.token_ids,
                sampler_logprobs=completion.logprobs,
                policy_version=completion.policy_version or 0,
                finish_reason=completion.finish_reason,
                text=text,
            ),
            verdict=verdict.of_truncated() if completion.finish_reason == "length" else verdict,
        )
        for completion, text, verdict in zip(completions, texts, verdicts, strict=True)
    ]
    for sample in samples:
        metrics.SAMPLES.labels(sample.verdict.mark).inc()
        metrics.COMPLETION_TOKENS.inc(len(sample.rollout.token_ids))
    return Group(
        id=group_id,
        problem=problem,
        prompt_ids=prompt_ids,
        policy=policy,
        adapter_sha256=answer.adapter_sha256,
        samples=samples,
    )


async def collect(
    config: TrainConfig,
    buffer: Buffer,
    servers: Servers,
    prompter: Prompter,
    *,
    policy: str,
    begins: Callable[[], None] = lambda: None,
) -> None:
    """Keeps the buffer full until it is cancelled. Begins once what was trained before is trained again.

    Args:
        begins: called when it does.

    Raises:
        ServerError: a server refused, or none has served for too long.
        PublishError: a group was sampled `ATTEMPTS` times by what no server has proved.
        DivergedError: the policy has collapsed: of the last `TIED_LIMIT` groups none had signal, and few were right.
        TallyError: the same of the base, or all were right; or a step that is to be trained again was not, within
            `REPLAY_LIMIT_S`.
    """
    problem_of = ProblemOrder(load_problems(config, "train"), config.seed)
    sampling = prompter.sampling(config.temperature, config.max_tokens)
    tied: list[float] = []
    await _wait_for_replay(buffer)
    async with VerifierPool(check=config.check) as verifiers, asyncio.TaskGroup() as tasks:

        async def fill(group_id: int) -> None:
            for attempts_left in reversed(range(ATTEMPTS)):
                group = await sample_group(
                    servers,
                    verifiers,
                    prompter,
                    problem_of(group_id),
                    group_id=group_id,
                    n=config.group_size,
                    sampling=sampling,
                    policy=policy,
                )
                try:
                    state = buffer.put(group)
                    break
                except PublishError:
                    if not attempts_left:
                        raise
            metrics.GROUPS_PUT.labels(state).inc()
            if state is State.READY:
                tied.clear()
            elif state is State.NO_SIGNAL:
                tied.append(next(s.verdict.reward for s in group.samples if s.verdict.reward is not None))
                _check_tied(tied, group.oldest_version)

        begins()
        for group_id in buffer.unfinished():
            tasks.create_task(fill(group_id))
        while True:
            for group_id in buffer.issue():
                tasks.create_task(fill(group_id))
            await asyncio.sleep(IDLE_S)


def _check_tied(rewards: Sequence[float], version: int) -> None:
    """Args: rewards: of groups without signal, one after the other; version: that sampled the last of them."""
    if len(rewards) < TIED_LIMIT:
        return
    mean = fmean(rewards)
    message = (
        f"the last {len(rewards)} groups had no signal: all samples of each earned the same, {mean:.2f} on average"
    )
    if version and mean < COLLAPSED:
        raise DivergedError(f"the policy has collapsed: {message}", fix="lower --lr in a new run")
    raise TallyError(message, fix="easier or harder problems, or a larger --group-size")


async def _wait_for_replay(buffer: Buffer) -> None:
    """Returns once the learner has trained all steps again that are recorded now."""
    loop = asyncio.get_running_loop()
    left = buffer.recorded_steps()
    last, next_, end = max(left, default=0), 0, loop.time() + REPLAY_LIMIT_S
    while left and left[0] <= last:
        if left[0] != next_:
            next_, end = left[0], loop.time() + REPLAY_LIMIT_S
        elif loop.time() > end:
            raise TallyError(f"step {next_} was not trained again in {REPLAY_LIMIT_S:.0f} s; {last} is the last")
        await asyncio.sleep(IDLE_S)
        left = buffer.recorded_steps()
