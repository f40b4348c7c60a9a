"""Where models come from: the starters, a folder, the hub, or random weights in the shape of one of these.

Whoever starts a run pins and fetches its model; from then on every process finds it on this machine.
"""

import json
import sys
from collections.abc import Iterable
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rl.core import log
from rl.core.config import STARTERS, TrainConfig
from rl.core.errors import UsageError, first_line
from rl.problems import random_weights
from rl.problems.starter import STARTER_MODELS

if TYPE_CHECKING:
    from huggingface_hub import ModelInfo

SMALL_FILES = ["*.json", "*.jinja", "*.txt", "*.model"]
"""Configuration and tokenizer of a hub model."""
WEIGHTS = "*.safetensors"
HUB_LIMIT_S = 10.0


def pin_model(config: TrainConfig) -> TrainConfig:
    """The configuration with a hub model's branch or tag replaced by its commit, so that a run never changes models.

    Asks the hub, or this machine's copy where the hub cannot be reached; fetches nothing.

    Raises:
        UsageError: neither a folder with a model nor a usable model of the hub.
    """
    if not _on_hub(config):
        if not _is_made_up(config):
            _usable(_folder(config), config)
        return config
    try:
        info = _ask_hub(config)
    except Exception as error:  # the hub's errors, the network's and a malformed name have no common base
        for commit in [config.revision] if config.revision else _commits_here(config.model):
            if (copy := _local_copy(config.model_copy(update={"revision": commit}))) is not None:
                return config.model_copy(update={"revision": copy.name})
        raise _not_found(config, error) from None
    _check_code(info.config or {}, config)
    _check_weights((file.rfilename for file in info.siblings or []), config)
    return config.model_copy(update={"revision": info.sha})


def resolve_model(config: TrainConfig) -> str:
    """The folder of the model, fetched or made first where it is not on this machine.

    Raises:
        UsageError: neither a folder with a model nor a usable model of the hub.
    """
    scaled = config.random_weights == "scaled"
    if _is_made_up(config):
        return str(random_weights.random_model(random_weights.built_in(config.model), None, scaled=scaled))
    folder = _folder(config)
    settings = _usable(folder, config)
    if config.random_weights == "no":
        return str(folder)
    return str(random_weights.random_model(settings, folder, scaled=scaled))


def _is_made_up(config: TrainConfig) -> bool:
    """Whether nothing of the model is needed but its name."""
    return config.random_weights != "no" and random_weights.is_built_in(config.model)


def _on_hub(config: TrainConfig) -> bool:
    return config.model not in STARTERS and not _is_made_up(config) and not Path(config.model).expanduser().is_dir()


def _folder(config: TrainConfig) -> Path:
    if config.model in STARTERS:
        return STARTER_MODELS[config.model]
    if not _on_hub(config):
        return Path(config.model).expanduser()
    return _local_copy(config) or _fetch(config)


def _local_copy(config: TrainConfig) -> Path | None:
    """The whole snapshot of a hub model on this machine, if there is one; its name is the commit."""
    from huggingface_hub import snapshot_download

    try:
        snapshot = snapshot_download(
            config.model, revision=config.revision, allow_patterns=_wanted(config), local_files_only=True
        )
    except (OSError, ValueError):  # not there, in part, or no name of the hub's
        return None
    complete = config.random_weights != "no" or any(Path(snapshot).glob(WEIGHTS))  # others fetch single files
    return Path(snapshot) if complete else None


def _commits_here(model: str) -> list[str]:
    """Commits of a hub model that are on this machine, whole or not, the newest first."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        found = [commit for repo in scan_cache_dir().repos if repo.repo_id == model for commit in repo.revisions]
    except CacheNotFound:
        return []
    return [commit.commit_hash for commit in sorted(found, key=lambda commit: commit.last_modified, reverse=True)]


def _fetch(config: TrainConfig) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    try:
        info = _ask_hub(config)
        wanted = _wanted(config)
        size = sum(file.size or 0 for file in info.siblings or [] if any(Path(file.rfilename).match(p) for p in wanted))
        log.say(f"fetching {config.model} at {str(info.sha)[:12]} ({size / 1e9:.1f} GB)")
        if not sys.stderr.isatty():
            disable_progress_bars()
        return Path(snapshot_download(config.model, revision=info.sha, allow_patterns=wanted))
    except Exception as error:
        raise _not_found(config, error) from None


def _wanted(config: TrainConfig) -> list[str]:
    weights = [WEIGHTS] if config.random_weights == "no" else []
    return [*SMALL_FILES, *weights, *(["*.py"] if config.trust_remote_code else [])]


def _ask_hub(config: TrainConfig) -> "ModelInfo":
    from huggingface_hub import model_info

    return model_info(config.model, revision=config.revision, timeout=HUB_LIMIT_S, files_metadata=True)


def _not_found(config: TrainConfig, error: Exception) -> UsageError:
    reason = first_line(error)
    if config.model.startswith(("/", ".", "~")) or config.model.count("/") != 1:
        return UsageError(f"there is no folder {config.model}", fix="name an existing one, or a hub model: OWNER/NAME")
    at = f" at {config.revision}" if config.revision else ""
    fix = "name an existing folder, or a hub model (network or cache needed) like Qwen/Qwen2.5-1.5B-Instruct"
    return UsageError(f"{config.model} is no folder, and the hub does not give it{at}: {reason}", fix=fix)


def _read_config(folder: Path) -> dict[str, Any]:
    try:
        return dict(json.loads((folder / "config.json").read_text()))
    except OSError:
        fix = "name a folder saved by transformers' save_pretrained"
        raise UsageError(f"the folder {folder} is no model: it has no config.json", fix=fix) from None
    except ValueError as error:
        raise UsageError(f"{folder / 'config.json'} is not JSON: {error}", fix="save the model again") from None


def _usable(folder: Path, config: TrainConfig) -> dict[str, Any]:
    """The `config.json` of a model that has what it takes to load it."""
    settings = _read_config(folder)
    _check_code(settings, config)
    _check_weights((file.name for file in folder.iterdir()), config)
    if config.random_weights == "no":
        _check_whole(folder)
    return settings


def _check_whole(folder: Path) -> None:
    """A download or a copy that was cut short is told here: the engine and the learner would each say less, later."""
    from safetensors import SafetensorError, safe_open

    for file in sorted(folder.glob(WEIGHTS)):
        try:
            with safe_open(file, framework="numpy"):  # reads the header, and that the file is as long as it says
                pass
        except (SafetensorError, OSError) as error:
            fix = "fetch or save the model again"
            raise UsageError(f"{file} cannot be read: {first_line(error)}", fix=fix) from None


def _check_weights(files: Iterable[str], config: TrainConfig) -> None:
    if config.random_weights == "no" and not any(fnmatch(file, WEIGHTS) and "/" not in file for file in files):
        fix = "name a model with safetensors weights, or save this one so: save_pretrained of transformers does"
        raise UsageError(f"{config.model} has no safetensors weights", fix=fix)


def _check_code(settings: dict[str, Any], config: TrainConfig) -> None:
    """A model whose code transformers has not runs its own: only where the user says so."""
    if config.trust_remote_code or "auto_map" not in settings:
        return
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

    if settings.get("model_type") not in CONFIG_MAPPING_NAMES:
        fix = "read that code; if you trust it, add --trust-remote-code"
        raise UsageError(f"{config.model} needs Python code that comes with it", fix=fix)
