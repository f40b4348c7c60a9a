r"""Problem → prompt tokens, and completion tokens → text."""

import heapq
from collections.abc import Sequence

from rl.core.config import STARTERS, TrainConfig
from rl.core.errors import UsageError, first_line
from rl.core.types import Problem
from rollout_server.schema import Sampling

PLACE = "{problem}"
PROMPTS = {
    "plain": PLACE,
    # as Qwen2.5-Math and DeepSeek-R1 are asked
    "boxed": PLACE + "\nPlease reason step by step, and put your final answer within \\boxed{}.",
    # as verl asks MATH
    "cot": PLACE + " Let's think step by step and output the final answer within \\boxed{}.",
}
LONGEST = 32
"""Problems whose length is checked, those of most characters."""


def prompt_text(config: TrainConfig) -> str:
    """What the model is asked, with `{problem}` where the problem goes.

    Raises:
        UsageError: `--prompt` is no built-in one and has no such place.
    """
    default = "plain" if config.model in STARTERS else "boxed"
    name = default if config.prompt is None else config.prompt
    text = PROMPTS.get(name, name)
    if PLACE not in text:
        fix = f"take {', '.join(PROMPTS)}, or write {PLACE} where the problem goes"
        raise UsageError(f"--prompt {name!r} is no built-in prompt, and has no {PLACE}", fix=fix)
    return text


class Prompter:
    """Renders problems by the chat template of a model's tokenizer. A base model, whose tokenizer has none, gets the
    prompt as plain text: the system prompt and an empty line where there is one, the prompt, a line break.

    Args:
        model: folder or hub name.
        config: says how the problem is asked.

    Raises:
        UsageError: the model comes without a tokenizer, or with one that cannot be read; or its chat template has no
            place for a system prompt.
    """

    def __init__(self, model: str, config: TrainConfig) -> None:
        from jinja2 import TemplateError
        from transformers import AutoTokenizer

        self._prompt, self._system = prompt_text(config), config.system_prompt
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=config.trust_remote_code)
        except (OSError, ValueError) as error:
            reason = first_line(error)
            fix = "give --model a folder or hub model with its tokenizer"
            raise UsageError(f"{model} has no tokenizer that can be loaded: {reason}", fix=fix) from None
        try:
            self.render("1+1")
        except TemplateError as error:
            fix = "leave --system-prompt out, and say it in --prompt"
            raise UsageError(f"the chat template of {config.model} refuses the prompt: {error}", fix=fix) from None

    def sampling(self, temperature: float, max_tokens: int) -> Sampling:
        """Completions end where the tokenizer says so, whatever the model's own configuration names."""
        eos = self._tokenizer.eos_token_id
        stop = [] if eos is None else [eos]
        return Sampling(temperature=temperature, max_tokens=max_tokens, stop_token_ids=stop)

    def render(self, problem_text: str) -> str:
        """The prompt as the model sees it."""
        prompt = self._prompt.replace(PLACE, problem_text)  # not str.format: LaTeX is full of braces
        if self._tokenizer.chat_template is None:
            return f"{self._system}\n\n{prompt}\n" if self._system else f"{prompt}\n"
        messages = [{"role": "system", "content": self._system}] if self._system is not None else []
        messages.append({"role": "user", "content": prompt})
        return str(self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))

    def prompt_ids(self, problem: Problem) -> list[int]:
        is_chat = self._tokenizer.chat_template is not None  # a template writes special tokens itself
        # not verbose: what length fits is the server's to say, not the tokenizer's
        encoded = self._tokenizer(self.render(problem.text), add_special_tokens=not is_chat, verbose=False)
        return list(encoded["input_ids"])

    def check_length(self, problems: Sequence[Problem], limit: int, max_tokens: int) -> None:
        """Checks that the longest problems leave room for a completion.

        Args:
            limit: tokens of prompt and completion that the server takes.

        Raises:
            UsageError: one does not.
        """
        for problem in heapq.nlargest(LONGEST, problems, key=lambda p: len(p.text)):
            if (length := len(self.prompt_ids(problem))) + max_tokens > limit:
                message = (
                    f"problem {problem.id} has {length} tokens: with --max-tokens {max_tokens} that is over {limit}"
                )
                raise UsageError(
                    message, fix="take the problem out, a smaller --max-tokens, or a model of longer context"
                )

    def text(self, token_ids: list[int]) -> str:
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=True))
