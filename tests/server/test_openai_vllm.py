"""OpenAI's client, lm-eval and vLLM's benchmark, as they come, against a server of vLLM that wants a key: the starter
model, and an adapter that says other things."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

import rl.problems

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(600)]

STARTER = Path(rl.problems.__path__[0]) / "starter_model"
BASE = "starter_model"
KEY = "a-key-for-foreign-clients"
POLICY = "learner@1"
QUESTIONS = ["12+5", "90-27", "3*4+5", "8*6+1"]


@pytest.fixture(scope="module")
def server(ready_server):
    with ready_server("--model", str(STARTER), "--cpu-cache", "0.1", key=KEY) as started:
        yield started


@pytest.fixture(scope="module")
def http(server, upload_policy):
    """An HTTP client of the server, which serves an adapter that is far from zero as version 1 of a policy."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    modules = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    model = AutoModelForCausalLM.from_pretrained(STARTER, dtype="float32")
    learner = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules=modules))
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in learner.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=draw))
    _, client = server
    upload_policy(client, learner, "learner", 1)
    return client


@pytest.fixture(scope="module")
def ai(http):
    return openai.OpenAI(base_url=f"{http.base_url}/v1", api_key=KEY, max_retries=0)


@pytest.fixture(scope="module")
def tokenizer():
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(STARTER)


@pytest.fixture(scope="module")
def generated(http, tokenizer):
    """Greedy completions of prompts by /v1/generate: texts, and log-probabilities with that of the end."""

    def generated(model, prompts, max_tokens=24):
        policy, _, version = model.partition("@")
        named = {"policy": policy, "policy_version": int(version)} if version else {}
        sampling = {"max_tokens": max_tokens, "temperature": 0, "stop_token_ids": [tokenizer.eos_token_id]}
        tokens = [tokenizer.encode(prompt) for prompt in prompts]
        answer = http.post("/v1/generate", json={"prompts": tokens, "sampling": sampling} | named)
        assert answer.status_code == 200, answer.text
        completions = [completion for [completion] in answer.json()["completions"]]
        texts = [tokenizer.decode(completion["token_ids"], skip_special_tokens=True) for completion in completions]
        return texts, [completion["logprobs"] for completion in completions]

    return generated


PROMPTS = [f"{question}=" for question in QUESTIONS]
"""What the chat template makes of them."""


def test_models_are_listed(ai):
    assert [card.id for card in ai.models.list()] == [BASE, POLICY, "learner"]


@pytest.mark.parametrize("model", [BASE, POLICY])
def test_completions_and_chats_are_what_generate_gives(ai, generated, model):
    texts, logprobs = generated(model, PROMPTS)
    answer = ai.completions.create(model=model, prompt=PROMPTS, max_tokens=24, temperature=0, logprobs=1)
    assert [choice.text for choice in answer.choices] == texts
    for choice, own in zip(answer.choices, logprobs, strict=True):
        assert choice.logprobs.token_logprobs == pytest.approx(own, abs=1e-3)
    for question, text in zip(QUESTIONS, texts, strict=True):
        asked = {"model": model, "messages": [{"role": "user", "content": question}], "temperature": 0}
        whole = ai.chat.completions.create(**asked, max_completion_tokens=24)
        assert whole.choices[0].message.content == text
        assert whole.model == model
        stream = list(ai.chat.completions.create(**asked, max_completion_tokens=24, stream=True))
        assert "".join(chunk.choices[0].delta.content for chunk in stream) == text
        assert len(stream) > 3
        assert stream[-1].choices[0].finish_reason == whole.choices[0].finish_reason


def test_base_and_policy_say_different_things(generated):
    assert generated(BASE, PROMPTS)[0] != generated(POLICY, PROMPTS)[0]


def test_many_are_sampled_and_streamed_at_once(ai):
    asked = {"model": "learner", "prompt": PROMPTS, "n": 4, "max_tokens": 24}
    whole = ai.completions.create(**asked)
    assert [choice.index for choice in whole.choices] == list(range(16))
    assert len({choice.text for choice in whole.choices}) > 4
    assert whole.model == POLICY
    *chunks, last = ai.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    finished = sorted(chunk.choices[0].index for chunk in chunks if chunk.choices[0].finish_reason)
    assert finished == list(range(16))
    assert 16 < last.usage.completion_tokens <= 16 * 24


@pytest.mark.parametrize("stream", [False, True])
def test_text_stops_before_a_string(ai, generated, stream):
    [text], _ = generated(BASE, PROMPTS[:1])
    stop = text[3:]  # in the middle of a token
    answer = ai.completions.create(
        model=BASE, prompt=PROMPTS[0], max_tokens=24, temperature=0, stop=[stop], stream=stream
    )
    choices = [chunk.choices[0] for chunk in answer] if stream else answer.choices
    assert "".join(choice.text for choice in choices) == text[:3]
    assert choices[-1].finish_reason == "stop"


@pytest.mark.parametrize("model", [BASE, POLICY])
def test_echo_scores_what_was_generated(ai, generated, tokenizer, model):
    texts, logprobs = generated(model, PROMPTS)
    whole = [prompt + text for prompt, text in zip(PROMPTS, texts, strict=True)]
    answer = ai.completions.create(model=model, prompt=whole, max_tokens=0, echo=True, logprobs=1)
    for choice, text, prompt, own in zip(answer.choices, whole, PROMPTS, logprobs, strict=True):
        assert choice.text == "".join(choice.logprobs.tokens) == text
        assert choice.logprobs.token_logprobs[0] is None
        start = len(tokenizer.encode(prompt))
        scored = choice.logprobs.token_logprobs[start:]
        assert scored == pytest.approx(own[: len(scored)], abs=1e-3)
        assert scored == [max(likeliest.values()) for likeliest in choice.logprobs.top_logprobs[start:]]


def test_penalty_and_nucleus_reach_the_sampler(ai):
    asked = {"model": BASE, "prompt": "1+1=", "max_tokens": 12, "n": 8}
    narrow = ai.completions.create(**asked, top_p=0.01)
    assert len({choice.text for choice in narrow.choices}) == 1
    free = ai.completions.create(**asked, presence_penalty=2, frequency_penalty=2, temperature=2)
    assert len({choice.text for choice in free.choices}) > 4


def test_likeliest_tokens_hold_the_sampled_one(ai):
    answer = ai.completions.create(model=BASE, prompt=PROMPTS[0], max_tokens=24, n=8, temperature=2, logprobs=1)
    for choice in answer.choices:
        for token, own, likeliest in zip(
            choice.logprobs.tokens, choice.logprobs.token_logprobs, choice.logprobs.top_logprobs, strict=True
        ):
            assert likeliest[token] >= own
            assert len(likeliest) <= 2
    assert any(len(likeliest) == 2 for choice in answer.choices for likeliest in choice.logprobs.top_logprobs)


def metric(http, family):
    """The sum of a family's values, counters by their totals."""
    families = {family.name: family for family in text_string_to_metric_families(http.get("/metrics").text)}
    samples = [sample for sample in families[family].samples if not sample.name.endswith("_created")]
    assert samples
    assert {sample.labels["model_name"] for sample in samples} == {BASE}
    return sum(sample.value for sample in samples)


def wait_idle(http):
    """Until the metrics say that nothing runs."""
    deadline = time.monotonic() + 60
    while metric(http, "vllm:num_requests_running"):
        assert time.monotonic() < deadline, "something still runs"
        time.sleep(0.01)


def test_idle_server_says_that_nothing_runs(http, ai, generated):
    [text], _ = generated(BASE, PROMPTS[:1])
    ai.completions.create(model=BASE, prompt=PROMPTS[0], max_tokens=24, temperature=0, stop=text[3:5])
    wait_idle(http)


def test_client_that_leaves_a_stream_aborts_its_request(http, ai):
    asked = {"model": POLICY, "prompt": PROMPTS[0], "n": 32, "max_tokens": 500, "temperature": 2, "stream": True}
    before = metric(http, "vllm:request_success")
    with ai.completions.create(**asked) as stream:
        next(stream)
    wait_idle(http)
    assert metric(http, "vllm:request_success") - before < 32  # else it ran to its end


def test_metrics_are_vllms(http, generated):
    before = metric(http, "vllm:generation_tokens")
    _, logprobs = generated(BASE, PROMPTS)
    assert metric(http, "vllm:generation_tokens") - before == sum(map(len, logprobs))
    assert metric(http, "vllm:e2e_request_latency_seconds") > 0


def test_metrics_tell_both_processes_apart(http):
    families = {family.name: family for family in text_string_to_metric_families(http.get("/metrics").text)}
    engine, server = (families[f"{of}process_resident_memory_bytes"].samples[0].value for of in ("engine_", ""))
    assert engine > server > 0


TASKS = {
    "says": {
        "output_type": "generate_until",
        "generation_kwargs": {"max_gen_toks": 24, "temperature": 0, "do_sample": False, "until": ["#"]},
        "metric_list": [{"metric": "exact_match"}],
    },
    "scores": {
        "output_type": "loglikelihood",
        "metric_list": [{"metric": "acc"}],  # whether every token is the likeliest
    },
}


@pytest.fixture
def evaluate(http, generated, tmp_path):
    """lm-eval's results and samples for a model; what is right is what the model itself says when greedy."""

    def evaluate(model):
        texts, _ = generated(model, PROMPTS)
        rows = [{"prompt": prompt, "text": text} for prompt, text in zip(PROMPTS, texts, strict=True)]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        for name, task in TASKS.items():
            common = {
                "task": name,
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": {"test": str(tmp_path / "rows.jsonl")}},
                "test_split": "test",
                "doc_to_text": "{{prompt}}",
                "doc_to_target": "{{text}}",
                "target_delimiter": "",
            }
            (tmp_path / f"{name}.yaml").write_text(json.dumps(common | task))  # JSON is YAML
        arguments = {
            "model": model,
            "base_url": f"{http.base_url}/v1/completions",
            "tokenizer": str(STARTER),
            "tokenizer_backend": "huggingface",
            "max_length": 256,
            "num_concurrent": 1,
        }
        command = [
            *(sys.executable, "-m", "lm_eval", "run", "--model", "local-completions"),
            *("--model_args", ",".join(f"{name}={value}" for name, value in arguments.items())),
            *("--tasks", ",".join(TASKS), "--include_path", str(tmp_path)),
            *("--output_path", str(tmp_path / "out"), "--log_samples", "--batch_size", "2"),
        ]
        environment = os.environ | {
            "HF_HOME": str(tmp_path),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "OPENAI_API_KEY": KEY,
        }
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        [results] = (tmp_path / "out").rglob("results_*.json")
        [samples] = (tmp_path / "out").rglob("samples_scores_*.jsonl")
        return json.loads(results.read_text())["results"], [json.loads(s) for s in samples.read_text().splitlines()]

    return evaluate


def test_lm_eval_generates_and_scores(evaluate, generated, tokenizer):
    results, samples = evaluate(POLICY)
    assert results["says"]["exact_match,none"] == 1.0
    assert results["scores"]["acc,none"] == 1.0
    _, logprobs = generated(POLICY, PROMPTS)
    for sample, own in zip(sorted(samples, key=lambda sample: sample["doc_id"]), logprobs, strict=True):
        [[[likelihood, _]]] = sample["resps"]
        tokens = len(tokenizer.encode(sample["doc"]["text"]))  # the end of the sequence is no part of the text
        assert float(likelihood) == pytest.approx(sum(own[:tokens]), abs=1e-3)


@pytest.mark.parametrize(("backend", "path"), [("openai", "/v1/completions"), ("openai-chat", "/v1/chat/completions")])
def test_vllms_benchmark_gets_every_token(http, tmp_path, backend, path):
    """What `vllm bench serve` runs; the command itself does not start from vLLM's CPU build."""
    script = (
        "from vllm.benchmarks.serve import add_cli_args, main\n"
        "from vllm.utils.argparse_utils import FlexibleArgumentParser\n"
        "parser = FlexibleArgumentParser()\n"
        "add_cli_args(parser)\n"
        "main(parser.parse_args())\n"
    )
    command = [
        *(sys.executable, "-c", script, "--backend", backend, "--base-url", str(http.base_url).rstrip("/")),
        *("--endpoint", path, "--model", BASE, "--tokenizer", str(STARTER), "--dataset-name", "random"),
        *("--random-input-len", "12", "--random-output-len", "16", "--num-prompts", "24", "--max-concurrency", "8"),
        *("--ignore-eos", "--temperature", "1", "--skip-chat-template", "--disable-tqdm"),
        *("--save-result", "--result-filename", str(tmp_path / "result.json")),
    ]
    done = subprocess.run(
        command, env=os.environ | {"OPENAI_API_KEY": KEY}, capture_output=True, text=True, timeout=400, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    result = json.loads((tmp_path / "result.json").read_text())
    assert (result["completed"], result["failed"]) == (24, 0)
    assert result["total_output_tokens"] == 24 * 16
