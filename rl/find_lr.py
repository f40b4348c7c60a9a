"""`python -m rl.find_lr`: in minutes, which learning rates are usable for a model and a rank, on recorded groups.

From one start, a few updates at each rate of a grid on the first recorded batches; then, on recorded groups of other
problems, how far the policy has moved and how much more reward it would earn, by importance weights. With RUN its
groups are taken and no server is needed; without one, rollouts of the base are recorded first, by a short `rl.train` at
a rate at which nothing moves. It knows nothing of long runs: they may bear less.
"""

import json
import os
import shlex
import subprocess
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rl.core import cli
from rl.core.config import RESUMABLE, TrainConfig
from rl.core.errors import TallyError, UsageError

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
STILL = 1e-9
"""A rate at which a policy stays the base, to what float32 can tell."""
ITS_OWN = ("lr", "schedule", "warmup", "lr_floor", "replay")
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

    args.steps = args.steps or str(STEPS)
    args.schedule, args.warmup, args.lr_floor = "constant", "0", "0"
    recorded = RunDir(args.run or _record(args, out))
    args.replay = str(recorded.root)
    config = begin.resolve(args).config
    from transformers.utils.logging import disable_progress_bar

    from rl.learner.find_lr import Search, read_groups
    from rl.learner.rates import conclusion, judge
    from rl.observe.console import progress_bar

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
    print(f"{'lr':>8}{'moved':>9}{'ess':>6}  {'gain of reward':26}{'clip':>6}{'grad':>8}  verdict")
    print("\n".join(map(_line, judged)))
    _write(out, config, recorded.root, groups, search.start_ess, judged, said)
    print(f"{said}\nthat is {config.steps} updates at a held rate: longer runs may bear less")
    print(f"results in {out} (find_lr.json, find_lr.png); next: {_next(judged, config)}")


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


def _record(args: Namespace, out: Path) -> Path:
    """Has a short run record rollouts of the base; returns its directory.

    Raises:
        TallyError: it failed; stderr says why.
    """
    from rl.learner.find_lr import MEASURED

    planned = cli.resolve(args).config
    steps = planned.steps + -(-MEASURED * planned.group_size // planned.batch)
    brief = {"eval_every": steps, "eval_problems": 1, "eval_samples": 1, "wandb": "off"}
    values, _ = cli.given(args)
    run = out / "rollouts"
    settings = brief | values | {"lr": STILL, "steps": steps, "save_every": steps}
    flags = [_flag(name, value) for name, value in settings.items()]
    print(
        f"recording rollouts of the base: {steps} steps at a rate that moves nothing ({out}/recording.log)", flush=True
    )
    out.mkdir(parents=True)
    with (out / "recording.log").open("w") as log:
        command = [sys.executable, "-m", "rl.train", "--run-dir", str(run), *flags]
        ended = subprocess.run(command, stdout=log, check=False)
    if ended.returncode:
        raise TallyError(f"recording rollouts ended with exit code {ended.returncode}", fix=f"see {out}/recording.log")
    return run


def _flag(name: str, value: Any) -> str:
    flag = f"--{name.replace('_', '-')}"
    if isinstance(value, bool):
        return flag if value else f"--no-{flag[2:]}"
    return f"{flag}={value}"


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


def _line(judged: "Judged") -> str:
    trial, gain = judged.trial, judged.trial.gain
    cells = [
        f"{trial.lr:8.2g}",
        f"{_cell(trial.moved, '.2g'):>9}{_cell(trial.ess, '.2f'):>6}",
        f"  {f'{gain.value:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]' if gain else '–':26}",
        f"{_cell(trial.clipped, '.1%'):>6}{_cell(trial.grad_norm, '.2g'):>8}",
        f"  {judged.verdict}{': ' if judged.why else ''}{judged.why}",
    ]
    return "".join(cells)


def _cell(value: float | None, form: str) -> str:
    return "–" if value is None else format(value, form)


def _write(
    out: Path,
    config: TrainConfig,
    run: Path,
    groups: "Groups",
    start_ess: float,
    judged: Sequence["Judged"],
    said: str,
) -> None:
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
        _draw(judged, said, out / "find_lr.png")
    except OSError as error:
        raise UsageError(f"cannot write into {out}: {error.strerror}", fix="name a folder by --out") from None


def _draw(judged: Sequence["Judged"], said: str, path: Path) -> None:
    """Gain and effective completions by rate; the usable range is shaded."""
    import matplotlib

    from rl.learner.rates import LOWEST_ESS, Verdict

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (above, below) = pyplot.subplots(2, 1, figsize=(7, 6), sharex=True, layout="constrained")
    trials = [j.trial for j in judged]
    usable = [j.trial.lr for j in judged if j.verdict is Verdict.USABLE]
    told = [(t.lr, t.gain) for t in trials if t.gain]
    errors = [[g.value - g.low for _, g in told], [g.high - g.value for _, g in told]]
    above.errorbar([lr for lr, _ in told], [g.value for _, g in told], yerr=errors, marker="o", capsize=3)
    above.axhline(0, color="grey", linewidth=0.8)
    above.set_title(said.replace("; ", "\n"), fontsize=9)
    above.set_ylabel("gain of reward, 95 % interval")
    measured = [(t.lr, t.ess) for t in trials if t.ess is not None]
    below.plot([lr for lr, _ in measured], [share for _, share in measured], marker="o")
    below.set(xlabel="learning rate", ylabel="effective completions (share)", xscale="log", ylim=(0, 1.05))
    below.set_xlim(trials[0].lr / 2, trials[-1].lr * 2)
    below.axhline(LOWEST_ESS, color="grey", linewidth=0.8, linestyle="--", label="below: too far to tell")
    below.legend(frameon=False)
    for axis in (above, below):
        if usable:
            axis.axvspan(usable[0], usable[-1], alpha=0.12, linewidth=0)
        axis.grid(alpha=0.3)
        axis.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=150)
    pyplot.close(figure)


def _next(judged: Sequence["Judged"], config: TrainConfig) -> str:
    """A sweep over what is usable, with the settings that were named."""
    usable = [f"{j.trial.lr:g}" for j in judged if j.verdict == "usable"]
    if not usable:
        return "more --steps, or a run with more groups"
    brief = ("eval_problems", "eval_samples", "save_every", "eval_every")
    own = (*ITS_OWN, *RESUMABLE, *brief)
    default = TrainConfig()
    values = {n: v for n, v in config.model_dump(mode="json").items() if n not in own and v != getattr(default, n)}
    return shlex.join(
        ["python", "-m", "rl.sweep", "--lr", ",".join(usable), "--seeds", "2", *map(_flag, values, values.values())]
    )


if __name__ == "__main__":
    cli.run(main)
