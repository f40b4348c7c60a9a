"""No tensor of tokens × vocabulary is kept."""

import subprocess
import sys
from pathlib import Path

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

TOKENS = 4096


def peak(folder: Path, vocabulary: int) -> int:
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 384, "num_hidden_layers": 4, "tie_word_embeddings": True}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2}
    Qwen2ForCausalLM(Qwen2Config(vocab_size=vocabulary, **sizes, **heads)).save_pretrained(folder)
    command = [sys.executable, "-m", "tests.learner.peak", str(folder), str(TOKENS)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def test_peak_memory_does_not_grow_with_the_vocabulary(tmp_path: Path) -> None:
    small, large = peak(tmp_path / "small", 8_192), peak(tmp_path / "large", 151_936)
    assert small > 2**26  # what is kept for the backward pass of so many tokens
    assert large <= 1.3 * small
