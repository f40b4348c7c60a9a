"""Where problems come from."""

import hashlib
import json
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Literal, get_args

from rewards import check_gold
from rl.core.config import STARTER, TrainConfig
from rl.core.errors import UsageError
from rl.core.types import Problem
from rl.problems.starter import problem_id, starter_problems

Split = Literal["train", "heldout"]
SPLITS: tuple[Split, ...] = get_args(Split)
HELDOUT_SHARE = 0.1
"""Of a file without a split of its own: decided for each problem by the hash of its text; adding rows moves none."""


def load_problems(config: TrainConfig, split: Split) -> list[Problem]:
    """The problems of a split, in a stable order.

    Raises:
        UsageError: the file cannot be read, a row lacks a field, or the split is empty.
    """
    source = config.problems
    if source == STARTER:
        return starter_problems(split)
    problems = [p for p in _read_jsonl(Path(source).expanduser()) if _split_of(p) == split]
    if not problems:
        raise UsageError(f"{source} has no {split} problems", fix="add rows: one in ten is held out by its hash")
    return problems


def check_golds(config: TrainConfig) -> None:
    """Checks that the verifier can mark answers to every problem; once, by whoever starts a run.

    Raises:
        UsageError: a gold does not verify against itself.
    """
    problems = [problem for split in SPLITS for problem in load_problems(config, split)]
    bad = [(problem, reason) for problem in problems if (reason := check_gold(problem.gold))]
    if bad:
        listed = "".join(f"\n  {p.gold!r} to {p.text[:60]!r}: {reason}" for p, reason in bad[:10])
        message = f"{config.problems}: {len(bad)} of {len(problems)} answers cannot be verified, among them{listed}"
        raise UsageError(message, fix="correct these answers, or take the rows out")


def problem_order(problems: list[Problem], seed: int) -> Callable[[int], Problem]:
    """Group id (1, 2, …) → problem: every epoch is a new permutation, and the order needs no state to be resumed.

    Example: with 3 problems, groups 1–3 are one permutation of them and groups 4–6 another.
    """

    @cache
    def permutation(epoch: int) -> list[int]:
        return random.Random(f"{seed}/{epoch}").sample(range(len(problems)), len(problems))

    def problem_of(group_id: int) -> Problem:
        epoch, place = divmod(group_id - 1, len(problems))
        return problems[permutation(epoch)[place]]

    return problem_of


@cache
def _read_jsonl(path: Path) -> list[Problem]:
    try:
        lines = path.read_text().splitlines()
    except OSError as error:
        fix = "name a JSONL file with `problem` and `answer` in every row, or `starter`"
        raise UsageError(f"cannot read --problems {path}: {error.strerror}", fix=fix) from None
    problems: dict[str, Problem] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            text, gold = str(row["problem"]), str(row["answer"])
        except (ValueError, KeyError, TypeError) as error:
            what = "is not JSON" if isinstance(error, ValueError) else "has no `problem` and `answer`"
            fix = 'write rows like {"problem": "1+1", "answer": "2"}'
            raise UsageError(f"{path}:{number} {what}", fix=fix) from None
        problem = Problem(id=problem_id(text), text=text, gold=gold)
        problems.setdefault(problem.id, problem)
    return list(problems.values())


def _split_of(problem: Problem) -> Split:
    share = int.from_bytes(hashlib.sha256(problem.text.encode()).digest()[:8], "big") / 2**64
    return "heldout" if share < HELDOUT_SHARE else "train"
