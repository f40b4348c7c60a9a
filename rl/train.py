"""`python -m rl.train`: trains a LoRA adapter by GRPO, and shows the held-out pass@k of its checkpoints."""

import fcntl
from argparse import Namespace
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from rl.core import cli, rundir
from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.core.rundir import RunDir
from rl.launch.server import listen
from rl.problems.sources import SPLITS, load_problems, resolve_model


def main(argv: list[str]) -> int:
    args = _parser().parse_args(argv)
    if args.resume is None and args.dry_run:
        resolved = cli.resolve(args)
        print("\n".join([*resolved.lines(), "", *resolved.config.consequences(), _problems_line(resolved.config)]))
        return 0
    with closing(listen(args.port)) as listener:
        run, config = _resumed(args) if args.resume is not None else _created(args)
        from rl.launch.supervisor import Supervisor  # it loads what `--help` must not wait for

        with _locked(run):
            return Supervisor(run, config, listener).train()


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m rl.train",
        usage="python -m rl.train [--lr 2e-6] [--buffer 256] [--config FILE.toml] [any flag below]",
        description="Trains a LoRA adapter by GRPO: samples, verifies, learns, publishes and evaluates until --steps.",
    )
    run = parser.add_argument_group("run")
    run.add_argument(
        "--run-dir",
        type=Path,
        metavar="DIR",
        help="where the run's files go (default: runs/<time and settings>)",
    )
    run.add_argument(
        "--resume",
        type=Path,
        metavar="RUN",
        help="go on with a run from its newest checkpoint; only --steps may change",
    )
    run.add_argument("--overwrite", action="store_true", help="move an existing run directory aside first")
    run.add_argument(
        "--dry-run",
        action="store_true",
        help="print the configuration, where each value comes from and what follows",
    )
    run.add_argument("--port", type=int, default=0, help="of the rollout server on loopback (default: a free one)")
    cli.add_config_flags(parser)
    return parser


def _created(args: Namespace) -> tuple[RunDir, TrainConfig]:
    """The directory of a new run, once its model and problems are known to be there."""
    resolved = cli.resolve(args)
    _problems_line(resolved.config)
    root = args.run_dir or Path("runs") / rundir.new_name(resolved.config)
    return rundir.create(root, resolved, overwrite=args.overwrite), resolved.config


def _resumed(args: Namespace) -> tuple[RunDir, TrainConfig]:
    """The run to go on with. Its configuration is its own; a run may only be made longer."""
    run = RunDir(args.resume)
    config = run.config()
    given = [n for n in TrainConfig.model_fields if n != "steps" and getattr(args, n) is not None]
    if given or args.config or args.run_dir or args.overwrite:
        name = (given or ["config" if args.config else "run-dir" if args.run_dir else "overwrite"])[0]
        fix = "leave it out, or start a new run with another --run-dir"
        raise UsageError(f"--{name.replace('_', '-')} cannot be changed by --resume: the run keeps its own", fix=fix)
    if args.steps is not None:
        config = cli.validated(config.model_dump() | {"steps": args.steps}, {"steps": "flag"})
        run.write_config(cli.Resolved(config=config, sources=run.sources() | {"steps": "flag"}))
    return run, config


def _problems_line(config: TrainConfig) -> str:
    """Reads model and problems once, so that bad input is found before anything starts."""
    resolve_model(config.model)
    train, heldout = (len(load_problems(config.problems, split)) for split in SPLITS)
    return f"{train} training problems, {heldout} held out"


@contextmanager
def _locked(run: RunDir) -> Iterator[None]:
    """Two supervisors in one run directory would train each group twice."""
    with (run.root / "run.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            fix = "wait for it, or stop it with Ctrl-C where it was started"
            raise UsageError(f"the run {run.root} is in progress", fix=fix) from None
        yield


if __name__ == "__main__":
    cli.run(main)
