"""Data sets of the hub, by the `datasets` library: downloaded once, then mapped from the user's cache."""

import logging
from functools import cache
from typing import Any

from rl.core.errors import UsageError, first_line

HUB_LIMIT_S = 10.0


@cache
def hub_splits(repository: str, hub_config: str | None, revision: str | None, fix: str) -> dict[str, Any]:
    """Split → `datasets.Dataset`, from the hub, or from this machine's copy where the hub cannot be reached.

    Args:
        revision: a commit; None takes the newest.
        fix: what else the user can do.

    Raises:
        UsageError: neither has it.
    """
    import datasets
    import httpx
    import huggingface_hub
    from rich.console import Console

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity_error()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    try:
        try:
            huggingface_hub.dataset_info(repository, revision=revision, timeout=HUB_LIMIT_S)
        except (httpx.TransportError, ConnectionError):  # the latter where the user has said offline
            # without this each file is asked for again and again, for half a minute
            huggingface_hub.constants.HF_HUB_OFFLINE = datasets.config.HF_HUB_OFFLINE = True
        with Console(stderr=True).status(f"fetching {repository}"):
            return dict(datasets.load_dataset(repository, hub_config, revision=revision))
    except Exception as error:  # the hub's errors, the network's and a malformed name have no common base
        reason = first_line(error)
        raise UsageError(f"the hub does not give the data set {repository}: {reason}", fix=fix) from None
