"""The trackers' process: `python -m rl.track RUN`. It follows a run until SIGTERM, then writes what is left."""

import signal
from pathlib import Path
from threading import Event

from rl.core import cli, log
from rl.core.rundir import RunDir


def main(argv: list[str]) -> None:
    parser = cli.Parser(prog="python -m rl.track", description="Follows a run for W&B and TensorBoard.")
    parser.add_argument("run", type=Path)
    run = RunDir(parser.parse_args(argv).run)
    log.begin(run.root, "tracker")
    ended = Event()
    signal.signal(signal.SIGTERM, lambda number, frame: ended.set())  # it may come before what follows is loaded
    from rl.track import tracker

    tracker.yield_to_others()
    log.say(tracker.track(run, run.config(), ended, live=True))


if __name__ == "__main__":
    cli.run(main)
