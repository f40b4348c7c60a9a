"""The embedded model and its problems: tokenizer, splits, weights, and the command that makes them."""

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rl import pretrain
from rl.core.config import STARTERS
from rl.core.errors import UsageError
from rl.core.types import Problem
from rl.problems.starter import (
    STARTER_MODEL,
    STARTER_MODELS,
    STARTER_SETS,
    estimated_completion,
    problem_id,
    starter_problems,
    worked_completion,
)

TRAIN = starter_problems("train")
HELDOUT = starter_problems("heldout")


@pytest.fixture(scope="module", params=STARTER_MODELS)
def shipped(request: pytest.FixtureRequest) -> str:
    """The name of a shipped model."""
    return request.param


@pytest.fixture(scope="module")
def record(shipped: str) -> dict[str, Any]:
    return json.loads((STARTER_MODELS[shipped] / "STARTER.json").read_text())


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    """As every other part of the service loads it: by transformers' automatic choice of the class."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(STARTER_MODEL)


def boxed(completion: str) -> str:
    (answer,) = re.findall(r"\\boxed\{(-?\d+)\}$", completion)
    return answer


# ---- problems


def test_no_problem_is_in_both_splits() -> None:
    assert not {p.id for p in TRAIN} & {p.id for p in HELDOUT}
    assert len({p.text for p in TRAIN + HELDOUT}) == len(TRAIN) + len(HELDOUT)


def test_splits_are_large_enough_and_ordered_by_id() -> None:
    assert len(TRAIN) > 4000
    assert len(HELDOUT) >= 512
    for split in (TRAIN, HELDOUT):
        assert [p.id for p in split] == sorted(p.id for p in split)


def test_splits_are_those_that_the_model_was_trained_on() -> None:
    """Were a problem to change sides, the shipped model would have seen held-out problems."""
    digests = {
        split: hashlib.sha256("\n".join(p.text for p in starter_problems(split)).encode()).hexdigest()[:16]
        for split in ("train", "heldout")
    }
    assert digests == {"train": "84da15ec453cb138", "heldout": "6ffeca99ec47c256"}


def test_ids_are_hashes_of_the_text() -> None:
    assert problem_id("47+86") == hashlib.sha256(b"47+86").hexdigest()[:16]
    assert all(p.id == problem_id(p.text) for p in HELDOUT)


def test_gold_is_the_value_of_the_text() -> None:
    for p in TRAIN + HELDOUT:
        a, first, b, second, c = re.fullmatch(r"(\d+)([-+*])(\d+)(?:(\+)(\d+))?", p.text).groups()
        value = {"+": int(a) + int(b), "-": int(a) - int(b), "*": int(a) * int(b)}[first]
        assert p.gold == str(value + int(c) if second else value)


def test_sets_by_operation_share_the_problems_and_their_splits() -> None:
    kinds = [name for name in STARTER_SETS if name != "starter"]
    for split, whole in (("train", TRAIN), ("heldout", HELDOUT)):
        parts = [starter_problems(split, name) for name in kinds]
        assert all(len(part) > 40 for part in parts)
        assert sorted((p for part in parts for p in part), key=lambda p: p.id) == whole
    assert [{c for p in starter_problems("heldout", name) for c in p.text if c in "*-"} for name in kinds] == [
        set(),
        {"-"},
        {"*"},
    ]


# ---- completions


@pytest.mark.parametrize(
    ("text", "gold", "worked", "estimated"),
    [
        ("47+86", "133", r"120+13=\boxed{133}", r"\boxed{130}"),
        ("52-38", "14", r"20-6=\boxed{14}", r"\boxed{10}"),
        ("47*6+8", "290", r"240+42+8=\boxed{290}", r"\boxed{290}"),
        ("30-25", "5", r"10-5=\boxed{5}", r"\boxed{10}"),
    ],
)
def test_completions_of_known_problems(text: str, gold: str, worked: str, estimated: str) -> None:
    problem = Problem(id=problem_id(text), text=text, gold=gold)
    assert worked_completion(problem) == worked
    assert estimated_completion(problem) == estimated


def test_worked_lines_add_up_to_the_boxed_gold() -> None:
    for p in TRAIN + HELDOUT:
        completion = worked_completion(p)
        line = completion.partition("=")[0]
        assert sum(map(int, re.findall(r"[+-]?\d+", line))) == int(boxed(completion)) == int(p.gold)


def test_estimates_are_the_nearest_ten() -> None:
    for p in HELDOUT:
        estimate = int(boxed(estimated_completion(p)))
        assert estimate % 10 == 0
        assert abs(estimate - int(p.gold)) <= 5


# ---- tokenizer


def test_tokenizer_round_trips_every_prompt_and_completion(tokenizer: Any) -> None:
    for completion in (worked_completion, estimated_completion):
        texts = [f"{p.text}={completion(p)}{tokenizer.eos_token}" for p in TRAIN + HELDOUT]
        assert tokenizer.batch_decode(tokenizer(texts)["input_ids"]) == texts


def test_tokenizer_knows_every_text(tokenizer: Any) -> None:
    text = "How many? ½ of 漢字,\n\t\\boxed{ \\boxed {x} 🙂"
    ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == text
    assert tokenizer.unk_token_id not in ids


def test_completions_are_short(tokenizer: Any) -> None:
    longest = max(len(tokenizer.encode(worked_completion(p))) + 1 for p in HELDOUT)
    assert longest <= pretrain.MAX_COMPLETION_TOKENS // 2


def test_chat_template_renders_prompt_and_whole_chat(tokenizer: Any) -> None:
    user = {"role": "user", "content": "47+86"}
    prompt = tokenizer.apply_chat_template([user], add_generation_prompt=True, return_dict=False)
    assert tokenizer.convert_ids_to_tokens(prompt) == list("47+86=")
    chat = [user, {"role": "assistant", "content": r"120+13=\boxed{133}"}]
    assert tokenizer.apply_chat_template(chat, tokenize=False) == r"47+86=120+13=\boxed{133}<eos>"


# ---- the shipped model


def test_every_starter_is_shipped() -> None:
    assert tuple(STARTER_MODELS) == STARTERS


def test_weights_are_those_of_the_record(shipped: str, record: dict[str, Any]) -> None:
    weights = (STARTER_MODELS[shipped] / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() == record["weights_sha256"]


def test_record_describes_the_code_that_made_it(shipped: str, record: dict[str, Any]) -> None:
    size = "small" if shipped == "starter-small" else "default"
    command = f"python -m rl.pretrain --seed 0 --steps {pretrain.SIZES[size].steps}"
    assert record["command"] == command + " --size small" * (size == "small")
    assert record["problems"] == {"train": len(TRAIN), "heldout": len(HELDOUT)}


@pytest.mark.parametrize(("name", "most"), [("starter", 4_000_000), ("starter-small", 800_000)])
def test_folder_is_small(name: str, most: int) -> None:
    assert sum(f.stat().st_size for f in STARTER_MODELS[name].iterdir()) <= most


def test_model_leaves_something_to_learn(shipped: str, record: dict[str, Any]) -> None:
    """Measured again on part of the held-out problems; the record's own interval is much narrower."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(STARTER_MODELS[shipped])
    assert model.dtype == torch.float32
    assert model.num_parameters() == record["parameters"]
    torch.manual_seed(0)
    problems = HELDOUT[:128]
    tokenizer = AutoTokenizer.from_pretrained(STARTER_MODELS[shipped])
    counts = pretrain.sample_correct(model, tokenizer, problems, n=8)
    pass_at_1 = sum(counts) / (8 * len(problems))
    pass_at_8 = sum(count > 0 for count in counts) / len(problems)
    assert 0.25 <= pass_at_1 <= 0.45
    assert pass_at_8 >= 0.6


# ---- the command


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], dict[str, Any]]:
    """Makes a model in three steps of four problems each."""
    monkeypatch.setattr(pretrain, "MEASURED_PROBLEMS", 4)
    monkeypatch.setattr(pretrain, "BATCH", 4)

    def make(out: Path, seed: int = 0) -> dict[str, Any]:
        return pretrain.make(out, seed=seed, steps=3)

    return make


def test_same_seed_same_weights(quick: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    first, again, other = quick(tmp_path / "a"), quick(tmp_path / "b"), quick(tmp_path / "c", seed=1)
    assert first["weights_sha256"] == again["weights_sha256"]
    assert first["heldout"] == again["heldout"]
    assert first["weights_sha256"] != other["weights_sha256"]


def test_made_folder_holds_what_the_shipped_one_holds(quick: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    record = quick(tmp_path / "made")
    assert {f.name for f in (tmp_path / "made").iterdir()} == {f.name for f in STARTER_MODEL.iterdir()}
    assert json.loads((tmp_path / "made" / "STARTER.json").read_text()) == record
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        assert (tmp_path / "made" / name).read_text() == (STARTER_MODEL / name).read_text()


def test_pretraining_draws_from_the_train_split_alone(
    quick: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: set[str] = set()
    encode = pretrain.encode_pairs
    monkeypatch.setattr(
        pretrain, "encode_pairs", lambda tok, pairs: (seen.update(p.id for p, _ in pairs), encode(tok, pairs))[1]
    )
    quick(tmp_path / "made")
    assert len(seen) > 1
    assert seen <= {p.id for p in TRAIN}


def test_existing_folder_is_refused_and_left_alone(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("mine")
    with pytest.raises(UsageError, match="not an empty folder"):
        pretrain.main(["--out", str(tmp_path), "--steps", "1"])
    assert [(f.name, f.read_text()) for f in tmp_path.iterdir()] == [("config.json", "mine")]


@pytest.mark.parametrize("steps", ["0", "-3"])
def test_steps_that_train_nothing_are_refused(tmp_path: Path, steps: str) -> None:
    with pytest.raises(UsageError, match="trains nothing"):
        pretrain.main(["--out", str(tmp_path / "made"), "--steps", steps])
    assert not (tmp_path / "made").exists()
