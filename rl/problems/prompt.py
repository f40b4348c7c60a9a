"""Problem → prompt tokens, and completion tokens → text."""

from collections.abc import Sequence

from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.core.types import Problem
from rollout_server.schema import Sampling

LONGEST = 32
"""Problems whose length is checked, those of most characters."""


class Prompter:
    """Renders problems by the chat template of a model's tokenizer.

    Args:
        model: folder or hub name.
        config: says how the problem is asked.

    Raises:
        UsageError: the model comes without a tokenizer, or with one that cannot be read.
    """

    def __init__(self, model: str, config: TrainConfig) -> None:
        from transformers import AutoTokenizer

        try:
            self._tokenizer = AutoTokenizer.from_pretrained(model)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            fix = "give --model a folder or hub model with its tokenizer"
            raise UsageError(f"{model} has no tokenizer that can be loaded: {reason}", fix=fix) from None

    def sampling(self, temperature: float, max_tokens: int) -> Sampling:
        """Completions end where the tokenizer says so, whatever the model's own configuration names."""
        eos = self._tokenizer.eos_token_id
        stop = [] if eos is None else [eos]
        return Sampling(temperature=temperature, max_tokens=max_tokens, stop_token_ids=stop)

    def prompt_ids(self, problem: Problem) -> list[int]:
        messages = [{"role": "user", "content": problem.text}]
        rendered = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return list(self._tokenizer(rendered, add_special_tokens=False)["input_ids"])

    def check_length(self, problems: Sequence[Problem], limit: int, max_tokens: int) -> None:
        """Checks that the longest problems leave room for a completion.

        Args:
            limit: tokens of prompt and completion that the server takes.

        Raises:
            UsageError: one does not.
        """
        for problem in sorted(problems, key=lambda p: len(p.text))[-LONGEST:]:
            if (length := len(self.prompt_ids(problem))) + max_tokens > limit:
                message = (
                    f"problem {problem.id} has {length} tokens: with --max-tokens {max_tokens} that is over {limit}"
                )
                raise UsageError(
                    message, fix="take the problem out, a smaller --max-tokens, or a model of longer context"
                )

    def text(self, token_ids: list[int]) -> str:
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=True))
