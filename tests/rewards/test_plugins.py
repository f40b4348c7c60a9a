"""TRL and verl can be given our verifier: called as they call it, from where they call it."""

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from rewards import Mark, Verdict, verify_leniently
from rewards.terms import boxed_format
from rewards.trl import accuracy_reward, format_reward
from rewards.verl import compute_score

BAD_GOLD = r"\frac{1}{"
"""Errors need no accident: nothing can be said of a gold that cannot be read."""


def chat(text: str) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": text}]


# ---- TRL


def test_rewards_of_texts_and_of_chats() -> None:
    texts = [r"So \boxed{33}.", r"So \boxed{34}.", "So 33."]
    golds = ["33"] * 3
    assert accuracy_reward(texts, solution=golds) == [1.0, 0.0, 0.0]
    assert accuracy_reward([chat(text) for text in texts], solution=golds) == [1.0, 0.0, 0.0]
    assert format_reward([chat(text) for text in texts]) == [1.0, 1.0, 0.0]
    parts = [{"role": "assistant", "content": [{"type": "text", "text": r"\boxed{33}"}]}]
    assert accuracy_reward([parts, []], solution=["33", "33"]) == [1.0, 0.0]


@pytest.mark.parametrize("solution", ["33", "$33$", r"First $30$, so $\boxed{33}$.", "30 + 3 = <<30+3=33>>33\n#### 33"])
def test_a_solution_may_be_a_whole_text(solution: str) -> None:
    assert accuracy_reward([r"\boxed{33}", r"\boxed{30}"], solution=[solution] * 2) == [1.0, 0.0]


def test_a_column_of_answers_is_preferred() -> None:
    assert accuracy_reward([r"\boxed{33}"], solution=["a long story"], answer=["33"]) == [1.0]
    with pytest.raises(TypeError, match="neither a column solution nor answer"):
        accuracy_reward([r"\boxed{33}"])


def test_what_cannot_be_said_is_none_whatever_the_format() -> None:
    reward = partial(accuracy_reward, terms=[(0.5, boxed_format)])
    assert reward([r"\boxed{33}"] * 2 + ["33"], solution=["33", BAD_GOLD, "33"]) == [1.5, None, 0.0]


def test_the_check_can_be_chosen() -> None:
    assert accuracy_reward(["So 33."], solution=["33"]) == [0.0]
    assert accuracy_reward(["So the answer is 33."], solution=["33"], check=verify_leniently) == [1.0]

    def timed_out(completion: str, gold: str) -> Verdict:
        return Verdict(mark=Mark.ERROR, reason="timed out", answer=None, gold=gold)

    assert accuracy_reward([r"\boxed{33}"], solution=["33"], check=timed_out) == [None]


def test_reward_functions_travel_to_other_processes() -> None:
    for reward in (accuracy_reward, format_reward, partial(accuracy_reward, terms=[(0.1, boxed_format)])):
        assert pickle.loads(pickle.dumps(reward))([r"\boxed{33}"], solution=["33"]) in ([1.0], [1.1])


def test_the_trainer_of_trl_calls_them(tmp_path: Path) -> None:
    """By the private method that its training step calls: of what it passes, nothing is left out."""
    pytest.importorskip("trl", reason="the oracle: it is in the dev dependency group")
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from tests.loss.test_trl_parity import make_model

    make_model(tmp_path)
    rows = [{"prompt": "1+2=", "solution": gold, "level": "1"} for gold in ("3", "3", BAD_GOLD, "x^2-1")]
    trainer = GRPOTrainer(
        str(tmp_path),
        reward_funcs=[accuracy_reward, format_reward, partial(accuracy_reward, terms=[(0.5, boxed_format)])],
        args=GRPOConfig(
            str(tmp_path / "out"),
            per_device_train_batch_size=4,
            num_generations=4,
            report_to="none",
            bf16=False,
            use_cpu=True,
        ),
        train_dataset=Dataset.from_list(rows),
    )
    completions = [r"\boxed{3}", "3", r"\boxed{3}", r"\boxed{(x-1)(x+1)}"]
    prompts = [row["prompt"] for row in rows]
    rewards = trainer._calculate_rewards(rows, prompts, completions, [[5]] * 4)
    assert rewards.nan_to_num(nan=-1).tolist() == [[1, 1, 1.5], [0, 0, 0], [-1, 1, -1], [1, 1, 1.5]]
    assert trainer._pending_extra_logs["extracted"][:4] == ["3", "", "3", "(x-1)(x+1)"]
    assert trainer._pending_metrics["verifier_errors"] == [0.25, 0.25]


# ---- verl


def test_every_score_has_the_same_keys_of_numbers_and_text() -> None:
    right, wrong, nothing, error = (
        compute_score(data_source="openai/gsm8k", solution_str=text, ground_truth=gold, extra_info={"index": 3})
        for text, gold in ((r"\boxed{33}", 33), (r"\boxed{34}", "33"), ("33", "33"), (r"\boxed{33}", BAD_GOLD))
    )
    assert [(r["score"], r["acc"], r["error"], r["pred"]) for r in (right, wrong, nothing, error)] == [
        (1.0, 1.0, 0.0, "33"),
        (0.0, 0.0, 0.0, "34"),
        (0.0, 0.0, 0.0, ""),
        (0.0, 0.0, 1.0, "33"),
    ]
    kinds = [[(key, type(value)) for key, value in result.items()] for result in (right, wrong, nothing, error)]
    assert kinds == [kinds[0]] * 4
    assert {kind for _, kind in kinds[0]} == {float, str}


def test_it_works_in_the_threads_of_a_reward_manager() -> None:
    """verl's managers call from an executor, and some add arguments of their own."""
    texts = [r"\boxed{(x-1)(x+1)}", r"\boxed{x^2}"] * 8

    def score(text: str) -> float:
        return float(compute_score("math", text, "x^2-1", extra_info=None, strict_box_verify=False)["score"])

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(score, texts)) == [1.0, 0.0] * 8


@pytest.mark.parametrize("module", ["trl", "verl"])
def test_neither_loads_what_it_is_made_for(module: str) -> None:
    script = f"import sys, rewards.{module}; assert not {{'trl', 'verl', 'torch', 'sympy'}} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True)
