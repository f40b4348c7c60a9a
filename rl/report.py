"""`python -m rl.report`: the evaluations of runs as a Markdown table and a picture, each against its own start."""

import json
from pathlib import Path

from rl.core import cli
from rl.core.errors import UsageError


def main(argv: list[str]) -> None:
    parser = cli.Parser(prog="python -m rl.report", description=__doc__.partition(": ")[2])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where report.md and report.png go (default: RUN/report)"
    )
    args = parser.parse_args(argv)
    from rl.core.rundir import RunDir  # these load what `--help` must not wait for
    from rl.observe import report

    if args.out is None and len(args.runs) > 1:
        raise UsageError("the report of several runs belongs to none of them", fix="name a directory: --out DIR")
    runs = {path.name: report.evaluations(RunDir(path)) for path in args.runs}
    out: Path = args.out or args.runs[0] / "report"
    out.mkdir(parents=True, exist_ok=True)
    table = report.gains_table(runs)
    (out / "report.md").write_text(table + "\n")
    report.draw(runs, out / "report.png")
    print(table)
    print(json.dumps({"table": str(out / "report.md"), "picture": str(out / "report.png")}))


if __name__ == "__main__":
    cli.run(main)
