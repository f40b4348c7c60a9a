import subprocess
import sys

import pytest


def _rewards(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "rewards", *arguments], input=stdin, capture_output=True, text=True)


@pytest.mark.parametrize(
    ("pred", "gold", "code", "says"),
    [
        (r"So \boxed{33.0}.", "33", 0, "equal as numbers"),
        (r"\boxed{34}", "33", 1, "different numbers"),
        (r"\boxed{x+1}", "1+x", 0, "equal by math-verify"),
        (r"\boxed{33}", "9^{9^9}", 3, "gold too large to verify"),
    ],
)
def test_says_the_mark_and_why(pred: str, gold: str, code: int, says: str) -> None:
    done = _rewards(pred, gold)
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout.splitlines()[-1].endswith(f": {says}")


def test_says_step_by_step_what_was_extracted_and_which_comparison_decided() -> None:
    assert _rewards(r"12 + 21 is \boxed{33.0}", "33").stdout.splitlines() == [
        r"extract   last \boxed{}: 33.0",
        "gold      33: verifies against itself",
        "compare   not the same text",
        "compare   equal as numbers",
        "right: equal as numbers",
    ]


def test_a_prediction_without_a_box_gets_a_hint() -> None:
    done = _rewards("33", "33")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-2:] == [
        "wrong: no boxed answer",
        r"hint: only an answer in a box is paid; try '\boxed{33}'",
    ]


def test_a_dash_reads_the_prediction_from_stdin() -> None:
    assert _rewards("-", "33", stdin="so\n\\boxed{33}\n").returncode == 0


def test_wrong_usage_exits_with_2() -> None:
    assert _rewards("33").returncode == 2
