"""What a request may ask of the server, and all of them together: the limits, and checks that pydantic cannot make.

A run of `--buffer 4096 --group-size 8`, with its evaluation, fits into the shares.
"""

from collections.abc import Sequence

from rollout_server.engines import Engine, Facts
from rollout_server.errors import ApiError
from rollout_server.shares import Share

LARGEST_BODY = 2**23
"""Bytes of JSON: a million tokens. What takes a tenth of a second to parse holds everybody up for that long."""
BODY_LIMIT_S = 30.0
"""For a body of JSON to come: who sends it more slowly holds a place, and asks for nothing."""
UPLOAD_LIMIT_S = 300.0
"""For an adapter to come, which may have a GB: what our own client takes for it."""
REQUEST_LIMIT_S = 1800.0
"""For all of a request: what our own client waits for it. It ends what nobody reads, too."""
MOST_COMPLETIONS = 4096
"""Of one request, whose answer is made as a whole in memory."""

_AHEAD = 1.3
"""Times what the engine samples at a time: between two of its steps as many as these three tenths may end."""
_LEAST_TEMPERATURE = 0.01  # vLLM would silently raise a lower one to it


def check_sampling(temperature: float, n: int) -> None:
    """Raises ApiError 422."""
    if 0 < temperature < _LEAST_TEMPERATURE:
        raise invalid(f"temperature is {temperature}", fix=f"Use 0 (greedy) or at least {_LEAST_TEMPERATURE}.")
    if temperature == 0 and n > 1:
        raise invalid(f"n is {n} at temperature 0, where all completions are the same", fix="Ask for n=1.")


def wire_share(engine: Engine) -> Share:
    """Of the run's own requests: 512 groups and an evaluation's 16 are a quarter of what may be here. As Python's lists
    the bodies take at most some hundred MB. The engine gets a few more than it samples at a time, so that it never
    waits for us; the others wait here, where the policy's newest version is theirs when their turn comes."""
    return Share("wire", requests=2048, body_bytes=2**26, completions=lambda: engine.facts.max_num_seqs * _AHEAD)


def guest_share(requests: int, engine: Engine) -> Share:
    """Of OpenAI's clients: a quarter of what the engine samples at a time, and of the adapters that it samples by; the
    rest is left to the run. vLLM lets an adapter go only when nobody samples by it, and takes the next one then."""
    return Share(
        "guest",
        requests=requests,
        body_bytes=2**25,
        completions=lambda: engine.facts.max_num_seqs // 4,
        adapters=lambda: max(1, engine.facts.max_loras // 4),
        patience_s=60.0,
    )


def upload_share() -> Share:
    """Of adapters, which are held as a whole and may have a GB: a sweep's runs publish at about the same time."""
    return Share("upload", requests=4)


def check_count(prompts: int, n: int) -> None:
    """Raises ApiError 422."""
    if prompts * n > MOST_COMPLETIONS:
        detail = f"{prompts} prompts with n {n} are {prompts * n} completions, and a request has {MOST_COMPLETIONS}"
        raise invalid(detail, fix="Ask for them in several requests.")


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
