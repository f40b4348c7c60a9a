"""What the ledger costs: samples put, leased and trained in a second, bytes of a sample, and its share of a step.

``python -m rl.buffer.bench`` makes groups of long completions as a server and the verifier make them and takes them
through a ledger on the disk, or through one in the database of ``--buffer-url``, in one process. With a run directory
it also plays that run's groups through a ledger once more and compares the time of the learner's calls with the time
that the run's steps took.
"""

import os
import platform
import random
import struct
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, median

import msgspec
from rich.console import Console
from rich.table import Column, Table

from rl.buffer.compact import compact
from rl.buffer.database import open_ledger
from rl.buffer.history import History
from rl.buffer.ledger import Buffer
from rl.buffer.schema import drop_schema, new_schema
from rl.buffer.tables import State
from rl.core import cli
from rl.core.errors import UsageError
from rl.core.rundir import RunDir
from rl.core.types import Group

GROUP_SIZES = (4, 8, 16, 64)
BUFFER, BATCH = 256, 64
"""Samples; the largest group is a batch."""
GROWTH = (1, 2, 4)
"""Parts of the growth, in multiples of `--samples`."""
VOCABULARY = 151_936
POLICY, SHA256 = "run-bench-0", "ab" * 32
OUT = Console(highlight=False, markup=False, soft_wrap=True)
NewLedger = Callable[[str], str]
"""Name → URL."""


@dataclass
class Clock:
    """Seconds spent in the calls of each name."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    cpu_seconds: float = 0.0
    """Of this process, in all of the calls."""

    @contextmanager
    def time(self, name: str) -> Iterator[None]:
        begin, cpu_begin = time.perf_counter(), time.process_time()
        yield
        self.seconds[name].append(time.perf_counter() - begin)
        self.cpu_seconds += time.process_time() - cpu_begin

    def total(self) -> float:
        return sum(map(sum, self.seconds.values()))

    def ms(self, name: str) -> float:
        """The median, in milliseconds."""
        return 1000 * median(self.seconds[name])


def made_group(group_size: int, tokens: int) -> Group:
    """A group as it is stored: half of its samples are right."""
    random_ = random.Random(0)

    def sample(i: int) -> dict[str, object]:
        logprobs = struct.pack(f"{tokens}f", *(-random_.expovariate(3) for _ in range(tokens)))
        rollout = {
            "token_ids": random_.choices(range(VOCABULARY), k=tokens),
            "sampler_logprobs": struct.unpack(f"{tokens}f", logprobs),  # what a server sends are float32
            "policy_version": 0,
            "finish_reason": "stop",
            "text": "".join(random_.choices("abcdefgh \n+=", k=4 * tokens)),
        }
        verdict = {"mark": "right" if i % 2 else "wrong", "reason": "same number", "answer": "3", "gold": "3"}
        return {"rollout": rollout, "verdict": verdict}

    group = {
        "id": 0,
        "problem": {"id": "ab" * 32, "text": "What is 1 + 2? " * 20, "gold": "3"},
        "prompt_ids": list(range(200)),
        "policy": POLICY,
        "adapter_sha256": SHA256,
        "samples": [sample(i) for i in range(group_size)],
    }
    return msgspec.convert(group, Group)


def taken_through(url: str, group: Group, samples: int) -> Clock:
    """Takes copies of the group through a ledger, from issue to trained, until there were so many samples."""
    size, clock = len(group.samples), Clock()
    batch = max(1, BATCH // size)
    with closing(Buffer(url, capacity=max(BUFFER, size), group_size=size)) as buffer:
        buffer.proved(POLICY, 0, SHA256)
        done, _ = buffer.newest_commit() or (0, "")
        last = done + -(-samples // (batch * size))
        for step in range(done + 1, last + 1):
            with clock.time("issue"):
                ids = buffer.issue()
            for id in ids:
                copy = replace(group, id=id)
                with clock.time("put"):
                    buffer.put(copy)
            with clock.time("lease"):
                leased = buffer.lease(batch, policy_version=step - 1, max_staleness=step)
            with clock.time("trained"):
                buffer.trained([group.id for group in leased])
        buffer.commit(last, f"step-{last}")
    return clock


@contextmanager
def new_ledgers(folder: Path, database_url: str | None) -> Iterator[NewLedger]:
    """Ledgers that are gone afterwards, by their names: files in the folder, or schemas named as it is."""
    made: list[str] = []

    def in_file(name: str) -> str:
        return f"sqlite:///{folder}/{name}.db"

    def in_database(name: str) -> str:
        with new_schema(str(database_url), RunDir(folder / f"{folder.name}.{name}"), overwrite=False) as url:
            made.append(url)
        return url

    try:
        yield in_file if database_url is None else in_database
    finally:
        for url in made:
            drop_schema(url)


def throughput(new_ledger: NewLedger, samples: int, tokens: int) -> None:
    """Prints a line for each size of a group."""
    names = ("samples per s", "per s of CPU time", "put ms", "lease ms", "trained ms")
    heads = (Column(head, justify="right") for head in names)
    table = Table("group", *heads, box=None, padding=(0, 2, 0, 0), header_style="bold", pad_edge=False)
    taken_through(new_ledger("warm"), made_group(BATCH, 1), BATCH)
    for size in GROUP_SIZES:
        clock = taken_through(new_ledger(f"groups-of-{size}"), made_group(size, tokens), samples)
        put = len(clock.seconds["put"]) * size
        times = (f"{clock.ms(name):.2f}" for name in ("put", "lease", "trained"))
        table.add_row(f"{size}", f"{put / clock.total():,.0f}", f"{put / clock.cpu_seconds:,.0f}", *times)
    OUT.print(table)
    OUT.print(
        f"samples of {tokens:,} tokens, taken through a ledger by one process: issued, put, leased\n"
        f"{BATCH} at a time, trained; ms: the median of one call, of a group for put, of a batch for the others\n"
    )


def growth(new_ledger: NewLedger, samples: int, tokens: int) -> None:
    """Prints what the ledger takes after so many samples, and after it was compacted."""
    url, group = new_ledger("growth"), made_group(8, tokens)
    put = 0
    for part in GROWTH:
        put += len(taken_through(url, group, part * samples - put).seconds["put"]) * 8
        with closing(History(url)) as history:
            stored = sum(row.stored for row in history.books().rows) * 8
        with closing(open_ledger(url)) as ledger:
            size = ledger.bytes()
        OUT.print(f"{stored:,} samples: {size / 1e6:,.1f} MB, {size / stored:,.0f} bytes each")
    done = compact(url)
    OUT.print(f"compacted: {done.bytes_after / 1e6:,.1f} MB with what is still to be trained\n")


def share(new_ledger: NewLedger, run: RunDir) -> None:
    """Prints the time of the learner's calls for each step of a run beside that of its steps.

    Raises:
        UsageError: it has made no step, or its groups are not there any more.
    """
    config = run.config()
    steps = {record["step"]: record for record in run.records() if record["kind"] == "step"}
    with closing(History(run.buffer_url)) as history:
        groups = [entry.group for entry in history.entries(states=(State.TRAINED,))]
    batch = config.batch // config.group_size
    if not steps or not groups:
        raise UsageError(f"{run.root} has no step with its groups", fix="name a run that was not compacted")
    learner, collector = _played(new_ledger("share"), groups, batch, config.save_every)
    played = len(groups) // batch
    step_s = fmean(record["step_s"] for record in steps.values())
    busy_s = step_s - fmean(record["wait_s"] for record in steps.values())
    calls = _a_step(learner, played)
    named, theirs_s = ", ".join(f"{name} {ms:.2f}" for name, ms in calls.items()), sum(calls.values()) / 1000
    OUT.print(
        f"{run.root}: a step of {config.batch} samples of {fmean(map(_length, groups)):,.0f} tokens "
        f"took {1000 * step_s:,.1f} ms, {1000 * busy_s:,.1f} ms without waiting ({len(steps)} steps)\n"
        f"the learner's calls take {1000 * theirs_s:.2f} ms a step now ({named}): "
        f"{theirs_s / step_s:.2%} of it, {theirs_s / busy_s:.2%} without waiting\n"
        f"the collector's, in a process of its own, {sum(_a_step(collector, played).values()):.2f} ms a step\n"
    )


def _played(url: str, groups: Sequence[Group], batch: int, save_every: int) -> tuple[Clock, Clock]:
    """The calls of learner and collector, in the order in which they make them."""
    learner, collector = Clock(), Clock()
    size = len(groups[0].samples)
    with closing(Buffer(url, capacity=batch * size, group_size=size)) as buffer:
        buffer.proved(POLICY, 0, SHA256)
        for step in range(1, 1 + len(groups) // batch):
            with collector.time("issue"):
                ids = buffer.issue()
            for id, group in zip(ids, groups[(step - 1) * batch :], strict=False):
                samples = [replace(s, rollout=replace(s.rollout, policy_version=step - 1)) for s in group.samples]
                copy = replace(group, id=id, policy=POLICY, adapter_sha256=SHA256, samples=samples)
                with collector.time("put"):
                    buffer.put(copy)
            with learner.time("stop_asked"):
                buffer.stop_asked()
            with learner.time("lease"):
                leased = buffer.lease(batch, policy_version=step - 1, max_staleness=0)
            with learner.time("proved"):
                buffer.proved(POLICY, step, SHA256)
            with learner.time("trained"):
                buffer.trained([group.id for group in leased])
            if step % save_every == 0:
                with learner.time("commit"):
                    buffer.commit(step, f"step-{step}")
    return learner, collector


def _a_step(clock: Clock, steps: int) -> dict[str, float]:
    """Milliseconds of a step in the calls of each name: the median of one, times how many there are in a step. (The
    first call of each builds its statements, once in a run.)"""
    return {name: clock.ms(name) * len(seconds) / steps for name, seconds in clock.seconds.items()}


def _length(group: Group) -> float:
    return fmean(len(sample.rollout.token_ids) for sample in group.samples)


def main(argv: list[str]) -> None:
    parser = cli.Parser(prog="python -m rl.buffer.bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("run", type=Path, nargs="?", metavar="RUN", help="whose steps the calls are compared with")
    parser.add_argument("--samples", type=int, default=4096, help="of each size of a group (default 4,096)")
    parser.add_argument("--tokens", type=int, default=1000, help="of a sample (default 1,000)")
    place = parser.add_mutually_exclusive_group()
    place.add_argument("--folder", type=Path, metavar="DIR", help="where the ledgers go (default: a temporary one)")
    place.add_argument("--buffer-url", metavar="URL", help="PostgreSQL database where they go instead")
    asked = parser.parse_args(argv)
    if min(asked.samples, asked.tokens) < 1:
        raise UsageError("--samples and --tokens are 1 or more")
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir=asked.folder) as folder,
        new_ledgers(Path(folder), asked.buffer_url) as new_ledger,
    ):
        throughput(new_ledger, asked.samples, asked.tokens)
        growth(new_ledger, asked.samples, asked.tokens)
        if asked.run:
            share(new_ledger, RunDir(asked.run))
    OUT.print(f"measured on {os.cpu_count()} cores, {platform.system()} {platform.machine()}, {sys.version.split()[0]}")


if __name__ == "__main__":
    cli.run(main)
