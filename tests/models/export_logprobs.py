"""What stock peft and stock vLLM make of a checkpoint: log-probabilities of greedy completions, as JSON on stdout.

python export_logprobs.py MODEL CHECKPOINT RANK
"""

import json
import os
import sys

PROMPTS = [[40, 41, 42, 43], [60, 50, 45, 70, 80, 90, 33]]
TOKENS = 12


def by_vllm(model: str, checkpoint: str, rank: int) -> list[dict[str, list[float]]]:
    from vllm import LLM, SamplingParams
    from vllm.inputs import TokensPrompt
    from vllm.lora.request import LoRARequest

    llm = LLM(
        model,
        dtype="float32",
        enable_lora=True,
        max_lora_rank=rank,
        enforce_eager=True,
        skip_tokenizer_init=True,
        max_model_len=64,
        kv_cache_memory_bytes=2**26,
    )
    params = SamplingParams(temperature=0, max_tokens=TOKENS, logprobs=0, detokenize=False, ignore_eos=True)
    outputs = llm.generate(
        [TokensPrompt(prompt_token_ids=ids) for ids in PROMPTS],
        params,
        lora_request=LoRARequest("checkpoint", 1, checkpoint),
        use_tqdm=False,
    )
    completions = [output.outputs[0] for output in outputs]
    return [
        {
            "tokens": list(completion.token_ids),
            "vllm": [at[token].logprob for at, token in zip(completion.logprobs, completion.token_ids, strict=True)],
        }
        for completion in completions
    ]


def by_peft(model: str, checkpoint: str, prompt: list[int], tokens: list[int]) -> dict[str, list[float]]:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, checkpoint)

    def logprobs() -> list[float]:
        logits = adapted(input_ids=torch.tensor([prompt + tokens])).logits[0, len(prompt) - 1 : -1]
        return logits.log_softmax(-1)[range(len(tokens)), tokens].tolist()

    with torch.no_grad():
        own = logprobs()
        with adapted.disable_adapter():
            return {"peft": own, "base": logprobs()}


if __name__ == "__main__":
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "TORCHDYNAMO_DISABLE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    model, checkpoint, rank = sys.argv[1], sys.argv[2], int(sys.argv[3])
    answers = by_vllm(model, checkpoint, rank)
    for prompt, answer in zip(PROMPTS, answers, strict=True):
        answer |= by_peft(model, checkpoint, prompt, answer["tokens"])
    print(json.dumps(answers))
