"""The model card of an exported checkpoint: only what files of its run state, each figure with its interval."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCardData

from rl.core.config import HELDOUT, TrainConfig
from rl.core.errors import TallyError, UsageError
from rl.core.rundir import OTHER_VERSION, RunDir, heldout_evaluations, name_of
from rl.evaluate.result import EvalResult, format_sets
from rl.observe.audit import Audit, audit
from rl.problems.prompt import prompt_text
from rl.problems.sets import NAMED_SETS, parse_mixture

SAID = (
    *("tuning", "lora_rank", "lora_alpha", "lora_target", "optimizer", "lr", "schedule", "warmup", "lr_floor"),
    *("weight_decay", "grad_clip", "loss", "kl_coef", "steps", "batch", "buffer", "group_size", "temperature"),
    *("max_tokens", "reward", "extraction", "seed"),
)
"""Settings that a card lists; the run's config.json has all."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What a card is about."""

    run: RunDir
    config: TrainConfig
    step: int
    chosen: bool
    """Whether the step was chosen as the best on held-out problems, and not named by hand."""
    sha256: str
    """Of the adapter's bytes."""
    dtype: str
    """Of the merged weights: vLLM's own choice for float32 is bfloat16, which is another model."""
    check: str
    """How the merged model was compared with base and adapter, in a sentence."""


def evaluations_of(run: RunDir, config: TrainConfig, step: int, sha256: str) -> dict[str, dict[str, EvalResult]]:
    """set → the evaluations of the start and of this checkpoint; a set that was not evaluated at it is left out.

    Raises:
        UsageError: an evaluation cannot be read.
        TallyError: what was evaluated is not the adapter that is exported.
    """
    sets = {}
    for name in config.eval_sets:
        if not (file := run.eval_file(name, step)).exists():
            continue
        result = EvalResult.load(file)
        if result.adapter_sha256 != sha256:
            message = f"{file} is of the adapter {str(result.adapter_sha256)[:12]}, and the checkpoint is {sha256[:12]}"
            raise TallyError(message, fix=f"python -m rl.audit {run.root}; or export another checkpoint by --step")
        start = run.eval_file(name, 0)
        before = {"start": EvalResult.load(start)} if step and start.exists() else {}
        sets[name] = before | {name_of(step): result}
    return sets


def card(exported: Exported, sets: Mapping[str, Mapping[str, EvalResult]]) -> str:
    """The card as Markdown, with the front matter that the hub reads."""
    config = exported.config
    data = ModelCardData(
        base_model=_name(config),
        library_name="transformers",
        pipeline_tag="text-generation",
        tags=["grpo", "reinforcement-learning", "math", config.tuning, "tally"],
        datasets=_datasets(config) or None,
    )
    return "\n".join(["---", data.to_yaml(), "---", *_sections(exported, sets), ""])


def _sections(exported: Exported, sets: Mapping[str, Mapping[str, EvalResult]]) -> Iterator[str]:
    config, run = exported.config, exported.run
    how = "full fine-tuning of the linear layers" if config.tuning == "full" else f"LoRA of rank {config.lora_rank}"
    yield f"# {run.root.name}, step {exported.step}"
    yield ""
    yield f"{_name(config)} after {exported.step} updates by GRPO ({how}), trained by Tally on {config.problems}."
    yield from (
        "",
        "* `adapter/`: in peft's format",
        f"* `merged/`: base and adapter in one, in {exported.dtype}; {exported.check}",
    )
    yield from (
        "",
        "## Use",
        "",
        "```bash",
        f"vllm serve merged --dtype {exported.dtype}",
        "```",
        "",
        "```python",
        *_usage(),
        "```",
        "",
    )
    asked = json.dumps(prompt_text(config), ensure_ascii=False)
    system = f", after the system prompt {json.dumps(config.system_prompt, ensure_ascii=False)}"
    yield f"Problems were asked as {asked}{system if config.system_prompt else ''}, in the tokenizer's chat template"
    yield f"where it has one, and sampled at temperature {config.temperature:g}, at most {config.max_tokens} tokens."
    yield from ("", "## Results", "", *_results(exported, sets))
    yield from ("", "## Data", "", *_data(config, audit(run)))
    yield from ("", "## Configuration", "", "| setting | value |", "| --- | --- |")
    yield from (f"| {name} | {value} |" for name, value in config.model_dump(mode="json").items() if name in SAID)
    yield from ("", "## Provenance", "", *_provenance(exported, evaluated=bool(sets)))


def _usage() -> list[str]:
    return [
        "from transformers import AutoModelForCausalLM, AutoTokenizer",
        'model, tokenizer = AutoModelForCausalLM.from_pretrained("merged"), AutoTokenizer.from_pretrained("merged")',
    ]


def _results(exported: Exported, sets: Mapping[str, Mapping[str, EvalResult]]) -> Iterator[str]:
    if not sets:
        yield "This checkpoint was not evaluated: no data."
        return
    yield format_sets(sets)
    yield ""
    yield "95 % intervals, clustered by question; the difference is paired by question."
    if not exported.chosen:
        yield "The checkpoint was named by hand: what it was chosen on is not known here."
        return
    measured = len(heldout_evaluations(exported.run.records()))
    yield f"The checkpoint was chosen on `{HELDOUT}` as the best of {measured}: its figure there is optimistic."
    if others := ", ".join(f"`{name}`" for name in sets if name != HELDOUT):
        yield f"Nothing was chosen on {others}."
    else:
        yield "There is no further set: no figure here is of problems that nothing was chosen on."


def _data(config: TrainConfig, found: Audit) -> Iterator[str]:
    of_all = f" of {found.problems:,}" if found.problems is not None else ""
    groups = ", ".join(f"{has.groups:,} {state.value}" for state, has in found.states.items() if has.groups)
    yield f"Trained on {found.problems_trained:,}{of_all} problems of {config.problems}; marked by {config.check}."
    yield f"The ledger over {found.steps:,} steps: {found.issued:,} groups of {config.group_size} issued; {groups}."
    if found.staleness:
        yield f"Samples were at most {max(found.staleness)} steps stale (bound {found.staleness_bound})."
    books = "The books balance" if found.balanced else "The books do NOT balance"
    yield f"{books}; {found.versions:,} versions were proved to be served as published."


def _provenance(exported: Exported, *, evaluated: bool) -> Iterator[str]:
    launches = _launches(exported.run)
    newest = launches[-1]
    packages = ", ".join(f"{name} {version}" for name, version in newest["packages"].items())
    changed = " with local changes" if newest["git_diff"] else ""
    revision = f" at {exported.config.revision}" if exported.config.revision else ""
    yield f"* base: {_name(exported.config)}{revision}"
    whose = "that were evaluated" if evaluated else "of the checkpoint"
    yield f"* adapter: sha256 `{exported.sha256}`, the bytes {whose}"
    yield f"* code: commit {newest['git_commit'] or 'unknown'}{changed}; launches: {len(launches)}"
    yield f"* versions: Python {newest['python']}, {packages}"
    yield f"* hardware: {newest['platform']}, {newest['cores']} cores, {len(newest['gpus'])} GPUs"


def _launches(run: RunDir) -> list[dict[str, Any]]:
    """Oldest first.

    Raises:
        UsageError: the run's record of them cannot be read.
    """
    try:
        launches: list[dict[str, Any]] = json.loads(run.provenance_file.read_text())
    except (OSError, ValueError) as error:
        raise UsageError(f"{run.provenance_file} cannot be read: {error}", fix=OTHER_VERSION) from None
    return launches


def _name(config: TrainConfig) -> str:
    """A folder's own name, for its place is nobody's business; a hub name as it is."""
    folder = Path(config.model).expanduser()
    return folder.resolve().name if folder.is_dir() else config.model


def _datasets(config: TrainConfig) -> list[str]:
    """Those on the hub; a file has no name there."""
    names = [name.partition("@")[0] for _, name in parse_mixture(config.problems)]
    hub = {name: NAMED_SETS[name].hub if name in NAMED_SETS else name for name in names}
    return [name for name in hub.values() if name.count("/") == 1 and not Path(name).exists()]
