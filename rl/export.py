"""`python -m rl.export`: a checkpoint as a peft adapter and as a merged model, with a model card.

The best checkpoint on held-out problems unless --step names another: never the best on the sets of --eval-on. What is
exported is what was evaluated (the hashes are compared), and the merged model is compared with base and adapter.
"""

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from rl.core import cli
from rl.core.config import HELDOUT
from rl.core.errors import UsageError

if TYPE_CHECKING:
    from rl.core.config import TrainConfig
    from rl.evaluate.result import EvalResult
    from rl.learner.merge import Agreement, Probe

PROBES = 16
"""Held-out problems with a completion each, that the merged model is compared on."""


def main(argv: list[str]) -> None:
    args = _parser().parse_args(argv)
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as the learner's: more threads spin against other processes
    from rl.core.rundir import RunDir, best_evaluation, name_of  # these load what `--help` must not wait for
    from rl.launch.card import Exported, card, evaluations_of
    from rl.launch.evaluation import read_checkpoint

    run = RunDir(args.run)
    config = run.config()
    if args.step is None and best_evaluation(run.records()) is None:
        fix = f"name one: --step {max(run.checkpoint_steps(), default=0)}"
        raise UsageError(f"{run.root} has no held-out evaluation to choose a checkpoint by", fix=fix)
    step, adapter = read_checkpoint(run, "best" if args.step is None else args.step)
    out: Path = args.out or run.root / "exports" / name_of(step)
    if out.exists():
        raise UsageError(f"{out} exists, and nothing is overwritten", fix="take another --out")
    sha256 = hashlib.sha256(adapter).hexdigest()
    sets = evaluations_of(run, config, step, sha256)
    draft = out.with_name(f".{out.name}.part")
    try:
        shutil.rmtree(draft, ignore_errors=True)
        _write_adapter(draft / "adapter", run.checkpoints / name_of(step), adapter, config)
        heldout = sets.get(HELDOUT, {}).get(name_of(step))
        agreement = _merge(config, draft, heldout)
        check = (
            f"its log-probabilities are {agreement.gap:.1e} nats from those of base and adapter in the mean, "
            f"{agreement.worst:.1e} at the most (the base's: {agreement.moved:.1e}), "
            f"over {agreement.tokens} tokens"
        )
        dtype, chosen = agreement.dtype, args.step is None
        exported = Exported(run=run, config=config, step=step, chosen=chosen, sha256=sha256, dtype=dtype, check=check)
        (draft / "README.md").write_text(card(exported, sets))
        draft.rename(out)
    except OSError as error:
        raise UsageError(f"cannot write {out}: {error.strerror}", fix="name a folder by --out") from None
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    print(f"step {step}, adapter {sha256[:12]}; merged: {check}")
    print(f"results in {out} (adapter/, merged/, README.md); next: vllm serve {out / 'merged'} --dtype {dtype}")


def _parser() -> cli.Parser:
    parser = cli.Parser(prog="python -m rl.export", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--best", action="store_true", help="the best checkpoint on held-out problems (the default)")
    which.add_argument("--step", type=int, metavar="N", help="the checkpoint of this step")
    text = "a folder that is not there yet (default: RUN/exports/step-N)"
    parser.add_argument("--out", type=Path, metavar="DIR", help=text)
    return parser


def _write_adapter(folder: Path, checkpoint: Path, adapter: bytes, config: "TrainConfig") -> None:
    """The bytes as they were evaluated; beside them peft's configuration, which names the base by its hub name."""
    from rl.learner.checkpoint import ADAPTER, ADAPTER_CONFIG

    folder.mkdir(parents=True)
    (folder / ADAPTER).write_bytes(adapter)
    settings = json.loads((checkpoint / ADAPTER_CONFIG).read_text())
    if config.revision is not None:  # of the hub; a folder is known by its path alone
        settings |= {"base_model_name_or_path": config.model, "revision": config.revision}
    (folder / ADAPTER_CONFIG).write_text(json.dumps(settings, indent=2) + "\n")


def _merge(config: "TrainConfig", draft: Path, evaluated: "EvalResult | None") -> "Agreement":
    from transformers.utils.logging import disable_progress_bar, set_verbosity_error

    from rl.learner.merge import merge
    from rl.problems.models import resolve_model

    disable_progress_bar()
    set_verbosity_error()
    base = resolve_model(config)
    probes = _probes(config, base, evaluated)
    trust = config.trust_remote_code
    return merge(base, draft / "adapter", draft / "merged", probes, trust_remote_code=trust)


def _probes(config: "TrainConfig", base: str, evaluated: "EvalResult | None") -> "list[Probe]":
    """Held-out problems as they are asked, each with the checkpoint's completion, or its gold where there is none."""
    from transformers import AutoTokenizer

    from rl.problems.prompt import Prompter
    from rl.problems.sources import load_problems

    prompter = Prompter(base, config)
    tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=config.trust_remote_code)
    given = {q.problem_id: text for q in evaluated.questions for text in q.completions[:1]} if evaluated else {}
    heldout = load_problems(config, "heldout")
    problems = ([p for p in heldout if p.id in given] or heldout)[:PROBES]
    completions = (tokenizer(given.get(p.id) or p.gold, add_special_tokens=False)["input_ids"] for p in problems)
    return [(prompter.prompt_ids(p), ids) for p, ids in zip(problems, completions, strict=True)]


if __name__ == "__main__":
    cli.run(main)
