"""What OpenAI's clients are answered, as /openapi.json describes it; openai_format.py makes it."""

from typing import Literal

from pydantic import BaseModel, ConfigDict

from rollout_server.schema import FinishReason


class Answer(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Problem(Answer):
    message: str
    type: Literal["invalid_request_error", "server_error"]
    param: str | None
    code: str


class Refusal(Answer):
    error: Problem


class Card(Answer):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    root: str
    parent: str | None


class Cards(Answer):
    object: Literal["list"]
    data: list[Card]


class Usage(Answer):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Envelope(Answer):
    id: str
    created: int
    model: str
    usage: Usage


class TextLogprobs(Answer):
    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class TextChoice(Answer):
    index: int
    text: str
    logprobs: TextLogprobs | None
    finish_reason: FinishReason


class TextCompletion(Envelope):
    object: Literal["text_completion"]
    choices: list[TextChoice]


class LikelyToken(Answer):
    token: str
    logprob: float
    bytes: list[int]


class ChatToken(LikelyToken):
    top_logprobs: list[LikelyToken]


class ChatLogprobs(Answer):
    content: list[ChatToken]


class Said(Answer):
    role: Literal["assistant"]
    content: str


class ChatChoice(Answer):
    index: int
    message: Said
    logprobs: ChatLogprobs | None
    finish_reason: FinishReason


class ChatCompletion(Envelope):
    object: Literal["chat.completion"]
    choices: list[ChatChoice]
