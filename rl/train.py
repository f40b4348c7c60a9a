"""`python -m rl.train`: trains a LoRA adapter by GRPO, and shows the held-out pass@k of its checkpoints."""

from argparse import Namespace
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rl.core import cli
from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.core.machine import gpus
from rl.core.nursery import Nursery
from rl.core.roles import JOINABLE
from rl.core.rundir import RunDir
from rl.launch.crew import PRELOAD
from rl.launch.placement import Placement, place
from rl.launch.server import check_servers, listen_all
from rl.problems.sources import SPLITS, load_eval_sets, load_problems

if TYPE_CHECKING:
    from rl.core.telemetry import Ports


def main(argv: list[str]) -> int:
    args = _parser().parse_args(argv)
    if args.dry_run:
        print("\n".join(_dry_run(args)))
        return 0
    from rl.launch import begin  # these load what `--help` must not wait for

    if args.auto_resume:
        args = begin.go_on(args)
    if args.ray_address is not None:
        args.elsewhere = list(JOINABLE)
    resolved = begin.resolve(args) if args.resume is None else None
    planned = resolved.config if resolved else RunDir(args.resume).config()
    placement = _placed(planned, args)
    _check_elsewhere(planned, args)
    _check_servers(planned, args)
    ports = _ports(planned, args)
    with ExitStack() as stack:
        nursery = stack.enter_context(Nursery(PRELOAD))
        listeners = [stack.enter_context(listener) for listener in listen_all(args.port, _servers(planned, args))]
        begun = begin.created(resolved, args.run_dir, args.overwrite) if resolved else begin.resumed(args)
        run, config = stack.enter_context(begun)
        from rl.launch.elsewhere import Elsewhere
        from rl.launch.supervisor import Supervisor

        nodes = config.learners if args.ray_address is not None else args.learner_nodes
        away = Elsewhere(run, args.elsewhere, nodes) if args.elsewhere or run.spans_machines else None
        if args.ray_address is not None:
            from rl.launch.cluster import Cluster

            stack.enter_context(Cluster(args.ray_address, run, config))
        supervisor = Supervisor(
            run, config, listeners, placement, nursery, server_urls=args.server_urls, elsewhere=away, ports=ports
        )
        return supervisor.train(resumed=args.resume is not None)


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
    run.add_argument("--auto-resume", action="store_true", help="go on with the run in --run-dir if it has begun")
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
    run.add_argument(
        "--server-url",
        action="append",
        default=[],
        metavar="URL",
        dest="server_urls",
        help="use this rollout server and start none; may be given several times",
    )
    ports = "the supervisor on this port, the collector on port + 1, the evaluator on port + 2, learner rank r on"
    run.add_argument(
        "--elsewhere",
        type=_roles,
        default=[],
        metavar="ROLE,…",
        help=f"roles that other machines or containers take by python -m rl.join, of {', '.join(JOINABLE)}; with this "
        "one they share the run directory, or a database (--buffer-url)",
    )
    run.add_argument(
        "--learner-nodes",
        type=int,
        default=1,
        metavar="NODES",
        help="machines that join as learner, each with its part of --learners (default: 1)",
    )
    run.add_argument(
        "--ray-address",
        metavar="ADDRESS",
        help="have Ray place servers, learners, collector and evaluator on its cluster (auto, or HOST:PORT), servers "
        "and learners with a GPU each, and start again what is lost with a machine; needs --buffer-url",
    )
    cli.add_metrics_flags(run, f"serve /metrics, /health and /ready: {ports} port + 10 + r")
    cli.add_config_flags(parser)
    return parser


def _roles(text: str) -> list[str]:
    """`server,collector` → `["server", "collector"]`.

    Raises:
        UsageError: a word is no role.
    """
    roles = list(dict.fromkeys(filter(None, (word.strip() for word in text.split(",")))))
    if strange := [role for role in roles if role not in JOINABLE]:
        raise UsageError(f"--elsewhere {strange[0]} is no role", fix=f"the roles are {', '.join(JOINABLE)}")
    return roles


def _dry_run(args: Namespace) -> list[str]:
    if args.resume is not None:
        raise UsageError("--dry-run shows what a new run would do", fix=f"see {args.resume}/config.json for that run")
    from rl.launch import begin

    resolved = begin.resolve(args)
    config = resolved.config
    lines = [*resolved.lines(), "", *config.consequences(), str(_placed(config, args)), *begin.check(config)]
    return lines if config.replay is not None else [*lines, _problems(config)]


def _problems(config: TrainConfig) -> str:
    train, heldout = (len(load_problems(config, split)) for split in SPLITS)
    sets = [f"{len(problems)} of {name}" for name, problems in load_eval_sets(config).items()]
    return f"{train} training problems, {heldout} held out; every evaluation asks {', '.join(sets)}"


def _check_servers(config: TrainConfig, args: Namespace) -> None:
    """Raises:
    UsageError: servers were named, and are not there or would not be asked.
    """
    if args.server_urls and args.servers is not None:
        raise UsageError("--servers starts servers, and --server-url names some that run", fix="give one of them")
    if args.server_urls and config.replay is not None:
        raise UsageError("a replay asks no server", fix="leave --server-url out")
    check_servers(args.server_urls)


def _check_elsewhere(config: TrainConfig, args: Namespace) -> None:
    """Raises:
    UsageError: what is said of other machines does not fit together.
    """
    if args.elsewhere and config.replay is not None:
        raise UsageError("a replay is trained here", fix="leave --elsewhere out")
    if args.ray_address is not None and config.buffer_url is None:
        fix = "add --buffer-url postgresql://USER@HOST/DATABASE"
        raise UsageError("--ray-address is for several machines, which share a ledger in a database", fix=fix)
    if args.server_urls and "server" in args.elsewhere:
        raise UsageError("--server-url names servers, and --elsewhere server waits for some", fix="give one of them")
    if args.learner_nodes > 1 and "learner" not in args.elsewhere:
        raise UsageError("--learner-nodes is for learners elsewhere", fix="add --elsewhere learner")
    if args.learner_nodes < 1 or config.learners % args.learner_nodes:
        fix = f"take a divisor of --learners {config.learners}"
        raise UsageError(f"--learner-nodes {args.learner_nodes} cannot share the ranks equally", fix=fix)


def _ports(config: TrainConfig, args: Namespace) -> "Ports":
    """Raises:
    UsageError: metrics were asked for, and a port is taken, or open to everybody.
    """
    from rl.core.telemetry import Ports

    ports = Ports(args.metrics_host, args.metrics_port)
    ports.check(config.learners)
    return ports


def _placed(config: TrainConfig, args: Namespace) -> Placement:
    learners = 0 if "learner" in args.elsewhere else config.learners
    return place(gpus(), _servers(config, args), learners, config.gpu_memory)


def _servers(config: TrainConfig, args: Namespace) -> int:
    """Rollout servers to start: none where others are there to be used, or nobody is asked, as in a replay."""
    others = args.server_urls or "server" in args.elsewhere or config.replay is not None
    return 0 if others else config.servers


if __name__ == "__main__":
    cli.run(main)
