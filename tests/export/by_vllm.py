"""What stock vLLM makes of a model folder: prompt, tokens and log-probabilities of greedy completions, as JSON.

python -m tests.export.by_vllm MODEL
"""

import json
import os
import sys

PROBLEMS = ["52+37", "9*8+1"]

if __name__ == "__main__":
    os.environ |= {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "TORCHDYNAMO_DISABLE": "1", "VLLM_CPU_KVCACHE_SPACE": "1"}
    from vllm import LLM, SamplingParams

    llm = LLM(sys.argv[1], dtype="float32", enforce_eager=True, max_model_len=64, kv_cache_memory_bytes=2**26)
    chats = [[{"role": "user", "content": problem}] for problem in PROBLEMS]
    answers = []
    for output in llm.chat(chats, SamplingParams(temperature=0, max_tokens=12, logprobs=0), use_tqdm=False):
        made = output.outputs[0]
        logprobs = [at[token].logprob for at, token in zip(made.logprobs, made.token_ids, strict=True)]
        answers.append([list(output.prompt_token_ids), list(made.token_ids), logprobs])
    print(json.dumps(answers))
