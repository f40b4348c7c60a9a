"""Make a starter model: a tiny Qwen2, trained from scratch on the starter's arithmetic.

    python -m rl.pretrain --out DIR [--size small]

It learns two habits, to work a problem out and to estimate the answer at once, and stops before it is good at the
first. So at temperature 1 it is right a third of the time, and reinforcement has two things to find: that working it
out pays, and how to slip less. STARTER.json in the folder says how the model was made and how good it is.
"""

import hashlib
import json
import platform
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

from rl.core.cli import Parser, run
from rl.core.errors import UsageError
from rl.core.types import Problem
from rl.problems.starter import estimated_completion, starter_problems, worked_completion

if TYPE_CHECKING:
    import torch
    from transformers import Qwen2ForCausalLM, Qwen2Tokenizer

BATCH = 64
LEARNING_RATE = 2e-3
WARMUP = 50
ESTIMATED_SHARE = 0.6
"""Of the completions in training; the others are worked out."""

MAX_POSITIONS = 512


@dataclass(frozen=True)
class Size:
    """Of a model, as Qwen2's configuration names it."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    steps: int
    """Where held-out pass@1 at temperature 1 is near 0.3."""

    @property
    def shape(self) -> dict[str, int]:
        heads = self.num_attention_heads
        return {
            "hidden_size": self.hidden_size,
            "intermediate_size": self.intermediate_size,
            "num_hidden_layers": self.num_hidden_layers,
            "num_attention_heads": heads,
            "num_key_value_heads": heads,
            "head_dim": self.hidden_size // heads,
            "max_position_embeddings": MAX_POSITIONS,
        }


SIZES = {"default": Size(128, 384, 4, 4, steps=2000), "small": Size(64, 192, 3, 2, steps=2500)}
MEASURED_PROBLEMS = 512
SAMPLES_PER_PROBLEM = 8
MAX_COMPLETION_TOKENS = 32

PAD, EOS, UNK = "<pad>", "<eos>", "<unk>"
BOX = r"\boxed{"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message.role == 'assistant' %}={{ message.content }}{{ eos_token }}"
    "{% else %}{{ message.content }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}={% endif %}"
)
"""`47+86` becomes `47+86=`; what the assistant says follows the equals sign."""


def build_tokenizer() -> "Qwen2Tokenizer":
    """Qwen2's tokenizer without merges: a token per byte, and one for the opening of a box, which every answer has."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    vocabulary = [PAD, EOS, UNK, *sorted(ByteLevel.alphabet())]
    tokenizer = Qwen2Tokenizer(
        vocab={token: i for i, token in enumerate(vocabulary)},
        pad_token=PAD,
        eos_token=EOS,
        unk_token=UNK,
        padding_side="left",
        chat_template=CHAT_TEMPLATE,
        model_max_length=MAX_POSITIONS,
    )
    tokenizer.add_tokens(BOX)
    return tokenizer


def build_model(tokenizer: "Qwen2Tokenizer", size: Size) -> "Qwen2ForCausalLM":
    """An untrained model; its weights come from torch's global generator."""
    from transformers import Qwen2Config, Qwen2ForCausalLM

    config = Qwen2Config(
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        tie_word_embeddings=True,
        dtype="float32",
        **size.shape,
    )
    return Qwen2ForCausalLM(config)


def encode_prompt(tokenizer: "Qwen2Tokenizer", problem: Problem) -> list[int]:
    messages = [{"role": "user", "content": problem.text}]
    ids: list[int] = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    return ids


def encode_pairs(
    tokenizer: "Qwen2Tokenizer", pairs: Sequence[tuple[Problem, str]]
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """Prompts with their completions, padded on the right.

    Returns:
        Token ids and labels, both [pairs, tokens]; labels are -100 on prompt and padding.
    """
    import torch

    prompts = [encode_prompt(tokenizer, problem) for problem, _ in pairs]
    completions = [[*tokenizer.encode(completion), tokenizer.eos_token_id] for _, completion in pairs]
    width = max(len(p) + len(c) for p, c in zip(prompts, completions, strict=True))
    ids = torch.full((len(pairs), width), tokenizer.pad_token_id)
    labels = torch.full((len(pairs), width), -100)
    for row, (prompt, completion) in enumerate(zip(prompts, completions, strict=True)):
        end = len(prompt) + len(completion)
        ids[row, :end] = torch.tensor(prompt + completion)
        labels[row, len(prompt) : end] = torch.tensor(completion)
    return ids, labels


def draw_pairs(problems: Sequence[Problem], random: Random) -> list[tuple[Problem, str]]:
    """One batch of problems, each worked out or estimated."""
    return [
        (p, estimated_completion(p) if random.random() < ESTIMATED_SHARE else worked_completion(p))
        for p in random.choices(problems, k=BATCH)
    ]


def train(model: "Qwen2ForCausalLM", tokenizer: "Qwen2Tokenizer", *, random: Random, steps: int) -> None:
    """Next-token cross-entropy by AdamW; the rate rises for `WARMUP` steps and then falls to 0 along a line."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min((s + 1) / WARMUP, 1 - s / steps))
    problems = starter_problems("train")
    model.train()
    for step in range(1, steps + 1):
        ids, labels = encode_pairs(tokenizer, draw_pairs(problems, random))
        loss = model(input_ids=ids, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        print(f"\rstep {step}/{steps}  loss {loss.item():.3f}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)


def sample_correct(
    model: "Qwen2ForCausalLM", tokenizer: "Qwen2Tokenizer", problems: Sequence[Problem], *, n: int
) -> list[int]:
    """How many of n completions per problem, sampled at temperature 1, end in the boxed gold."""
    import torch

    model.eval()
    prompts = tokenizer.pad({"input_ids": [encode_prompt(tokenizer, p) for p in problems]}, return_tensors="pt")
    with torch.inference_mode():
        out = model.generate(
            **prompts, do_sample=True, temperature=1.0, top_k=0, top_p=1.0, num_return_sequences=n,
            max_new_tokens=MAX_COMPLETION_TOKENS,
        )  # fmt: skip
    texts = tokenizer.batch_decode(out[:, prompts["input_ids"].shape[1] :], skip_special_tokens=True)
    right = [text.endswith(f"{BOX}{problems[i // n].gold}}}") for i, text in enumerate(texts)]
    return [sum(right[i : i + n]) for i in range(0, len(right), n)]


def measure(model: "Qwen2ForCausalLM", tokenizer: "Qwen2Tokenizer") -> dict[str, Any]:
    """Held-out pass@1 and pass@k with k the samples per problem, with 95 % intervals."""
    from rl.evaluate.stats import estimate_mean, pass_at_k

    n, problems = SAMPLES_PER_PROBLEM, starter_problems("heldout")[:MEASURED_PROBLEMS]
    counts = sample_correct(model, tokenizer, problems, n=n)
    return {
        "temperature": 1.0,
        "problems": len(problems),
        "samples_per_problem": n,
        **{f"pass@{k}": asdict(estimate_mean([pass_at_k(n, count, k) for count in counts])) for k in (1, n)},
    }


def make(out: Path, *, seed: int, size: str = "default", steps: int | None = None) -> dict[str, Any]:
    """Trains, measures, and writes the folder; returns its record, which the folder keeps as STARTER.json.

    Args:
        size: a name of `SIZES`.
        steps: None for those of the size.

    Raises:
        UsageError: `out` holds something already, or there is no step to take.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not an empty folder", fix="name another --out, or move it away first")
    steps = SIZES[size].steps if steps is None else steps
    if steps < 1:
        raise UsageError(f"--steps {steps} trains nothing", fix="give 1 or more")
    import torch
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    torch.set_num_threads(1)  # more do not speed up so tiny a model, and would change the order of its sums
    torch.manual_seed(seed)
    started = time.monotonic()
    tokenizer = build_tokenizer()
    model = build_model(tokenizer, SIZES[size])
    train(model, tokenizer, random=Random(seed), steps=steps)
    minutes = (time.monotonic() - started) / 60

    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    record = {
        "what": "trained from scratch on arithmetic by rl.pretrain: a stand-in, not a language model",
        "command": f"python -m rl.pretrain --seed {seed} --steps {steps}{f' --size {size}' * (size != 'default')}",
        "seed": seed,
        "steps": steps,
        "batch": BATCH,
        "parameters": model.num_parameters(),
        "problems": {split: len(starter_problems(split)) for split in ("train", "heldout")},
        "heldout": measure(model, tokenizer),
        "weights_sha256": hashlib.sha256((out / "model.safetensors").read_bytes()).hexdigest(),
        "training_minutes": round(minutes, 1),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("torch", "transformers", "tokenizers")},
        },
    }
    (out / "STARTER.json").write_text(json.dumps(record, indent=2) + "\n")
    return record


def main(argv: list[str]) -> None:
    parser = Parser(prog="python -m rl.pretrain", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("starter_model"), help="new folder (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="of weights, batches and samples (default: %(default)s)")
    parser.add_argument("--size", choices=SIZES, default="default", help="small: a fifth of the weights")
    parser.add_argument("--steps", type=int, help="optimizer steps (default: those of the size)")
    args = parser.parse_args(argv)
    record = make(args.out, seed=args.seed, size=args.size, steps=args.steps)
    for name in ("pass@1", f"pass@{SAMPLES_PER_PROBLEM}"):
        figure = record["heldout"][name]
        print(f"held-out {name} {figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]")
    print(f"wrote {args.out}")


if __name__ == "__main__":
    run(main)
