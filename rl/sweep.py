"""`python -m rl.sweep`: runs a grid or a plan of training runs, resumable and side by side, and reports on them."""

import shlex
from argparse import Namespace, RawDescriptionHelpFormatter
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rl.core import cli
from rl.core.config import STARTER
from rl.core.errors import TallyError, UsageError
from rl.core.nursery import Nursery
from rl.launch.crew import PRELOAD

if TYPE_CHECKING:
    from rl.study.plan import Plan
    from rl.study.sweepdir import Entry, SweepDir

INTERRUPTED = 130
WITH_COMMAS = ("problems", "eval_on", "lora_target", "wandb_tags", "prompt", "system_prompt")
"""Settings in whose values a comma has a meaning of its own: to vary one of them takes a plan file."""
PLAN = """a plan file:
  name = "rates"
  seeds = 2
  parallel = 2
  [base]
  steps = 60
  [grid]
  lr = [1e-5, 1e-4, 1e-3]
  [[run]]
  name = "large-buffer"
  priority = 1
  reason = "was best in June"
  changes = { buffer = 512, lr = 1e-4 }
  criteria = ["pass@1 >= 0.60", "grad_norm stays < 1.0", "no non-finite loss", "better than lr1e-5"]
  [[phase]]
  name = "finer"
  refine = "lr"
  points = 5
"""


def main(argv: list[str]) -> int:
    args = _parser().parse_args(argv)
    from rl.study.schedule import scheduled  # these load what `--help` must not wait for
    from rl.study.sweepdir import SweepDir

    plan = _plan(args)
    sweep = SweepDir(args.out or Path("sweeps") / plan.name)
    entries = scheduled(sweep, plan)
    if args.dry_run:
        print("\n".join(_dry_run(sweep, plan, entries)))
        return 0
    from rl.launch.campaign import Campaign
    from rl.launch.progress import SweepConsole

    again = f"python -m rl.sweep {shlex.join(argv)}"
    with Nursery([*PRELOAD, "rl.launch.supervisor"]) as nursery, sweep.locked():
        campaign = Campaign(sweep, plan, scheduled(sweep, plan), SweepConsole(), nursery, resume=again)
        campaign.run()
        if campaign.interrupted:
            print(f"stopped. Go on with: {again}")
            return INTERRUPTED
        _report(sweep)
    if campaign.unchosen:
        raise campaign.unchosen
    if failed := [entry.name for entry in campaign.entries if not entry.over]:
        names = f"{', '.join(failed[:3])}{' …' if len(failed) > 3 else ''}"
        fix = f"mend what the table says, and go on with: {again}"
        raise TallyError(f"{len(failed)} of {len(campaign.entries)} runs failed: {names}", fix=fix)
    return 0


def _parser() -> cli.Parser:
    parser = cli.Parser(
        prog="python -m rl.sweep",
        usage="python -m rl.sweep [PLAN.toml] [--lr 1e-6,1e-5 --buffer 64,256 … --seeds 3] [any flag below]",
        description="Runs a grid or a plan of training runs, resumable and side by side, and reports on them. "
        "Values separated by commas make the grid; one value holds for all runs.",
        epilog=PLAN,
        formatter_class=RawDescriptionHelpFormatter,
    )
    sweep = parser.add_argument_group("sweep")
    sweep.add_argument("plan", nargs="?", type=Path, metavar="PLAN.toml", help="a plan file, see below")
    sweep.add_argument("--out", type=Path, metavar="DIR", help="where the sweep goes (default: sweeps/<its name>)")
    sweep.add_argument("--seeds", type=int, metavar="N", help="runs of each arm (default: the plan's, or 1)")
    sweep.add_argument("--parallel", type=int, metavar="N", help="runs side by side (default: the plan's, or 2)")
    sweep.add_argument("--refine", type=int, metavar="N", help="then N times a finer grid of rates around the best")
    sweep.add_argument(
        "--stop-beaten", action="store_true", help="end a run halfway or later once another is better beyond doubt"
    )
    sweep.add_argument("--dry-run", action="store_true", help="print the runs in their order, and start none")
    cli.add_config_flags(parser)
    return parser


def _plan(args: Namespace) -> "Plan":
    """The plan file with the flags' changes to its base, or the flags alone.

    Raises:
        UsageError: it cannot be read, or a run of it could not be started.
    """
    from rl.study.plan import Phase, Plan, PlannedRun, arm_name, checked, read_plan

    plan = read_plan(args.plan) if args.plan else None
    base, grid = _settings(args)
    changes: dict[str, Any] = {
        name: value for name in ("seeds", "parallel") if (value := getattr(args, name)) is not None
    }
    if any(value < 1 for value in changes.values()):
        raise UsageError(f"--seeds and --parallel count from 1: {changes}", fix="give 1 or more, or leave it out")
    changes |= {"stop_beaten": True} if args.stop_beaten else {}
    if args.refine is not None:
        if args.refine < 1 or (plan and plan.phases):
            raise UsageError(f"--refine {args.refine} adds no phase", fix="give 1 or more, to a plan without phases")
        changes["phases"] = [Phase(name=f"finer{i + 1}") for i in range(args.refine)]
    if plan is None:
        name = "-".join([Path(base.get("model", STARTER)).name, *(name.replace("_", "-") for name in grid or base)])
        plan = Plan(name=name, runs=[] if grid else [PlannedRun(name=arm_name(base) or "default")])
    return checked(plan.model_copy(update={"base": plan.base | base, "grid": plan.grid | grid, **changes}))


def _settings(args: Namespace) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """What the flags and `--config` set for all runs, and the values of the grid."""
    base, sources = cli.given(args)
    split = {
        name: [_number(part.strip()) for part in value.split(",") if part.strip()]
        for name, value in base.items()
        if sources[name] == "flag" and isinstance(value, str) and name not in WITH_COMMAS and "," in value
    }
    return {
        name: _number(value) if isinstance(value, str) and sources[name] == "flag" else value
        for name, value in base.items()
        if name not in split
    }, split


def _number(text: str) -> int | float | str:
    """As a plan file would have it: 2e-6 and 0.000002 are one arm."""
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def _dry_run(sweep: "SweepDir", plan: "Plan", entries: "list[Entry]") -> list[str]:
    from rl.study.schedule import config_of, in_order

    lines = [f"{len(entries)} runs in {sweep.root}, {plan.parallel} side by side"]
    for entry in in_order(entries):
        own = {name: value for name, value in entry.settings.items() if plan.base.get(name) != value}
        settings = " ".join(f"{name}={value}" for name, value in own.items())
        lines.append(f"{entry.name:32} {entry.status:8} {settings}{f'  # {entry.reason}' if entry.reason else ''}")
    steps = sum(config_of(entry).steps for entry in entries if not entry.over)
    lines.append(f"{steps} steps are left to make")
    lines += [f"then {phase.name}: {phase.points} values of {phase.refine} around the best" for phase in plan.phases]
    return lines


def _report(sweep: "SweepDir") -> None:
    """Says how each run ended, and what may be said of them all."""
    from rl.launch.progress import status_table
    from rl.present.report import write_report
    from rl.present.study import read_study
    from rl.present.terminal import said

    print(f"\n{status_table(sweep.entries())}\n")
    study = read_study([sweep.root])
    page = write_report(study, sweep.report)
    print(said(study))
    print(f"the report is {page}; next: more seeds (--seeds), or python -m rl.export on the run to deploy")


if __name__ == "__main__":
    cli.run(main)
