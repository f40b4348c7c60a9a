"""`python -m rl.diagnose`: what is wrong with a run or with a log of another tool, why, and what to try.

python -m rl.diagnose runs/mine
python -m rl.diagnose trainer_state.json --suggest next.toml
"""

import json
from pathlib import Path

from rl.core import cli


def main(argv: list[str]) -> None:
    purpose = __doc__.partition(": ")[2].partition("\n")[0]
    parser = cli.Parser(prog="python -m rl.diagnose", description=purpose)
    text = "a run directory; or CSV, JSON, JSONL, trainer_state.json, Markdown tables, or lines with a step and a loss"
    parser.add_argument("run", type=Path, metavar="RUN|LOG", help=text)
    parser.add_argument("--json", action="store_true", help="print it for machines")
    text = "write a plan for the next sweep: a row for each finding that names a setting"
    parser.add_argument("--suggest", type=Path, metavar="PLAN.toml", help=text)
    args = parser.parse_args(argv)
    from rl.observe import diagnosis  # these load what `--help` must not wait for
    from rl.study.plan import write_plan

    all_found = diagnosis.diagnosed(args.run)
    if args.json:
        print(json.dumps([diagnosis.as_json(run, found) for run, found in all_found], indent=2, allow_nan=False))
    else:
        print("\n".join(line for run, found in all_found for line in diagnosis.lines(run, found)))
    run, found = max(all_found, key=lambda of_run: len(of_run[1]))
    if args.suggest is not None:
        write_plan(diagnosis.suggested(run, found), args.suggest)
    if args.json:
        return
    if args.suggest is not None:
        print(f"plan in {args.suggest}; next: python -m rl.sweep {args.suggest}")
    elif any(finding.changes for finding in found):
        print(f"next: python -m rl.diagnose {args.run} --suggest next.toml, and python -m rl.sweep next.toml")
    else:
        print(f"next: python -m rl.report {args.run}")


if __name__ == "__main__":
    cli.run(main)
