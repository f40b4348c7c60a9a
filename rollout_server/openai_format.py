"""Pieces of text as the bodies of OpenAI's API: whole answers, the chunks of a stream, and errors."""

import json
import time
import uuid
from collections.abc import Sequence
from typing import Any, Protocol

from rollout_server.engines import Piece, Token
from rollout_server.errors import ApiError

Json = dict[str, Any]

_LEAST_LOGPROB = -9999.0
"""JSON has no infinity; tokens that top_p cut off have that."""


class Format(Protocol):
    """How the pieces of one request are said. It serves this request alone."""

    id_prefix: str
    object: str
    chunk_object: str

    def choice(self, piece: Piece) -> Json:
        """A completion that came in one piece."""
        ...

    def opening(self, piece: Piece) -> Json | None:
        """What a stream says before the first piece of a completion, if anything."""
        ...

    def delta(self, piece: Piece) -> Json:
        """A piece of a stream."""
        ...


class CompletionFormat:
    """Answers of /v1/completions.

    Args:
        echo: what stands before each completion, by its index; empty without echo.
        logprobs: whether they were asked for.
    """

    id_prefix = "cmpl"
    object = chunk_object = "text_completion"

    def __init__(self, echo: Sequence[str], *, logprobs: bool) -> None:
        self._echo = echo
        self._logprobs = logprobs
        self._offsets: dict[int, int] = {}

    def choice(self, piece: Piece) -> Json:
        echo = self._echo[piece.index] if self._echo else ""
        return self._choice(piece.index, echo + piece.text, [*piece.prompt_tokens, *piece.tokens], piece.finish_reason)

    def opening(self, piece: Piece) -> Json | None:
        return self._choice(piece.index, self._echo[piece.index], piece.prompt_tokens, None) if self._echo else None

    def delta(self, piece: Piece) -> Json:
        return self._choice(piece.index, piece.text, piece.tokens, piece.finish_reason)

    def _choice(self, index: int, text: str, tokens: Sequence[Token], finish_reason: str | None) -> Json:
        logprobs = self._log_probabilities(index, tokens) if self._logprobs else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}

    def _log_probabilities(self, index: int, tokens: Sequence[Token]) -> Json:
        offsets = []
        for token in tokens:
            offset = self._offsets.get(index, 0)
            offsets.append(offset)
            self._offsets[index] = offset + len(token.text)
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [None if token.logprob is None else _finite(token.logprob) for token in tokens],
            "top_logprobs": [_likeliest(token) for token in tokens],
            "text_offset": offsets,
        }


def _likeliest(token: Token) -> dict[str, float] | None:
    """With the token itself, which OpenAI adds to them."""
    if token.logprob is None:
        return None
    return {text: _finite(value) for text, value in ({token.text: token.logprob} | token.likeliest).items()}


class ChatFormat:
    """Answers of /v1/chat/completions."""

    id_prefix = "chatcmpl"
    object = "chat.completion"
    chunk_object = "chat.completion.chunk"

    def __init__(self, *, logprobs: bool) -> None:
        self._logprobs = logprobs

    def choice(self, piece: Piece) -> Json:
        return self._choice(piece, "message", {"role": "assistant", "content": piece.text})

    def opening(self, piece: Piece) -> Json | None:
        delta = {"role": "assistant", "content": ""}
        return {"index": piece.index, "delta": delta, "logprobs": None, "finish_reason": None}

    def delta(self, piece: Piece) -> Json:
        return self._choice(piece, "delta", {"content": piece.text})

    def _choice(self, piece: Piece, key: str, said: Json) -> Json:
        logprobs = {"content": [_chat_logprob(token) for token in piece.tokens]} if self._logprobs else None
        return {"index": piece.index, key: said, "logprobs": logprobs, "finish_reason": piece.finish_reason}


def _chat_logprob(token: Token) -> Json:
    likeliest = [_likely(text, value) for text, value in token.likeliest.items()]
    return _likely(token.text, token.logprob or 0.0) | {"top_logprobs": likeliest}


def _likely(text: str, logprob: float) -> Json:
    return {"token": text, "logprob": _finite(logprob), "bytes": list(text.encode())}


def _finite(logprob: float) -> float:
    return max(logprob, _LEAST_LOGPROB)


def envelope(form: Format, model: str, *, stream: bool) -> Json:
    """What an answer, or every chunk of a stream, begins with."""
    return {
        "id": f"{form.id_prefix}-{uuid.uuid4().hex}",
        "object": form.chunk_object if stream else form.object,
        "created": int(time.time()),
        "model": model,
    }


def usage(prompt_tokens: int, completion_tokens: int) -> Json:
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }


def event(body: Json) -> str:
    """One event of a stream."""
    return f"data: {json.dumps(body, ensure_ascii=False)}\n\n"


LAST_EVENT = "data: [DONE]\n\n"


_CODES = {401: "invalid_api_key", 404: "model_not_found", 429: "rate_limit_exceeded"}
"""What OpenAI calls these."""


def error(problem: ApiError, param: str | None = None) -> tuple[int, Json]:
    """The status that OpenAI's clients expect, and the body."""
    status = 400 if problem.status == 422 else problem.status
    kind = "server_error" if status >= 500 else "invalid_request_error"
    code = _CODES.get(status) or problem.title.replace(" ", "_")
    message = f"{problem.detail}. {problem.fix}"
    return status, {"error": {"message": message, "type": kind, "param": param, "code": code}}
