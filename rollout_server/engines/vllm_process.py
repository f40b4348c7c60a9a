"""python -m rollout_server.engines.vllm_process FD: the process that steps vLLM's engine; vllm.py speaks to it.

One thread does all: between two steps it takes what was asked, and gives what the last step has made. It is the
server's child and ends with it. Only public calls of `LLMEngine` are used.
"""

import math
import os
import socket
import sys
import traceback
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from textwrap import shorten
from typing import TYPE_CHECKING, Any

from prometheus_client import REGISTRY, Metric, ProcessCollector, generate_latest
from pydantic import ValidationError

from rollout_server.engines import Adapter, Facts, TextRequest
from rollout_server.engines.line import EARLY, LIFE, Gone, Line, Reply
from rollout_server.engines.vllm_load import Options, load
from rollout_server.engines.vllm_text import pieces, sampling_params
from rollout_server.errors import ApiError, DivergedError, EngineError
from rollout_server.schema import GenerateRequest

if TYPE_CHECKING:
    from vllm import LLMEngine, RequestOutput, SamplingParams

_GUESTS = 2**30
"""vLLM's priority of OpenAI's clients, whose completions begin after all of the run's. Of these the shortest begin
first: a canary, which the learner waits for, has a few tokens, and would stand behind a whole buffer."""
_REASON_CHARS = 200
"""Of what went wrong in the engine, in the server's last line; its log has the rest."""


@dataclass(slots=True)
class _Asked:
    """A request whose completions are sampled; each of its prompts is a request of its own to vLLM."""

    number: int
    request: GenerateRequest | TextRequest
    missing: set[str] = field(default_factory=set)
    """vLLM's ids of prompts that have not ended."""


class Sampler:
    """What is done with the engine: beside `run`, each method without an underscore can be asked for."""

    def __init__(self, engine: "LLMEngine", facts: Facts, line: Line) -> None:
        self._engine, self._facts, self._line = engine, facts, line
        self._asked: dict[int, _Asked] = {}
        self._early = 0

    def run(self) -> None:
        """Until it is told to stop. Raises Gone, and what the engine ends by."""
        while self._obey():
            outputs = self._engine.step()
            _check_finite(outputs)
            if replies := [*self._replies(outputs), *self._ended_early()]:
                self._line.send(replies)
            else:
                self._line.beat()

    def _obey(self) -> bool:
        """Does all that was asked, and waits for it if there is nothing to step. False when told to stop."""
        while self._line.waits() or not self._engine.has_unfinished_requests():
            if not self._line.waits():
                self._engine.step()  # samples nothing: the metrics count what ended after the last step's count
            method, number, *args = self._line.receive()
            if method == "stop":
                return False
            try:
                getattr(self, method)(number, *args)
            except Exception as error:  # of this request: the engine goes on
                self._line.send([(number, True, _told(error))])
        return True

    def generate(self, number: int, request: GenerateRequest, adapter: Adapter | None) -> None:
        self._sample(_Asked(number, request), token_params(request), adapter, request.sampling.max_tokens)

    def stream(self, number: int, request: TextRequest, adapter: Adapter | None) -> None:
        try:
            self._sample(_Asked(number, request), sampling_params(request), adapter, _GUESTS)
        except ValueError as error:
            detail, fix = f"vLLM refuses it: {one_line(error)}", "Change the parameter that it names."
            raise ApiError(422, "invalid request", detail, fix=fix) from error

    def abort(self, number: int) -> None:
        """What has ended meanwhile, has ended."""
        self._drop(number)
        self._line.send([(number, True, None), *self._ended_early()])

    def _drop(self, number: int) -> None:
        if asked := self._asked.pop(number, None):
            self._engine.abort_request(list(asked.missing))

    def load_adapter(self, number: int, adapter: Adapter) -> None:
        try:
            if not self._engine.add_lora(_lora_request(adapter)):
                raise RuntimeError("it was not loaded")
        except Exception as error:  # whatever vLLM says of an adapter, it goes on without it
            name = f"{adapter.policy} version {adapter.version}"
            if out_of_memory(error):
                detail = f"there is no memory for {name}: {one_line(error)}"
                fix = "Start the server with a lower --gpu-memory, --keep or --max-lora-rank."
                raise ApiError(507, "out of memory", detail, fix=fix) from error
            fix = "Adapt linear layers that vLLM supports for this model."
            raise ApiError(422, "adapter does not fit", f"vLLM refuses {name}: {one_line(error)}", fix=fix) from error
        self._line.send([(number, True, None)])

    def remove_adapter(self, number: int, adapter: Adapter) -> None:
        self._engine.remove_lora(adapter.id)
        self._line.send([(number, True, None)])

    def metrics(self, number: int) -> None:
        self._line.send([(number, True, generate_latest(_Measured()))])

    def _sample(self, asked: _Asked, params: "SamplingParams", adapter: Adapter | None, priority: int) -> None:
        from vllm.inputs import tokens_input

        lora = _lora_request(adapter) if adapter else None
        prompts = asked.request.prompts
        ids = [f"{asked.number}.{index}" for index in range(len(prompts))]
        asked.missing.update(ids)
        self._asked[asked.number] = asked
        try:
            for id, prompt in zip(ids, prompts, strict=True):
                self._engine.add_request(id, tokens_input(prompt), params, lora_request=lora, priority=priority)
        except BaseException:
            self._drop(asked.number)
            raise

    def _replies(self, outputs: "list[RequestOutput]") -> Iterator[Reply]:
        for output in outputs:
            number, index = map(int, output.request_id.split("."))
            asked = self._asked.get(number)
            if asked is None:  # it was aborted
                continue
            if output.finished:
                asked.missing.discard(output.request_id)
            if not asked.missing:
                del self._asked[number]
            try:
                reply = number, not asked.missing, self._given(asked, index, output)
            except Exception as error:
                self._drop(number)
                reply = number, True, _told(error)
            yield reply

    def _ended_early(self) -> Iterator[Reply]:
        """What has changed since the last step."""
        asked = sum(len(asked.request.prompts) * asked.request.n for asked in self._asked.values())
        early = asked - self._engine.get_num_unfinished_requests()
        if early != self._early:
            self._early = early
            yield EARLY, False, early

    def _given(self, asked: _Asked, prompt: int, output: "RequestOutput") -> Any:
        """Plain tuples for tokens: the server makes its answer of them, and has more time."""
        if isinstance(asked.request, GenerateRequest):
            return prompt, [(c.token_ids, c.logprobs.logprobs, c.finish_reason) for c in output.outputs]
        tokenizer = self._facts.tokenizer and self._facts.tokenizer()
        assert tokenizer, "the request was made with it"
        return list(pieces(prompt, output, asked.request, tokenizer))


def token_params(request: GenerateRequest) -> "SamplingParams":
    """Of requests of tokens, which are answered by tokens."""
    from vllm import SamplingParams
    from vllm.sampling_params import RequestOutputKind

    return SamplingParams(
        n=request.n,
        temperature=request.sampling.temperature,
        max_tokens=request.sampling.max_tokens,
        stop_token_ids=request.sampling.stop_token_ids,
        logprobs=0,  # of the sampled token alone
        flat_logprobs=True,
        detokenize=False,
        output_kind=RequestOutputKind.FINAL_ONLY,  # the default costs eight times the throughput
    )


class _Measured:
    """What vLLM has measured, and what this process takes, by a name that is not the server's."""

    def collect(self) -> Iterator[Metric]:
        yield from (metric for metric in REGISTRY.collect() if metric.name.startswith("vllm:"))
        yield from ProcessCollector(namespace="engine", registry=None).collect()


def _check_finite(outputs: "list[RequestOutput]") -> None:
    """One policy's NaNs stay in the KV cache and spoil whoever gets its blocks next: only a new engine is clean."""
    for output in outputs:
        if not all(math.isfinite(completion.cumulative_logprob) for completion in output.outputs):
            policy = output.lora_request.lora_name if output.lora_request else "the base model"
            raise DivergedError(f"log-probabilities of {policy} are not finite: it has diverged")


def _lora_request(adapter: Adapter) -> Any:
    from vllm.lora.request import LoRARequest

    return LoRARequest(lora_name=adapter.name, lora_int_id=adapter.id, lora_path=str(adapter.path))


def out_of_memory(error: Exception) -> bool:
    """torch says so by a type of its own on CUDA, and in words on CPU."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def one_line(error: BaseException) -> str:
    # vLLM's configuration wraps what went wrong in a ValidationError, whose first line says nothing.
    said = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)
    lines = said.strip().splitlines()
    first = shorten(lines[0], _REASON_CHARS, placeholder=" …") if lines else ""
    return f"{type(error).__name__}: {first}" if first else type(error).__name__


def _told(error: Exception) -> Exception:
    """What the server is told of it; vLLM's own exceptions cannot be unpickled without vLLM."""
    if isinstance(error, ApiError):
        return error
    told = RuntimeError(one_line(error))
    told.add_note(traceback.format_exc())
    return told


def _live(line: Line) -> None:
    """Raises Gone."""
    options: Options = line.receive()
    what = "could not load its model"
    end: EngineError | None = None
    try:
        engine, facts = load(options)
        line.send([(LIFE, False, facts)])
        what = "died"
        Sampler(engine, facts, line).run()
    except Gone:
        raise
    except BaseException as error:
        kind = DivergedError if isinstance(error, DivergedError) else EngineError
        end = kind(f"the engine {what}: {one_line(error)} (model {options.model})")
    line.send([(LIFE, True, end)])
    line.end()


def main() -> None:
    with suppress(Gone):
        _live(Line(socket.socket(fileno=int(sys.argv[1]))))
    sys.stderr.flush()
    os._exit(0)  # vLLM's own end takes seconds


if __name__ == "__main__":
    main()
