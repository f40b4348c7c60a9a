"""The campaign: makes the runs of a sweep, several at a time on shared servers, and keeps `sweep.json` true.

It computes nothing itself. Each run is a `rl.train` of its own; whatever ends the campaign, none of them outlives it.
"""

import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import Any

from rl.core.config import TrainConfig
from rl.core.errors import TallyError, UsageError
from rl.core.nursery import Nursery
from rl.core.processes import Children
from rl.core.rundir import RunDir
from rl.evaluate.result import load_sets
from rl.launch.going import Going
from rl.launch.pace import Pace, Work
from rl.launch.progress import SweepConsole
from rl.launch.shared import SharedServer, served_by
from rl.observe.readings import clock, eval_line
from rl.study.beaten import Contender, alike, beaten
from rl.study.plan import Phase, Plan, configured
from rl.study.refine import finer
from rl.study.runs import Status
from rl.study.schedule import arms_entries, check_directory, config_of, in_order
from rl.study.sweepdir import Entry, SweepDir

LOOK_S = 0.1
HEADLINE = 1
"""Columns for the line of an evaluation: pass@1 alone."""


class Campaign:
    """The runs of one sweep, from the first that is missing to the last.

    Args:
        entries: of the plan, as they stand (`rl.study.schedule.scheduled`).
        nursery: of the runs.
        resume: the command that goes on with the sweep.

    Raises:
        UsageError: a run's directory holds another run.
    """

    def __init__(
        self,
        sweep: SweepDir,
        plan: Plan,
        entries: Sequence[Entry],
        console: SweepConsole,
        nursery: Nursery,
        *,
        resume: str,
    ) -> None:
        for entry in entries:
            check_directory(entry)
        self._sweep, self._plan, self._console, self._resume = sweep, plan, console, resume
        self._nursery = nursery
        self._entries: dict[str, Entry] = {}
        self._configs: dict[str, TrainConfig] = {}
        self._take(entries)
        self._tried: set[str] = set()
        self._servers: dict[tuple[Any, ...], SharedServer] = {}
        self._going: dict[str, Going] = {}
        self._pace = Pace()
        self._interrupts = 0
        self.unchosen: UsageError | None = None
        """Why the runs of a phase could not be chosen."""

    @property
    def interrupted(self) -> bool:
        return self._interrupts > 0

    @property
    def entries(self) -> list[Entry]:
        return list(self._entries.values())

    def run(self) -> None:
        """Makes all runs, phase by phase, until they are over, the next phase cannot be chosen or the user interrupts.

        Raises:
            UsageError: the directory cannot be written to.
        """
        self._sweep.write(self._plan, self.entries)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, self._interrupt)
        with self._console, Children() as children:
            try:
                self._make("", children)
                for phase in self._plan.phases:
                    if self.interrupted or not self._is_chosen(phase):
                        break
                    self._make(phase.name, children)
            finally:  # the user would not wait for them, or something has ended the campaign
                for going in self._going.values():
                    self._mark(going.entry, Status.PLANNED, going.progress)

    def _make(self, phase: str, children: Children) -> None:
        """Makes the runs of one phase."""
        while self._interrupts < 2:
            entries = in_order([entry for entry in self.entries if entry.phase == phase])
            done = {*self._tried, *self._going}
            queue = [] if self.interrupted else [e for e in entries if not e.over and e.name not in done]
            if not queue and not self._going:
                return
            self._look_at_servers()
            self._look_at_runs()
            self._start(queue, children)
            self._show()
            time.sleep(LOOK_S)

    def _is_chosen(self, phase: Phase) -> bool:
        """Whether a phase has its runs, be it from now on: once chosen they stay, and so all results are awaited."""
        if not self._is_ahead(phase):
            return True
        if awaited := [entry for entry in self.entries if not entry.over]:
            first, more = awaited[0], f" and {len(awaited) - 1} more" if len(awaited) > 1 else ""
            self._console.say(f"phase {phase.name} waits for {first.name} ({first.status}: {first.why}){more}")
            return False
        try:
            self._choose(phase)
        except UsageError as error:
            self.unchosen = error
        return self.unchosen is None

    def _choose(self, phase: Phase) -> None:
        """The runs of a phase by the results of those before it.

        Raises:
            UsageError: there is no result to choose by, or a run of that name with other settings.
        """
        plan = self._plan
        chosen = finer(phase, self.entries, self._sweep.runs(), metric=plan.metric, set=plan.set)
        entries = arms_entries(self._sweep, plan, chosen.rows, phase=phase.name, base={})
        for entry in entries:
            if entry.name in self._entries:
                fix = "give the phase another name"
                raise UsageError(f"phase {phase.name}: the sweep has another run {entry.name}", fix=fix)
            check_directory(entry)
        self._console.say(f"phase {phase.name}: {len(chosen.rows)} arms {chosen.why}")
        self._take(entries)
        self._sweep.write_entries(self.entries)
        for key, server in list(self._servers.items()):
            if not server.fits(self._users(key)):
                self._end(key)

    def _take(self, entries: Sequence[Entry]) -> None:
        self._entries |= {entry.name: entry for entry in entries}
        self._configs |= {entry.name: config_of(entry) for entry in entries}

    def _start(self, queue: Sequence[Entry], children: Children) -> None:
        """Starts as many runs as there is room for, each once its server answers."""
        for entry in queue[: self._plan.parallel - len(self._going)]:
            config = self._configs[entry.name]
            key = served_by(config)
            if key not in self._servers:
                self._servers[key] = self._new_server(key, children)
            if not self._servers[key].answers:
                continue
            slots = {going.slot for going in self._going.values()}
            try:
                going = Going(
                    self._sweep,
                    entry,
                    config,
                    self._servers[key],
                    children,
                    slot=next(slot for slot in range(self._plan.parallel) if slot not in slots),
                    servers=len(self._servers),
                    group=self._plan.name,
                    nursery=self._nursery,
                )
            except UsageError as error:  # what it has logged cannot be read
                self._mark(entry, Status.FAILED, str(error))
                self._console.say(f"{entry.name}: {error}")
                continue
            self._going[entry.name] = going
            self._mark(entry, Status.RUNNING, "")
            self._console.say(f"{entry.name}: {f'goes on; {going.progress}' if going.resumed else 'starts'}")

    def _new_server(self, key: tuple[Any, ...], children: Children) -> SharedServer:
        numbers = {server.number for server in self._servers.values()}
        return SharedServer(
            self._sweep,
            self._users(key),
            children,
            number=next(number for number in range(len(numbers) + 1) if number not in numbers),
            policies=self._plan.parallel,  # a phase may bring more than are known
            resume=self._resume,
        )

    def _users(self, key: tuple[Any, ...]) -> list[TrainConfig]:
        return [config for config in self._configs.values() if served_by(config) == key]

    def _look_at_servers(self) -> None:
        """Replaces those that died, and ends those that no run needs any more while others do."""
        for key, server in list(self._servers.items()):
            try:
                if accident := server.look():
                    self._console.say(str(accident))
            except TallyError as error:
                self._give_up(key, error)
        unfinished = [e for e in self.entries if not e.over and e.name not in self._tried]
        needed = {served_by(self._configs[entry.name]) for entry in unfinished}
        for key in [key for key in self._servers if needed and key not in needed]:
            self._end(key)

    def _give_up(self, key: tuple[Any, ...], error: TallyError) -> None:
        """Without its server no run can go on."""
        why = f"{error}; fix: {error.fix}" if error.fix else str(error)
        for entry in [e for e in self.entries if not e.over and served_by(self._configs[e.name]) == key]:
            if entry.name in self._going:
                self._going.pop(entry.name).end()
            self._mark(entry, Status.FAILED, why)
        self._end(key)

    def _end(self, key: tuple[Any, ...]) -> None:
        self._servers.pop(key).end()

    def _look_at_runs(self) -> None:
        for going in list(self._going.values()):
            try:
                outcome = self._look_at(going)
            except UsageError as error:
                going.end()
                outcome = Status.FAILED, str(error)
            if outcome:
                del self._going[going.entry.name]
                self._pace.run(going.seconds - going.train_s)
                self._mark(going.entry, *outcome)
                self._say(going, *outcome)

    def _look_at(self, going: Going) -> tuple[Status, str] | None:
        """What has become of a run, and why; None while it goes on.

        Raises:
            UsageError: what it has logged, or an evaluation of it, cannot be read.
        """
        for record in going.news():
            if record["kind"] == "step":
                self._pace.step(record["step_s"], going.config.batch)
            elif record["kind"] == "eval" and record["set"] == self._plan.set and self._plan.stop_beaten:
                self._stop_if_beaten(going)
        if self.interrupted and going.stop():
            self._console.say(f"{going.entry.name}: finishes its step and saves (again: stop at once)")
        return going.outcome()

    def _stop_if_beaten(self, going: Going) -> None:
        rivals = []
        for entry in self.entries:
            if alike(going.config, self._configs[entry.name]):
                with suppress(UsageError):  # what cannot be read is no rival
                    rivals.append(self._contender(entry))
        going.beaten = going.beaten or beaten(self._contender(going.entry), rivals)
        if going.beaten:
            going.stop()

    def _contender(self, entry: Entry) -> Contender:
        results = load_sets(RunDir(entry.path).evals).get(self._plan.set, [])
        by_step = {result.step: result for result in results}
        return Contender(name=entry.name, arm=entry.arm, config=self._configs[entry.name], results=by_step)

    def _mark(self, entry: Entry, status: Status, why: str) -> None:
        if status is not Status.RUNNING:
            self._tried.add(entry.name)
        self._entries[entry.name] = entry.model_copy(update={"status": status, "why": why})
        self._sweep.write_entries(self.entries)

    def _say(self, going: Going, status: Status, why: str) -> None:
        over = sum(entry.over for entry in self.entries)
        result = going.evaluations.get(self._plan.set)
        told = "; ".join(filter(None, [why, eval_line(result, HEADLINE) if result else ""]))
        after = f"{status} after {clock(going.seconds)}"
        self._console.say(f"{going.entry.name}: {after} ({over} of {len(self.entries)}){f'; {told}' if told else ''}")

    def _show(self) -> None:
        """The bar over all steps, those of phases whose runs are still to be chosen included."""
        unfinished = [e for e in self.entries if not e.over and e.name not in self._tried]
        left = [self._left(entry) for entry in unfinished]
        ahead = [work for phase in self._plan.phases if self._is_ahead(phase) for work in self._planned(phase)]
        to_make = [*left, *ahead]
        total = sum(config.steps for config in self._configs.values()) + sum(work.steps for work in ahead)
        self._console.show(
            {name: going.step for name, going in self._going.items()},
            total - sum(work.steps for work in to_make),
            total,
            self._pace.left_s(to_make, self._plan.parallel),
        )

    def _left(self, entry: Entry) -> Work:
        config = self._configs[entry.name]
        made = self._going[entry.name].step if entry.name in self._going else 0
        return Work(steps=config.steps - made, batch=config.batch)

    def _is_ahead(self, phase: Phase) -> bool:
        return not any(entry.phase == phase.name for entry in self.entries)

    def _planned(self, phase: Phase) -> list[Work]:
        """About what a phase will take, in the settings of the first run."""
        config = configured({**self.entries[0].settings, **phase.changes})
        return [Work(steps=config.steps, batch=config.batch)] * (phase.points * self._plan.seeds)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        self._interrupts += 1
