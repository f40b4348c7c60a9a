"""The supervisor: starts a run's workers, replaces those that die or freeze, and shows what they do.

It computes nothing itself. Whatever ends it, none of its processes outlives it.
"""

import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from types import FrameType

from rl.buffer.ledger import Buffer
from rl.core import metrics, telemetry
from rl.core.config import TrainConfig
from rl.core.nursery import Nursery
from rl.core.processes import Children
from rl.core.rundir import RunDir, key_of
from rl.core.stopping import Ending, ending
from rl.evaluate import draft
from rl.launch.crew import Crew, environment
from rl.launch.elsewhere import Elsewhere
from rl.launch.home import Home
from rl.launch.placement import Placement
from rl.learner import checkpoint
from rl.observe.console import MetricsTail, TrainConsole, terminal_width
from rl.observe.readings import Record
from rl.observe.report import summary_lines
from rl.track.tracker import Tracker

LOOK_S = 0.1
INTERRUPTED = 130


class Supervisor:
    """The workers of one run, from their start to their end.

    Args:
        listeners: for the servers that it starts.
        nursery: of the workers.
        server_urls: of servers that it uses instead, and neither starts nor ends.
        elsewhere: the roles that machines take by `rl.join`, if any may do so.
        ports: where it and its workers answer who watches them.
    """

    def __init__(
        self,
        run: RunDir,
        config: TrainConfig,
        listeners: Sequence[socket.socket],
        placement: Placement,
        nursery: Nursery,
        *,
        server_urls: Sequence[str] = (),
        elsewhere: Elsewhere | None = None,
        ports: telemetry.Ports = telemetry.NO_PORTS,
    ) -> None:
        self._ports, self._vitals = ports, telemetry.Vitals()
        self._run, self._config, self._placement = run, config, placement
        self._listeners, self._server_urls, self._nursery = listeners, server_urls, nursery
        self._elsewhere = elsewhere
        self._buffer = Buffer(run.buffer_url, capacity=config.buffer, group_size=config.group_size)
        self._home = Home(run, self._buffer, config.keep)
        self._records: dict[tuple[str, int, str | None], Record] = {}
        self._ended: Ending | None = None
        self._interrupts = 0
        self._asked: int | None = None
        """The step whose evaluations are asked for."""

    def train(self, *, resumed: bool) -> int:
        """Runs until there is a reason to end and the last checkpoint is evaluated; returns the exit code.

        Raises:
            TallyError: a worker ended for a reason, or too often; with its last words.
        """
        config, run = self._config, self._run
        run.clear_scratch()
        run.cut_unfinished_record()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._interrupt)
        host, port = self._ports.host, self._ports.first
        telemetry.serve(run, "supervisor", self._vitals, [metrics.SUPERVISING], host=host, port=port)
        with closing(self._buffer) as buffer, closing(self._home), self._elsewhere or nullcontext():
            start = self._go_back(print)
            if self._ended and not self._awaited():
                print(f"nothing to do: {self._ended.reason}. {self._way_on(self._ended)}")
                self._dissolve()
                return 0
            if resumed:
                run.add_provenance()
            tracker = Tracker(run, config, environment(run))
            past = list(self._records.values())
            with TrainConsole(run, config, start, past) as console, tracker, Children() as children:
                for line in (f"run {run.root}", *config.consequences(), str(self._placement)):
                    console.say(line)
                console.status("starting")
                crew = self._crew(children, console)
                if self._elsewhere:
                    self._elsewhere.describe()
                    if self._elsewhere.roles:
                        console.say(f"waits for: {self._elsewhere}")
                crew.start()
                self._vitals.ready = lambda: self._ended is None and not self._interrupts
                tail = MetricsTail(run.metrics_file)
                watched = self._watch(crew, tail, console)
                for _ in watched:
                    if crew.done or self._interrupts > 1:
                        break
                    self._stop_in_time(console)
                    if news := tracker.news():
                        console.say(news)
                    if console.overdue:
                        console.say_overdue(buffer.books())
                self._wait_for_evaluations(watched, console)
                self._home.bring()
                for record in tail.records():
                    console.show(record)
                if not self._interrupts:
                    self._dissolve()
                tracker.finish()  # while the others end
            checkpoint.prune(run, buffer, config.keep)
        run.clear_scratch()
        if tracker.last_words:
            print(tracker.last_words)
        return self._interrupted() if self._interrupts else self._finished()

    def _go_back(self, say: Callable[[str], None]) -> int:
        """Puts ledger and records to the newest sound commit, which a learner starts from; returns its step."""
        self._home.bring()
        step = checkpoint.go_back(self._run, self._buffer, say)
        self._home.lend(step)
        self._records = {}
        for record in self._run.records():
            if record["step"] <= step:
                self._remember(record)
        self._ended = ending(self._config, self._records.values())
        self._buffer.ask_stop(self._ended is not None or self._interrupts > 0)
        return step

    def _remember(self, record: Record) -> None:
        """What a reason to end is found in; of all the rest a long run has too much."""
        if record["kind"] in ("step", "eval"):
            self._records[key_of(record)] = record

    def _crew(self, children: Children, console: TrainConsole) -> Crew:
        return Crew(
            self._run,
            self._config,
            self._placement,
            listeners=self._listeners,
            server_urls=self._server_urls,
            children=children,
            nursery=self._nursery,
            go_back=partial(self._go_back, console.say),
            resume=self._resume_command(),
            elsewhere=self._elsewhere,
            ports=self._ports,
        )

    def _watch(self, crew: Crew, tail: MetricsTail, console: TrainConsole) -> Iterator[None]:
        """Takes and shows new records and replaces workers, again and again until the caller leaves the loop.

        Raises:
            TallyError: a worker ended for a reason, or too often.
        """
        while True:
            self._vitals.turn()
            metrics.OVERDUE.set(console.overdue)
            self._home.look()
            for words in self._elsewhere.look() if self._elsewhere else ():
                console.say(words)
            if news := list(tail.records()):
                for record in news:
                    self._remember(record)
                    console.show(record)
                self._ended = self._ended or ending(self._config, self._records.values())
            for accident in crew.look():
                console.say(str(accident))
                metrics.RESTARTS.labels(accident.worker).inc()
                step = max((record["step"] for record in self._records.values()), default=0)
                self._run.log(kind="restart", step=step, **asdict(accident))
            yield
            time.sleep(LOOK_S)

    def _stop_in_time(self, console: TrainConsole) -> None:
        """Asks the learner to end, once there is a reason to."""
        if (self._interrupts or (self._ended and self._ended.early)) and not self._buffer.stop_asked():
            self._buffer.ask_stop()
            why = f"ending: {self._ended.reason}" if self._ended else "stopping (again: stop at once)"
            console.say(f"{why}; the learner finishes its step and saves")

    def _wait_for_evaluations(self, watched: Iterator[None], console: TrainConsole) -> None:
        counters: dict[Path, draft.Counter] = {}
        for _ in watched:
            awaited = self._awaited()
            if self._interrupts or not awaited:
                return
            step, name = awaited[0]
            file = self._run.eval_file(name, step)
            answered = counters.setdefault(file, draft.Counter(file)).answered()
            console.status(f"evaluating {name} at step {step}: {answered} questions")

    def _awaited(self) -> list[tuple[int, str]]:
        """The evaluations that are still to be made; asks for those of the newest checkpoint, on every set. In a replay
        there is no server to make them."""
        if self._config.replay is not None:
            return []
        if (newest := self._buffer.newest_commit()) is not None and newest[0] != self._asked:
            self._buffer.commit(*newest, evaluate=self._config.eval_sets)
            self._asked = newest[0]
        return self._buffer.awaited()

    def _dissolve(self) -> None:
        if self._elsewhere:
            self._elsewhere.dissolve()

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += 1

    def _interrupted(self) -> int:
        print(f"stopped. Go on with: {self._resume_command()}")
        return INTERRUPTED

    def _finished(self) -> int:
        for line in summary_lines(self._run, terminal_width()):
            print(line)
        if self._ended and self._ended.early:
            still = ending(self._config, self._run.records())
            news = "" if still else "; but the last checkpoint, evaluated since, is better"
            print(f"ended: {self._ended.reason}{news}. {self._way_on(still)}")
        print(f"results in {self._run.root}; next: python -m rl.eval {self._run.root}")
        return 0

    def _way_on(self, ended: Ending | None) -> str:
        return f"Go on with: {self._resume_command()} {ended.longer if ended else ''}".rstrip()

    def _resume_command(self) -> str:
        away = f" --elsewhere {','.join(self._elsewhere.roles)}" if self._elsewhere and self._elsewhere.roles else ""
        return f"python -m rl.train --resume {self._run.root}{away}"
