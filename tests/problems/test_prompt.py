"""What the model is asked: by its chat template, or as plain text where it has none."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.core.types import Problem
from rl.problems.prompt import Prompter, prompt_text
from rl.problems.sources import load_problems
from rl.problems.starter import STARTER_MODEL

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"


@pytest.fixture
def model_with(tmp_path: Path) -> Any:
    """`model_with(chat_template)`: the starter's tokenizer with another template, or none."""
    from transformers import AutoTokenizer

    def make(chat_template: str | None) -> str:
        tokenizer = AutoTokenizer.from_pretrained(STARTER_MODEL)
        tokenizer.chat_template = chat_template
        tokenizer.save_pretrained(tmp_path / "model")
        return str(tmp_path / "model")

    return make


def test_the_starter_is_asked_the_problem_alone() -> None:
    prompter = Prompter(str(STARTER_MODEL), TrainConfig())
    problem = load_problems(TrainConfig(), "heldout")[0]
    assert prompter.text(prompter.prompt_ids(problem)) == f"{problem.text}="


def test_other_models_are_asked_for_a_box() -> None:
    wording = "Please reason step by step, and put your final answer within \\boxed{}."
    assert prompt_text(TrainConfig(model="some/model")) == f"{{problem}}\n{wording}"
    assert prompt_text(TrainConfig(prompt="cot")).endswith("output the final answer within \\boxed{}.")
    assert prompt_text(TrainConfig(model="some/model", prompt="plain")) == "{problem}"


def test_braces_of_latex_stay_in_prompt_and_problem(model_with: Any) -> None:
    config = TrainConfig(prompt="Solve {problem} into \\boxed{x}. {}")
    prompter = Prompter(model_with(CHATML), config)
    rendered = prompter.render(r"\frac{1}{2} {0} {problem}")
    assert rendered == (
        "<|im_start|>user\nSolve \\frac{1}{2} {0} {problem} into \\boxed{x}. {}<|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_system_prompt_goes_before_the_prompt(model_with: Any) -> None:
    config = TrainConfig(prompt="plain", system_prompt="Be brief.")
    rendered = Prompter(model_with(CHATML), config).render("1+1")
    assert rendered.startswith("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n1+1<|im_end|>")


def test_a_template_without_a_place_for_it_refuses_a_system_prompt(model_with: Any) -> None:
    model = model_with(NO_SYSTEM + CHATML)
    Prompter(model, TrainConfig())
    with pytest.raises(UsageError, match="System role not supported") as refused:
        Prompter(model, TrainConfig(system_prompt="Be brief."))
    assert "--system-prompt" in refused.value.fix


def test_a_base_model_gets_plain_text(model_with: Any) -> None:
    model = model_with(None)
    assert Prompter(model, TrainConfig()).render("1+1") == "1+1\n"
    prompter = Prompter(model, TrainConfig(system_prompt="Be brief."))
    assert prompter.render("1+1") == "Be brief.\n\n1+1\n"
    ids = prompter.prompt_ids(Problem(id="0", text="1+1", gold="2"))
    assert prompter.text(ids) == "Be brief.\n\n1+1\n"


def test_the_server_alone_says_what_is_too_long(
    model_with: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_with(CHATML)
    settings = json.loads((tmp_path / "model/tokenizer_config.json").read_text())
    (tmp_path / "model/tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 4}))
    prompter = Prompter(model, TrainConfig())
    monkeypatch.setattr(logging.getLogger("transformers"), "propagate", True)
    problems = [Problem(id="short", text="1+1", gold="2"), Problem(id="long", text="1+1+1+1", gold="4")]
    limit = len(prompter.prompt_ids(problems[1])) + 8
    prompter.check_length(problems, limit, max_tokens=8)
    with pytest.raises(UsageError, match="problem long has"):
        prompter.check_length(problems, limit - 1, max_tokens=8)
    assert caplog.text == ""


@pytest.mark.parametrize("prompt", ["boxd", "", "Solve {question}"])
def test_a_prompt_without_a_place_for_the_problem_is_refused(prompt: str) -> None:
    with pytest.raises(UsageError, match=r"has no \{problem\}"):
        prompt_text(TrainConfig(prompt=prompt))
