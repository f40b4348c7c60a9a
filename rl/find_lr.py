"""`python -m rl.find_lr`: in minutes, which learning rates are usable for a model and a rank, on recorded groups.

From one start, a few updates at each rate of a grid on the first recorded batches; then, on recorded groups of other
problems, how far the policy has moved and how much more reward it would earn, by importance weights. With RUN its
groups are taken and no server is needed; without one, rollouts of the base are recorded first, by a short `rl.train` at
a rate at which nothing moves. It knows nothing of long runs: they may bear less.
"""

import json
import os
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rl.core import cli
from rl.core.config import RESUMABLE, TrainConfig
from rl.core.errors import UsageError

if TYPE_CHECKING:
    from rl.learner.find_lr import Groups
    from rl.learner.rates import Judged

STEPS = 8
"""Updates at each rate, unless --steps names more."""
RATES = {
    "lora": (1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1),
    "full": (1e-7, 3e-7, 1e-6, 3e-6, 1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2),
}
"""Half decades."""
ITS_OWN = ("lr", "schedule", "warmup", "lr_floor", "replay", "buffer_url")
"""Settings that a search has of its own: each rate is held."""


def main(argv: list[str]) -> None:
    args = _parser().parse_args(argv)
    if named := [name for name in ITS_OWN if getattr(args, name) is not None]:
        fix = "name rates by --rates 1e-5,1e-4,1e-3, and a run to read as the first argument"
        flag = f"--{named[0].replace('_', '-')}"
        raise UsageError(f"{flag} says nothing here: each rate of a list is tried, and held", fix=fix)
    wanted = _rates(args.rates) if args.rates else None
    out: Path = args.out or (args.run / "find_lr" if args.run else Path("runs") / _new_name())
    if out.exists():
        raise UsageError(f"{out} exists", fix="take another --out")
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # as the learner's: more threads spin against other processes
    from rl.core.rundir import RunDir  # these load what `--help` must not wait for
    from rl.launch import begin
    from rl.launch.rollouts import record_rollouts
    from rl.learner.find_lr import MEASURED, Search, read_groups
    from rl.learner.rates import conclusion, judge
    from rl.observe.console import progress_bar
    from rl.present import rates as shown

    args.steps = args.steps or str(STEPS)
    args.schedule, args.warmup, args.lr_floor = "constant", "0", "0"
    if not args.run:
        print(f"recording rollouts of the base, at a rate that moves nothing ({out}/recording.log)", flush=True)
    recorded = RunDir(args.run or record_rollouts(cli.resolve(args).config, cli.given(args)[0], MEASURED, out))
    args.replay = str(recorded.root)
    config = begin.resolve(args).config
    from transformers.utils.logging import disable_progress_bar

    rates = wanted or RATES[config.tuning]
    groups = read_groups(recorded, config.steps)
    disable_progress_bar()
    search = Search(config, groups)
    print("\n".join(_about(config, groups, search.start_ess)), flush=True)
    trials = []
    with progress_bar(f"trying {len(rates)} rates") as progress:
        for trial in search.trials(rates):
            trials.append(trial)
            progress(len(trials), len(rates))
    judged, said = judge(trials), conclusion(trials, config.steps)
    print("\n".join(shown.lines(judged)))
    _write(out, config, recorded.root, groups, search.start_ess, judged, said)
    print(f"{said}\nthat is {config.steps} updates at a held rate: longer runs may bear less")
    print(f"results in {out} (find_lr.json, find_lr.png); next: {next_command(judged, config)}")


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m rl.find_lr",
        usage="python -m rl.find_lr [RUN] [--rates 1e-5,1e-4,1e-3] [--steps 8] [any flag below]",
        description=(__doc__ or "").partition(": ")[2],
    )
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN", help="a run whose recorded groups are used")
    parser.add_argument("--rates", metavar="LR,LR,…", help="rates to try (default: half decades)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where results go (default: RUN/find_lr, or in runs/)")
    cli.add_config_flags(parser)
    return parser


def _rates(text: str) -> list[float]:
    try:
        rates = sorted({float(word) for word in text.split(",")})
    except ValueError:
        rates = []
    if not rates or not 0 < rates[0] <= rates[-1] < float("inf"):
        raise UsageError(f"--rates {text} are no learning rates", fix="write them like 1e-5,1e-4,1e-3")
    return rates


def _new_name() -> str:
    return f"{datetime.now():%m%d-%H%M%S}-find-lr"


def _about(config: TrainConfig, groups: "Groups", start_ess: float) -> Iterator[str]:
    what = "full fine-tuning" if config.tuning == "full" else f"LoRA of rank {config.lora_rank}"
    yield (
        f"{config.model}, {what}, {config.optimizer}: {config.steps} updates of {config.batch} samples at each rate, "
        f"measured on {len(groups.measured)} groups of other problems"
    )
    versions = {group.oldest_version for group in groups.measured}
    if max(versions):
        yield (
            f"these were sampled by versions {min(versions)} to {max(versions)} of the run, "
            f"and weigh as {start_ess:.0%} of themselves at the start"
        )


def _write(
    out: Path,
    config: TrainConfig,
    run: Path,
    groups: "Groups",
    start_ess: float,
    judged: Sequence["Judged"],
    said: str,
) -> None:
    from rl.present.rates import draw

    facts = {
        "run": str(run),
        "conclusion": said,
        "updates": config.steps,
        "measured_groups": len(groups.measured),
        "start_ess": start_ess,
        "trials": [{**asdict(j.trial), "verdict": j.verdict, "why": j.why} for j in judged],
        "config": config.model_dump(mode="json"),
    }
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "find_lr.json").write_text(json.dumps(facts, indent=2, allow_nan=False) + "\n")
        draw(judged, said, out / "find_lr.png")
    except OSError as error:
        raise UsageError(f"cannot write into {out}: {error.strerror}", fix="name a folder by --out") from None


def next_command(judged: Sequence["Judged"], config: TrainConfig) -> str:
    """A sweep over what is usable, with the settings that differ from the model's defaults."""
    from rl.study.plan import NOT_PLANNED

    usable = [f"{j.trial.lr:g}" for j in judged if j.verdict == "usable"]
    if not usable:
        return "more --steps, or a run with more groups"
    brief = ("eval_problems", "eval_samples", "save_every", "eval_every")
    own = (*ITS_OWN, *RESUMABLE, *NOT_PLANNED, *brief)
    settings = {n: value for n, value in cli.changed(config.model_dump(mode="json")).items() if n not in own}
    return shlex.join(["python", "-m", "rl.sweep", "--lr", ",".join(usable), "--seeds", "2", *cli.as_flags(settings)])


if __name__ == "__main__":
    cli.run(main)
