"""Creates the vLLM engine: all settings, and all that differs between CPU and CUDA, is here."""

import os
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rollout_server.engines import Facts
from rollout_server.engines.vllm_text import tokenizer_of

if TYPE_CHECKING:
    from vllm import LLMEngine

LORA_RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM's `max_lora_rank` may be; an adapter of a rank between them is padded to the next."""
CPU_SEQS = 256
"""Completions sampled at a time on CPU. A step of the engine takes some milliseconds whatever is in it, so that vLLM's
128 cost small models a tenth of the tokens a second; 512 would bring another tenth, and twice the wait for a token."""
SORTED_LORA = "rollout_server.engines.vllm_lora.SortedLora"


@dataclass(frozen=True, kw_only=True, slots=True)
class Options:
    model: str
    served_name: str | None = None
    """Of the base in the metrics; the model's own when None."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""
    dtype: str = "auto"
    """Of weights and activations; auto is float32 on CPU and bfloat16 on CUDA."""
    max_lora_rank: int = 16
    max_loras: int = 4
    """Adapters mixed in one batch; others wait in host memory, evicted ones are read from their files again."""
    keep: int = 8
    """Versions of a policy that stay served: as many adapters fit in host memory."""
    max_model_len: int | None = None
    """None is what the model allows and the KV cache holds."""
    max_num_seqs: int | None = None
    """Completions sampled at a time; None is `CPU_SEQS` on CPU, and what vLLM decides on CUDA."""
    gpu_memory: float = 0.9
    """Fraction of a GPU's memory that vLLM may take."""
    cpu_cache: float = 0.5
    """GiB of KV cache on CPU."""
    engine_metrics: bool = True
    """Whether vLLM measures what it does."""
    seed: int = 0


def engine_settings(options: Options) -> dict[str, Any]:
    """What vLLM's engine is created with, in this process. vLLM reads the environment when it is imported."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # a second thread slows small models down whenever cores are shared
    import torch

    cuda = torch.cuda.is_available()
    if not cuda:
        os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")  # else the sampler wants a C++ compiler
    from vllm.platforms import current_platform

    if current_platform.is_cpu():
        type(current_platform).get_punica_wrapper = classmethod(lambda cls: SORTED_LORA)
    settings = {
        "model": options.model,
        "trust_remote_code": options.trust_remote_code,
        "seed": options.seed,
        "max_model_len": -1 if options.max_model_len is None else options.max_model_len,
        "scheduling_policy": "priority",
        "enable_prefix_caching": True,
        "logprobs_mode": "processed_logprobs",  # of the distribution that was sampled from, as the wire promises
        "enable_lora": True,
        "max_lora_rank": next(rank for rank in LORA_RANKS if rank >= options.max_lora_rank),
        "max_loras": options.max_loras,
        "max_cpu_loras": max(options.max_loras, options.keep + 1),
    }
    return settings | (_cuda_settings(options) if cuda else _cpu_settings(options))


def load(options: Options) -> tuple["LLMEngine", Facts]:
    """Create the engine in this process."""
    _check_exists(options.model)
    settings = engine_settings(options)
    import torch
    from vllm import EngineArgs, LLMEngine

    tokenizer = partial(tokenizer_of, options.model, trust_remote_code=options.trust_remote_code)
    speaks = tokenizer() is not None
    args = EngineArgs(
        served_model_name=options.served_name,
        skip_tokenizer_init=not speaks,  # it has a part in requests of text alone
        disable_log_stats=not options.engine_metrics,
        **settings,
    )
    engine = LLMEngine.from_engine_args(args)
    facts = Facts(
        vocab_size=engine.model_config.get_vocab_size(),
        max_model_len=engine.model_config.max_model_len,
        max_lora_rank=options.max_lora_rank,
        max_loras=options.max_loras,
        max_num_seqs=engine.vllm_config.scheduler_config.max_num_seqs,
        linear_shapes=_linear_shapes(options),
        tokenizer=tokenizer if speaks else None,
        seeds=torch.cuda.is_available(),  # on CPU a seeded request whose prefill is chunked ends the engine
    )
    return engine, facts


def _cpu_settings(options: Options) -> dict[str, Any]:
    """float32 unless asked for: vLLM's own "auto" would serve a float32 checkpoint in bfloat16."""
    return {
        "dtype": "float32" if options.dtype == "auto" else options.dtype,
        "enforce_eager": True,
        "max_num_seqs": options.max_num_seqs or CPU_SEQS,
        "block_size": 32,  # of those that vLLM's fast CPU kernel takes the one that copies least (its default is 128)
        "kv_cache_memory_bytes": int(options.cpu_cache * 2**30),
    }


def _cuda_settings(options: Options) -> dict[str, Any]:
    return {
        "dtype": "bfloat16" if options.dtype == "auto" else options.dtype,
        "max_num_seqs": options.max_num_seqs,
        "gpu_memory_utilization": options.gpu_memory,
    }


def _check_exists(model: str) -> None:
    """Say at once that a folder is not there, before seconds of imports and a search on the hub."""
    path = Path(model)
    looks_local = path.is_absolute() or model.startswith(".") or path.exists()
    if looks_local and not (path / "config.json").is_file():
        raise FileNotFoundError(f"there is no {path / 'config.json'}; name a model's folder or its hub name")


def _linear_shapes(options: Options) -> dict[str, tuple[int, int]]:
    """Linear layers as transformers and peft name them (vLLM fuses some), from a model without weights."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    with torch.device("meta"):
        trust = {"trust_remote_code": options.trust_remote_code}
        config = AutoConfig.from_pretrained(options.model, **trust)
        skeleton = AutoModelForCausalLM.from_config(config, **trust)
    return {
        name: (layer.out_features, layer.in_features)
        for name, layer in skeleton.named_modules()
        if isinstance(layer, torch.nn.Linear)
    }
