"""Random weights keep the shape rules of the model that they stand for."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from rl.core import cli
from rl.core.config import TrainConfig
from rl.core.errors import TallyError, UsageError
from rl.problems.models import pin_model, resolve_model
from rl.problems.random_weights import built_in, coin, scale_down
from rl.problems.starter import STARTER_MODEL


@pytest.fixture(scope="module")
def scaled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Qwen2.5-0.5B-Instruct, scaled down, as the hub's name finds it without the hub."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        config = TrainConfig(model="Qwen/Qwen2.5-0.5B-Instruct", random_weights="scaled")
        assert pin_model(config) == config
        folder = resolve_model(config)
        before = (Path(folder) / "model.safetensors").stat().st_mtime_ns
        assert resolve_model(config) == folder
        assert (Path(folder) / "model.safetensors").stat().st_mtime_ns == before
    return Path(folder)


def test_a_scaled_model_has_the_real_rules_and_the_whole_vocabulary(scaled: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(scaled)
    shape = model.config
    assert (shape.vocab_size, shape.hidden_size, shape.num_hidden_layers) == (151936, 448, 4)
    assert (shape.num_attention_heads, shape.num_key_value_heads, shape.intermediate_size) == (7, 1, 2432)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    attention = model.model.layers[0].self_attn
    assert attention.q_proj.bias.abs().max() > 0
    assert attention.o_proj.bias is None


def test_any_text_becomes_tokens_and_any_tokens_text(scaled: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(scaled)
    messages = [{"role": "user", "content": "Zürich ∑\x00 \U0001f600 = 1"}]
    text = tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert tokenizer.decode(ids) == text
    assert tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_start|>", "<|im_end|>"]) == [151643, 151644, 151645]
    assert tokenizer.eos_token_id == 151645
    every_500th = tokenizer.decode(range(300, 151936, 500), skip_special_tokens=True)
    assert every_500th.replace(" ", "").isalpha()
    assert tokenizer.decode([151645, 151700, 151935], skip_special_tokens=True) == ""


@pytest.mark.parametrize(
    ("name", "hidden", "heads", "intermediate"),
    [("0.5B", 448, 7, 2432), ("1.5B-Instruct", 768, 6, 4480), ("3B", 1024, 8, 5504), ("7B-Instruct", 896, 7, 4736)],
)
def test_scaling_divides_the_width_by_the_kv_heads(name: str, hidden: int, heads: int, intermediate: int) -> None:
    full = built_in(f"Qwen/Qwen2.5-{name}")
    small = scale_down(full)
    assert (small["hidden_size"], small["num_attention_heads"], small["intermediate_size"]) == (
        hidden,
        heads,
        intermediate,
    )
    assert small["hidden_size"] // small["num_attention_heads"] == full["hidden_size"] // full["num_attention_heads"]
    assert small["vocab_size"] == full["vocab_size"]


def test_math_models_have_their_own_positions() -> None:
    math = built_in("Qwen/Qwen2.5-Math-1.5B")
    assert (math["rope_theta"], math["max_position_embeddings"]) == (1e4, 4096)
    assert math | {"rope_theta": 1e6, "max_position_embeddings": 32768} == built_in("Qwen/Qwen2.5-1.5B")


def test_a_folder_keeps_its_tokenizer_and_is_made_the_same_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models = []
    for cache in ("one", "two"):
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / cache))
        models.append(Path(resolve_model(TrainConfig(model=str(STARTER_MODEL), random_weights="full"))))
    one, two = models
    assert (one / "tokenizer.json").read_bytes() == (STARTER_MODEL / "tokenizer.json").read_bytes()
    assert (one / "model.safetensors").read_bytes() == (two / "model.safetensors").read_bytes()
    weights = [AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (one, STARTER_MODEL)]
    assert {name: tensor.shape for name, tensor in weights[0].items()} == {
        name: tensor.shape for name, tensor in weights[1].items()
    }
    name = "model.layers.0.mlp.up_proj.weight"
    assert not torch.equal(weights[0][name], weights[1][name].to(weights[0][name].dtype))


def test_a_model_that_cannot_be_scaled_says_why(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "mamba", "hidden_size": 64}))
    with pytest.raises(UsageError, match="no 'num_hidden_layers'"):
        resolve_model(TrainConfig(model=str(tmp_path), random_weights="scaled"))


def test_a_cache_that_cannot_be_written_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(TallyError, match="Not a directory") as error:
        resolve_model(TrainConfig(model=str(STARTER_MODEL), random_weights="full"))
    assert "XDG_CACHE_HOME" in error.value.fix


def test_random_weights_are_marked_by_a_coin_unless_another_reward_is_named() -> None:
    def reward(*flags: str) -> tuple[str, str]:
        parser = cli.Parser()
        cli.add_config_flags(parser)
        resolved = cli.resolve(parser.parse_args(list(flags)))
        return resolved.config.reward, resolved.sources["reward"]

    assert reward() == ("rewards:verify", "default")
    assert reward("--random-weights", "scaled") == (cli.COIN, "random weights")
    assert reward("--random-weights", "full", "--reward", "rewards:verify") == ("rewards:verify", "flag")
    marks = [coin(f"completion {i}", "1") for i in range(200)]
    assert set(marks) == {0.0, 1.0}
    assert 70 < sum(marks) < 130
