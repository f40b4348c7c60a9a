"""`python -m rl.launch.probe NAME`: what `rl.doctor` cannot do itself, being heavy or slow; prints JSON."""

import json
import sys
from collections.abc import Callable
from typing import Any


def probe_torch() -> dict[str, Any]:
    import torch

    cuda = torch.cuda.is_available()
    gpus = []
    for i in range(torch.cuda.device_count() if cuda else 0):
        free, total = torch.cuda.mem_get_info(i)
        gpus.append({"name": torch.cuda.get_device_name(i), "free": free, "total": total})
    return {"version": torch.__version__, "cuda": torch.version.cuda, "gpus": gpus}


def probe_vllm() -> dict[str, Any]:
    from vllm import LLMEngine, __version__
    from vllm.platforms import current_platform

    current_platform.import_kernels()
    return {"version": __version__, "device": current_platform.device_type, "engine": LLMEngine.__name__}


def probe_wandb() -> dict[str, Any]:
    import wandb
    from wandb.sdk.lib.wbauth import read_netrc_auth
    from wandb.sdk.wandb_setup import singleton

    settings = singleton().settings
    has_key = bool(settings.api_key or read_netrc_auth(host=settings.base_url))
    return {"version": wandb.__version__, "key": has_key, "url": settings.base_url}


def probe_hub() -> dict[str, Any]:
    from huggingface_hub import constants

    return {"url": constants.ENDPOINT, "cache": constants.HF_HUB_CACHE, "offline": constants.HF_HUB_OFFLINE}


def probe_reach(url: str, limit_s: str) -> dict[str, Any]:
    import httpx  # which knows of proxies

    try:
        return {"error": None, "status": httpx.head(url, timeout=float(limit_s)).status_code}
    except httpx.HTTPError as error:
        return {"error": str(error) or type(error).__name__}


PROBES: dict[str, Callable[..., dict[str, Any]]] = {
    "torch": probe_torch,
    "vllm": probe_vllm,
    "wandb": probe_wandb,
    "hub": probe_hub,
    "reach": probe_reach,
}

if __name__ == "__main__":
    print(json.dumps(PROBES[sys.argv[1]](*sys.argv[2:])))
