"""What OpenAI's clients may ask: the parameters that are served, and no others.

https://platform.openai.com/docs/api-reference describes them. A parameter that is not here is refused, and never
silently ignored; a null is the same as leaving it out. Their answers are made in openai_format.py.
"""

from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from rollout_server.schema import TokenIds, few_fields

MOST_LOGPROBS = 20
"""What vLLM gives at the most, beside the sampled token."""
LONGEST_TEXT = 2**22
"""Characters: more than any context has, and some seconds to tokenize."""

Text = Annotated[str, Field(max_length=LONGEST_TEXT)]
"""The limit has pydantic look for half surrogate pairs too, which JSON can say and no tokenizer takes."""
T = TypeVar("T")
Listed = Annotated[list[T], Field(fail_fast=True)]
"""The first wrong element is told alone."""


def _nullable(schema: dict[str, Any]) -> None:
    for name, field in schema["properties"].items():
        if name not in schema.get("required", ()):
            schema["properties"][name] = {"anyOf": [field, {"type": "null"}]}


class Body(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, json_schema_extra=_nullable
    )

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, body: Any) -> Any:
        if not isinstance(body, dict):
            return body
        return few_fields({name: value for name, value in body.items() if value is not None})


def _listed(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


_OneOrMore = BeforeValidator(_listed, json_schema_input_type=str | list[str])


class StreamOptions(Body):
    include_usage: bool = Field(False, description="end the stream with a chunk that counts the tokens")


class TextBody(Body):
    """What completions and chats have in common."""

    model: Text = Field(..., description="an id of /v1/models: the base, policy@version, or policy for its newest")
    n: int = Field(1, ge=1, le=128)
    temperature: float = Field(1.0, ge=0.0, le=2.0, description="0 is greedy; others from 0.01")
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    presence_penalty: float = Field(0.0, ge=-2.0, le=2.0)
    frequency_penalty: float = Field(0.0, ge=-2.0, le=2.0)
    repetition_penalty: float = Field(1.0, ge=0.5, le=2.0, description="vLLM's; 1 is none")
    ignore_eos: bool = Field(False, description="vLLM's; go on after the model's end of sequence")
    seed: int | None = Field(None, ge=0, lt=2**63, description="on CPU only with temperature 0, where it has no part")
    stop: Annotated[Listed[Annotated[Text, Field(min_length=1)]], _OneOrMore] = Field([], max_length=16)
    stream: bool = False
    stream_options: StreamOptions = StreamOptions(include_usage=False)
    user: str | None = Field(None, description="ignored")


def _prompts(value: Any) -> Any:
    return [value] if isinstance(value, list) and value and isinstance(value[0], int) else _listed(value)


_Prompts = BeforeValidator(_prompts, json_schema_input_type=str | list[str] | list[int] | list[list[int]])


class CompletionRequest(TextBody):
    prompt: Annotated[Listed[Text] | Listed[TokenIds], _Prompts] = Field(
        ..., min_length=1, max_length=1024, description="a text or a list of token ids, or several of them"
    )
    max_tokens: int = Field(16, ge=0, description="0 is the prompt alone, with echo")
    logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)
    echo: bool = Field(False, description="give the prompt back before the completion")


class TextPart(Body):
    type: Literal["text"]
    text: Text


class Message(Body):
    role: Literal["system", "user", "assistant"]
    content: Text | Listed[TextPart]

    @property
    def text(self) -> str:
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatRequest(TextBody):
    messages: Listed[Message] = Field(..., min_length=1)
    max_completion_tokens: int | None = Field(None, ge=1, description="what the context has room for when absent")
    max_tokens: int | None = Field(None, ge=1, description="the older name of max_completion_tokens")
    logprobs: bool = False
    top_logprobs: int = Field(0, ge=0, le=MOST_LOGPROBS, description="needs logprobs")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs: true")
        return self
