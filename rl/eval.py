"""`python -m rl.eval`: pass@k of a run's checkpoint or a model on held-out problems; compares two by a paired test."""

import json
from pathlib import Path

from rl.core import cli
from rl.core.errors import UsageError


def main(argv: list[str]) -> None:
    parser = cli.Parser(prog="python -m rl.eval", description=__doc__.partition(": ")[2])
    parser.add_argument("targets", nargs="+", metavar="RUN|MODEL", help="one or two run directories or models")
    parser.add_argument("--step", type=int, help="checkpoint of the runs (default: the newest)")
    parser.add_argument("--problems", help="held-out problems of this source (default: the run's own)")
    parser.add_argument(
        "--eval-problems", type=int, metavar="N", help="how many of them (default: the run's own number)"
    )
    parser.add_argument(
        "--eval-samples", type=int, metavar="N", help="completions of each (default: the run's own number)"
    )
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="also write the last result there")
    args = parser.parse_args(argv)
    if len(args.targets) > 2 or len(set(args.targets)) < len(args.targets):
        raise UsageError(f"cannot compare {' and '.join(args.targets)}", fix="name one target, or two different ones")
    from rl.evaluate.result import format_table, summary_json  # these load what `--help` must not wait for
    from rl.launch import evaluation

    flags = {name: getattr(args, name) for name in ("problems", "eval_problems", "eval_samples")}
    changes = {name: value for name, value in flags.items() if value is not None}
    targets = evaluation.read_targets(args.targets, step=args.step, changes=changes)
    results = {target.name: evaluation.evaluate(target) for target in targets}
    if args.out is not None:
        results[args.targets[-1]].save(args.out)
    print(format_table(results))
    print(json.dumps({name: {"step": r.step, "summary": summary_json(r)} for name, r in results.items()}))


if __name__ == "__main__":
    cli.run(main)
