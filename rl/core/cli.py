"""The command line: defaults < `--config FILE.toml` < flags, with the source of every value.

Flags are made from the fields of `TrainConfig`, so that a setting is written down once. Errors are `UsageError`s; `run`
turns every `TallyError` into a sentence on stderr and its exit code.
"""

import argparse
import difflib
import errno
import os
import sys
import tomllib
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any, NoReturn

from pydantic import ValidationError

from rl.core import log
from rl.core.config import STARTER, TrainConfig, defaults_of
from rl.core.errors import TallyError, UsageError

TRL_NAMES = {
    "model_name_or_path": "model",
    "dataset_name": "problems",
    "per_device_train_batch_size": "batch",
    "learning_rate": "lr",
    "num_generations": "group_size",
    "max_completion_length": "max_tokens",
    "max_steps": "steps",
    "beta": "kl_coef",
    "epsilon": "clip_low",
    "epsilon_high": "clip_high",
    "loss_type": "loss",
    "scale_rewards": "advantage_scale",
    "lora_r": "lora_rank",
    "max_grad_norm": "grad_clip",
    "warmup_steps": "warmup",
    "warmup_ratio": "warmup",
    "optim": "optimizer",
}


COIN = "rl.problems.random_weights:coin"
"""The reward of random weights, which answer nothing right: without signal no step would be made."""
DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EIO)


class Parser(argparse.ArgumentParser):
    """argparse whose complaints are `UsageError`s and name the nearest flag."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, fix=f"{self.prog} --help lists what it takes")

    def parse_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> Any:  # type: ignore[override]
        parsed, unknown = self.parse_known_args(args, namespace)
        if unknown:
            flags = [option for action in self._actions for option in action.option_strings]
            raise UsageError(f"{self.prog} does not know {unknown[0]!r}", fix=nearest(unknown[0].split("=")[0], flags))
        return parsed


def process_args(argv: list[str], module: str, purpose: str) -> argparse.Namespace:
    """What every process of a run is told: `run` (its directory), `server_urls`, `policy` (its name on the servers),
    `parent` (the process that it may not outlive), `metrics_host` and `metrics_port`."""
    parser = Parser(prog=f"python -m {module}", description=purpose)
    parser.add_argument("run", type=Path)
    text = "a rollout server; may be given several times (default: those that join the run)"
    parser.add_argument("--server-url", action="append", default=[], metavar="URL", dest="server_urls", help=text)
    parser.add_argument("--policy", required=True, help="the policy's name on the servers")
    parser.add_argument("--parent", type=int, metavar="PID", help="end when this process, which started it, ends")
    add_metrics_flags(parser, "serve /metrics, /health and /ready on this port; rank r of a learner on port + r")
    return parser.parse_args(argv)  # type: ignore[no-any-return]


def add_metrics_flags(parser: argparse._ActionsContainer, port_help: str) -> None:
    """What `rl.core.telemetry` is told."""
    parser.add_argument("--metrics-port", type=int, metavar="PORT", help=port_help)
    text = "address to serve them on; one beyond this machine wants a key (TALLY_API_KEY)"
    parser.add_argument("--metrics-host", default="127.0.0.1", metavar="ADDRESS", help=f"{text} (default: %(default)s)")


@dataclass(frozen=True, kw_only=True)
class Resolved:
    """A configuration and where each of its values came from: `default`, `FILE.toml` or `flag`."""

    config: TrainConfig
    sources: dict[str, str]

    def lines(self) -> list[str]:
        values = self.config.model_dump(mode="json")
        return [f"{name:18} {values[name]!s:16} {source}" for name, source in self.sources.items()]


def add_config_flags(parser: argparse.ArgumentParser) -> None:
    """Gives the parser `--config` and one flag for every field of `TrainConfig`."""
    group = parser.add_argument_group("configuration (defaults < --config < flags)")
    group.add_argument("--config", type=Path, metavar="FILE.toml", help="read settings from a file")
    for name, field in TrainConfig.model_fields.items():
        flag = "--" + name.replace("_", "-")
        text = _description(name).replace("%", "%%")
        if field.annotation is bool:
            group.add_argument(flag, action=argparse.BooleanOptionalAction, default=None, help=text)
        else:
            metavar = "|".join(_choices(field.annotation)) or name.rsplit("_", 1)[-1].upper()
            group.add_argument(flag, dest=name, metavar=metavar, help=text)


def resolve(args: argparse.Namespace) -> Resolved:
    """The configuration that parsed flags ask for.

    Raises:
        UsageError: an unreadable file, an unknown key, or a value that is out of its range.
    """
    return completed(*given(args))


def completed(values: dict[str, Any], given_by: dict[str, str]) -> Resolved:
    """The configuration of what was given, and of defaults for the rest.

    Raises:
        UsageError: a value is out of its range.
    """
    values, sources = dict(values), dict.fromkeys(TrainConfig.model_fields, "default") | given_by
    model = values.get("model", STARTER)
    for name, value in defaults_of(model).items():
        if sources[name] == "default":
            values[name], sources[name] = value, f"default of {model}"
    if values.get("random_weights", "no") != "no" and sources["reward"] == "default":
        values["reward"], sources["reward"] = COIN, "random weights"
    return Resolved(config=validated(values, sources), sources=sources)


def given(args: argparse.Namespace) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings that the user named, as they were written, and where: `FILE.toml` or `flag`.

    Raises:
        UsageError: an unreadable file, or an unknown key.
    """
    values = read_toml(args.config) if args.config is not None else {}
    flags = {name: value for name in TrainConfig.model_fields if (value := getattr(args, name)) is not None}
    return values | flags, dict.fromkeys(values, str(args.config)) | dict.fromkeys(flags, "flag")


def as_flags(settings: Mapping[str, Any]) -> list[str]:
    """Settings as commands take them. Example: ``{"lr": 2e-06, "wandb_adapter": False}`` →
    ``["--lr=2e-06", "--no-wandb-adapter"]``"""
    names = {name: name.replace("_", "-") for name in settings}
    return [
        f"--{'' if value else 'no-'}{names[name]}" if isinstance(value, bool) else f"--{names[name]}={value}"
        for name, value in settings.items()
        if value is not None
    ]


def changed(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Of settings as JSON has them, those that must be given to have them again: the rest are defaults of the model."""
    plain = TrainConfig().model_dump(mode="json")
    named = {n: settings[n] for n in ("model", "random_weights") if settings.get(n, plain[n]) != plain[n]}
    defaults = completed(named, dict.fromkeys(named, "flag")).config.model_dump(mode="json")
    return named | {n: value for n, value in settings.items() if n in defaults and value != defaults[n]}


def read_toml(path: Path) -> dict[str, Any]:
    """The settings in a configuration file, by field name."""
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise UsageError(f"cannot read --config {path}: {error.strerror}", fix="name an existing file") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path} is not TOML: {error}", fix="write lines like: lr = 2e-6") from None
    for name in values:
        if name not in TrainConfig.model_fields:
            raise UsageError(f"{path} has an unknown key {name!r}", fix=nearest(name, list(TrainConfig.model_fields)))
    return values


def validated(values: dict[str, Any], sources: dict[str, str]) -> TrainConfig:
    try:
        return TrainConfig.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        reason = first["msg"].removeprefix("Value error, ")
        if not first["loc"]:
            raise UsageError(reason) from None
        name = str(first["loc"][0])
        flag = "--" + name.replace("_", "-")
        raise UsageError(
            f"{flag} {values[name]} ({sources[name]}): {reason}",
            fix=f"{flag} is {_description(name)}",
        ) from None


def nearest(word: str, known: list[str]) -> str:
    """What the user may have meant, by spelling or by the name that TRL has for it."""
    plain = word.lstrip("-").replace("-", "_")
    if plain in TRL_NAMES:
        return f"here it is --{TRL_NAMES[plain].replace('_', '-')}"
    close = difflib.get_close_matches(word, known, n=3, cutoff=0.6)
    return f"did you mean {' or '.join(close)}?" if close else "--help lists all of them"


def run(main: Callable[[list[str]], int | None]) -> NoReturn:
    """Runs a command: its `TallyError`s become a sentence and an exit code, never a traceback."""
    try:
        code = main(sys.argv[1:]) or 0
    except TallyError as error:
        code = _say(error)
    except ExceptionGroup as group:  # of tasks that ran together: the first to fail is the reason
        code = _say_of_tasks(group)
    except BrokenPipeError:  # the reader of our output has gone (`| head`)
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 0
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        code = _say_defect(error)
    sys.exit(code)


def _description(name: str) -> str:
    field = TrainConfig.model_fields[name]
    text = " ".join((field.description or "").split())
    return text if field.default is None else f"{text} (default: {field.default})"


def _say(error: TallyError) -> int:
    log.last_words(str(error), fix=error.fix)
    return error.exit_code


def _say_of_tasks(group: ExceptionGroup[Exception]) -> int:
    error: Exception = group
    while isinstance(error, ExceptionGroup):
        error = error.exceptions[0]
    return _say(error) if isinstance(error, TallyError) else _say_defect(error)


def _say_defect(error: Exception) -> int:
    """A defect of ours: the traceback is for the log, the last line for who reads its end. A disk's is none."""
    if isinstance(error, OSError) and error.errno in DISK_ERRORS:
        where = f": {error.filename}" if error.filename else ""
        return _say(TallyError(f"{error.strerror}{where}", fix="make room on the disk, or mend it, and go on"))
    log.last_words(f"{type(error).__name__}: {error}", cause=error)
    return 1


def _choices(annotation: Any) -> list[str]:
    """The words that a field takes, if it takes words of a list: a Literal or an Enum, optional or not."""
    if typing.get_origin(annotation) is typing.Literal:
        return [str(choice) for choice in typing.get_args(annotation)]
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return [str(member.value) for member in annotation]
    return [choice for option in typing.get_args(annotation) for choice in _choices(option)]
