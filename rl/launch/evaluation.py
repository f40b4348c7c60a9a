"""Evaluation after the fact: of a run's checkpoint or of a model, on one or several problem sets."""

import asyncio
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from rewards import VerifierPool
from rl.collect.servers import Servers
from rl.core import cli
from rl.core.config import HELDOUT, TrainConfig, defaults_of
from rl.core.errors import TallyError, UsageError
from rl.core.processes import Children
from rl.core.rundir import RunDir, best_evaluation, name_of
from rl.core.types import Problem
from rl.evaluate.evaluator import Evaluator
from rl.evaluate.result import EvalResult
from rl.launch.server import listen, start_server, url_of
from rl.learner.checkpoint import read_adapter
from rl.observe.console import progress_bar
from rl.problems.golds import check_reward
from rl.problems.models import pin_model, resolve_model
from rl.problems.prompt import Prompter
from rl.problems.sources import load_eval_sets

DYING_S = 1.0
"""A server that does not answer any more may still be about to end."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is evaluated: a model, with an adapter where it comes from a run."""

    name: str
    config: TrainConfig
    sets: list[str]
    """Names of the problem sets it is evaluated on."""
    step: int
    adapter: bytes | None


def read_targets(
    names: Sequence[str], *, on: Sequence[str], step: int | Literal["best"] | None, changes: dict[str, Any]
) -> list[Target]:
    """A directory with checkpoints is a run; anything else is a model, asked as the first run among them was.

    Args:
        on: names of problem sets; empty for the runs' own.
        step: of the runs' checkpoints; None for the newest of each.
        changes: settings that are not the runs' own.

    Raises:
        UsageError: a run without that checkpoint, or neither a run nor a model.
    """
    runs = {name: RunDir(Path(name)) for name in names if RunDir(Path(name)).checkpoints.is_dir()}
    settings = {name: run.config().model_dump() for name, run in runs.items()}
    asked = next(iter(settings.values()), {})
    if on:
        changes = changes | {"eval_on": ",".join(name for name in on if name != HELDOUT) or None}
    sources = dict.fromkeys(changes, "flag")

    def target(name: str) -> Target:
        found, adapter = read_checkpoint(runs[name], step) if name in runs else (0, None)
        if name in runs:
            config = cli.validated(settings[name] | changes, sources)
        else:
            other = {} if name == asked.get("model") else {"model": name, "revision": None, "random_weights": "no"}
            config = pin_model(cli.validated((asked or defaults_of(name)) | other | changes, sources))
        resolve_model(config)
        check_reward(config)
        return Target(name=name, config=config, sets=list(on) or config.eval_sets, step=found, adapter=adapter)

    targets = [target(name) for name in names]
    alike = ["eval_on", "eval_problems", "temperature", "max_tokens", "reward", "extraction"]
    for field in [*alike, "problems"] if HELDOUT in targets[0].sets else alike:
        if len(values := {getattr(target.config, field) for target in targets}) > 1:
            fix = "name runs that were asked alike, or give the setting; --help lists them"
            raise UsageError(f"{' and '.join(names)} cannot be compared: {field} differs: {values}", fix=fix)
    return targets


def read_checkpoint(run: RunDir, step: int | Literal["best"] | None) -> tuple[int, bytes]:
    """The step and the adapter of a checkpoint, the newest where `step` is None.

    Raises:
        UsageError: the run has no such checkpoint, or no evaluation to choose the best by.
    """
    steps = run.checkpoint_steps()
    wanted = step if step is not None else steps[-1] if steps else None
    if wanted == "best":
        if (best := best_evaluation(run.records())) is None:
            raise UsageError(f"{run.root} has no evaluation yet", fix="leave --step out for its newest checkpoint")
        wanted = best["step"]
    if wanted not in steps:
        known = ", ".join(map(str, steps)) or "none"
        raise UsageError(f"{run.root} has no checkpoint of step {wanted}", fix=f"its checkpoints are of steps: {known}")
    return wanted, read_adapter(run.checkpoints / name_of(wanted))


def evaluate(target: Target) -> dict[str, EvalResult]:
    """Starts a server for the target's model, evaluates it on each set, and ends the server.

    Raises:
        UsageError: a set cannot be had.
        TallyError: the server ended, with its last words.
    """
    loaded = load_eval_sets(target.config)
    sets = {name: loaded[name] for name in target.sets}
    logs = Path(tempfile.mkdtemp(prefix="tally-eval-"))
    log = logs / "server.log"
    with Children() as children:
        with listen(0) as listener:  # closed here, so that a server that ends is refused and not waited for
            url = url_of(listener)
            server = children.add(start_server(target.config, listener, log, {}))
        try:
            results = asyncio.run(_evaluate(target, sets, url, logs))
        except (TallyError, ExceptionGroup):
            if server.wait(DYING_S) is None:
                raise
            reason, _, fix = server.last_words().partition("\n  fix: ")
            raise TallyError(f"the server ended: {reason}", fix="; ".join(filter(None, [fix, f"see {log}"]))) from None
    shutil.rmtree(logs)
    return results


async def _evaluate(
    target: Target, sets: dict[str, Sequence[Problem]], url: str, scratch: Path
) -> dict[str, EvalResult]:
    prompter = Prompter(resolve_model(target.config), target.config)
    policy = f"eval-{uuid.uuid4().hex[:8]}"
    results = {}
    async with Servers([url], away_limit_s=0) as servers, VerifierPool(check=target.config.check) as verifiers:
        health = await servers.wait_ready()
        for problems in sets.values():
            prompter.check_length(problems, health.max_model_len or 0, target.config.max_tokens)
        evaluator = Evaluator(target.config, servers, prompter, verifiers)
        for number, (name, problems) in enumerate(sets.items()):
            with progress_bar(f"evaluating {target.name} on {name}") as progress:
                results[name] = await evaluator.evaluate(
                    name,
                    problems,
                    policy=policy,
                    step=target.step,
                    adapter=target.adapter,
                    path=scratch / f"{number}.json",
                    progress=progress,
                )
    return results
