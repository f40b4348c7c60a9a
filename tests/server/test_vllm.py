"""The policy that is served is the learner's: vLLM's log-probabilities against those of transformers and peft."""

import shutil
import subprocess
import threading
import time
from functools import partial

import httpx
import pytest

from rollout_server.engines.vllm_process import out_of_memory
from rollout_server.engines.vllm_text import load_tokenizer
from rollout_server.schema import GenerateResponse, Health

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

VOCABULARY = 300
STOP = 1
PROMPTS = [[5, 6, 7, 8], [20, 21], list(range(30, 70))]
TOLERANCE = 1e-3
RANK = 8


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    """A small random Qwen2 on disk, as (folder, model)."""
    import torch
    from transformers import Qwen2Config, Qwen2ForCausalLM

    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=VOCABULARY,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=2,  # heads of 32, the smallest that vLLM's attention on CPU takes
        num_key_value_heads=1,
        max_position_embeddings=256,
        initializer_range=0.2,  # far from uniform: an error in the weights shows
        eos_token_id=STOP,
        bos_token_id=0,
        dtype="float32",
    )
    model = Qwen2ForCausalLM(config).eval()
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    return folder, model


@pytest.fixture(scope="module")
def learner(base):
    """The base under a LoRA on all linear layers."""
    from peft import LoraConfig, get_peft_model

    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    return get_peft_model(base[1], LoraConfig(r=RANK, lora_alpha=2 * RANK, target_modules=modules)).eval()


@pytest.fixture(scope="module")
def version(learner):
    """Sets the learner's adapter to the one of a version: random, both matrices, and the same whenever it is asked."""
    import torch

    def set_to(number):
        draw = torch.Generator().manual_seed(number)
        with torch.no_grad():
            for name, parameter in learner.named_parameters():
                if "lora_" in name:
                    parameter.copy_(0.1 * torch.randn(parameter.shape, generator=draw))

    return set_to


@pytest.fixture(scope="module")
def server(base, ready_server):
    """A server of the base that keeps two versions of each policy: process and client."""
    with ready_server("--model", str(base[0]), "--keep", "2", "--cpu-cache", "0.1") as started:
        yield started


@pytest.fixture(scope="module")
def client(server):
    return server[1]


@pytest.fixture(scope="module")
def upload(client, learner, upload_policy):
    """Puts and accepts the learner's present adapter as a version of a policy."""
    return partial(upload_policy, client, learner)


@pytest.fixture(scope="module")
def publish(upload, version):
    """Sets the learner to a version, and uploads it."""

    def publish(policy, number):
        version(number)
        return upload(policy, number)

    return publish


@pytest.fixture(scope="module")
def gap(learner):
    """The largest difference between a completion's log-probabilities and those of the learner."""
    import torch

    def gap(prompt, completion, temperature, *, adapted):
        with torch.no_grad(), learner.disable_adapter() if not adapted else torch.no_grad():
            logits = learner(torch.tensor([prompt + completion.token_ids])).logits[0, len(prompt) - 1 : -1]
        logprobs = (logits / (temperature or 1.0)).log_softmax(-1)
        own = logprobs.gather(-1, torch.tensor(completion.token_ids)[:, None])[:, 0]
        return (own - torch.tensor(completion.logprobs)).abs().max().item()

    return gap


def generate(client, *, prompts=PROMPTS, n=4, temperature=1.0, max_tokens=16, stop=(), **policy):
    sampling = {"max_tokens": max_tokens, "temperature": temperature, "stop_token_ids": list(stop)}
    answer = client.post("/v1/generate", json={"prompts": prompts, "n": n, "sampling": sampling} | policy)
    assert answer.status_code == 200, answer.text
    return GenerateResponse.model_validate_json(answer.content).completions


def pairs(groups):
    """(prompt, completion) of all completions."""
    return [(prompt, completion) for prompt, group in zip(PROMPTS, groups, strict=True) for completion in group]


def test_health_names_model_and_engine(client, base):
    health = Health.model_validate(client.get("/health").json())
    assert (health.status, health.engine, health.model) == ("ready", "vllm", base[0].name)


def test_model_without_tokenizer_serves_no_text(client, base):
    answer = client.post("/v1/completions", json={"model": base[0].name, "prompt": "1+1="})
    assert answer.status_code == 400
    assert "no tokenizer" in answer.json()["error"]["message"]


@pytest.mark.parametrize("broken", ["{", '{"version": "1.0", "model": {"type": "NoSuch"}}'])
def test_tokenizer_that_cannot_be_loaded_is_said_in_the_log(base, tmp_path, capsys, broken):
    shutil.copy(base[0] / "config.json", tmp_path)
    assert load_tokenizer(str(tmp_path), trust_remote_code=False) is None
    assert capsys.readouterr().err == ""  # there is none, which is no fault
    (tmp_path / "tokenizer.json").write_text(broken)
    assert load_tokenizer(str(tmp_path), trust_remote_code=False) is None
    assert "no requests of text, for the tokenizer cannot be loaded" in capsys.readouterr().err


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_base_is_what_transformers_computes(client, gap, temperature):
    groups = generate(client, temperature=temperature)
    assert [len(group) for group in groups] == [4, 4, 4]
    assert len({tuple(completion.token_ids) for _, completion in pairs(groups)}) > 6
    for prompt, completion in pairs(groups):
        assert completion.policy_version is None
        assert gap(prompt, completion, temperature, adapted=False) < TOLERANCE


def test_greedy_takes_the_likeliest_token(client, gap, learner):
    import torch

    for prompt, completion in pairs(generate(client, n=1, temperature=0)):
        with torch.no_grad(), learner.disable_adapter():
            logits = learner(torch.tensor([prompt + completion.token_ids])).logits[0, len(prompt) - 1 : -1]
        assert completion.token_ids == logits.argmax(-1).tolist()
        assert gap(prompt, completion, 0, adapted=False) < TOLERANCE


def test_end_of_sequence_is_kept_and_said(client):
    completions = [c for _, c in pairs(generate(client, n=64, max_tokens=64, temperature=2.0))]
    stopped = [completion for completion in completions if completion.finish_reason == "stop"]
    assert stopped
    for completion in completions:
        assert len(completion.token_ids) == len(completion.logprobs)
        if completion.finish_reason == "stop":
            assert completion.token_ids.index(STOP) == len(completion.token_ids) - 1
        else:
            assert STOP not in completion.token_ids
            assert len(completion.token_ids) == 64


def test_tokens_of_the_clients_tokenizer_end_a_completion_too(client):
    stops = range(0, VOCABULARY, 4)
    for _, completion in pairs(generate(client, n=16, max_tokens=64, stop=stops)):
        assert completion.finish_reason == "stop"
        assert [token in stops for token in completion.token_ids].index(True) == len(completion.token_ids) - 1


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_adapter_is_what_peft_computes(client, publish, gap, version, temperature):
    receipt = publish("learner", 1)
    assert receipt["modules"] == 2 * 7
    for prompt, completion in pairs(generate(client, policy="learner", temperature=temperature)):
        assert completion.policy_version == 1
        assert gap(prompt, completion, temperature, adapted=True) < TOLERANCE
        assert gap(prompt, completion, temperature, adapted=False) > 100 * TOLERANCE


def test_ten_versions_in_a_row_are_each_their_own(client, publish, gap, version):
    for number in range(1, 11):
        publish("row", number)
        for served in {max(1, number - 1), number}:
            version(served)
            for prompt, completion in pairs(generate(client, policy="row", policy_version=served, n=2)):
                assert completion.policy_version == served
                assert gap(prompt, completion, 1.0, adapted=True) < TOLERANCE
    served = [r["policy_version"] for r in client.get("/v1/policies").json()["versions"] if r["policy"] == "row"]
    assert served == [9, 10]


def test_versions_that_come_while_requests_run(client, publish, gap, version):
    """Whoever asks for the newest gets one version from the first token to the last, whatever comes meanwhile."""
    publish("busy", 1)
    answers, failures, done = [], [], threading.Event()

    def ask():
        with httpx.Client(base_url=client.base_url, timeout=120) as own:
            while not done.is_set():
                try:
                    answers.append(generate(own, policy="busy", n=4, max_tokens=64))
                except BaseException as error:
                    failures.append(error)
                    return

    threads = [threading.Thread(target=ask) for _ in range(3)]
    for thread in threads:
        thread.start()
    for number in range(2, 9):
        before = len(answers)
        publish("busy", number)
        while len(answers) < before + 2 and not failures:  # requests run on over this version
            time.sleep(0.01)
    done.set()
    for thread in threads:
        thread.join()

    assert not failures
    by_version = {}
    for prompt, completion in (pair for groups in answers for pair in pairs(groups)):
        by_version.setdefault(completion.policy_version, []).append((prompt, completion))
    assert len(by_version) > 3
    for number, sampled in by_version.items():
        version(number)
        for prompt, completion in sampled[:12] + sampled[-12:]:
            assert gap(prompt, completion, 1.0, adapted=True) < TOLERANCE


def test_client_that_goes_away_frees_its_version(client, publish):
    """Its sampling is aborted, and its adapter can be dropped under it without harm to others."""
    publish("gone", 1)
    with httpx.Client(base_url=client.base_url, timeout=0.05) as hasty, pytest.raises(httpx.ReadTimeout):
        generate(hasty, policy="gone", n=256, max_tokens=180)
    client.delete("/v1/policies/gone/1")
    assert generate(client, n=1)
    assert client.get("/ready").status_code == 200


def test_memory_that_is_not_there_is_no_fault_of_the_adapter():
    import torch

    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert out_of_memory(caught.value)
    assert out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert not out_of_memory(RuntimeError("No free adapter slots."))


def test_model_that_vllm_cannot_load_is_a_sentence_and_exit_3(tmp_path, server_process):
    (tmp_path / "config.json").write_text('{"model_type": "qwen2", "architectures": ["NoSuchModel"]}')
    with server_process("--model", str(tmp_path), stderr=subprocess.PIPE) as (process, _):
        _, stderr = process.communicate(timeout=120)
    assert process.returncode == 3
    assert "could not load its model" in stderr.strip().splitlines()[-1]


def test_policy_that_would_overflow_is_refused(client, learner, version, upload):
    """Its NaNs would stay in the cache and spoil others."""
    import torch

    version(1)
    with torch.no_grad():
        for name, parameter in learner.named_parameters():
            if "lora_" in name:
                parameter.fill_(3e38)  # finite; its products are not
    with pytest.raises(AssertionError, match="it has diverged"):
        upload("diverged", 1)
    assert client.get("/ready").status_code == 200


def test_model_whose_numbers_are_none_ends_the_server(base, tmp_path, ready_server):
    """NaNs stay in the cache, and spoil whoever gets its blocks next."""
    import torch
    from transformers import AutoModelForCausalLM

    broken = AutoModelForCausalLM.from_pretrained(base[0])
    with torch.no_grad():
        broken.model.layers[0].mlp.up_proj.weight.fill_(float("nan"))
    broken.save_pretrained(tmp_path)
    with ready_server("--model", str(tmp_path), "--cpu-cache", "0.1") as (process, client):
        answer = client.post("/v1/generate", json={"prompts": PROMPTS, "sampling": {"max_tokens": 4}})
        assert answer.status_code == 503
        assert "log-probabilities of the base model are not finite" in answer.json()["detail"]
        assert process.wait(timeout=30) == 4
