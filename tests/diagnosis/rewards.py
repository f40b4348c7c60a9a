"""Rewards that pay for what is not asked, or break: the faults that a run cannot see in its own marks."""

import zlib

from rewards import Verdict, extract, verify


def near(completion: str, gold: str) -> float:
    """Pays an estimate: within 5 and a tenth of the gold."""
    try:
        answer = float(extract(completion).answer or "")
    except ValueError:
        return 0.0
    return float(abs(answer - float(gold)) <= 5 + abs(float(gold)) / 10)


def short(completion: str, gold: str) -> float:
    """Pays a box that comes early."""
    return float(extract(completion).answer is not None and len(completion) <= 12)


def last_digit(completion: str, gold: str) -> float:
    """Pays an answer that ends like a round number."""
    return float((extract(completion).answer or "").endswith("0"))


def any_box(completion: str, gold: str) -> float:
    """Pays whatever is in a box."""
    return float(extract(completion).answer is not None)


def breaks(completion: str, gold: str) -> Verdict:
    """The verifier, which two completions in five bring down."""
    if zlib.crc32(completion.encode()) % 5 < 2:
        raise ValueError("cannot read this completion")
    return verify(completion, gold)


def breaks_on_products(completion: str, gold: str) -> Verdict:
    """The verifier, brought down by every answer above 200, and so whole groups at a time."""
    if int(gold) > 200:
        raise ValueError("cannot read this gold")
    return verify(completion, gold)
