"""`python -m rl.eval`: pass@k of a run's checkpoint or a model, on one or several problem sets; compares two."""

import json
import os
from pathlib import Path
from typing import Literal

from rl.core import cli
from rl.core.config import HELDOUT
from rl.core.errors import UsageError

SETTINGS = {
    "problems": "held-out problems of this source",
    "data_dir": "folder with local copies of named sets",
    "prompt": "how the problems are asked",
    "max_tokens": "tokens a completion may have",
    "eval_problems": "questions of each set; 0 takes all",
    "eval_samples": "completions of each question",
    "reward": "what marks completions",
    "extraction": "where the verifier takes answers from, strict or lenient",
}
"""What may be changed of the runs' own configuration."""
LAST_LINE = 'The last line of stdout is JSON: {set: {target: {"step": N, "summary": {"pass@1": {"value": …}, …}}}}'


def _parser() -> cli.Parser:
    parser = cli.Parser(prog="python -m rl.eval", description=__doc__.partition(": ")[2], epilog=LAST_LINE)
    parser.add_argument("targets", nargs="+", metavar="RUN|MODEL", help="one or two run directories or models")
    parser.add_argument("--step", metavar="N|best", help="checkpoint of the runs (default: the newest)")
    parser.add_argument(
        "--on", metavar="SETS", help="problem sets, like gsm8k@test,heldout (default: heldout and the run's --eval-on)"
    )
    for name, purpose in SETTINGS.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, metavar=name.rpartition("_")[2].upper(), help=f"{purpose} (default: the run's own)")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE.json",
        help="also write the last target's result there, completions included; one set only",
    )
    return parser


def main(argv: list[str]) -> None:
    args = _parser().parse_args(argv)
    if len(args.targets) > 2 or len(set(args.targets)) < len(args.targets):
        raise UsageError(f"cannot compare {' and '.join(args.targets)}", fix="name one target, or two different ones")
    from rl.evaluate.result import format_sets, summary_json  # these load what `--help` must not wait for
    from rl.launch import evaluation
    from rl.observe.console import terminal_width

    changes = {name: value for name in SETTINGS if (value := getattr(args, name)) is not None}
    on = [name for part in (args.on or "").split(",") if (name := part.strip())]
    targets = evaluation.read_targets(args.targets, on=on, step=_step(args.step), changes=changes)
    if args.out is not None and len(targets[0].sets) > 1:
        raise UsageError(f"--out takes one result, not {len(targets[0].sets)}", fix="name one set with --on")
    if args.out is not None and (args.out.is_dir() or not os.access(args.out.absolute().parent, os.W_OK)):
        raise UsageError(f"cannot write --out {args.out}", fix="name a file in a folder that is there")
    results = {target.name: evaluation.evaluate(target) for target in targets}
    sets = {name: {target: result[name] for target, result in results.items()} for name in targets[0].sets}
    if args.out is not None:
        results[args.targets[-1]][targets[0].sets[0]].save(args.out)
    print(format_sets(sets, terminal_width()))
    if args.step == "best" and HELDOUT in sets:
        print("the best checkpoint was chosen on held-out problems: its figure there is optimistic")
    figures = {
        name: {target: {"step": r.step, "summary": summary_json(r)} for target, r in rows.items()}
        for name, rows in sets.items()
    }
    print(json.dumps(figures))


def _step(text: str | None) -> int | Literal["best"] | None:
    if text is None or text.isdecimal():
        return text if text is None else int(text)
    if text != "best":
        raise UsageError(f"--step {text} is neither a step nor best", fix="name a step, like 50, or: --step best")
    return "best"


if __name__ == "__main__":
    cli.run(main)
