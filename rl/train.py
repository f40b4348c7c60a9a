"""`python -m rl.train`: trains a LoRA adapter by GRPO, and shows the held-out pass@k of its checkpoints."""

from argparse import Namespace
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from rl.core import cli, rundir
from rl.core.config import RESUMABLE, TrainConfig
from rl.core.errors import UsageError
from rl.core.rundir import RunDir
from rl.launch.server import listen
from rl.problems.models import resolve_model
from rl.problems.sources import check_golds, load_problems


def main(argv: list[str]) -> int:
    args = _parser().parse_args(argv)
    if args.dry_run:
        print("\n".join(_dry_run(args)))
        return 0
    opened = _resumed(args) if args.resume is not None else _created(args)
    with closing(listen(args.port)) as listener, opened as (run, config):
        from rl.launch.supervisor import Supervisor  # it loads what `--help` must not wait for

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
        help="go on with a run from its newest checkpoint; only when it ends and who follows it may change",
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


def _dry_run(args: Namespace) -> list[str]:
    if args.resume is not None:
        raise UsageError("--dry-run shows what a new run would do", fix=f"see {args.resume}/config.json for that run")
    resolved = cli.resolve(args)
    train, heldout = _checked(resolved.config)
    problems = f"{train} training problems, {heldout} held out, of which {min(heldout, resolved.config.eval_problems)} "
    problems += "are in every evaluation"
    return [*resolved.lines(), "", *resolved.config.consequences(), problems]


@contextmanager
def _created(args: Namespace) -> Iterator[tuple[RunDir, TrainConfig]]:
    """A new run in a directory of its own, once its model and problems are known to be there."""
    resolved = cli.resolve(args)
    _checked(resolved.config)
    run = RunDir(args.run_dir or Path("runs") / rundir.new_name(resolved.config))
    if run.exists:
        if not args.overwrite:
            fix = f"go on with it (--resume {run.root}), take another --run-dir, or move it aside with --overwrite"
            raise UsageError(f"the run directory {run.root} exists", fix=fix)
        run.move_aside()
    run.create(resolved)
    with run.locked():
        yield run, resolved.config


@contextmanager
def _resumed(args: Namespace) -> Iterator[tuple[RunDir, TrainConfig]]:
    """The run to go on with. Its configuration is its own; a run may only be made longer."""
    run = RunDir(args.resume)
    config = run.config()
    given = {"config": args.config, "run_dir": args.run_dir, "overwrite": args.overwrite or None}
    given |= {name: getattr(args, name) for name in TrainConfig.model_fields if name not in RESUMABLE}
    if changed := [name for name, value in given.items() if value is not None]:
        fix = "leave it out, or start a new run with another --run-dir"
        flag = f"--{changed[0].replace('_', '-')}"
        raise UsageError(f"{flag} cannot be changed by --resume: a run keeps its own", fix=fix)
    with run.locked():
        changes = {name: value for name in RESUMABLE if (value := getattr(args, name)) is not None}
        if changes:
            sources = run.sources() | dict.fromkeys(changes, "flag")
            config = cli.validated(config.model_dump() | changes, sources)
            if config.steps < (done := max(run.checkpoint_steps(), default=0)):
                fix = "name more, or start a new run"
                raise UsageError(f"--steps {config.steps}: the run has made {done} steps already", fix=fix)
            run.write_config(cli.Resolved(config=config, sources=sources))
        yield run, config


def _checked(config: TrainConfig) -> tuple[int, int]:
    """Reads model and problems once, so that bad input is found before anything starts; (train, held out) problems."""
    resolve_model(config)
    check_golds(config)
    return len(load_problems(config, "train")), len(load_problems(config, "heldout"))


if __name__ == "__main__":
    cli.run(main)
