"""`python -m rl.sync`: sends W&B and TensorBoard what they missed of runs; without a key or a network, into files."""

from pathlib import Path
from threading import Event

from rl.core import cli


def main(argv: list[str]) -> None:
    parser = cli.Parser(prog="python -m rl.sync", description=__doc__.partition(": ")[2])
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    parser.add_argument(
        "--wandb", choices=["auto", "offline", "off"], help="instead of the run's own: auto uploads, offline does not"
    )
    args = parser.parse_args(argv)
    from rl.core.rundir import RunDir  # these load what `--help` must not wait for
    from rl.track import tracker

    runs = {path: RunDir(path) for path in args.runs}
    configs = {path: run.config() for path, run in runs.items()}  # a wrong name is found before anything is sent
    nothing_follows = Event()
    nothing_follows.set()
    for path, run in runs.items():
        config = configs[path].model_copy(update={"wandb": args.wandb} if args.wandb else {})
        with run.locked():
            print(f"{path}  {tracker.track(run, config, nothing_follows, live=False)}")


if __name__ == "__main__":
    cli.run(main)
