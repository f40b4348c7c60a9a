"""The configuration of a run with the source of each value, and where its launches come from."""

import json
from os.path import isfile
from typing import Any

from sqlalchemy.engine import make_url

from rl.core.config import TrainConfig
from rl.core.rundir import RunDir
from rl.present.words import setting

LARGEST = 8 << 20
"""Bytes of a provenance that is read; most of it is the difference to a commit."""


def settings(config: TrainConfig, sources: dict[str, str]) -> list[dict[str, str]]:
    """Each value in words, with what it is; those that are not defaults come first."""
    values = config.model_dump(mode="json")
    if config.buffer_url:
        values["buffer_url"] = make_url(config.buffer_url).render_as_string(hide_password=True)
    rows = [
        {
            "name": name,
            "value": setting(values[name]),
            "source": sources.get(name, "default"),
            "text": " ".join((field.description or "").split()),
        }
        for name, field in TrainConfig.model_fields.items()
    ]
    return sorted(rows, key=lambda row: row["source"] == "default")


def launches(run: RunDir) -> tuple[list[list[str]], list[str]]:
    """(when, the commit, what it ran on and how it was started, of each launch; what cannot be read)."""
    if not isfile(run.provenance_file):
        return [], ["there is no provenance.json: where the run comes from is not known"]
    try:
        if run.provenance_file.stat().st_size > LARGEST:
            return [], [f"provenance.json has more than {LARGEST >> 20} MiB, and is left out"]
        made = json.loads(run.provenance_file.read_bytes())
        return [_launch(one) for one in made], []
    except (OSError, ValueError, TypeError, AttributeError, RecursionError) as error:
        return [], [f"provenance.json cannot be read: {type(error).__name__}"]


def _launch(one: dict[str, Any]) -> list[str]:
    packages = one.get("packages") or {}
    versions = ", ".join(f"{name} {version}" for name, version in packages.items())
    gpus = one.get("gpus") or []
    machine = f"{one.get('cores', '?')} cores, {len(gpus) or 'no'} GPU{'' if len(gpus) == 1 else 's'}"
    changed = ", with changes" if one.get("git_diff") else ""
    return [
        str(one.get("started", ""))[:19].replace("T", " "),
        f"{str(one.get('git_commit', ''))[:12]}{changed}",
        machine,
        f"Python {one.get('python', '?')}, {versions}",
        " ".join(map(str, one.get("command") or [])),
    ]
