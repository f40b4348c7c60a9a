"""The rollout server with an engine that loads adapters from their files by peft and samples by transformers: what it
serves is the adapter that came, and it starts in a few seconds. `python -m tests.delivery.peft_server FD`
"""

import asyncio
import socket
import sys
import tempfile
from collections.abc import AsyncGenerator, Callable
from contextlib import nullcontext
from pathlib import Path

import torch
import uvicorn
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import AutoModelForCausalLM, DynamicCache

from rl.problems.starter import STARTER_MODEL
from rollout_server.app import create_app
from rollout_server.engines import Adapter, Facts, Piece, Status, TextRequest
from rollout_server.schema import Completion, GenerateRequest


class PeftEngine:
    name = "peft"
    model = str(STARTER_MODEL)
    detail = ""
    silent_s = 0.0

    def __init__(self) -> None:
        self.status: Status = "ready"
        self.on_early: Callable[[int], None] = lambda early: None
        torch.set_num_threads(1)
        base = AutoModelForCausalLM.from_pretrained(self.model, dtype=torch.float32)
        linear = {name: layer for name, layer in base.named_modules() if isinstance(layer, nn.Linear)}
        self.facts = Facts(
            vocab_size=base.config.vocab_size,
            max_model_len=base.config.max_position_embeddings,
            max_lora_rank=16,
            max_loras=1,
            max_num_seqs=8,
            linear_shapes={name: (layer.out_features, layer.in_features) for name, layer in linear.items()},
        )
        self._stop = base.generation_config.eos_token_id
        self._model = get_peft_model(base, LoraConfig(r=1, target_modules="all-linear")).eval()
        self._draw = torch.Generator().manual_seed(0)

    async def start(self) -> None: ...

    async def join(self) -> None:
        await asyncio.Event().wait()

    def close(self) -> None: ...

    async def load_adapter(self, adapter: Adapter) -> None:
        self._model.load_adapter(str(adapter.path), adapter_name=str(adapter.id))

    async def remove_adapter(self, adapter: Adapter) -> None:
        self._model.delete_adapter(str(adapter.id))

    async def generate(self, request: GenerateRequest, adapter: Adapter | None) -> list[list[Completion]]:
        if adapter:
            self._model.set_adapter(str(adapter.id))
        with torch.no_grad(), nullcontext() if adapter else self._model.disable_adapter():
            return [self._siblings(prompt, request, adapter) for prompt in request.prompts]

    def _siblings(self, prompt: list[int], request: GenerateRequest, adapter: Adapter | None) -> list[Completion]:
        """n completions of one prompt, sampled together."""
        tokens_BT = torch.tensor([prompt] * request.n)
        cache = DynamicCache()
        sampled, logprobs = [], []
        for _ in range(request.sampling.max_tokens):
            logits_BV = self._model(input_ids=tokens_BT, past_key_values=cache, use_cache=True).logits[:, -1]
            logprobs_BV = (logits_BV / request.sampling.temperature).log_softmax(-1)
            tokens_BT = torch.multinomial(logprobs_BV.exp(), 1, generator=self._draw)
            sampled.append(tokens_BT)
            logprobs.append(logprobs_BV.gather(1, tokens_BT))
        completions = []
        for tokens, values in zip(torch.cat(sampled, 1).tolist(), torch.cat(logprobs, 1).tolist(), strict=True):
            length = tokens.index(self._stop) + 1 if self._stop in tokens else len(tokens)
            completions.append(
                Completion(
                    token_ids=tokens[:length],
                    logprobs=values[:length],
                    finish_reason="stop" if self._stop in tokens else "length",
                    policy_version=adapter.version if adapter else None,
                )
            )
        return completions

    def stream(self, request: TextRequest, adapter: Adapter | None) -> AsyncGenerator[Piece, None]:
        raise NotImplementedError


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        app = create_app(PeftEngine(), Path(folder))
        server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))
        server.run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
