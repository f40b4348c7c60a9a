r"""Say how the verifier marks one completion, and why: ``python -m rewards '12+21 is \boxed{33}.' 33``

Exit code: 0 right, 1 wrong, 2 usage, 3 error.
"""

import argparse
import sys

from rewards.verdict import Mark, Verdict
from rewards.verify import check_gold, verify, verify_leniently

EXIT_CODES = {Mark.RIGHT: 0, Mark.WRONG: 1, Mark.ERROR: 3}
VERIFIERS = {"strict": verify, "lenient": verify_leniently}
SHOWN = 200
"""Characters of an answer or gold."""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m rewards",
        description="Mark a completion, and say why.",
        epilog="An answer that needs algebra takes about a second: a process is started for it, which can be killed.",
    )
    parser.add_argument("pred", metavar="PRED", help=r"what the model wrote, with its \boxed{answer}; - reads stdin")
    parser.add_argument("gold", metavar="GOLD", help="the reference answer, without a box")
    parser.add_argument(
        "--extraction",
        choices=VERIFIERS,
        default="strict",
        help="strict: only the last box after the thinking, as in training; lenient: wherever the answer stands",
    )
    arguments = parser.parse_args()
    completion_text = arguments.pred
    if completion_text == "-":
        completion_text = sys.stdin.buffer.read().decode(errors="replace")
    verdict = VERIFIERS[arguments.extraction](completion_text, arguments.gold)
    print("\n".join(explain(verdict, check_gold(arguments.gold))))
    if verdict.rule == "no box":
        words = completion_text.split()
        answer = words[-1].rstrip(".") if words and "\\" not in words[-1] else "42"
        print(rf"hint: only an answer in a box is paid; try '\boxed{{{shown(answer)}}}',")
        print("      or --extraction lenient, which looks elsewhere too")
    return EXIT_CODES[verdict.mark]


def explain(verdict: Verdict, gold_fault: str | None) -> list[str]:
    """The lines that lead from a completion to its verdict."""
    lines = [
        f"extract   {verdict.rule}" + (f": {shown(verdict.answer)}" if verdict.answer is not None else ""),
        f"gold      {shown(verdict.gold)}: {gold_fault or 'verifies against itself'}",
    ]
    took = f"{1000 * verdict.seconds:.1f} ms"
    if verdict.compared:
        lines.append(f"compare   decided by {verdict.compared} in {took}")
    elif verdict.mark is Mark.ERROR and gold_fault is None:
        lines.append(f"compare   given up after {took}")
    return [*lines, f"{verdict.mark}: {verdict.reason}"]


def shown(text: str) -> str:
    """One line of a text that may hold anything, escape codes for the terminal included."""
    line = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[:SHOWN])
    return line if len(text) <= SHOWN else f"{line}… ({len(text):,} characters)"


if __name__ == "__main__":
    sys.exit(main())
