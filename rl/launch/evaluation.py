"""Evaluation after the fact: of a run's checkpoint or of a model, on a server of its own."""

import asyncio
import shutil
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewards import VerifierPool
from rl.collect.client import ServerClient
from rl.core import cli
from rl.core.config import TrainConfig
from rl.core.errors import TallyError, UsageError
from rl.core.processes import Children
from rl.core.rundir import RunDir, name_of
from rl.evaluate.evaluator import Evaluator
from rl.evaluate.result import EvalResult
from rl.launch.server import listen, start_server, url_of
from rl.learner.checkpoint import read_adapter
from rl.observe.console import progress_bar
from rl.problems.models import resolve_model
from rl.problems.prompt import Prompter


@dataclass(frozen=True, kw_only=True)
class Target:
    """What is evaluated: a model, with an adapter where it comes from a run."""

    name: str
    config: TrainConfig
    step: int
    adapter: bytes | None


def read_targets(names: Sequence[str], *, step: int | None, changes: dict[str, Any]) -> list[Target]:
    """A directory with checkpoints is a run; anything else is a model, asked as the first run among them was.

    Args:
        step: of the runs' checkpoints; None for the newest of each.
        changes: settings that are not the runs' own.

    Raises:
        UsageError: a run without that checkpoint, or neither a run nor a model.
    """
    runs = {name: RunDir(Path(name)) for name in names if RunDir(Path(name)).checkpoints.is_dir()}
    settings = {name: run.config().model_dump() for name, run in runs.items()}
    asked = next(iter(settings.values()), {})
    sources = dict.fromkeys(changes, "flag")

    def target(name: str) -> Target:
        if name in runs:
            config = cli.validated(settings[name] | changes, sources)
            found, adapter = read_checkpoint(runs[name], step)
            return Target(name=name, config=config, step=found, adapter=adapter)
        config = cli.validated(asked | changes | {"model": name}, sources)
        resolve_model(config)
        return Target(name=name, config=config, step=0, adapter=None)

    targets = [target(name) for name in names]
    for field in ("problems", "eval_problems", "temperature", "max_tokens"):
        if len(values := {getattr(target.config, field) for target in targets}) > 1:
            fix = "name runs that were asked alike; --problems and --eval-problems can be given"
            raise UsageError(f"{' and '.join(names)} cannot be compared: {field} differs: {values}", fix=fix)
    return targets


def read_checkpoint(run: RunDir, step: int | None) -> tuple[int, bytes]:
    """The step and the adapter of a checkpoint, the newest where `step` is None.

    Raises:
        UsageError: the run has no such checkpoint.
    """
    steps = run.checkpoint_steps()
    wanted = step if step is not None else steps[-1] if steps else None
    if wanted not in steps:
        known = ", ".join(map(str, steps)) or "none"
        raise UsageError(f"{run.root} has no checkpoint of step {wanted}", fix=f"its checkpoints are of steps: {known}")
    return wanted, read_adapter(run.checkpoints / name_of(wanted))


def evaluate(target: Target) -> EvalResult:
    """Starts a server for the target's model, evaluates, and ends the server.

    Raises:
        TallyError: the server ended, with its last words.
    """
    logs = Path(tempfile.mkdtemp(prefix="tally-eval-"))
    log = logs / "server.log"
    with Children() as children:
        with listen(0) as listener:  # closed here, so that a server that ends is refused and not waited for
            url = url_of(listener)
            server = children.add(start_server(target.config, listener, log, {}))
        try:
            result = asyncio.run(_evaluate(target, url))
        except (TallyError, ExceptionGroup):
            if server.exit_code is None:
                raise
            raise TallyError(f"the server ended: {server.last_words()}", fix=f"see {log}") from None
    shutil.rmtree(logs)
    return result


async def _evaluate(target: Target, url: str) -> EvalResult:
    prompter = Prompter(resolve_model(target.config), target.config)
    with progress_bar(f"evaluating {target.name}") as progress:
        async with ServerClient(url) as client, VerifierPool() as verifiers:
            await client.wait_ready()
            evaluator = Evaluator(target.config, client, prompter, verifiers)
            policy = f"eval-{uuid.uuid4().hex[:8]}"
            return await evaluator.evaluate(policy=policy, step=target.step, adapter=target.adapter, progress=progress)
