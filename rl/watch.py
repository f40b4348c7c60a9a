"""`python -m rl.watch`: where a run is and what looks wrong, live or long after; --explain: what each metric is."""

from pathlib import Path

from rl.core import cli
from rl.core.errors import UsageError


def main(argv: list[str]) -> None:
    parser = cli.Parser(prog="python -m rl.watch", description=__doc__.partition(": ")[2])
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN", help="a run directory, or a copy of one")
    parser.add_argument("--once", action="store_true", help="print the view once and end")
    parser.add_argument(
        "--explain", nargs="?", const="", metavar="WORD", help="what each metric is, or those that the word belongs to"
    )
    args = parser.parse_args(argv)
    from rl.core.rundir import RunDir  # these load what `--help` must not wait for
    from rl.observe.explain import explain
    from rl.observe.watch import watch

    if args.explain is not None:
        explain(args.explain)
    elif args.run is not None:
        watch(RunDir(args.run), once=args.once)
    else:
        raise UsageError("which run?", fix="name a run directory, or ask for --explain")


if __name__ == "__main__":
    cli.run(main)
