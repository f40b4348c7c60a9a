"""`python -m rl.report`: what is better, what it cost and what is not known: runs, sweeps and tables as a page."""

from pathlib import Path

from rl.core import cli
from rl.core.errors import UsageError


def main(argv: list[str]) -> None:
    parser = cli.Parser(prog="python -m rl.report", description=__doc__.partition(": ")[2])
    text = "run directories, sweeps, and tables or logs of other tools, in any mix"
    parser.add_argument("sources", nargs="+", type=Path, metavar="RUN|SWEEP|TABLE", help=text)
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="where the report goes (default: report/ in the run or the sweep)"
    )
    parser.add_argument("--set", metavar="NAME", help="problem set to compare on (default: the plan's, or heldout)")
    parser.add_argument("--metric", metavar="METRIC", help="what to compare by (default: the plan's, or pass@1)")
    parser.add_argument("--base", metavar="ARM", help="an arm that each other one is compared with")
    args = parser.parse_args(argv)
    if args.out is None and len(args.sources) > 1:
        raise UsageError("the report of several sources belongs to none of them", fix="name a folder: --out DIR")
    from rl.present.report import write_report  # these load what `--help` must not wait for
    from rl.present.study import read_study
    from rl.present.terminal import said, what_next

    study = read_study(args.sources, set=args.set, metric=args.metric, base=args.base)
    (source,) = args.sources[:1]
    own = source.with_name(f"{source.stem}-report") if source.is_file() else source / "report"
    page = write_report(study, args.out or own)
    print(said(study))
    print(f"the report is {page}, with Markdown, CSV and pictures beside it{what_next(study)}")


if __name__ == "__main__":
    cli.run(main)
