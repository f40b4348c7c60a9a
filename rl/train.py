"""`python -m rl.train`: trains a LoRA adapter by GRPO, and shows the held-out pass@k of its checkpoints."""

from argparse import Namespace
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rl.core import cli, rundir
from rl.core.config import RESUMABLE, TrainConfig
from rl.core.errors import UsageError
from rl.core.rundir import RunDir
from rl.launch.placement import place
from rl.launch.server import listen_all
from rl.problems.golds import check_reward
from rl.problems.models import pin_model, resolve_model
from rl.problems.prompt import prompt_text
from rl.problems.sources import SPLITS, check_problems, fingerprint, load_eval_sets, load_problems


def main(argv: list[str]) -> int:
    args = _parser().parse_args(argv)
    if args.dry_run:
        print("\n".join(_dry_run(args)))
        return 0
    planned = cli.resolve(args).config if args.resume is None else RunDir(args.resume).config()
    placement = place(rundir.gpus(), planned.servers, planned.learners, planned.gpu_memory)
    with ExitStack() as stack:
        listeners = [stack.enter_context(listener) for listener in listen_all(args.port, planned.servers)]
        run, config = stack.enter_context(_created(args) if args.resume is None else _resumed(args))
        from rl.launch.supervisor import Supervisor  # it loads what `--help` must not wait for

        return Supervisor(run, config, listeners, placement).train(resumed=args.resume is not None)


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
    run.add_argument(
        "--port",
        type=int,
        default=0,
        help="of the first rollout server on loopback; others take those after it (default: free ones)",
    )
    cli.add_config_flags(parser)
    return parser


def _dry_run(args: Namespace) -> list[str]:
    if args.resume is not None:
        raise UsageError("--dry-run shows what a new run would do", fix=f"see {args.resume}/config.json for that run")
    resolved = cli.resolve(args)
    config = pin_model(resolved.config)
    placement = place(rundir.gpus(), config.servers, config.learners, config.gpu_memory)
    left_out = _checked(config)
    train, heldout = (len(load_problems(config, split)) for split in SPLITS)
    sets = [f"{len(problems)} of {name}" for name, problems in load_eval_sets(config).items()]
    problems = f"{train} training problems, {heldout} held out; every evaluation asks {', '.join(sets)}"
    return [*resolved.lines(), "", *resolved.config.consequences(), str(placement), *left_out, problems]


def _pinned(resolved: cli.Resolved) -> cli.Resolved:
    config = pin_model(resolved.config)
    pinned = {} if config == resolved.config else {"revision": "hub"}
    return cli.Resolved(config=config, sources=resolved.sources | pinned)


@contextmanager
def _created(args: Namespace) -> Iterator[tuple[RunDir, TrainConfig]]:
    """A new run in a directory of its own, once its model and problems are known to be there."""
    resolved = _pinned(cli.resolve(args))
    left_out = _checked(resolved.config)
    resolve_model(resolved.config)
    run = RunDir(args.run_dir or Path("runs") / rundir.new_name(resolved.config))
    if run.exists:
        if not args.overwrite:
            fix = f"go on with it (--resume {run.root}), take another --run-dir, or move it aside with --overwrite"
            raise UsageError(f"the run directory {run.root} exists", fix=fix)
        run.move_aside()
    run.create(resolved)
    run.problems_file.write_text(fingerprint(resolved.config) + "\n")
    print("".join(f"{line}\n" for line in left_out), end="", flush=True)
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
    if run.problems_file.exists() and run.problems_file.read_text().strip() != fingerprint(config):
        fix = f"put back what {config.problems} held, or start a new run"
        raise UsageError(f"the problems of {run.root} are not those that it began with", fix=fix)
    check_reward(config, _some_gold(config))
    with run.locked():
        changes = {name: value for name in RESUMABLE if (value := getattr(args, name)) is not None}
        if changes:
            sources = run.sources() | dict.fromkeys(changes, "flag")
            config = cli.validated(config.model_dump() | changes, sources)
            if config.steps < (done := max(run.checkpoint_steps(), default=0)):
                fix = "name more, or start a new run"
                raise UsageError(f"--steps {config.steps}: the run has made {done} steps already", fix=fix)
            if config.schedule != "constant" and "steps" in changes:
                print(f"the {config.schedule} decay now ends at step {config.steps}, unlike that of one long run")
            run.write_config(cli.Resolved(config=config, sources=sources))
        yield run, config


def _checked(config: TrainConfig) -> list[str]:
    """Tries prompt, problems and reward, so that bad input is found before anything starts; what is left out."""
    prompt_text(config)
    left_out = check_problems(config)
    check_reward(config, _some_gold(config))
    return left_out


def _some_gold(config: TrainConfig) -> str:
    return load_problems(config, "train")[0].gold


if __name__ == "__main__":
    cli.run(main)
