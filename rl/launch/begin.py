"""How a run begins: in a directory of its own, as a replay of another run, or from where it was."""

from argparse import Namespace
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from pathlib import Path
from typing import Any

from rl.buffer.ledger import Buffer
from rl.buffer.replay import Recording
from rl.buffer.schema import check_database, database_of, follow, new_schema, url_of_environment
from rl.core import cli, rundir
from rl.core.config import REPLAYABLE, RESUMABLE, TrainConfig
from rl.core.dburl import URL_VARIABLE
from rl.core.errors import UsageError
from rl.core.rundir import RunDir
from rl.problems.golds import check_reward
from rl.problems.models import pin_model, resolve_model
from rl.problems.prompt import prompt_text
from rl.problems.shapes import adapter_rank
from rl.problems.sources import check_problems, fingerprint, load_problems

LIMITS = ("max_minutes", "token_budget", "patience")
"""What may have ended a run: its replay has the recorded steps."""


def resolve(args: Namespace) -> cli.Resolved:
    """The configuration of a new run, or of a replay: then it is the recorded run's, but for what the user named.

    Raises:
        UsageError: a value is out of its range, or there is nothing to replay, or not with these settings.
    """
    values, sources = cli.given(args)
    if "buffer_url" not in values and (url := url_of_environment()):
        values["buffer_url"], sources["buffer_url"] = url, URL_VARIABLE
    if "replay" not in values:
        resolved = cli.completed(values, sources)
    else:
        resolved = _replay_of(RunDir(Path(values["replay"])), values, sources)
    config = pin_model(resolved.config)
    pinned = {} if config == resolved.config else {"revision": "hub"}
    return cli.Resolved(config=config, sources=resolved.sources | pinned)


def go_on(args: Namespace) -> Namespace:
    """What `--auto-resume` asks for: the arguments that go on with the run in `--run-dir`, where it has begun.

    Raises:
        UsageError: there is no `--run-dir`, or its run was begun with other settings that it keeps.
    """
    if args.run_dir is None or args.resume is not None:
        raise UsageError("--auto-resume goes on with the run in --run-dir", fix="name one, and no --resume")
    run = RunDir(args.run_dir)
    if args.overwrite or not run.exists:
        return args
    if not run.problems_file.exists():  # who began it was killed at that
        return Namespace(**{**vars(args), "overwrite": True})
    values, sources = cli.given(args)
    kept, wanted = _settings(run.config()), _settings(cli.completed(values, sources).config)
    changes = {name: wanted[name] for name in values if wanted[name] != kept[name]}
    for name in changes:
        if name not in RESUMABLE:
            flag = f"--{name.replace('_', '-')}"
            fix = f"take another --run-dir, or leave {flag} at {kept[name]}"
            raise UsageError(f"{run.root} was begun with {flag} {kept[name]}, not {values[name]}", fix=fix)
    given = dict.fromkeys(TrainConfig.model_fields) | {name: values[name] for name in changes}
    return Namespace(**{**vars(args), **given, "config": None, "run_dir": None, "resume": run.root})


def _settings(config: TrainConfig) -> dict[str, Any]:
    """As a user names them, who knows the database of a ledger, and not its schema."""
    url = config.buffer_url
    return {name: getattr(config, name) for name in TrainConfig.model_fields} | {"buffer_url": url and database_of(url)}


def _replay_of(recorded: RunDir, values: dict[str, Any], sources: dict[str, str]) -> cli.Resolved:
    old = recorded.config()
    with closing(Recording(recorded)) as recording:
        steps = recording.steps()
    own = old.model_dump() | dict.fromkeys(LIMITS) | {"steps": steps, "buffer_url": None}
    sources = dict.fromkeys(own, f"replay of {recorded.root}") | {"buffer_url": "default"} | sources
    config = cli.validated(own | values, sources)
    for name in values:
        if name not in (*REPLAYABLE, "replay") and getattr(config, name) != getattr(old, name):
            flag = f"--{name.replace('_', '-')}"
            fix = "leave it out; its groups were sampled and marked by its own"
            raise UsageError(f"{flag} of {recorded.root} cannot be changed by --replay", fix=fix)
    _check_recorded(config, steps)
    return cli.Resolved(config=config, sources=sources)


def check(config: TrainConfig) -> list[str]:
    """Tries database, prompt, problems and reward, so that bad input is found before anything starts.

    Returns:
        What is left out of the run, in sentences.

    Raises:
        UsageError: one of them cannot be used.
    """
    if config.buffer_url is not None:
        check_database(config.buffer_url)
    if config.replay is not None:  # nothing is asked or marked
        check_same_problems(RunDir(Path(config.replay)), config)
        return []
    prompt_text(config)
    left_out = check_problems(config)
    check_reward(config, _some_gold(config))
    return left_out


@contextmanager
def created(
    resolved: cli.Resolved, root: Path | None = None, overwrite: bool = False
) -> Iterator[tuple[RunDir, TrainConfig]]:
    """A new run in a directory of its own, once its model and problems are known to be there; a replay with a copy of
    the recorded groups.

    Args:
        root: of the run; None for `runs/<time and settings>`.
        overwrite: moves an existing run aside.
    """
    config = resolved.config
    left_out = check(config)
    resolve_model(config)
    adapter_rank(config)  # whether it can be served
    run = RunDir(root or Path("runs") / rundir.new_name(config))
    recorded = RunDir(Path(config.replay)) if config.replay is not None else None
    if run.exists:
        if not overwrite:
            fix = f"go on with it (--resume {run.root}), take another --run-dir, or move it aside with --overwrite"
            raise UsageError(f"the run directory {run.root} exists", fix=fix)
        if recorded and run.root.samefile(recorded.root):
            raise UsageError(f"a replay cannot take the place of {run.root}", fix="take another --run-dir")
        _move_aside(run)
    with _ledger(config, run, overwrite) as url:
        config = config.model_copy(update={"buffer_url": url})
        run.create(cli.Resolved(config=config, sources=resolved.sources))
    print("".join(f"{line}\n" for line in left_out), end="", flush=True)
    with run.locked():
        if recorded:
            _record(recorded, run, config)
        else:
            with closing(Buffer(run.buffer_url, capacity=config.buffer, group_size=config.group_size)) as buffer:
                buffer.enter_problems(len(load_problems(config, "train")))
        run.begins(fingerprint(config))
        yield run, config


def _move_aside(run: RunDir) -> None:
    """Directory and ledger, wherever that is."""
    moved = run.move_aside()
    old = moved.config()
    if old.buffer_url is not None:
        url = follow(old.buffer_url, moved.root.name.removeprefix(run.root.name))
        moved.write_config(cli.Resolved(config=old.model_copy(update={"buffer_url": url}), sources=moved.sources()))


def _ledger(config: TrainConfig, run: RunDir, overwrite: bool) -> AbstractContextManager[str | None]:
    """Makes room for the ledger; gives its URL, None where it is a file in the run directory."""
    if config.buffer_url is None:
        return nullcontext()
    return new_schema(config.buffer_url, run, overwrite=overwrite)


def _record(recorded: RunDir, run: RunDir, config: TrainConfig) -> None:
    """Gives a replay the groups of all recorded steps, so that it may be made longer, too."""
    with closing(Recording(recorded)) as recording:
        recording.copy_to(run.buffer_url, recording.steps())
    if config.schedule != "constant" and config.steps != (before := recorded.config().steps):
        print(f"the {config.schedule} decay ends at step {config.steps}; that of {recorded.root} ended at {before}")


@contextmanager
def resumed(args: Namespace) -> Iterator[tuple[RunDir, TrainConfig]]:
    """The run to go on with. Its configuration is its own; a run may only be made longer."""
    run = RunDir(args.resume)
    config = run.config()
    given = {"config": args.config, "run_dir": args.run_dir, "overwrite": args.overwrite or None}
    given |= {name: getattr(args, name) for name in TrainConfig.model_fields if name not in RESUMABLE}
    if changed := [name for name, value in given.items() if value is not None]:
        fix = "leave it out, or start a new run with another --run-dir"
        flag = f"--{changed[0].replace('_', '-')}"
        raise UsageError(f"{flag} cannot be changed by --resume: a run keeps its own", fix=fix)
    check_same_problems(run, config)
    if config.buffer_url is not None:
        check_database(config.buffer_url)
    if config.replay is None:
        check_reward(config, _some_gold(config))
    with run.locked():
        changes = {name: value for name in RESUMABLE if (value := getattr(args, name)) is not None}
        if changes:
            config = _changed(run, config, changes)
        yield run, config


def _changed(run: RunDir, config: TrainConfig, changes: dict[str, Any]) -> TrainConfig:
    """Writes the configuration of a run that is made longer, or is followed by others."""
    sources = run.sources() | dict.fromkeys(changes, "flag")
    config = cli.validated(config.model_dump() | changes, sources)
    if config.steps < (done := max(run.checkpoint_steps(), default=0)):
        fix = "name more, or start a new run"
        raise UsageError(f"--steps {config.steps}: the run has made {done} steps already", fix=fix)
    if config.replay is not None:
        with closing(Recording(run)) as recording:
            _check_recorded(config, recording.last_step())
    if config.schedule != "constant" and "steps" in changes:
        print(f"the {config.schedule} decay now ends at step {config.steps}, unlike that of one long run")
    run.write_config(cli.Resolved(config=config, sources=sources))
    return config


def _check_recorded(config: TrainConfig, steps: int) -> None:
    if config.steps > steps:
        fix = f"--steps {steps} or fewer"
        raise UsageError(f"--steps {config.steps}: only {steps} steps are recorded to be replayed", fix=fix)


def check_same_problems(run: RunDir, config: TrainConfig) -> None:
    if run.problems_file.exists() and run.problems_file.read_text().strip() != fingerprint(config):
        fix = f"put back what {config.problems} held, or start a new run"
        raise UsageError(f"the problems of {run.root} are not those that it began with", fix=fix)


def _some_gold(config: TrainConfig) -> str:
    return load_problems(config, "train")[0].gold
