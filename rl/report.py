"""`python -m rl.report`: the evaluations of runs as a Markdown table and a picture, each against its own start."""

import json
from pathlib import Path

from rl.core import cli
from rl.core.config import HELDOUT
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
    sets = report.by_set({str(path): report.evaluations(RunDir(path)) for path in args.runs})
    tables = [
        report.gains_table(runs) if name == HELDOUT else f"{name}:\n\n{report.gains_table(runs)}"
        for name, runs in sets.items()
    ]
    example = report.most_improved(sets[HELDOUT][str(args.runs[0])])
    text = "\n\n".join(filter(None, [*tables, example]))
    out: Path = args.out or args.runs[0] / "report"
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.md").write_text(text + "\n")
        report.draw(sets, out / "report.png")
    except OSError as error:
        raise UsageError(f"cannot write into {out}: {error.strerror}", fix="name a folder by --out") from None
    print(text)
    print(json.dumps({"text": str(out / "report.md"), "picture": str(out / "report.png")}))


if __name__ == "__main__":
    cli.run(main)
