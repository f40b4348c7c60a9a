"""Requests of text as vLLM's sampling parameters, and vLLM's outputs as pieces of text."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, cast

from rollout_server.engines import Piece, TextRequest, Token, Tokenizer

if TYPE_CHECKING:
    from vllm import RequestOutput, SamplingParams
    from vllm.logprobs import Logprob


def load_tokenizer(model: str, *, trust_remote_code: bool) -> Tokenizer | None:
    """The server's own, beside vLLM's: a tokenizer is not to be shared between threads. None where there is none."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, LookupError) as error:
        reason = " ".join(str(error).split())
        print(f"rollout server: no requests of text, for the tokenizer cannot be loaded: {reason}", file=sys.stderr)
        return None
    empty = len(tokenizer) <= len(tokenizer.all_special_ids)  # transformers makes one where there are no files
    return None if empty else cast(Tokenizer, tokenizer)


@cache
def tokenizer_of(model: str, *, trust_remote_code: bool) -> Tokenizer | None:
    """The same one each time in a process."""
    return load_tokenizer(model, trust_remote_code=trust_remote_code)


def sampling_params(request: TextRequest) -> "SamplingParams":
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    count = request.logprobs or 0  # that of the sampled token always: the engine checks that it is finite
    return SamplingParams(
        n=request.n,
        max_tokens=1 if request.max_tokens == 0 else request.max_tokens,  # vLLM samples one at the least
        temperature=request.temperature,
        top_p=request.top_p,
        presence_penalty=request.presence_penalty,
        frequency_penalty=request.frequency_penalty,
        repetition_penalty=request.repetition_penalty,
        ignore_eos=request.ignore_eos,
        seed=request.seed,
        stop=request.stop,
        logprobs=count,
        prompt_logprobs=count if request.prompt_logprobs else None,
        output_kind=RequestOutputKind.DELTA if request.stream else RequestOutputKind.FINAL_ONLY,
    )


def pieces(prompt: int, output: "RequestOutput", request: TextRequest, tokenizer: Tokenizer) -> Iterator[Piece]:
    """What vLLM gave for one of the prompts."""
    prompt_tokens: list[Token] = []
    if output.prompt_logprobs:
        prompt_tokens = _tokens(request.prompts[prompt], output.prompt_logprobs, request.logprobs or 0, tokenizer)
    for completion in output.outputs:
        if request.max_tokens == 0:
            yield _nothing(prompt * request.n + completion.index, prompt_tokens)
            continue
        tokens: list[Token] = []
        if request.logprobs is not None:
            tokens = _tokens(completion.token_ids, completion.logprobs, request.logprobs, tokenizer)
        yield Piece(
            index=prompt * request.n + completion.index,
            text=completion.text,
            token_count=len(completion.token_ids),
            tokens=tokens,
            prompt_tokens=prompt_tokens,
            finish_reason=completion.finish_reason,
        )


def _nothing(index: int, prompt_tokens: list[Token]) -> Piece:
    """The prompt was asked for, alone."""
    return Piece(index=index, text="", token_count=0, tokens=[], prompt_tokens=prompt_tokens, finish_reason="length")


def _tokens(
    token_ids: Sequence[int],
    logprobs: Sequence["Mapping[int, Logprob] | None"],
    count: int,
    tokenizer: Tokenizer,
) -> list[Token]:
    return [
        _token(token_id, of_place, count, tokenizer) for token_id, of_place in zip(token_ids, logprobs, strict=True)
    ]


def _token(token_id: int, of_place: "Mapping[int, Logprob] | None", count: int, tokenizer: Tokenizer) -> Token:
    """vLLM gives the token itself and the likeliest ones; several tokens may share a text: the likeliest keeps it."""
    if of_place is None:
        return Token(text=tokenizer.decode([token_id]), logprob=None, likeliest={})
    likeliest: dict[str, float] = {}
    for likely in sorted(of_place.values(), key=attrgetter("rank")):
        if likely.rank <= count:
            likeliest.setdefault(likely.decoded_token, likely.logprob)
    own = of_place[token_id]
    return Token(text=own.decoded_token, logprob=own.logprob, likeliest=likeliest)
