import re
import subprocess
import sys

import pytest


def _rewards(*arguments: str, stdin: bytes = b"") -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-m", "rewards", *arguments], input=stdin, capture_output=True)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.mark.parametrize(
    ("pred", "gold", "code", "says"),
    [
        (r"So \boxed{33.0}.", "33", 0, "right: equal as numbers"),
        (r"\boxed{34}", "33", 1, "wrong: different numbers"),
        (r"\boxed{x+1}", "1+x", 0, "right: equal by algebra"),
        (r"\boxed{33}", "9^{9^9}", 3, "error: gold too large to verify"),
        (r"\boxed{}", "33", 1, "wrong: empty box"),
    ],
)
def test_says_the_mark_and_why(pred: str, gold: str, code: int, says: str) -> None:
    done = _rewards(pred, gold)
    assert (done.returncode, done.stderr) == (code, "")
    assert done.stdout.splitlines()[-1] == says


def test_says_step_by_step_what_was_extracted_and_which_comparison_decided() -> None:
    *lines, compared, verdict = _rewards(r"12 + 21 is \boxed{33.0}", "33").stdout.splitlines()
    assert lines == [r"extract   last \boxed{}: 33.0", "gold      33: verifies against itself"]
    assert re.fullmatch(r"compare   decided by structure in \d+\.\d ms", compared)
    assert verdict == "right: equal as numbers"


def test_a_gold_that_cannot_be_used_is_said_and_nothing_is_compared() -> None:
    assert _rewards(r"\boxed{33}", "9^{9^9}").stdout.splitlines() == [
        r"extract   last \boxed{}: 33",
        "gold      9^{9^9}: gold too large to verify",
        "error: gold too large to verify",
    ]


def test_an_answer_without_end_is_given_up() -> None:
    gold = r"F_n = \sum_{k=0}^{n-1} F_k F_{n-k-1}"
    done = _rewards(r"\boxed{F_n = \sum_{k=0}^{n-2} F_k F_{n-k-2}}", gold)
    *_, compared, verdict = done.stdout.splitlines()
    assert (done.returncode, done.stderr, verdict) == (3, "", "error: timed out")
    assert re.fullmatch(r"compare   given up after \d+\.\d ms", compared)


def test_a_prediction_without_a_box_gets_a_hint() -> None:
    done = _rewards("33", "33")
    assert done.returncode == 1
    assert done.stdout.splitlines()[-3:] == [
        "wrong: no answer found",
        r"hint: only an answer in a box is paid; try '\boxed{33}',",
        "      or --extraction lenient, which looks elsewhere too",
    ]


def test_lenient_extraction_finds_an_answer_without_a_box() -> None:
    done = _rewards("So she pays 30 + 3.\n#### 33", "33", "--extraction", "lenient")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1] == "right: same text"
    assert "hint" not in done.stdout


def test_a_dash_reads_the_prediction_from_stdin_whatever_its_bytes() -> None:
    assert _rewards("-", "33", stdin=b"so\xff\n\\boxed{33}\n").returncode == 0


def test_what_is_shown_of_an_answer_is_one_short_line_of_plain_characters() -> None:
    *_, found, _, _, _ = _rewards("-", "33", stdin=b"\\boxed{3\x1b[31m\n3}").stdout.splitlines()
    assert found == r"extract   last \boxed{}: 3\x1b[31m\n3"
    assert len(_rewards("-", "33", stdin=b"\\boxed{%s}" % (b"3" * 60_000)).stdout) < 500


@pytest.mark.parametrize("arguments", [["33"], ["33", "33", "--extraction", "loose"]])
def test_wrong_usage_exits_with_2(arguments: list[str]) -> None:
    assert _rewards(*arguments).returncode == 2
