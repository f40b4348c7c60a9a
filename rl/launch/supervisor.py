"""The supervisor: starts server, collector, learner and evaluator, watches them, and shows what they do.

It computes nothing itself. Whatever ends it, none of its processes outlives it.
"""

import os
import signal
import socket
import sys
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import FrameType

from rl.buffer.ledger import Buffer
from rl.core.config import TrainConfig
from rl.core.errors import TallyError, UsageError
from rl.core.processes import Child, Children
from rl.core.rundir import RunDir, key_of
from rl.evaluate import draft
from rl.launch.placement import Placement
from rl.launch.server import start_servers, url_of
from rl.learner import checkpoint
from rl.observe.console import MetricsTail, TrainConsole, terminal_width
from rl.observe.readings import Record
from rl.observe.report import summary_lines
from rl.observe.stopping import Ending, ending
from rl.track.tracker import Tracker

LOOK_S = 0.1
INTERRUPTED = 130


class Supervisor:
    """The processes of one run, from their start to their end."""

    def __init__(
        self, run: RunDir, config: TrainConfig, listeners: Sequence[socket.socket], placement: Placement
    ) -> None:
        self._run, self._config, self._listeners, self._placement = run, config, listeners, placement
        self._interrupts = 0

    def train(self, *, resumed: bool) -> int:
        """Runs until there is a reason to end and the last checkpoint is evaluated; returns the exit code.

        Raises:
            TallyError: a process ended before its time, with its last words.
        """
        config, run = self._config, self._run
        run.clear_scratch()
        run.cut_unfinished_record()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._interrupt)
        with closing(Buffer(run.buffer_url, capacity=config.buffer, group_size=config.group_size)) as buffer:
            start = buffer.rewind()
            records = {key_of(record): record for record in run.records() if record["step"] <= start}
            ended = ending(config, records.values())
            if ended and not self._awaited(buffer):
                print(f"nothing to do: {ended.reason}. {self._way_on(ended)}")
                return 0
            if resumed:
                run.add_provenance()
            buffer.ask_stop(ended is not None)
            tail = MetricsTail(run.metrics_file)
            tracker = Tracker(run, config, self._environment())
            with TrainConsole(config, start, list(records.values())) as console, tracker, Children() as children:
                for line in (f"run {run.root}", *config.consequences(), str(self._placement)):
                    console.say(line)
                console.status("starting")
                learner = self._start(children)
                watched = self._watch(children, learner, tail, console)
                for new in watched:
                    records |= {key_of(record): record for record in new}
                    if new and not ended:
                        ended = ending(config, records.values())
                    if learner.exit_code == 0 or self._interrupts > 1:
                        break
                    if (self._interrupts or (ended and ended.early)) and not buffer.stop_asked():
                        buffer.ask_stop()
                        why = f"ending: {ended.reason}" if ended else "stopping (again: stop at once)"
                        console.say(f"{why}; the learner finishes its step and saves")
                    if news := tracker.news():
                        console.say(news)
                    if console.overdue:
                        console.say_overdue(buffer.books())
                self._wait_for_evaluations(buffer, watched, console)
                for record in tail.records():
                    console.show(record)
                tracker.finish()  # while the others end
            checkpoint.prune(run, buffer, config.keep)
        run.clear_scratch()
        if tracker.last_words:
            print(tracker.last_words)
        return self._interrupted() if self._interrupts else self._finished(ended)

    def _start(self, children: Children) -> Child:
        """Starts all processes at once; each waits for what it needs. Returns the learner."""
        config, run = self._config, self._run
        for server in start_servers(config, self._listeners, run.logs, self._environment(), self._placement):
            children.add(server)
        policy = f"run-{uuid.uuid4().hex[:12]}"  # a server that outlives a launch must not know the next one's versions
        urls = [f"--server-url={url_of(listener)}" for listener in self._listeners]
        arguments = [str(run.root), *urls, "--policy", policy]
        torchrun = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(config.learners)]
        commands = {
            "collector": ["rl.collect"],
            "evaluator": ["rl.evaluate"],
            "learner": [*torchrun, "-m", "rl.learner"],
        }
        for name, command in commands.items():
            devices = self._placement.learner_env() if name == "learner" else {"CUDA_VISIBLE_DEVICES": ""}
            whole = [sys.executable, "-m", *command, *arguments]
            child = children.add(Child(name, whole, run.logs / f"{name}.log", self._environment() | devices))
        return child

    def _watch(
        self, children: Children, learner: Child, tail: MetricsTail, console: TrainConsole
    ) -> Iterator[list[Record]]:
        """Shows new records, and yields them, until the caller leaves the loop.

        Raises:
            TallyError: a process ended before its time.
        """
        while True:
            new = list(tail.records())
            for record in new:
                console.show(record)
            for child in children:
                if child.exit_code is not None and not (child is learner and child.exit_code == 0):
                    raise self._death(child)
            yield new
            time.sleep(LOOK_S)

    def _wait_for_evaluations(self, buffer: Buffer, watched: Iterator[list[Record]], console: TrainConsole) -> None:
        counters: dict[Path, draft.Counter] = {}
        for _ in watched:
            awaited = self._awaited(buffer)
            if self._interrupts or not awaited:
                return
            step, name = awaited[0]
            file = self._run.eval_file(name, step)
            answered = counters.setdefault(file, draft.Counter(file)).answered()
            console.status(f"evaluating {name} at step {step}: {answered} questions")

    def _awaited(self, buffer: Buffer) -> list[tuple[int, str]]:
        """The evaluations that are still to be made; asks for those of the newest checkpoint, on every set."""
        if (newest := buffer.newest_commit()) is not None:
            buffer.commit(*newest, evaluate=self._config.eval_sets)
        return buffer.awaited()

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
        reason, _, fix = child.last_words().partition("\n  fix: ")
        how = f"exit code {code}: {reason}" if code >= 0 else signal.Signals(-code).name
        wrong_input = code == UsageError.exit_code  # which a resume would meet again
        then = "" if wrong_input else f"then {self._resume_command()}"
        return TallyError(
            f"the {child.name} ended with {how}", fix="; ".join(filter(None, [fix, f"see {child.log}", then]))
        )

    def _interrupted(self) -> int:
        print(f"stopped. Go on with: {self._resume_command()}")
        return INTERRUPTED

    def _finished(self, ended: Ending | None) -> int:
        for line in summary_lines(self._run, terminal_width()):
            print(line)
        if ended and ended.early:
            still = ending(self._config, self._run.records())
            news = "" if still else "; but the last checkpoint, evaluated since, is better"
            print(f"ended: {ended.reason}{news}. {self._way_on(still)}")
        print(f"results in {self._run.root}; next: python -m rl.eval {self._run.root}")
        return 0

    def _way_on(self, ended: Ending | None) -> str:
        return f"Go on with: {self._resume_command()} {ended.longer if ended else ''}".rstrip()

    def _resume_command(self) -> str:
        return f"python -m rl.train --resume {self._run.root}"
