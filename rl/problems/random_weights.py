"""Models with random weights, for running the whole path of a configuration without its model.

They keep what the path depends on: the architecture, its biases and tied embeddings, grouped queries, the whole
vocabulary. They answer nothing right, so that their runs are marked by `coin` unless another reward is named.
"""

import hashlib
import json
import os
import re
import shutil
import string
import tempfile
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice, product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from rl.core import log
from rl.core.errors import TallyError, UsageError, first_line

FORMAT = 1
"""Raised when the same settings would make another model."""
SCALED_LAYERS = 4
SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
SPECIAL_FROM = 151643
"""Id of the first special token of Qwen2.5."""
CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
QWEN25 = re.compile(r"(?:Qwen/)?Qwen2\.5-(Math-)?(0\.5B|1\.5B|3B|7B)(-Instruct)?")
QWEN25_SHAPES = {  # hidden_size, intermediate_size, layers, heads, KV heads, vocabulary, tied embeddings
    "0.5B": (896, 4864, 24, 14, 2, 151936, True),
    "1.5B": (1536, 8960, 28, 12, 2, 151936, True),
    "3B": (2048, 11008, 36, 16, 2, 151936, True),
    "7B": (3584, 18944, 28, 28, 4, 152064, False),
}
TOKENIZER_FILES = ("tokenizer*", "vocab*", "merges.txt", "special_tokens_map.json", "chat_template*", "*.model")


def coin(completion: str, gold: str) -> float:
    """A reward that is 1 for about half of all texts, so that groups of random completions have something to compare.

    Example: `rl.train --reward rl.problems.random_weights:coin`.
    """
    return float(hashlib.sha256(completion.encode()).digest()[0] % 2)


def is_built_in(name: str) -> bool:
    """Whether the shape of this hub model is known without the hub."""
    return QWEN25.fullmatch(name) is not None


def built_in(name: str) -> dict[str, Any]:
    """The `config.json` of a Qwen2.5 model."""
    match = QWEN25.fullmatch(name)
    assert match is not None, name
    math, size, instruct = match.groups()
    hidden, intermediate, layers, heads, kv_heads, vocabulary, tied = QWEN25_SHAPES[size]
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "model_type": "qwen2",
        "hidden_act": "silu",
        "hidden_size": hidden,
        "intermediate_size": intermediate,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": kv_heads,
        "vocab_size": vocabulary,
        "tie_word_embeddings": tied,
        "rope_theta": 1e4 if math else 1e6,
        "max_position_embeddings": 4096 if math else 32768,
        "rms_norm_eps": 1e-6,
        "use_sliding_window": False,
        "bos_token_id": SPECIAL_FROM,
        "eos_token_id": SPECIAL_FROM + (2 if instruct else 0),
    }


def scale_down(settings: dict[str, Any]) -> dict[str, Any]:
    """The first layers of a model, narrowed to one KV head with its group of queries; the vocabulary stays whole.

    Example: Qwen2.5-0.5B has 14 heads on 2 KV heads and is 896 wide; scaled down it has 7 on 1 and is 448 wide.

    Raises:
        UsageError: the configuration is not that of a plain decoder.
    """
    try:
        layers = min(SCALED_LAYERS, settings["num_hidden_layers"])
        heads, hidden = settings["num_attention_heads"], settings["hidden_size"]
        kv_heads = settings.get("num_key_value_heads") or heads
        intermediate = settings["intermediate_size"]
    except KeyError as error:
        fix = "take --random-weights full, or another model"
        raise UsageError(f"cannot scale the model down: its config.json has no {error}", fix=fix) from None
    scaled = settings | {
        "num_hidden_layers": layers,
        "num_attention_heads": heads // kv_heads,
        "num_key_value_heads": 1,
        "hidden_size": hidden // kv_heads,
        "intermediate_size": intermediate // kv_heads,
    }
    if kinds := settings.get("layer_types"):
        scaled["layer_types"] = kinds[:layers]
    return scaled


def random_model(settings: dict[str, Any], tokenizer: Path | None, *, scaled: bool) -> Path:
    """The folder of a model with these settings; made at the first call, and kept in the user's cache.

    Args:
        settings: the contents of a `config.json`.
        tokenizer: folder of the tokenizer to copy; None makes one of single bytes with Qwen2.5's special tokens.

    Raises:
        UsageError: transformers has no such model.
        TallyError: there is no room for it, in memory or in the cache.
    """
    settings = scale_down(settings) if scaled else settings
    files = sorted({file for pattern in TOKENIZER_FILES for file in tokenizer.glob(pattern)} if tokenizer else ())
    key = hashlib.sha256(json.dumps([FORMAT, settings], sort_keys=True).encode())
    for file in files:
        key.update(file.name.encode() + file.read_bytes())
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tally" / "random-weights"
    folder = cache / key.hexdigest()[:16]
    if not folder.exists():
        log.say(f"making random weights in {folder}")
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=cache, prefix=".making-") as scratch:
                draft = Path(scratch, "model")
                draft.mkdir()
                for file in files:
                    shutil.copy(file, draft)
                with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:  # its memory goes with it
                    process.submit(_write, draft, settings, tokenizer is None).result()
                draft.rename(folder)
        except BrokenProcessPool:
            fix = "take --random-weights scaled, or a machine with more"
            raise TallyError("making random weights was killed, likely for want of memory", fix=fix) from None
        except OSError as error:
            if not folder.exists():  # else another process was faster
                fix = "make room, or set XDG_CACHE_HOME to a folder that you may write to"
                raise TallyError(f"cannot write {folder}: {error.strerror or error}", fix=fix) from None
    return folder


def _write(folder: Path, settings: dict[str, Any], with_tokenizer: bool) -> None:
    """Writes configuration, weights in bfloat16 and, if asked for, a tokenizer."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    (folder / "config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    try:
        config = AutoConfig.from_pretrained(folder)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    except (OSError, ValueError) as error:
        reason = first_line(error)
        fix = "take a model that transformers knows by itself"
        raise UsageError(f"cannot make random weights: {reason}", fix=fix) from None
    for name, parameter in model.named_parameters():
        if name.endswith(".bias"):  # they begin as zeros, which would hide that one is left out
            torch.nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(folder)
    if with_tokenizer:
        _write_tokenizer(folder, settings["eos_token_id"])


def _write_tokenizer(folder: Path, eos_token_id: int) -> None:
    """Text becomes bytes; the ids above them are words of letters that only sampled tokens reach."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = ("Ġ" + "".join(letters) for letters in product(string.ascii_lowercase, repeat=4))
    vocabulary = [*alphabet, *islice(words, SPECIAL_FROM - len(alphabet))]
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIAL_TOKENS))
    eos = SPECIAL_TOKENS[eos_token_id - SPECIAL_FROM]
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token=eos, pad_token=SPECIAL_TOKENS[0])
    tokenizer.chat_template = CHATML
    tokenizer.save_pretrained(folder)
