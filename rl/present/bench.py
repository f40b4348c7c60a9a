"""The figures of `rl.bench` as lines for people."""

from collections.abc import Iterator, Mapping
from typing import Any

Figures = Mapping[str, Any]


def lines(result: Figures) -> Iterator[str]:
    """One block for each part that was measured."""
    show = {
        "end_to_end": _whole,
        "sampling": _sampling,
        "learner": _learner,
        "publishing": _publishing,
        "buffer": _buffer,
        "verifier": _verifier,
        "growth": _growth,
        "against_trl": _trl,
    }
    for part, block in show.items():
        if part in result:
            yield from block(result[part])
    machine = result["machine"]
    yield f"measured on {machine['cores']} cores, {len(machine['gpus'])} GPUs, Python {machine['python']}"


def _whole(f: Figures) -> Iterator[str]:
    yield (
        f"end to end   {f['samples_per_s']:,.0f} samples/s ({f['trained_samples_per_s']:,.0f} of them with signal), "
        f"{f['tokens_per_s']:,.0f} tokens/s, {f['steps_per_hour']:,.0f} steps/hour"
    )
    idle = ", ".join(f"{part} {share:.0%}" for part, share in f["idle"].items())
    yield f"  idle       {idle}; the learner waits for samples {f['learner_waits']:.0%} of the time"
    yield f"  cores      {', '.join(f'{role} {cores:.2f}' for role, cores in f['cpu_cores'].items())}"
    yield f"  peak MiB   {', '.join(f'{role} {peak / 2**20:,.0f}' for role, peak in f['peak_memory_bytes'].items())}"


def _sampling(f: Figures) -> Iterator[str]:
    yield (
        f"sampling     {f['tokens_per_s']:,.0f} tokens/s by the server, {f['ratio']:.2f} × vLLM's offline engine "
        f"({_all(f['ratios'])}); the adapter leaves {f['adapter_ratio']:.2f} of the base's"
    )


def _learner(f: Figures) -> Iterator[str]:
    yield (
        f"learner      {f['tokens_per_s']:,.0f} tokens/s, {f['computed_tokens_per_s']:,.0f} with those of prompts; "
        f"{f['mfu']:.0%} of the {f['matmul_flops_per_s'] / 1e9:,.0f} GFLOP/s of matrix products here"
    )


def _publishing(f: Figures) -> Iterator[str]:
    first, load, group = f["first_token"], f["engine_load"], f["first_group"]
    yield (
        f"publishing   {first['p50_s']:.2f} s to the first token (p99 {first['p99_s']:.2f}, of {f['publishes']}) of a "
        f"request that goes first, {load['p50_s']:.2f} of them until the adapter is loaded"
    )
    if group:
        yield f"  groups     {group['p50_s']:.2f} s to the first whole one of the others (p99 {group['p99_s']:.2f})"
    yield (
        f"  sampling   loses {f['lost']:.1%} at one publish in {f['every_s']:.1f} s, "
        f"{f['lost_at_one_in_30_s']:.2%} at one in 30 s"
    )


def _buffer(f: Figures) -> Iterator[str]:
    yield f"buffer       {f['samples_per_s']:,.0f} samples/s, {f['operations_per_s']:,.0f} operations/s"


def _verifier(f: Figures) -> Iterator[str]:
    yield f"verifier     {f['checks_per_s']:,.0f} checks/s"


def _growth(f: Figures) -> Iterator[str]:
    for name, what in {"buffer": "4 × the buffer", "problems": "4 × the problems", "length": "10 × the steps"}.items():
        part = f[name]
        yield f"growth       {what}: {part['ratio']:.2f} × the tokens/s ({_all(part['ratios'])})"
    grown = ", ".join(f"{role} {by / 2**20:+.1f}" for role, by in f["grown_bytes"].items())
    yield f"  MiB more   {grown} over the second half of {f['steps']:,} steps"


def _trl(f: Figures) -> Iterator[str]:
    for name, part in f.items():
        if name != "end_to_end":
            yield (
                f"beside TRL   learner, {part['threads']} threads: {part['tokens_per_s']:,.0f} tokens/s, "
                f"{part['ratio']:.2f} × TRL's {part['trl_tokens_per_s']:,.0f} ({_all(part['ratios'])})"
            )
    whole = f["end_to_end"]
    best = ", ".join(f"{name} {value}" for name, value in whole["trl"].items())
    yield (
        f"beside TRL   end to end: {whole['samples_per_s']:,.0f} samples/s, {whole['ratio']:.2f} × TRL's "
        f"{whole['trl_samples_per_s']:,.0f} ({_all(whole['ratios'])}) with {best}"
    )


def _all(ratios: list[float]) -> str:
    return " ".join(f"{ratio:.2f}" for ratio in ratios)
