"""A reward of the user's own, in the real worker processes: whatever it does, no zero is made up."""

import asyncio
from pathlib import Path

import pytest

from rewards import Mark, Verdict, VerifierPool
from rewards.own import verdict_of

MODULE = """
import time
from rewards import Mark, Verdict

class Scalar:
    def item(self):
        return 0.75

def reward(completion, gold):
    match completion:
        case "hang": time.sleep(3600)
        case "raise": raise LookupError("no such thing")
        case "exit": raise SystemExit
        case "none": return None
        case "text": return "1.0"
        case "nan": return float("nan")
        case "nan verdict": return Verdict(mark=Mark.RIGHT, reason="x", answer=None, gold=gold, paid=float("inf"))
        case "verdict": return Verdict(mark=Mark.WRONG, reason="too long", answer="7", gold=gold)
        case "scalar": return Scalar()
        case "true": return True
        case _: return float(completion.partition(" ")[0])

def needs_three(completion, gold, language): ...

async def waits(completion, gold): ...

not_a_function = 1.0
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "users_rewards.py").write_text(MODULE)


def mark(*completions: str, timeout: float = 60.0) -> list[Verdict]:
    async def main() -> list[Verdict]:
        async with VerifierPool(check="users_rewards:reward", workers=1, timeout=timeout) as pool:
            return await pool.verify(completions, "7")

    return asyncio.run(main())


@pytest.mark.usefixtures("module")
def test_a_number_is_the_reward_and_right_from_one_on() -> None:
    verdicts = mark("1", "0", "0.5", "-2", "3.5", "true", "scalar")
    assert [v.reward for v in verdicts] == [1.0, 0.0, 0.5, -2.0, 3.5, 1.0, 0.75]
    assert [v.mark is Mark.RIGHT for v in verdicts] == [True, False, False, False, True, True, False]
    assert {v.gold for v in verdicts} == {"7"}


@pytest.mark.usefixtures("module")
def test_a_verdict_says_all_by_itself() -> None:
    (verdict,) = mark("verdict")
    assert verdict == Verdict(mark=Mark.WRONG, reason="too long", answer="7", gold="7")
    assert verdict.reward == 0.0


@pytest.mark.usefixtures("module")
def test_the_answer_is_the_boxed_one() -> None:
    boxed, plain = mark("1 \\boxed{7}", "1 7")
    assert (boxed.answer, plain.answer) == ("7", None)


def test_how_the_answer_was_found_is_said_of_every_result() -> None:
    assert verdict_of(1, r"\boxed{7}", "7").rule == r"last \boxed{}"
    assert verdict_of(0, "7", "7").rule == "no box"
    assert verdict_of(None, r"\boxed{7}", "7").rule == r"last \boxed{}"


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("completion", "reason"),
    [
        ("none", "reward is no finite number but NoneType"),
        ("text", "reward is no finite number but str"),
        ("nan", "reward is no finite number but float"),
        ("nan verdict", "reward is no finite number but Verdict"),
        ("raise", "verifier raised LookupError: no such thing"),
        ("what?", "verifier raised ValueError: could not convert string to float: 'what?'"),
        ("exit", "verifier died"),
    ],
)
def test_what_is_no_reward_is_an_error_and_harms_no_other(completion: str, reason: str) -> None:
    error, other = mark(completion, "1")
    assert (error.mark, error.reason, error.reward) == (Mark.ERROR, reason, None)
    assert other.reward == 1.0


@pytest.mark.usefixtures("module")
def test_a_hang_is_killed() -> None:
    hung, other = mark("hang", "0.5", timeout=2.0)
    assert (hung.mark, hung.reason, hung.reward) == (Mark.ERROR, "timed out", None)
    assert other.reward == 0.5


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("users_rewards:needs_three", "TypeError: missing a required argument: 'language'"),
        ("users_rewards:waits", "TypeError: async functions are not called"),
        ("users_rewards:not_a_function", "TypeError: 1.0 is not a callable object"),
        ("users_rewards:nothing", "AttributeError: .*nothing"),
        ("no_such_module:reward", "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_what_cannot_be_called_with_a_completion_and_a_gold_is_refused_at_the_start(name: str, why: str) -> None:
    async def start() -> None:
        async with VerifierPool(check=name):
            pass

    with pytest.raises(RuntimeError, match=why):
        asyncio.run(start())
