r"""What `--problems` and `--eval-on` name: `gsm8k`, `math@test`, `my.jsonl`, `owner/name`, or a mixture of them."""

import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from rewards import extract
from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.problems.hub import hub_splits
from rl.problems.rows import EXAMPLE, SUFFIXES, Row, read_rows, split_files
from rl.problems.starter import STARTER_SETS, starter_problems

HELDOUT_SHARE = 0.1
"""Of the problems that are trained on."""
LARGEST_CYCLE = 1000
"""Groups after which the pattern of a mixture repeats."""

Reading = Callable[[dict[str, Any]], tuple[str, str]]
"""From a row to the problem's text and its gold; a missing field is a KeyError."""
Choice = Callable[[Collection[str]], str]
"""Which split of several is meant."""


@dataclass(frozen=True)
class NamedSet:
    """A set that is known by its name, in its authors' schema."""

    hub: str
    hub_config: str
    commit: str
    """Of the hub's repository, so that the name means the same problems for ever."""
    read: Reading


def _gsm8k(row: dict[str, Any]) -> tuple[str, str]:
    """The answer is a worked solution that ends in `#### 1,234`."""
    return row["question"], row["answer"].rpartition("####")[2].strip().replace(",", "")


def _math(row: dict[str, Any]) -> tuple[str, str]:
    """Where there is no `answer`, it is in the last box of the `solution`."""
    answer = row["answer"] if "answer" in row else extract(row["solution"]).answer
    return row["problem"], answer or ""


def _svamp(row: dict[str, Any]) -> tuple[str, str]:
    body, question = row["Body"].strip(), row["Question"].strip()
    return f"{body}{'' if body.endswith(('.', ',', '?')) else '.'} {question}", plain(float(row["Answer"]))


NAMED_SETS = {
    "gsm8k": NamedSet("openai/gsm8k", "main", "740312add88f781978c0658806c59bc2815b9866", _gsm8k),
    "math": NamedSet(
        "DigitalLearningGmbH/MATH-lighteval", "default", "0530c78699ea5e8eb5530600900e1f328b48acad", _math
    ),
    "math500": NamedSet("HuggingFaceH4/MATH-500", "default", "6e4ed1a2a79af7d8630a6b768ec859cb5af4d3be", _math),
    "svamp": NamedSet("ChilleD/SVAMP", "default", "5e0bf1e5e7c0e9c4bc39180d224f41f3f801b7ef", _svamp),
}


@dataclass(frozen=True)
class Source:
    """One split of one set, not yet read."""

    name: str
    """As typed, for messages."""
    version: str
    """Changes when the rows may have."""
    rows: Callable[[], Iterable[Row]]
    read: Reading
    is_heldout: Callable[[str], bool] = lambda id: int(id, 16) / 16 ** len(id) < HELDOUT_SHARE
    """Whether training leaves out the problem of this id; adding rows moves none."""

    def problems(self) -> Iterator[tuple[str, str]]:
        """Text and gold of every row.

        Raises:
            UsageError: a row lacks a field, or holds something else than text or a number.
        """
        empty = True
        for where, row in self.rows():
            empty = False
            try:
                text, gold = self.read(row)
                (text + gold).encode()  # JSON can hold halves of characters, which are no text
            except KeyError as missing:
                fix = "name the fields with --problem-field and --answer-field"
                raise UsageError(f"{where} has no field {missing}; it has: {', '.join(row)}", fix=fix) from None
            except (TypeError, ValueError, AttributeError) as error:
                fix = "correct the row, or name other fields with --problem-field and --answer-field"
                raise UsageError(f"{where} cannot be read: {error}", fix=fix) from None
            if not text.strip():
                raise UsageError(f"{where} has an empty problem", fix="write one, or take the row out")
            yield text, gold
        if empty:
            raise UsageError(f"{self.name} has no rows", fix=EXAMPLE)


def parse_mixture(text: str) -> list[tuple[int, str]]:
    """`3*gsm8k,math` → [(3, "gsm8k"), (1, "math")]; weights are brought to the smallest whole numbers.

    Raises:
        UsageError: a name is missing, or the weights are no shares.
    """
    parts = [re.fullmatch(r"(?:(\d+(?:\.\d+)?)\*)?([^*]+)", part.strip()) for part in text.split(",")]
    if not all(parts):
        raise UsageError(f"--problems {text} is no list of sets", fix="write sets with weights like 3*gsm8k,math")
    weights = [Fraction(part[1] or 1) for part in parts if part]
    unit = math.lcm(*(weight.denominator for weight in weights))
    whole = [int(weight * unit) for weight in weights]
    divisor = math.gcd(*whole)
    if min(whole) == 0 or sum(whole) // divisor > LARGEST_CYCLE:
        fix = f"take positive weights whose ratios are whole numbers that add up to {LARGEST_CYCLE} at most"
        raise UsageError(f"--problems {text}: these weights are no shares of the groups", fix=fix)
    return [(weight // divisor, part[2]) for weight, part in zip(whole, parts, strict=True) if part]


def find_source(name: str, config: TrainConfig, *, preferred: str) -> Source:
    """The split that `NAME@SPLIT` names; of `NAME` the `preferred` split, or the only one.

    Raises:
        UsageError: there is no such set or split, or the hub does not give it.
    """
    word, _, split = name.rpartition("@") if re.search(r"@\w+$", name) else (name, "", "")
    choose = partial(_chosen, word, split, preferred)
    if word in STARTER_SETS:
        return _starter(word, name, split or ("train" if preferred == "train" else "heldout"))
    named = NAMED_SETS.get(word)
    read = named.read if named else _by_fields(config.problem_field, config.answer_field)
    rules = word if named else f"{config.problem_field}/{config.answer_field}"
    if named and config.data_dir:
        return _in_files(name, Path(config.data_dir, word).expanduser(), choose, read, rules)
    if not named and Path(word).expanduser().exists():
        return _in_files(name, Path(word).expanduser(), choose, read, rules)
    if named:
        fix = f"connect to the hub, or name the folder that has {word}/ by --data-dir"
        return _on_hub(name, hub_splits(named.hub, named.hub_config, named.commit, fix), choose, read, rules)
    if (hub := re.fullmatch(r"([\w.-]+/[\w.-]+)(?:/([\w.-]+))?", word)) and not word.endswith(SUFFIXES):
        fix = "connect to the hub, name one of several configurations as owner/name/config, or name a local file"
        return _on_hub(name, hub_splits(hub[1], hub[2], None, fix), choose, read, rules)
    known = ", ".join([*STARTER_SETS, *NAMED_SETS])
    fix = f"name a file ({', '.join(SUFFIXES)}), a folder of them, a hub data set owner/name, or one of {known}"
    raise UsageError(f"cannot read the problems {name}: there is no such file", fix=fix)


def plain(value: Any) -> str:
    """51.0 → "51": whole numbers that some format made floats of.

    Raises:
        TypeError: neither text nor a number.
    """
    if value is None:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if not isinstance(value, str | int | float):
        raise TypeError(f"{str(value)[:40]!r} is neither text nor a number")
    return str(value)


def _by_fields(problem_field: str, answer_field: str) -> Reading:
    return lambda row: (plain(row[problem_field]), plain(row[answer_field]))


def _chosen(word: str, asked: str, preferred: str, splits: Collection[str]) -> str:
    """The split that was asked for, else the preferred one, else the only one."""
    if (wanted := asked or preferred) in splits:
        return wanted
    if not asked and len(splits) == 1:
        return next(iter(splits))
    message = f"{word} has no split {asked}" if asked else f"{word} has several splits and none is called {preferred}"
    raise UsageError(message, fix="name one: " + " or ".join(f"{word}@{split}" for split in splits))


def _starter(word: str, name: str, split: str) -> Source:
    split = _chosen(word, split, split, ("train", "heldout"))
    heldout = starter_problems("heldout", word)
    problems = heldout if split == "heldout" else [*starter_problems("train", word), *heldout]
    rows = [(word, {"problem": p.text, "answer": p.gold}) for p in problems]
    ids = {p.id for p in heldout}
    return Source(name, split, lambda: rows, _by_fields("problem", "answer"), is_heldout=ids.__contains__)


def _in_files(name: str, path: Path, choose: Choice, read: Reading, rules: str) -> Source:
    """Args:
    rules: what `read` depends on, beside our code.
    """
    splits = split_files(path)
    if not splits:
        fix = f"put one there, or another of {', '.join(SUFFIXES)}"
        raise UsageError(f"cannot read the problems {name}: there is no file like {path}/train.jsonl", fix=fix)
    files = splits[choose(splits)]
    stats = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    return Source(name, repr((rules, stats)), lambda: chain.from_iterable(map(read_rows, files)), read)


def _on_hub(name: str, splits: dict[str, Any], choose: Choice, read: Reading, rules: str) -> Source:
    data = splits[choose(splits)]
    files = [file["filename"] for file in data.cache_files]  # their paths tell the commit

    def rows() -> Iterator[Row]:
        return ((f"{name}, row {number}", row) for number, row in enumerate(data, start=1))

    return Source(name, repr((rules, files)), rows, read)
