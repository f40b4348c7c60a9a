"""`python -m rl.join`: takes a role of a run on this machine, whose `rl.train --elsewhere` is on another."""

import os
import signal
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

from rl.core import cli
from rl.core.nursery import Nursery
from rl.core.roles import JOINABLE
from rl.core.rundir import SCRATCH
from rl.launch.crew import PRELOAD


def main(argv: list[str]) -> int:
    args = _parser().parse_args(argv)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: what runs here is ended, too
    with ExitStack() as stack:
        os.environ[SCRATCH] = stack.enter_context(tempfile.TemporaryDirectory(prefix="tally-"))
        nursery = stack.enter_context(Nursery(PRELOAD)) if args.role != "server" else None
        from rl.core.processes import Children
        from rl.core.telemetry import Ports
        from rl.launch.joined import Joined
        from rl.launch.joining import found, reached

        run, board = stack.enter_context(found(args.run, args.role, args.run_dir))
        here = stack.enter_context(reached(args, run))
        ports = Ports(args.metrics_host, args.metrics_port)
        children = stack.enter_context(Children())
        joined = Joined(args.role, run, board, here, children=children, nursery=nursery, ports=ports)
        stack.callback(joined.leave)
        print(f"{args.role} of the run {run.root}{f' at {here.url}' if here.url else ''}", flush=True)
        with suppress(KeyboardInterrupt):
            joined.take_part()
    return 0


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m rl.join",
        description="Takes a role of a run on this machine, until that ends. The run is that of a `python -m rl.train "
        "--elsewhere ROLE,…`, on this machine or another.",
    )
    parser.add_argument("role", choices=JOINABLE)
    parser.add_argument(
        "run",
        metavar="URL|RUN",
        help="the URL of its ledger in a database; or its run directory, where both machines or containers share it",
    )
    parser.add_argument(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="with a URL: for what this machine keeps of the run (default: runs/<its name>-<role>)",
    )
    parser.add_argument(
        "--address",
        metavar="HOST",
        help="where the other machines reach this one (default: its address on the way to the database)",
    )
    parser.add_argument("--host", metavar="ADDRESS", help="of a server: what it listens on (default: --address)")
    parser.add_argument("--port", type=int, default=0, help="of a server (default: a free one)")
    parser.add_argument(
        "--url", help="of a server: where it is reached, if by another address (default: http://ADDRESS:PORT)"
    )
    text = "serve /metrics, /health and /ready: a collector on the next port, an evaluator on port + 2, rank r of a "
    cli.add_metrics_flags(parser, text + "learner on port + 10 + r")
    return parser


if __name__ == "__main__":
    cli.run(main)
