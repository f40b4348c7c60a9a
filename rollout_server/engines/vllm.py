"""vLLM in the server's own process: one thread creates the engine and steps it, the event loop commands it.

Against vLLM's engine process of its own this saves half a minute of start and a core that spins; what it costs is
that sampling and HTTP share Python's lock. Only public calls of `LLMEngine` are used.
"""

import asyncio
import itertools
import math
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rollout_server.engines import Adapter, Facts, Status
from rollout_server.engines.vllm_load import Options, load
from rollout_server.errors import ApiError, EngineError
from rollout_server.schema import Completion, GenerateRequest

if TYPE_CHECKING:
    from vllm import LLMEngine, RequestOutput

    Command = Callable[[LLMEngine], object]


@dataclass(slots=True)
class _Pending:
    """A request on its way: its prompts are requests of their own to vLLM."""

    done: asyncio.Future[None]
    missing: int
    outputs: dict[str, list[Any]] = field(default_factory=dict)


class VllmEngine:
    name = "vllm"

    def __init__(self, options: Options) -> None:
        self.model = options.model
        self.status: Status = "loading"
        self.detail = ""
        self._options = options
        self._facts: Facts | None = None
        self._commands: queue.SimpleQueue[Command | None] = queue.SimpleQueue()
        self._ids = itertools.count()
        self._waiting: set[asyncio.Future[None]] = set()
        self._pending: dict[str, _Pending] = {}

    @property
    def facts(self) -> Facts:
        if self.status != "ready" or self._facts is None:
            raise EngineError(self.detail or "the engine is not ready")
        return self._facts

    async def start(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loaded: asyncio.Future[None] = self._loop.create_future()
        self._ended: asyncio.Future[None] = self._loop.create_future()
        threading.Thread(target=self._run, name="vllm", daemon=True).start()
        await self._loaded

    async def join(self) -> None:
        await self._ended
        if self.status == "failed":
            raise EngineError(self.detail)

    def close(self) -> None:
        self._commands.put(None)

    async def generate(self, request: GenerateRequest, adapter: Adapter | None) -> list[list[Completion]]:
        from vllm import SamplingParams
        from vllm.inputs import tokens_input
        from vllm.sampling_params import RequestOutputKind

        params = SamplingParams(
            n=request.n,
            temperature=request.sampling.temperature,
            max_tokens=request.sampling.max_tokens,
            stop_token_ids=request.sampling.stop_token_ids,
            logprobs=0,  # of the sampled token alone
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,  # the default costs eight times the throughput
        )
        lora = _lora_request(adapter) if adapter else None
        prompts = {str(next(self._ids)): prompt for prompt in request.prompts}
        pending = _Pending(done=self._future(), missing=len(prompts))
        self._pending |= dict.fromkeys(prompts, pending)

        def submit(engine: "LLMEngine") -> None:
            for request_id, prompt in prompts.items():
                engine.add_request(request_id, tokens_input(prompt), params, lora_request=lora)

        self._post(submit, pending.done)
        try:
            await self._wait(pending.done)
        except BaseException:
            self._commands.put(lambda engine: engine.abort_request(list(prompts)))
            raise
        finally:
            for request_id in prompts:
                self._pending.pop(request_id, None)
        version = adapter.version if adapter else None
        return [[_completion(c, version) for c in pending.outputs[request_id]] for request_id in prompts]

    async def load_adapter(self, adapter: Adapter) -> None:
        try:
            await self._call(lambda engine: _add_lora(engine, adapter))
        except (ValueError, RuntimeError) as error:
            detail = f"vLLM refuses {adapter.policy} version {adapter.version}: {_one_line(error)}"
            fix = "Adapt linear layers that vLLM supports for this model."
            raise ApiError(422, "adapter does not fit", detail, fix=fix) from error

    async def remove_adapter(self, adapter: Adapter) -> None:
        await self._call(lambda engine: engine.remove_lora(adapter.id))

    async def _call(self, command: "Command") -> None:
        """Run a command in the engine's thread between two of its steps, and wait until it is done."""
        done = self._future()

        def run(engine: "LLMEngine") -> None:
            command(engine)
            self._loop.call_soon_threadsafe(_settle, done)

        self._post(run, done)
        await self._wait(done)

    def _future(self) -> asyncio.Future[None]:
        if self.status != "ready":
            raise EngineError(self.detail or "the engine is not ready")
        return self._loop.create_future()

    def _post(self, command: "Command", done: asyncio.Future[None]) -> None:
        """Send a command to the engine's thread; what it raises goes to the future, and not to the engine."""

        def run(engine: "LLMEngine") -> None:
            try:
                command(engine)
            except Exception as error:
                self._loop.call_soon_threadsafe(_settle, done, error)

        self._commands.put(run)

    async def _wait(self, done: asyncio.Future[None]) -> None:
        """Wait for a future that also fails when the engine ends."""
        self._waiting.add(done)
        try:
            await done
        finally:
            self._waiting.discard(done)

    def _run(self) -> None:
        """The engine's thread."""
        detail = ""
        try:
            engine, facts = load(self._options)
            self._loop.call_soon_threadsafe(self._on_loaded, facts)
            while self._obey(engine):
                if outputs := engine.step():
                    _check_finite(outputs)
                    self._loop.call_soon_threadsafe(self._on_outputs, outputs)
        except BaseException as error:
            detail = f"{_one_line(error)} (model {self.model})"
        self._loop.call_soon_threadsafe(self._on_end, detail)

    def _obey(self, engine: "LLMEngine") -> bool:
        """Carry out all commands, and wait for one if there is nothing to step. False when asked to stop."""
        while not self._commands.empty() or not engine.has_unfinished_requests():
            command = self._commands.get()
            if command is None:
                return False
            command(engine)
        return True

    def _on_loaded(self, facts: Facts) -> None:
        self._facts = facts
        self.status = "ready"
        _settle(self._loaded)

    def _on_outputs(self, outputs: list["RequestOutput"]) -> None:
        for output in outputs:
            pending = self._pending.pop(output.request_id, None)
            if pending is None:  # aborted meanwhile
                continue
            pending.outputs[output.request_id] = output.outputs
            pending.missing -= 1
            if not pending.missing:
                _settle(pending.done)

    def _on_end(self, failure: str) -> None:
        if failure:
            what = "died" if self.status == "ready" else "could not load its model"
            self.status, self.detail = "failed", f"the engine {what}: {failure}"
        for done in (self._loaded, *self._waiting):
            _settle(done, EngineError(self.detail or "the engine was closed"))
        _settle(self._ended)


def _check_finite(outputs: list["RequestOutput"]) -> None:
    """One policy's NaNs stay in the KV cache and spoil whoever gets its blocks next: only a new engine is clean."""
    for output in outputs:
        if not all(math.isfinite(completion.cumulative_logprob) for completion in output.outputs):
            policy = output.lora_request.lora_name if output.lora_request else "the base model"
            raise FloatingPointError(f"log-probabilities of {policy} are not finite: it has diverged")


def _lora_request(adapter: Adapter) -> Any:
    from vllm.lora.request import LoRARequest

    return LoRARequest(lora_name=adapter.name, lora_int_id=adapter.id, lora_path=str(adapter.path))


def _add_lora(engine: "LLMEngine", adapter: Adapter) -> None:
    if not engine.add_lora(_lora_request(adapter)):
        raise RuntimeError("it was not loaded")


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
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
