"""Where models come from. The hub is that of `tests.hub`."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.learner.policy import Policy
from rl.problems.models import pin_model, resolve_model
from rl.problems.starter import STARTER_MODEL
from tests.hub import COMMIT, Hub, serve


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[type[Hub]]:
    """A hub with the starter model as tiny/model."""
    shutil.copytree(STARTER_MODEL, tmp_path / "hub" / "tiny" / "model")
    (tmp_path / "hub" / "tiny" / "model" / "pytorch_model.bin").write_bytes(b"never fetched")
    with serve(tmp_path / "hub") as hub:
        yield hub


def ask(hub: type[Hub], call: str, *, offline: bool = False) -> subprocess.CompletedProcess[str]:
    """Calls one of the functions in a process of its own: the hub's client reads its settings when it is imported."""
    code = f"""
from rl.core import cli
from rl.core.config import TrainConfig
from rl.problems.models import pin_model, resolve_model
cli.run(lambda argv: print({call}))"""
    settings = {"HF_ENDPOINT": hub.url, "HF_HOME": str(hub.root.parent / "home"), "HF_HUB_OFFLINE": str(int(offline))}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env={**os.environ, **settings}, capture_output=True, text=True, check=False)


def test_the_starter_and_folders_are_models(tmp_path: Path) -> None:
    assert resolve_model(TrainConfig(model="starter")) == str(STARTER_MODEL)
    assert resolve_model(TrainConfig(model=str(STARTER_MODEL))) == str(STARTER_MODEL)
    for refuses in (pin_model, resolve_model):
        with pytest.raises(UsageError, match=r"no config\.json"):
            refuses(TrainConfig(model=str(tmp_path)))
    (tmp_path / "config.json").write_text('{"model_type": "qwen2"}')
    for refuses in (pin_model, resolve_model):
        with pytest.raises(UsageError, match="has no safetensors weights"):
            refuses(TrainConfig(model=str(tmp_path)))
    (tmp_path / "model.safetensors").write_bytes((STARTER_MODEL / "model.safetensors").read_bytes()[:-1])
    for refuses in (pin_model, resolve_model):
        with pytest.raises(UsageError, match=r"model\.safetensors cannot be read: .*incomplete"):
            refuses(TrainConfig(model=str(tmp_path)))


def test_a_hub_model_is_pinned_without_fetching_and_fetched_once(hub: type[Hub]) -> None:
    pin = "pin_model(TrainConfig(model='tiny/model')).revision"
    resolve = f"resolve_model(TrainConfig(model='tiny/model', revision='{COMMIT}'))"
    assert ask(hub, pin).stdout.strip() == COMMIT
    assert hub.sent == []
    fetched = ask(hub, resolve)
    folder = Path(fetched.stdout.strip())
    assert (folder / "model.safetensors").read_bytes() == (STARTER_MODEL / "model.safetensors").read_bytes()
    assert not (folder / "pytorch_model.bin").exists()
    assert fetched.stderr == "fetching tiny/model at 0123456789ab (0.0 GB)\n"
    sent = list(hub.sent)
    assert "model.safetensors" in sent
    assert ask(hub, resolve).stdout.strip() == str(folder)  # as the run's other processes do
    assert ask(hub, pin, offline=True).stdout.strip() == COMMIT
    assert hub.sent == sent


def test_a_hub_model_of_which_others_fetched_a_part_is_fetched_whole(hub: type[Hub]) -> None:
    part = f"__import__('huggingface_hub').hf_hub_download('tiny/model', 'config.json', revision='{COMMIT}')"
    assert ask(hub, part).returncode == 0
    folder = ask(hub, f"resolve_model(TrainConfig(model='tiny/model', revision='{COMMIT}'))").stdout.strip()
    assert Path(folder, "model.safetensors").exists()


def test_a_hub_model_without_safetensors_is_refused(hub: type[Hub]) -> None:
    (hub.root / "tiny" / "model" / "model.safetensors").unlink()
    refused = ask(hub, "pin_model(TrainConfig(model='tiny/model'))")
    assert refused.returncode == 2
    assert "tiny/model has no safetensors weights" in refused.stderr


def test_a_name_that_the_hub_does_not_know_is_refused(hub: type[Hub]) -> None:
    refused = ask(hub, "pin_model(TrainConfig(model='no-such/model', revision='v2'))")
    assert refused.returncode == 2
    assert "no-such/model is no folder, and the hub does not give it at v2" in refused.stderr


@pytest.fixture
def own_code(tmp_path: Path) -> Path:
    """A folder whose model is Python code of its own."""
    folder = tmp_path / "own"
    shutil.copytree(STARTER_MODEL, folder)
    settings = json.loads((folder / "config.json").read_text())
    auto_map = {"AutoConfig": "own.OwnConfig", "AutoModelForCausalLM": "own.OwnModel"}
    (folder / "config.json").write_text(json.dumps(settings | {"model_type": "own", "auto_map": auto_map}))
    (folder / "own.py").write_text(
        "from transformers import Qwen2Config, Qwen2ForCausalLM\n"
        "class OwnConfig(Qwen2Config):\n    model_type = 'own'\n"
        "class OwnModel(Qwen2ForCausalLM):\n    config_class = OwnConfig\n"
    )
    return folder


def test_code_that_comes_with_a_model_runs_only_if_trusted(own_code: Path) -> None:
    with pytest.raises(UsageError, match="needs Python code") as error:
        resolve_model(TrainConfig(model=str(own_code)))
    assert "--trust-remote-code" in error.value.fix
    config = TrainConfig(model=str(own_code), trust_remote_code=True)
    policy = Policy(resolve_model(config), config, torch.device("cpu"))
    assert type(policy.model.get_base_model()).__name__ == "OwnModel"
    assert policy.adapter_modules == 28


def test_an_attention_that_is_not_there_is_a_usage_error() -> None:
    config = TrainConfig(attention="flash_attention_2")
    with pytest.raises(UsageError) as error:
        Policy(str(STARTER_MODEL), config, torch.device("cpu"))
    assert "--attention" in error.value.fix


def test_the_output_layer_is_never_a_target() -> None:
    with pytest.raises(UsageError, match="no layer 'lm_head'"):
        Policy(str(STARTER_MODEL), TrainConfig(lora_target="q_proj,lm_head"), torch.device("cpu"))
