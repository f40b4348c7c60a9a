"""`python -m rl.dashboard`: a W&B workspace and report of runs or a sweep: online at W&B, offline as a file."""

from pathlib import Path

from rl.core import cli
from rl.core.errors import UsageError

FILE = "wandb-dashboard.json"


def main(argv: list[str]) -> None:
    parser = cli.Parser(prog="python -m rl.dashboard", description=__doc__.partition(": ")[2])
    parser.add_argument("sources", nargs="+", type=Path, metavar="RUN|SWEEP", help="run directories and sweeps")
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help=f"where the layout goes (default: {FILE} in the run or the sweep)"
    )
    args = parser.parse_args(argv)
    if args.out is None and len(args.sources) > 1:
        raise UsageError("the dashboard of several sources belongs to none of them", fix="name a file: --out FILE.json")
    import msgspec  # these load what `--help` must not wait for

    from rl.core.rundir import RunDir
    from rl.present.study import read_study
    from rl.study.runs import differences
    from rl.track.dashboard import dashboard_of
    from rl.track.wandb_log import why_not_online

    study = read_study(args.sources)
    runs = [RunDir(run.path) for run in study.runs if run.ours and RunDir(run.path).config_file.exists()]
    if not runs:
        raise UsageError("W&B has none of these", fix="name a run that `python -m rl.train` made, or a sweep")
    dashboard = dashboard_of(
        study.title,
        runs,
        compared_by=list(differences(study.runs)),
        answer=study.answer,
        insights=study.insights,
    )
    path: Path = args.out or args.sources[0] / FILE
    try:
        path.write_bytes(msgspec.json.format(msgspec.json.encode(dashboard), indent=2) + b"\n")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}", fix="name a file by --out") from None
    config = runs[0].config()
    why_not = "its runs have --wandb off" if config.wandb == "off" else why_not_online(config)
    if why_not:
        command = " ".join(["python -m rl.dashboard", *map(str, args.sources)])
        print(f"the layout is {path}; it is not at W&B ({why_not}); when its runs are there: {command}")
        return
    from rl.track.wandb_views import put_online

    workspace, report = put_online(dashboard)
    print(f"workspace: {workspace}\nreport: {report}\nthe layout is {path}")


if __name__ == "__main__":
    cli.run(main)
