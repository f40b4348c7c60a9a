"""Takes the place of `rl.train` in tests of a sweep: makes its steps at once, and has the accidents that it is told.

The best rate is 1e-3; held-out pass@1 falls by 0.2 a decade away from it. `--wandb-tags` says what happens at step 3:
`fail` (until the run's directory has a file `go`), `diverge`, `die` (once), `wait` (for `go`), `until beaten` (the
same, and halfway it waits for its end), or `weak` (seeds after the first have half of the pass@1, and wait).
"""

import os
import signal
import time
from math import log10
from pathlib import Path
from types import FrameType

from rl.core import cli
from rl.core.errors import DivergedError, TallyError
from rl.core.rundir import RunDir
from tests.observe.recorded import evaluation, log_evaluation, step_record

QUESTIONS = 64
SAMPLES = 8
INTERRUPTED = 130


def main(argv: list[str]) -> int:
    interrupts: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> None:
        interrupts.append(number)

    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)
    parser = cli.Parser()
    parser.add_argument("--server-url", required=True)
    parser.add_argument("--run-dir", type=Path)
    parser.add_argument("--resume", type=Path)
    cli.add_config_flags(parser)
    args = parser.parse_args(argv)
    if args.resume:
        run = RunDir(args.resume)
        print("resumed")
    else:
        run = RunDir(args.run_dir)
        run.create(cli.resolve(args))
    config = run.config()
    is_weak = config.wandb_tags == "weak" and config.seed > 0
    share = max(0.0, 0.8 - 0.2 * abs(log10(config.lr / 1e-3))) / (2 if is_weak else 1)
    made = sum(record["kind"] == "step" for record in run.records())
    for step in range(made, config.steps + 1):
        if step and step > made:
            run.log(**step_record(step, samples=step * config.batch, step_s=0.01))
        if step == 3:
            accident("wait" if is_weak else config.wandb_tags, run, interrupts)
        if step % config.eval_every == 0 or step == config.steps:
            right = {f"problem {i}": round(SAMPLES * share * (step > 0)) for i in range(QUESTIONS)}
            log_evaluation(run, evaluation(step, right, n=SAMPLES))
        while config.wandb_tags == "until beaten" and 2 * step == config.steps and not interrupts:
            time.sleep(0.02)
        if interrupts:
            return INTERRUPTED
    return 0


def accident(what: str | None, run: RunDir, interrupts: list[int]) -> None:
    if what == "fail" and not (run.root / "go").exists():
        raise TallyError("the disk is full", fix="make room")
    if what == "diverge":
        raise DivergedError("the gradient of step 3 is not finite (loss nan)", fix="lower --lr")
    if what == "die" and not (run.root / "died").exists():
        (run.root / "died").touch()
        os.kill(os.getpid(), signal.SIGKILL)
    while what in ("wait", "until beaten") and not interrupts and not (run.root / "go").exists():
        time.sleep(0.02)


if __name__ == "__main__":
    cli.run(main)
