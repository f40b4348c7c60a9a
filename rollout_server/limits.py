"""What a request may ask of the model that is served: checks that need its facts, or several fields at once."""

from collections.abc import Sequence

from rollout_server.engines import Facts
from rollout_server.errors import ApiError

_LEAST_TEMPERATURE = 0.01  # vLLM would silently raise a lower one to it


def check_sampling(temperature: float, n: int) -> None:
    """Raises ApiError 422."""
    if 0 < temperature < _LEAST_TEMPERATURE:
        raise invalid(f"temperature is {temperature}", fix=f"Use 0 (greedy) or at least {_LEAST_TEMPERATURE}.")
    if temperature == 0 and n > 1:
        raise invalid(f"n is {n} at temperature 0, where all completions are the same", fix="Ask for n=1.")


def check_prompts(prompts: Sequence[Sequence[int]], max_tokens: int, facts: Facts) -> None:
    """Whether every prompt is of the model's tokens, and leaves room for its completion. Raises ApiError 422."""
    for index, prompt in enumerate(prompts):
        if not prompt:
            raise invalid(f"prompts.{index} is empty", fix="Send at least one token.")
        if len(prompt) + max_tokens > facts.max_model_len:
            detail = (
                f"prompts.{index} has {len(prompt)} tokens, which with max_tokens {max_tokens} "
                f"is more than the model's {facts.max_model_len}"
            )
            raise invalid(detail, fix="Shorten the prompt, lower max_tokens, or raise the server's --max-model-len.")
        check_tokens(f"prompts.{index}", prompt, facts)


def check_tokens(name: str, tokens: Sequence[int], facts: Facts) -> None:
    """Raises ApiError 422."""
    if not all(0 <= token < facts.vocab_size for token in tokens):
        detail = f"{name} holds a token outside 0 to {facts.vocab_size - 1}"
        raise invalid(detail, fix="Use the tokenizer of the model that is served.")


def invalid(detail: str, *, fix: str) -> ApiError:
    return ApiError(422, "invalid request", detail, fix=fix)
