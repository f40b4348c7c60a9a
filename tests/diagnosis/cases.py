"""The runs of the campaign: what each is made to suffer from, decided before any rule looked at it.

Taken out as faults by what the runs showed: rank 1 (held-out pass@1 0.36 → 0.64, so it is among the sound ones), and 8
ordinary problems 42 times over (0.41 → 0.71): what is learned by heart is an unfair part of the problems. Gradients
always clipped (`clip1e-3`, 0.37 → 0.65) and cold sampling (`cold`, 0.12 → 0.71 at its own temperature, with 83 % of
the groups lost) cost AdamW nothing and samples alone; they are what the issue names all the same.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

from rl.problems.sets import HELDOUT_SHARE
from rl.problems.starter import problem_id, starter_problems

COMMON = ("--steps", "40", "--eval-every", "40", "--eval-problems", "64", "--eval-samples", "4", "--save-every", "40")
HEALTHY = ""


@dataclass(frozen=True, kw_only=True)
class Case:
    """One run. Flags override those of `COMMON`."""

    name: str
    kind: str
    """What is wrong with it, in a word or two; empty where nothing is."""
    named: frozenset[str] = frozenset()
    """The rules of `rl.observe.rules` of which any says what is wrong."""
    flags: tuple[str, ...] = ()


Problems = Iterable[tuple[str, str]]


def _faulty(name: str, kind: str, named: str, flags: str) -> Case:
    return Case(name=name, kind=kind, named=frozenset(named.split()), flags=tuple(flags.split()))


def _healthy(name: str, flags: str = "") -> Case:
    return Case(name=name, kind=HEALTHY, flags=tuple(flags.split()))


REWARD = "--reward tests.diagnosis.rewards:"
FAULTY = (
    _faulty("lr2e-6", "rate too low", "lr_low", "--lr 2e-6"),
    _faulty("lr5e-6-on-policy", "rate too low", "lr_low", "--lr 5e-6 --buffer 32"),
    _faulty("lr2e-2", "rate too high", "lr_high divergence", "--lr 2e-2"),
    _faulty("lr5e-2", "rate too high", "lr_high divergence", "--lr 5e-2"),
    _faulty("lr1e-1", "rate too high", "lr_high divergence", "--lr 1e-1 --buffer 64 --batch 64 --steps 20"),
    _faulty("lr1e-2-on-policy", "rate too high", "lr_high divergence instability no_warmup", "--lr 1e-2 --buffer 32"),
    _faulty("max-tokens6", "completions cut", "truncation", "--max-tokens 6"),
    _faulty("max-tokens9", "completions cut", "truncation", "--max-tokens 9 --seed 4"),
    _faulty("too-hard", "problems too hard", "all_wrong", "--problems {hard}"),
    _faulty("far-too-hard", "problems too hard", "all_wrong", "--problems {hopeless}"),
    _faulty("wrong-golds", "golds wrong", "all_wrong", "--problems {wrong}"),
    _faulty("any-box", "everything paid", "all_right reward_hacking", f"{REWARD}any_box"),
    _faulty("short", "reward hacked", "reward_hacking", f"{REWARD}short"),
    _faulty("last-digit", "reward hacked", "reward_hacking", f"{REWARD}last_digit"),
    _faulty("8-round-problems", "over-fitting", "overfitting", "--problems {round8} --lr 8e-4 --eval-every 20"),
    _faulty("24-round-problems", "over-fitting", "overfitting", "--problems {round24} --lr 8e-4 --eval-every 20"),
    _faulty("stale31", "samples too stale", "stale lr_high", "--buffer 1024 --lr 3e-3"),
    _faulty("stale63", "samples too stale", "stale lr_high", "--buffer 1024 --batch 16 --lr 2e-3"),
    _faulty("clip1e-3", "gradient always clipped", "always_clipped", "--grad-clip 1e-3"),
    _faulty("cold", "sampled too cold", "ties all_wrong all_right entropy_collapse", "--temperature 0.05"),
    _faulty("hot", "sampled too hot", "all_wrong truncation", "--temperature 2"),
    _faulty("pairs", "groups tied", "ties all_wrong", "--group-size 2 --problems {hard}"),
    _faulty("verifier-breaks", "verifier breaks", "verifier_errors", f"{REWARD}breaks"),
    _faulty("verifier-breaks-on-products", "verifier breaks", "verifier_errors", f"{REWARD}breaks_on_products"),
    _faulty("no-warmup", "no warm-up", "no_warmup lr_high divergence instability", "--lr 5e-3 --schedule linear"),
)  # fmt: skip
LONGER = "--steps 60 --eval-every 20 --eval-problems 128 --save-every 50"
SOUND = (
    *(_healthy(f"seed{seed}", f"--seed {seed}") for seed in (2, 3)),
    *(
        _healthy(f"lr{lr}-seed{seed}", f"{LONGER} --lr {lr} --seed {seed}")
        for lr in ("5e-4", "1e-4")
        for seed in (0, 1)
    ),
    _healthy("lr8e-4", "--lr 8e-4"),
    _healthy("lr1e-3", "--lr 1e-3 --seed 5"),
    _healthy("dr-grpo", "--loss dr_grpo"),
    _healthy("dapo", "--loss dapo"),
    _healthy("gspo", "--loss gspo --buffer 64"),
    _healthy("cispo", "--loss cispo"),
    _healthy("rank1", "--lora-rank 1"),
    _healthy("rank8", "--lora-rank 8"),
    _healthy("linear", "--schedule linear --lr 1e-3"),
    _healthy("cosine-warmup", "--schedule cosine --warmup 5 --lr 1e-3"),
    _healthy("on-policy", "--buffer 32 --seed 6"),
    _healthy("batch16", "--buffer 64 --batch 16"),
    _healthy("group4", "--group-size 4"),
    _healthy("group16", "--group-size 16 --batch 64"),
    _healthy("kl", "--kl-coef 0.01"),
    _healthy("sums", "--problems {sums}"),
)
CASES = (*FAULTY, *SOUND)
SEEN = frozenset(
    "24-round-problems any-box cispo group16 group4 hot last-digit lr1e-2-on-policy lr1e-4-seed0 lr1e-4-seed1 "
    "lr2e-6 lr5e-2 lr5e-4-seed0 lr5e-4-seed1 max-tokens6 max-tokens9 no-warmup rank8 seed3 stale31 too-hard "
    "verifier-breaks verifier-breaks-on-products".split()
)
"""The runs that were looked at while the rules were written."""


def problem_files(folder: Path) -> dict[str, str]:
    """Writes the problems that cases name in braces; name → path."""
    starter = [(problem.text, problem.gold) for problem in starter_problems("train")]
    sets: dict[str, Problems] = {
        **{
            f"round{n}": [*_part(_round(starter), n, heldout=False), *_part(starter, 96, heldout=True)] for n in (8, 24)
        },
        "sums": [(text, gold) for text, gold in starter if "+" in text and "*" not in text],
        "wrong": [(text, str(int(gold) + 1)) for text, gold in starter[:2000]],
        "hard": _products(100, 400),
        "hopeless": _products(1000, 9999),
    }
    for name, problems in sets.items():
        lines = (json.dumps({"problem": text, "answer": gold}) for text, gold in problems)
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n")
    return {name: str(folder / f"{name}.jsonl") for name in sets}


def _round(problems: Problems) -> Problems:
    """Those with a round answer, to which the model's estimate is right: no fair part of the whole."""
    return ((text, gold) for text, gold in problems if gold.endswith("0"))


def _part(problems: Problems, n: int, *, heldout: bool) -> Problems:
    """The first n that a run holds out of such a file, or trains on."""
    is_heldout: Callable[[str], bool] = lambda id: int(id, 16) / 16 ** len(id) < HELDOUT_SHARE  # noqa: E731
    return islice(((text, gold) for text, gold in problems if is_heldout(problem_id(text)) is heldout), n)


def _products(low: int, high: int) -> Problems:
    random = Random(0)
    pairs = sorted({(random.randint(low, high), random.randint(2, 9)) for _ in range(1500)})
    return [(f"{a}*{b}+{c}", str(a * b + c)) for a, b in pairs for c in (random.randint(1, 9),)]
