"""Where models come from."""

from pathlib import Path

from rl.core.config import STARTER, TrainConfig
from rl.core.errors import UsageError
from rl.problems.starter import STARTER_MODEL


def resolve_model(config: TrainConfig) -> str:
    """The folder or hub name behind `--model`, checked to exist.

    Raises:
        UsageError: neither a folder with a model nor a model of the hub.
    """
    model = config.model
    if model == STARTER:
        return str(STARTER_MODEL)
    folder = Path(model).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").exists():
            fix = "name a folder saved by transformers' save_pretrained"
            raise UsageError(f"the folder {model} is no model: it has no config.json", fix=fix)
        return str(folder)
    from huggingface_hub import model_info, try_to_load_from_cache

    try:
        if not isinstance(try_to_load_from_cache(model, "config.json"), str):
            model_info(model, timeout=10)
    except Exception as error:  # the hub's errors, the network's and a malformed name have no common base
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        fix = "name an existing folder, or a hub model (network or cache needed) like Qwen/Qwen2.5-1.5B-Instruct"
        raise UsageError(f"{model} is no folder, and the hub does not give it: {reason}", fix=fix) from None
    return model
