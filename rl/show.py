"""`python -m rl.show`: completions of a run with their verdicts, in the terminal or as a page."""

from pathlib import Path

from rl.core import cli
from rl.core.errors import UsageError

IN_TERMINAL, IN_PAGE = 3, 100
MARKS = ("right", "wrong", "error")


def main(argv: list[str]) -> None:
    args = _parser().parse_args(argv)
    from rewards.verdict import Mark  # these load what `--help` must not wait for
    from rl.core.config import HELDOUT
    from rl.core.rundir import RunDir
    from rl.observe import show

    run = RunDir(args.run)
    run.config()
    limit = args.limit if args.limit is not None else IN_PAGE if args.html else IN_TERMINAL
    if limit < 1:
        raise UsageError(f"--limit {limit} shows nothing", fix="name how many problems, 1 or more")
    mark = Mark(args.mark) if args.mark else None
    asked = {"step": args.step, "problem": args.problem, "mark": mark, "limit": limit}
    summary = ""
    if args.changed:
        changes = show.changed(run, set=args.set or HELDOUT, step=args.step, problem=args.problem)
        summary = changes.summary
        cards = changes.cards([*changes.lost[:limit], *changes.gained[:limit]], mark)
    elif args.set:
        cards = show.of_evaluation(run, set=args.set, order=args.order, **asked)
    else:
        cards = show.of_training(run, order=args.order, **asked)
    if args.html:
        show.to_html(cards, args.html, title=f"Completions of {run.root}", summary=summary)
        print(args.html)
    else:
        show.to_terminal(cards, full=args.full)
        print(summary, end="\n" if summary else "")


def _parser() -> cli.Parser:
    parser = cli.Parser(prog="python -m rl.show", description=__doc__.partition(": ")[2])
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory; its newest groups are shown")
    what = parser.add_argument_group("what is shown")
    what.add_argument("--step", type=int, metavar="N", help="groups trained in this step; with --set, its evaluation")
    what.add_argument("--problem", default="", metavar="TEXT", help="the beginning of its id, or a part of its text")
    what.add_argument("--mark", choices=MARKS, metavar="|".join(MARKS), help="only completions marked so")
    what.add_argument("--set", metavar="NAME", help="an evaluation and not training: heldout, or a set of --eval-on")
    order = what.add_mutually_exclusive_group()
    for word, which in {"best": "highest", "worst": "lowest"}.items():
        text = f"those with the {which} mean reward first"
        order.add_argument(f"--{word}", dest="order", action="store_const", const=word, default="newest", help=text)
    order.add_argument(
        "--changed", action="store_true", help="right at the first evaluation, wrong now; and the reverse"
    )
    how = parser.add_argument_group("how")
    how.add_argument("--limit", type=int, metavar="N", help=f"problems (default: {IN_TERMINAL}; {IN_PAGE} in a page)")
    how.add_argument("--full", action="store_true", help="long completions whole, in the terminal")
    how.add_argument("--html", type=Path, metavar="FILE", help="write a page that needs no other file")
    return parser


if __name__ == "__main__":
    cli.run(main)
