"""The rules on simulated logs of other tools: what gets better with noise is sound, what breaks by far more is not."""

import json
from collections.abc import Callable, Sequence
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from rl.observe.diagnosis import diagnosed

Values = NDArray[np.float64]
FALLING: tuple[Callable[[Values], Values], ...] = (
    lambda x: np.exp(-4 * x),
    lambda x: (1 + 30 * x) ** -0.5,
    lambda x: np.maximum(0, 1 - 3 * x),
)
"""Exponentially, by a power law, and flat after falling: from 1 towards 0 as x goes from 0 to 1."""
NOISES = (0.01, 0.03, 0.05)
"""Of a point, relative to it."""
LENGTHS = (8, 10, 12, 16, 20, 23, 24, 30, 40, 60)
LOGGED = (
    *(("loss",), ("eval_loss",), ("reward",)),
    *(("loss", "eval_loss"), ("loss", "reward"), ("loss", "eval_loss", "reward")),
)
LORA: dict[str, float] = {"lr": 2e-4, "lora_rank": 16}
SLOW: dict[str, float] = {"lr": 1e-5, "lora_rank": 8, "lora_alpha": 16, "grad_clip": 1.0}
SETTINGS = (None, LORA, SLOW)
FULL = {"loss": 3.0, "eval_loss": 3.1, "reward": 0.2}
LEARNED = {"loss": 1.5, "eval_loss": 1.7, "reward": 0.8}


def noisy(values: Values, noise: float, random: np.random.Generator) -> Values:
    return values * (1 + noise * random.standard_normal(len(values)))


def rules_in(
    folder: Path,
    curves: dict[str, Values],
    settings: dict[str, float] | None = None,
    *,
    stride: int = 10,
    evals: int = 1,
) -> list[str]:
    """The findings in a `trainer_state.json` with these curves.

    Args:
        stride: steps between lines.
        evals: lines between those that have an evaluation.
    """
    history = [
        {"step": stride * i, name: value}
        for name, values in curves.items()
        for i, value in enumerate(values, start=1)
        if name != "eval_loss" or i % evals == 0
    ]
    path = folder / "trainer_state.json"
    path.write_text(json.dumps({"log_history": history, **(settings or {})}))
    ((_, found),) = diagnosed(path)
    return [finding.rule for finding in found]


def sound_logs_with_findings(folder: Path, seed: int, lengths: Sequence[int]) -> tuple[int, list[str]]:
    """(logs, those of them that any rule finds fault with)"""
    random, logs, alarms = np.random.default_rng(seed), 0, []
    for falling, noise, n, names in product(FALLING, NOISES, lengths, LOGGED):
        shape = falling(np.linspace(0, 1, n))
        curves = {name: noisy(LEARNED[name] + (FULL[name] - LEARNED[name]) * shape, noise, random) for name in names}
        stride, evals, which = int(random.choice([1, 10, 500])), int(random.choice([1, 4])), random.integers(3)
        logs += 1
        if rules := rules_in(folder, curves, SETTINGS[which], stride=stride, evals=evals):
            alarms.append(f"{n} points of {names} with noise of {noise:.0%}: {rules}")
    return logs, alarms


def test_what_gets_better_with_noise_is_sound(tmp_path: Path) -> None:
    logs, alarms = sound_logs_with_findings(tmp_path, 0, LENGTHS)
    assert logs == 540
    assert len(alarms) <= 0.01 * logs, alarms


def broken(shape: str, n: int, noise: float, random: np.random.Generator) -> Values:
    """A falling loss that doubles at some step, and stays so or comes back."""
    loss = LEARNED["loss"] + (FULL["loss"] - LEARNED["loss"]) * np.exp(-4 * np.linspace(0, 1, n))
    start = int(random.integers(n // 3, n // 2 + 1))
    end = n if shape == "stays" else start + max(2, n // 4)
    loss[start:end] *= 2
    return noisy(loss, noise, random)


@pytest.mark.parametrize("name", ["loss", "eval_loss"])
@pytest.mark.parametrize(("shape", "rule"), [("stays", "divergence"), ("comes back", "instability")])
def test_a_loss_that_doubles_is_found(tmp_path: Path, name: str, shape: str, rule: str) -> None:
    random = np.random.default_rng(1)
    logs = [(n, noise) for n in LENGTHS for noise in NOISES]
    missed = [log for log in logs if rules_in(tmp_path, {name: broken(shape, *log, random)}) != [rule]]
    assert len(missed) <= 0.05 * len(logs), missed


@pytest.mark.parametrize("n", [8, 12, 20, 23, 40, 60])
def test_a_loss_that_is_learned_by_heart_is_found(tmp_path: Path, n: int) -> None:
    """The held-out loss rises by a third from its best, at two fifths of the log, while the other falls on."""
    random, x = np.random.default_rng(n), np.linspace(0, 1, n)
    curves = {
        "loss": noisy(3 - 2 * x, 0.01, random),
        "eval_loss": noisy(np.where(x < 0.4, 3.1 - 2.5 * x, 2.1 + (x - 0.4) * 1.2), 0.01, random),
    }
    assert rules_in(tmp_path, curves) == ["overfitting"]


def test_a_loss_that_never_moved_is_found_and_two_lines_tell_nothing(tmp_path: Path) -> None:
    still = np.array([2.51, 2.5])
    assert rules_in(tmp_path, {"loss": still}, SLOW, stride=1) == []
    assert rules_in(tmp_path, {"loss": still}, SLOW, stride=500) == ["lr_low", "rank_small"]
    many = noisy(np.full(60, 2.5), 0.01, np.random.default_rng(0))
    assert rules_in(tmp_path, {"loss": many}, SLOW) == ["lr_low", "rank_small"]
    assert rules_in(tmp_path, {"loss": many}, LORA) == ["plateau"]
