"""A plan: the runs of a sweep, each with its changes against a base, its priority, its reason and its criteria.

name = "buffer-batch-rate"          # of the sweep's directory, unless --out names one
reason = "…"                        # the question that the sweep is to answer
seeds = 2                           # runs of each arm, with seeds 0 and 1
parallel = 2                        # runs side by side, on one rollout server

[base]                              # settings of all runs, by their names in `TrainConfig`
steps = 64

[grid]                              # every combination is an arm; and/or rows
lr = [1e-6, 2e-6]

[[run]]                             # a row: an arm with a name of its own
name = "buffer256"
priority = 1                        # lower goes first
reason = "…"
changes = { buffer = 256, batch = 32 }
criteria = ["pass@1 >= 0.60", "grad_norm stays < 1.0", "no non-finite loss", "better than batch64"]

[[phase]]                           # after all that is above: by itself finer around the best
name = "around"
changes = { steps = 100 }           # against the best arm
refine = "lr"                       # the setting that is varied, evenly on a log scale
points = 11
span = 10.0                         # from best / 10 to best × 10; otherwise between the best's neighbours
"""

import itertools
import json
import re
import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError

from rl.core import cli
from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.study.criteria import check_metric, parse_criterion
from rl.study.measured import is_measure
from rl.study.words import short

NOT_PLANNED = {
    "seed": "seeds = 3 gives each arm the seeds 0, 1 and 2",
    "servers": "the runs of a sweep share one server, which is started for them",
    "replay": "replay by python -m rl.train --replay, and compare by python -m rl.report",
}
"""Settings that are the sweep's own, each with what there is instead."""
LONGEST_NAME = 150
"""Bytes: files may be called by a run's name and more, and their names have 255 at the most."""
_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_STRICT = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, populate_by_name=True)


class PlannedRun(BaseModel):
    """One row: an arm of the study."""

    model_config = _STRICT

    name: str
    priority: int = 1
    reason: str = ""
    changes: dict[str, Any] = Field(default_factory=dict)
    criteria: list[str] = Field(default_factory=list)


class Phase(BaseModel):
    """A finer grid around the best arm of what was run before."""

    model_config = _STRICT

    name: str
    reason: str = ""
    changes: dict[str, Any] = Field(default_factory=dict)
    refine: str = "lr"
    """The setting that is varied; the others are the best arm's."""
    points: int = Field(5, ge=2)
    span: float | None = Field(None, gt=1)
    """The grid goes from best / span to best × span; None: it lies between the best's neighbours."""
    criteria: list[str] = Field(default_factory=list)


class Plan(BaseModel):
    """What a plan file holds."""

    model_config = _STRICT

    name: str
    reason: str = ""
    seeds: PositiveInt = 1
    parallel: PositiveInt = 2
    stop_beaten: bool = False
    """Whether a run ends early once another one is better beyond doubt (`rl.study.beaten`). Not by itself: what is
    ended has no result at its last step, which tables of all runs ask for."""
    metric: str = "pass@1"
    """What arms are compared by."""
    set: str = "heldout"
    """The problem set that it is measured on."""
    base: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    criteria: list[str] = Field(default_factory=list)
    """Of every arm of the grid."""
    runs: list[PlannedRun] = Field(default_factory=list, alias="run")
    phases: list[Phase] = Field(default_factory=list, alias="phase")

    def rows(self) -> list[PlannedRun]:
        """The arms: those of the grid, then the rows of their own."""
        settings = [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]
        grid = [PlannedRun(name=arm_name(own), changes=own, criteria=self.criteria) for own in settings if own]
        return [*grid, *self.runs]


def read_plan(path: Path) -> Plan:
    """A plan from its TOML file, every arm of it checked.

    Raises:
        UsageError: the file cannot be read, or holds something that no run could be started with.
    """
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read the plan {path}: {error.strerror}", fix="name an existing file") from None
    except ValueError as error:  # TOML's, or no text at all
        raise UsageError(f"{path} is not TOML: {error}", fix="python -m rl.sweep --help shows a plan") from None
    try:
        return checked(Plan.model_validate({"name": path.stem} | values))
    except ValidationError as error:
        raise UsageError(f"{path}: {_said(error)}", fix="python -m rl.sweep --help shows a plan") from None
    except UsageError as error:
        raise UsageError(f"{path}: {error}", fix=error.fix) from None


def checked(plan: Plan) -> Plan:
    """The plan, if every run of it could be started.

    Raises:
        UsageError: there is no run, two have one name, or settings or criteria of one are wrong.
    """
    rows = plan.rows()
    if not rows:
        raise UsageError(f"the plan {plan.name} has no run", fix="give it a [grid], or [[run]] tables")
    phases = [phase.name for phase in plan.phases]
    for kind, names in (("plan", [plan.name]), ("run", [row.name for row in rows]), ("phase", phases)):
        if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
            raise UsageError(f"two are called {kind} {twice[0]!r}", fix="give each a name of its own")
        if strange := [name for name in names if not _names_directory(name)]:
            fix = f"take letters, digits, dots and -, {LONGEST_NAME} at the most; a [[run]] has a name of its own"
            raise UsageError(f"{kind} {strange[0]!r} cannot name a directory", fix=fix)
    alike: dict[TrainConfig, str] = {}
    for row in rows:
        settings = plan.base | row.changes
        try:
            config = configured(settings)
            _check_measured(plan, config)
        except UsageError as error:
            raise UsageError(f"run {row.name}: {error}", fix=error.fix) from None
        if (same := alike.setdefault(config, row.name)) != row.name:
            raise UsageError(f"run {row.name} has the settings of run {same}", fix="take one of them out")
        for phase in plan.phases:
            _check_phase(plan, phase, settings)
    criteria = [plan.criteria, *(row.criteria for row in plan.runs), *(phase.criteria for phase in plan.phases)]
    for text in itertools.chain(*criteria):
        criterion = parse_criterion(text)
        check_metric(criterion)
        than = criterion.than
        if than and not plan.phases and than not in (known := [row.name for row in rows]):
            raise UsageError(f"{text!r}: the plan has no run {than}", fix=cli.nearest(than, known))
    return plan


def configured(settings: Mapping[str, Any]) -> TrainConfig:
    """The whole configuration of a run with these settings.

    Raises:
        UsageError: one of them is unknown, or out of its range.
    """
    known = TrainConfig.model_fields
    for name in settings:
        if name not in known:
            raise UsageError(f"there is no setting {name!r}", fix=cli.nearest(name, list(known)))
        if name in NOT_PLANNED:
            raise UsageError(f"a plan does not set {name}", fix=NOT_PLANNED[name])
    return cli.completed(dict(settings), dict.fromkeys(settings, "plan")).config


def normal(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The same settings as JSON writes them: `"2e-6"` of a flag becomes 2e-06."""
    values = configured(settings).model_dump(mode="json")
    return {name: values[name] for name in settings}


def write_plan(plan: Plan, path: Path) -> None:
    """Raises:
    UsageError: the file exists, or cannot be written.
    """
    try:
        with path.open("x") as file:
            file.write(plan_text(plan))
    except FileExistsError:
        raise UsageError(f"{path} exists, and nothing is overwritten", fix="name another file") from None
    except OSError as error:
        raise UsageError(f"cannot write the plan {path}: {error.strerror}", fix="name another file") from None


def plan_text(plan: Plan) -> str:
    """The plan as a TOML file holds it; what is as it would be by default is left out."""
    values = plan.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    tables = {name: value for name, value in values.items() if isinstance(value, dict)}
    lists = {name: value for name, value in values.items() if _is_tables(value)}
    plain = {name: value for name, value in values.items() if name not in tables and name not in lists}
    blocks = [_lines(plain)]
    blocks += [f"[{name}]\n{_lines(table)}" for name, table in tables.items()]
    blocks += [f"[[{name}]]\n{_lines(table)}" for name, rows in lists.items() for table in rows]
    return "\n\n".join(blocks) + "\n"


def arm_name(settings: Mapping[str, Any]) -> str:
    """Example: ``lr2e-6-buffer64``; it can name a directory."""
    parts = [f"{name.replace('_', '-')}{short(value)}" for name, value in settings.items()]
    return _path_safe("-".join(parts))


def _check_measured(plan: Plan, config: TrainConfig) -> None:
    """Raises: UsageError: evaluations of this run will not have what arms are compared by."""
    most = config.eval_samples
    if not is_measure(plan.metric) or int(plan.metric.partition("@")[2]) > most:
        fix = f"take pass@k or maj@k, with k up to its eval_samples: pass@1, pass@{most}, maj@{most}"
        raise UsageError(f"its evaluations have no metric {plan.metric!r}", fix=fix)
    if plan.set not in config.eval_sets:
        fix = f"add it to eval_on, or take one of: {', '.join(config.eval_sets)}"
        raise UsageError(f"it is not evaluated on the set {plan.set!r}", fix=fix)


def _check_phase(plan: Plan, phase: Phase, settings: Mapping[str, Any]) -> None:
    """Args: settings: of an arm before it."""
    try:
        config = configured({**settings, **phase.changes})
        _check_measured(plan, config)
        field = TrainConfig.model_fields.get(phase.refine)
        if field is None:
            fix = cli.nearest(phase.refine, list(TrainConfig.model_fields))
            raise UsageError(f"there is no setting {phase.refine!r} to refine", fix=fix)
        if float not in (field.annotation, *typing.get_args(field.annotation)) or not getattr(config, phase.refine):
            raise UsageError(f"{phase.refine} has no finer values between two", fix='refine a rate: refine = "lr"')
    except UsageError as error:
        raise UsageError(f"phase {phase.name}: {error}", fix=error.fix) from None


def _names_directory(name: str) -> bool:
    return bool(name.strip(".")) and _path_safe(name) == name and len(name.encode()) <= LONGEST_NAME


def _path_safe(text: str) -> str:
    return re.sub(r"[^\w.@+-]+", "-", text)


def _said(error: ValidationError) -> str:
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg'].removeprefix('Value error, ')}"


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and any(isinstance(item, dict) for item in value)


def _lines(table: Mapping[str, Any]) -> str:
    return "\n".join(f"{_key(name)} = {_toml(value)}" for name, value in table.items() if value is not None)


def _key(name: str) -> str:
    return name if _BARE_KEY.fullmatch(name) else _toml(name)


def _toml(value: Any) -> str:
    """A value as TOML writes it; JSON's strings are TOML's, but for one control character."""
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{_key(name)} = {_toml(own)}' for name, own in value.items() if own is not None)} }}"
    if isinstance(value, Sequence):
        return f"[{', '.join(map(_toml, value))}]"
    return repr(value)
