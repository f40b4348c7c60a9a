"""Data sets of the hub, by the `datasets` library: downloaded once, then mapped from the user's cache."""

import logging
from functools import cache
from typing import Any

from rl.core.errors import UsageError

HUB_LIMIT_S = 10.0


@cache
def hub_splits(repository: str, hub_config: str | None, fix: str) -> dict[str, Any]:
    """Split → `datasets.Dataset`, from the hub, or from this machine's copy where the hub cannot be reached.

    Args:
        fix: what else the user can do.

    Raises:
        UsageError: neither has it.
    """
    import datasets  # type: ignore[import-untyped]
    import huggingface_hub
    from huggingface_hub.errors import HfHubHTTPError

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        try:
            huggingface_hub.dataset_info(repository, timeout=HUB_LIMIT_S)
        except (OSError, ValueError) as error:
            if isinstance(error, HfHubHTTPError):  # it answered
                raise
            # without this each file is asked for again and again, for half a minute
            huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
        return dict(datasets.load_dataset(repository, hub_config))
    except Exception as error:  # the hub's errors, the network's and a malformed name have no common base
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UsageError(f"the hub does not give the data set {repository}: {reason}", fix=fix) from None
