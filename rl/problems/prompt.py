"""Problem → prompt tokens, and completion tokens → text."""

from rl.core.types import Problem


class Prompter:
    """Renders problems by the chat template of a model's tokenizer.

    Args:
        model: folder or hub name.
    """

    def __init__(self, model: str) -> None:
        from transformers import AutoTokenizer

        self._tokenizer = AutoTokenizer.from_pretrained(model)

    def prompt_ids(self, problem: Problem) -> list[int]:
        messages = [{"role": "user", "content": problem.text}]
        rendered = self._tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return list(self._tokenizer(rendered, add_special_tokens=False)["input_ids"])

    def text(self, token_ids: list[int]) -> str:
        return str(self._tokenizer.decode(token_ids, skip_special_tokens=True))
