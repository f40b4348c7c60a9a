"""vLLM in the server's own process: one thread creates the engine and steps it, the event loop commands it.

Against vLLM's engine process of its own this saves half a minute of start and a core that spins; what it costs is
that sampling and HTTP share Python's lock. Only public calls of `LLMEngine` are used.
"""

import asyncio
import itertools
import math
import queue
import threading
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from textwrap import shorten
from time import monotonic
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from rollout_server.engines import Adapter, Facts, Piece, Status, TextRequest
from rollout_server.engines.vllm_load import Options, load
from rollout_server.engines.vllm_text import pieces, sampling_params
from rollout_server.errors import ApiError, DivergedError, EngineError
from rollout_server.schema import Completion, GenerateRequest

if TYPE_CHECKING:
    from vllm import LLMEngine, RequestOutput, SamplingParams

    Command = Callable[[LLMEngine], object]
    Outputs = asyncio.Queue[RequestOutput | Exception]

_GUESTS = 2**30
"""vLLM's priority of OpenAI's clients, whose completions begin after all of the run's. Of these the shortest begin
first: a canary, which the learner waits for, has a few tokens, and would stand behind a whole buffer."""
_REASON_CHARS = 200
"""Of what went wrong in the engine, in the server's last line; its log has the rest."""


class VllmEngine:
    name = "vllm"

    def __init__(self, options: Options) -> None:
        self.model = options.model
        self.status: Status = "loading"
        self.detail = ""
        self._failure: EngineError | None = None
        """What it ended by."""
        self._options = options
        self._stepped: float | None = None
        """When the engine's thread took its last step, of the monotonic clock; None while it has nothing to do."""
        self._facts: Facts | None = None
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._ids = itertools.count()
        self._waiting: set[asyncio.Future[None]] = set()
        self._running: dict[str, Outputs] = {}

    @property
    def facts(self) -> Facts:
        if self.status != "ready" or self._facts is None:
            raise EngineError(self.detail or "the engine is not ready")
        return self._facts

    @property
    def silent_s(self) -> float:
        stepped = self._stepped
        return 0.0 if stepped is None else monotonic() - stepped

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loaded: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._run, name="vllm", daemon=True).start()
        await self._loaded

    async def join(self) -> None:
        await self._ended
        if self._failure:
            raise self._failure

    def close(self) -> None:
        self._commands.put(None)

    async def generate(self, request: GenerateRequest, adapter: Adapter | None) -> list[list[Completion]]:
        params = token_params(request)
        version = adapter.version if adapter else None
        completions: list[list[Completion]] = [[]] * len(request.prompts)
        async with aclosing(self._sample(request.prompts, params, adapter, request.sampling.max_tokens)) as outputs:
            async for prompt, output in outputs:
                completions[prompt] = [_completion(completion, version) for completion in output.outputs]
        return completions

    async def stream(self, request: TextRequest, adapter: Adapter | None) -> AsyncGenerator[Piece, None]:
        tokenizer = self.facts.tokenizer
        assert tokenizer, "the request was made with it"
        try:
            async with aclosing(self._sample(request.prompts, sampling_params(request), adapter, _GUESTS)) as outputs:
                async for prompt, output in outputs:
                    for piece in pieces(prompt, output, request, tokenizer):
                        yield piece
        except ValueError as error:
            detail, fix = f"vLLM refuses it: {_one_line(error)}", "Change the parameter that it names."
            raise ApiError(422, "invalid request", detail, fix=fix) from error

    async def _sample(
        self, prompts: list[list[int]], params: "SamplingParams", adapter: Adapter | None, priority: int
    ) -> "AsyncGenerator[tuple[int, RequestOutput], None]":
        """Each prompt is a request of its own to vLLM. Gives what vLLM gives, with the prompt's index."""
        from vllm.inputs import tokens_input

        self._check_ready()
        lora = _lora_request(adapter) if adapter else None
        indices = {str(next(self._ids)): index for index in range(len(prompts))}
        arrived: Outputs = asyncio.Queue()
        self._running |= dict.fromkeys(indices, arrived)

        def submit(engine: "LLMEngine") -> None:
            for request_id, index in indices.items():
                prompt = tokens_input(prompts[index])
                engine.add_request(request_id, prompt, params, lora_request=lora, priority=priority)

        missing = len(prompts)
        try:
            self._post(submit, arrived.put_nowait)
            while missing:
                output = await arrived.get()
                if isinstance(output, Exception):
                    raise output
                missing -= output.finished
                yield indices[output.request_id], output
        finally:
            for request_id in indices:
                self._running.pop(request_id, None)
            if missing:
                self._commands.put(lambda engine: engine.abort_request(list(indices)))

    async def load_adapter(self, adapter: Adapter) -> None:
        try:
            await self._call(lambda engine: _add_lora(engine, adapter))
        except EngineError:
            raise
        except Exception as error:  # whatever vLLM says of an adapter, it goes on without it
            name = f"{adapter.policy} version {adapter.version}"
            if out_of_memory(error):
                detail = f"there is no memory for {name}: {_one_line(error)}"
                fix = "Start the server with a lower --gpu-memory, --keep or --max-lora-rank."
                raise ApiError(507, "out of memory", detail, fix=fix) from error
            fix = "Adapt linear layers that vLLM supports for this model."
            raise ApiError(422, "adapter does not fit", f"vLLM refuses {name}: {_one_line(error)}", fix=fix) from error

    async def remove_adapter(self, adapter: Adapter) -> None:
        await self._call(lambda engine: engine.remove_lora(adapter.id))

    async def _call(self, command: "Command") -> None:
        """Run a command in the engine's thread between two of its steps, and wait until it is done."""
        self._check_ready()
        done: asyncio.Future[None] = self._loop.create_future()

        def run(engine: "LLMEngine") -> None:
            command(engine)
            self._loop.call_soon_threadsafe(_settle, done)

        self._post(run, lambda error: _settle(done, error))
        self._waiting.add(done)
        try:
            await done
        finally:
            self._waiting.discard(done)

    def _check_ready(self) -> None:
        if self.status != "ready":
            raise EngineError(self.detail or "the engine is not ready")

    def _post(self, command: "Command", fail: Callable[[Exception], None]) -> None:
        """Send a command to the engine's thread; what it raises goes to `fail`, and not to the engine."""

        def run(engine: "LLMEngine") -> None:
            try:
                command(engine)
            except Exception as error:
                self._loop.call_soon_threadsafe(fail, error)

        self._commands.put(run)

    def _run(self) -> None:
        """The engine's thread."""
        detail, kind = "", EngineError
        try:
            engine, facts = load(self._options)
            self._loop.call_soon_threadsafe(self._on_loaded, facts)
            while self._obey(engine):
                if outputs := engine.step():
                    _check_finite(outputs)
                    self._loop.call_soon_threadsafe(self._on_outputs, outputs)
        except BaseException as error:
            detail = f"{_one_line(error)} (model {self.model})"
            kind = DivergedError if isinstance(error, DivergedError) else EngineError
        self._loop.call_soon_threadsafe(self._on_end, detail, kind)

    def _obey(self, engine: "LLMEngine") -> bool:
        """Carry out all commands, and wait for one if there is nothing to step. False when asked to stop."""
        while not self._commands.empty() or not engine.has_unfinished_requests():
            if self._commands.empty():
                engine.step()  # samples nothing: the metrics count what ended after the last step's count
                self._stepped = None
            command = self._commands.get()
            self._stepped = monotonic()
            if command is None:
                return False
            command(engine)
        self._stepped = monotonic()
        return True

    def _on_loaded(self, facts: Facts) -> None:
        self._facts = facts
        self.status = "ready"
        _settle(self._loaded)

    def _on_outputs(self, outputs: list["RequestOutput"]) -> None:
        for output in outputs:
            if arrived := self._running.get(output.request_id):  # else it was aborted meanwhile
                arrived.put_nowait(output)

    def _on_end(self, failure: str, kind: type[EngineError]) -> None:
        if failure:
            what = "died" if self.status == "ready" else "could not load its model"
            self.status, self.detail = "failed", f"the engine {what}: {failure}"
            self._failure = kind(self.detail)
        error = self._failure or EngineError("the engine was closed")
        for done in (self._loaded, *self._waiting):
            _settle(done, error)
        for arrived in self._running.values():
            arrived.put_nowait(error)
        _settle(self._ended)


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


def _check_finite(outputs: list["RequestOutput"]) -> None:
    """One policy's NaNs stay in the KV cache and spoil whoever gets its blocks next: only a new engine is clean."""
    for output in outputs:
        if not all(math.isfinite(completion.cumulative_logprob) for completion in output.outputs):
            policy = output.lora_request.lora_name if output.lora_request else "the base model"
            raise DivergedError(f"log-probabilities of {policy} are not finite: it has diverged")


def _lora_request(adapter: Adapter) -> Any:
    from vllm.lora.request import LoRARequest

    return LoRARequest(lora_name=adapter.name, lora_int_id=adapter.id, lora_path=str(adapter.path))


def _add_lora(engine: "LLMEngine", adapter: Adapter) -> None:
    if not engine.add_lora(_lora_request(adapter)):
        raise RuntimeError("it was not loaded")


def out_of_memory(error: Exception) -> bool:
    """torch says so by a type of its own on CUDA, and in words on CPU."""
    import torch

    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)


def _completion(output: Any, version: int | None) -> Completion:
    """vLLM's completion as the wire's; not validated again, since vLLM made it."""
    return Completion.model_construct(
        token_ids=output.token_ids,
        logprobs=output.logprobs.logprobs,
        finish_reason=output.finish_reason,
        policy_version=version,
    )


def _settle(future: asyncio.Future[None], error: Exception | None = None) -> None:
    """End a future that may have been cancelled or failed meanwhile."""
    if future.done():
        return
    if error:
        future.set_exception(error)
    else:
        future.set_result(None)


def _one_line(error: BaseException) -> str:
    # vLLM's configuration wraps what went wrong in a ValidationError, whose first line says nothing.
    said = error.errors(include_url=False)[0]["msg"] if isinstance(error, ValidationError) else str(error)
    lines = said.strip().splitlines()
    first = shorten(lines[0], _REASON_CHARS, placeholder=" …") if lines else ""
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
