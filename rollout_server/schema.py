"""THE WIRE: everything that the rollout server and its clients say to each other, and nothing else.

    GET    /health                                  200 unless the engine died or stands still → Health
    GET    /ready                                   200 once the engine serves, else 503      → Health
    GET    /v1/policies                             what is served                            → Policies
    PUT    /v1/policies/{policy}/{version}          body: ADAPTER BYTES; a candidate          → AdapterReceipt
    POST   /v1/policies/{policy}/{version}/accept   the candidate becomes the newest version  → AdapterReceipt
    DELETE /v1/policies/{policy}/{version}          stop serving it
    POST   /v1/generate                             GenerateRequest                           → GenerateResponse

A *policy* is a name that one writer owns (a run's id, or an evaluation's); its *versions* are counted by that writer
and are never replaced in place. A candidate serves only requests that name its version: its writer's canary. Once
accepted it is what requests for the newest version get. ``policy=None`` is the base model.

ADAPTER BYTES are one safetensors file whose metadata has the key ``adapter_config`` (peft's configuration as JSON).
The header ``X-Adapter-SHA256`` carries the hash of the whole body. Errors are `ErrorBody` bodies (RFC 9457). A server
that is full answers 429, with the seconds after which to ask again in ``Retry-After``. One that wants a key gets it as
``Authorization: Bearer KEY`` (access.py), on all paths but /health and /ready.

For clients that are not ours the server also speaks OpenAI's API (openai_api.py), and has vLLM's metrics at /metrics.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

SCHEMA = 2
"""Raised with every incompatible change; a client refuses a server of another number."""

HASH_HEADER = "X-Adapter-SHA256"
CONFIG_KEY = "adapter_config"
LARGEST_VERSION = 2**53 - 1
"""What every reader of JSON takes for the number that it is."""
NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"

FinishReason = Literal["stop", "length"]


TokenIds = Annotated[list[int], Field(fail_fast=True)]
"""The first wrong element is told alone: an error for each of a million takes gigabytes."""
_MOST_FIELDS = 100
"""More than any request has; each that is unknown is an error, too."""


def few_fields(body: Any) -> Any:
    if isinstance(body, dict) and len(body) > _MOST_FIELDS:
        raise ValueError(f"there are {len(body)} fields")
    return body


class Wire(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Sampling(Wire):
    """How tokens are drawn. Log-probabilities are of the distribution they were drawn from (temperature applied).

    Greedy tokens have those of temperature 1.
    """

    temperature: float = Field(1.0, ge=0.0, le=2.0, description="0 is greedy; others from 0.01")
    max_tokens: int = Field(..., ge=1, description="tokens a completion may have, end of sequence included")
    stop_token_ids: TokenIds = Field([], description="tokens that end a completion, beside the model's own")

    _few = model_validator(mode="before")(few_fields)


class GenerateRequest(Wire):
    """n completions of each prompt, all by one policy version. One request carries whole groups."""

    policy: str | None = Field(None, pattern=NAME_PATTERN, description="null is the base model")
    policy_version: int | None = Field(
        None, ge=0, le=LARGEST_VERSION, description="null is the newest accepted version"
    )
    prompts: Annotated[list[TokenIds], Field(fail_fast=True)] = Field(
        ..., min_length=1, max_length=1024, description="token ids"
    )
    n: int = Field(1, ge=1, le=1024)
    sampling: Sampling

    _few = model_validator(mode="before")(few_fields)


class Completion(Wire):
    token_ids: list[int]
    logprobs: list[float]
    finish_reason: FinishReason
    policy_version: int | None = Field(..., description="null is the base model")


class GenerateResponse(Wire):
    completions: list[list[Completion]] = Field(..., description="[prompts][n]")
    adapter_sha256: str | None = Field(..., description="of the adapter they were sampled by; null is the base model")


class AdapterReceipt(Wire):
    """What the server holds under this version, from the bytes it received, matched to the model's layers."""

    policy: str
    policy_version: int
    sha256: str
    modules: int = Field(..., description="target modules of the adapter, each with its pair of matrices")
    accepted: bool


class Policies(Wire):
    versions: list[AdapterReceipt] = Field(..., description="all that can be asked for, oldest first")


class Health(Wire):
    wire_schema: int = SCHEMA
    status: Literal["loading", "ready", "failed"]
    model: str
    engine: str
    max_model_len: int | None = Field(None, description="tokens of prompt and completion; null until ready")
    detail: str = ""


class ErrorBody(Wire):
    """An error: what went wrong, and how to fix it."""

    title: str
    detail: str
    fix: str
