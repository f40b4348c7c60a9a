r"""Say how the verifier marks one completion, and why: ``python -m rewards '12+21 is \boxed{33}.' 33``

Exit code: 0 right, 1 wrong, 2 usage, 3 error.
"""

import argparse
import sys

from rewards.extract import extract
from rewards.verdict import Mark, Verdict
from rewards.verify import check_gold, compare, verify

EXIT_CODES = {Mark.RIGHT: 0, Mark.WRONG: 1, Mark.ERROR: 3}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m rewards", description="Mark a completion, and say why.")
    parser.add_argument("pred", metavar="PRED", help=r"what the model wrote, with its \boxed{answer}; - reads stdin")
    parser.add_argument("gold", metavar="GOLD", help="the reference answer, without a box")
    arguments = parser.parse_args()
    completion_text = sys.stdin.read() if arguments.pred == "-" else arguments.pred
    verdict = verify(completion_text, arguments.gold)
    print("\n".join(explain(completion_text, verdict)))
    return EXIT_CODES[verdict.mark]


def explain(completion_text: str, verdict: Verdict) -> list[str]:
    """The lines that lead from a completion to its verdict."""
    extraction = extract(completion_text)
    fault = check_gold(verdict.gold)
    lines = [
        f"extract   {extraction.rule}" + (f": {extraction.answer}" if extraction.answer is not None else ""),
        f"gold      {verdict.gold}: {fault or 'verifies against itself'}",
    ]
    if extraction.answer is not None and fault is None:
        lines += [f"compare   {finding.reason}" for finding in compare(extraction.answer, verdict.gold)]
    lines.append(f"{verdict.mark}: {verdict.reason}")
    if extraction.answer is None:
        words = completion_text.split()
        answer = words[-1].rstrip(".") if words and "\\" not in words[-1] else "42"
        lines.append(rf"hint: only an answer in a box is paid; try '\boxed{{{answer}}}'")
    return lines


if __name__ == "__main__":
    sys.exit(main())
