"""The supervisor: starts server, collector, learner and evaluator, watches them, and shows what they do.

It computes nothing itself. Whatever ends it, none of its processes outlives it.
"""

import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from types import FrameType

from rl.buffer.ledger import Buffer
from rl.core import rundir
from rl.core.config import TrainConfig
from rl.core.errors import TallyError, UsageError
from rl.core.processes import Child, Children
from rl.core.rundir import RunDir
from rl.evaluate.result import format_table, load_all
from rl.launch.server import start_server, url_of
from rl.observe.console import MetricsTail, TrainConsole

LOOK_S = 0.1
SILENCE_S = 30.0
"""Without a line for so long the user is told what the groups are: without signal no step is ever made."""
INTERRUPTED = 130
WHOLE_GPU, SHARED_GPU = 0.9, 0.45
"""Share of a GPU's memory for the server: where it has one to itself, and where the learner has the rest."""


class Supervisor:
    """The processes of one run, from their start to their end."""

    def __init__(self, run: RunDir, config: TrainConfig, listener: socket.socket) -> None:
        self._run, self._config, self._listener = run, config, listener
        self._interrupts = 0

    def train(self) -> int:
        """Runs to the last step and its evaluation; returns the exit code.

        Raises:
            TallyError: a process ended before its time, with its last words.
        """
        config, run = self._config, self._run
        run.clear_scratch()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._interrupt)
        with closing(Buffer(run.buffer_url, capacity=config.buffer, group_size=config.group_size)) as buffer:
            buffer.ask_stop(False)
            tail = MetricsTail(run.metrics_file)
            with TrainConsole(config.steps, done=buffer.rewind()) as console, Children() as children:
                for line in (f"run {run.root}", *config.consequences()):
                    console.say(line)
                console.status("starting")
                learner = self._start(children)
                for _ in self._watch(children, learner, tail, console):
                    if self._interrupts > 1:
                        break
                    if self._interrupts and not buffer.stop_asked():
                        buffer.ask_stop()
                        console.say("stopping: the learner finishes its step and saves (again: stop at once)")
                    if learner.exit_code == 0 and (self._interrupts or buffer.next_evaluation() is None):
                        break
                    if learner.exit_code == 0:
                        console.status("evaluating the last checkpoints")
                    elif console.silent_s > SILENCE_S and (books := buffer.books()):
                        console.say(f"no step for {SILENCE_S:.0f} s; groups so far: {books}")
                for record in tail.records():
                    console.show(record)
        run.clear_scratch()
        return self._interrupted() if self._interrupts else self._finished()

    def _start(self, children: Children) -> Child:
        """Starts all processes at once; each waits for what it needs. Returns the learner."""
        config, run = self._config, self._run
        gpus = rundir.gpus()
        if config.learners > max(1, len(gpus) - 1) and gpus:
            fix = f"take --learners {max(1, len(gpus) - 1)} at the most: the server has a GPU, and each learner one"
            raise UsageError(f"{config.learners} learners do not fit on {len(gpus)} GPUs", fix=fix)
        server_env = self._environment() | ({"CUDA_VISIBLE_DEVICES": gpus[0]} if gpus else {})
        learner_env = self._environment() | ({"CUDA_VISIBLE_DEVICES": ",".join(gpus[1:] or gpus)} if gpus else {})
        share = SHARED_GPU if len(gpus) == 1 else WHOLE_GPU
        log = run.logs / "server.log"
        children.add(start_server(config, self._listener, log, server_env, gpu_memory=share))
        policy = f"run-{uuid.uuid4().hex[:12]}"  # a server that outlives a launch must not know the next one's versions
        arguments = [str(run.root), "--server-url", url_of(self._listener), "--policy", policy]
        torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(config.learners)]
        commands = {
            "collector": ["rl.collect"],
            "evaluator": ["rl.evaluate"],
            "learner": [*torchrun, "-m", "rl.learner"],
        }
        for name, command in commands.items():
            env = learner_env if name == "learner" else self._environment() | {"CUDA_VISIBLE_DEVICES": ""}
            whole = [sys.executable, "-m", *command, *arguments]
            child = children.add(Child(name, whole, run.logs / f"{name}.log", env))
        return child

    def _watch(self, children: Children, learner: Child, tail: MetricsTail, console: TrainConsole) -> Iterator[None]:
        """Shows new records, and yields, until the caller leaves the loop.

        Raises:
            TallyError: a process ended before its time.
        """
        while True:
            for record in tail.records():
                console.show(record)
            for child in children:
                if child.exit_code is not None and not (child is learner and child.exit_code == 0):
                    raise self._death(child)
            yield
            time.sleep(LOOK_S)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += 1

    def _environment(self) -> dict[str, str]:
        return {
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),  # more threads spin against other processes
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "PYTHONUNBUFFERED": "1",
            "TMPDIR": str(self._run.scratch.absolute()),
        }

    def _death(self, child: Child) -> TallyError:
        code = child.exit_code or 0
        how = f"exit code {code}: {child.last_words()}" if code >= 0 else signal.Signals(-code).name
        message = f"the {child.name} ended with {how}"
        wrong_input = code == UsageError.exit_code  # which a resume would meet again
        return TallyError(message, fix=f"see {child.log}" + ("" if wrong_input else f"; then {self._resume_command()}"))

    def _interrupted(self) -> int:
        print(f"stopped. Go on with: {self._resume_command()}")
        return INTERRUPTED

    def _finished(self) -> int:
        for line in summary_lines(self._run):
            print(line)
        print(f"results in {self._run.root}; next: python -m rl.eval {self._run.root}")
        return 0

    def _resume_command(self) -> str:
        return f"python -m rl.train --resume {self._run.root}"


def summary_lines(run: RunDir) -> list[str]:
    """What came of the run: the paired difference to the start, and where the time went."""
    results = load_all(run.evals)
    steps = [record for record in run.records() if record["kind"] == "step"]
    lines = []
    if len(results) > 1:
        lines.append(format_table({"start": results[0], "end": results[-1]}))
    if steps:
        wait = sum(r["wait_s"] for r in steps) / sum(r["step_s"] for r in steps)
        stale = max(r["staleness_max"] for r in steps)
        lines.append(f"the learner waited {wait:.0%} of its time; staleness was {stale} steps at the most")
    return lines
