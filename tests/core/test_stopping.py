"""When a run ends, by table."""

from typing import Any

import pytest

from rl.core.config import TrainConfig
from rl.core.stopping import ending

Record = dict[str, Any]


def step(number: int, *, seconds: float = 6.0, tokens: int = 100) -> Record:
    return {"kind": "step", "step": number, "step_s": seconds, "tokens": tokens}


def evaluation(at: int, value: float | None, name: str = "heldout") -> Record:
    estimate = None if value is None else {"value": value, "low": 0.0, "high": 1.0, "n_questions": 8}
    return {"kind": "eval", "step": at, "set": name, "summary": {"pass@1": estimate}}


TEN = [step(number) for number in range(1, 11)]


@pytest.mark.parametrize(
    ("settings", "records", "reason", "longer"),
    [
        ({}, [], None, None),
        ({"steps": 11}, TEN, None, None),
        ({"steps": 10}, TEN, "all 10 steps are made", "--steps 20"),
        ({"max_minutes": 1.01}, TEN, None, None),
        ({"max_minutes": 1}, TEN, "1.0 minutes of training are over (--max-minutes 1)", "--max-minutes 2"),
        ({"max_minutes": 0.1}, TEN, "1.0 minutes of training are over (--max-minutes 0.1)", "--max-minutes 2"),
        ({"token_budget": 1001}, TEN, None, None),
        ({"token_budget": 1000}, TEN, "1000 completion tokens are trained on", "--token-budget 2000"),
        ({"patience": 1}, TEN, None, None),
        ({"patience": 1}, [evaluation(0, 0.5)], None, None),
        ({"patience": 2}, [evaluation(0, 0.5), evaluation(5, 0.4)], None, None),
        (
            {"patience": 2},
            [evaluation(0, 0.5), evaluation(5, 0.4), evaluation(10, 0.5)],
            "no held-out pass@1 above 0.500 in 2 evaluations since step 0",
            "--patience 4",
        ),
        ({"patience": 2}, [evaluation(0, 0.5), evaluation(5, 0.4), evaluation(10, 0.51)], None, None),
        ({"patience": 1}, [evaluation(0, 0.5), evaluation(5, 0.9), evaluation(5, 0.1, "gsm8k@test")], None, None),
        ({"patience": 1}, [evaluation(0, 0.5), evaluation(5, None)], None, None),
        ({"steps": 10, "max_minutes": 1, "patience": 1}, TEN, "all 10 steps are made", "--steps 20"),
    ],
)
def test_the_reason_to_end(settings: Record, records: list[Record], reason: str | None, longer: str | None) -> None:
    ended = ending(TrainConfig.model_validate(settings), records)
    if reason is None:
        assert ended is None
    else:
        assert ended is not None
        assert ended.reason.startswith(reason)
        assert ended.longer == longer
        assert ended.early == (reason != "all 10 steps are made")


@pytest.mark.parametrize(
    ("settings", "records"),
    [
        ({"steps": 10}, TEN),
        ({"max_minutes": 0.3}, TEN),
        ({"token_budget": 7}, TEN),
        ({"patience": 1}, [evaluation(at, 0.9 - at / 100) for at in range(4)]),
    ],
)
def test_what_it_says_to_go_on_with_does_go_on(settings: Record, records: list[Record]) -> None:
    ended = ending(TrainConfig.model_validate(settings), records)
    assert ended is not None
    name, value = ended.longer.removeprefix("--").replace("-", "_").split()
    assert ending(TrainConfig.model_validate(settings | {name: value}), records) is None
