"""Checkpoints: the adapter in peft's format, and everything needed to resume.

    checkpoints/step-000050/
        adapter_model.safetensors, adapter_config.json     `PeftModel.from_pretrained` reads these
        optimizer.pt                                       AdamW's state
        checkpoint.json                                    step, and the hash of each file; written last

A checkpoint is made under another name and renamed when it is whole. What a resume needs beside these files (the
order of problems, the learning rate) follows from the configuration and the step.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from rl.core.errors import TallyError

if TYPE_CHECKING:  # the evaluator reads adapters, and needs no torch for it
    import torch

    from rl.learner.policy import Policy

ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
OPTIMIZER = "optimizer.pt"
MANIFEST = "checkpoint.json"


def save(final: Path, step: int, policy: "Policy", optimizer: "torch.optim.Optimizer") -> None:
    """Writes the folder `final`, in place of one that was never committed."""
    import torch

    draft = final.with_name(f".{final.name}.part")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    (draft / ADAPTER).write_bytes(policy.adapter_bytes())
    (draft / ADAPTER_CONFIG).write_text(policy.adapter_config())
    torch.save(optimizer.state_dict(), draft / OPTIMIZER)
    files = {name: sha256_of(draft / name) for name in (ADAPTER, ADAPTER_CONFIG, OPTIMIZER)}
    (draft / MANIFEST).write_text(json.dumps({"step": step, "sha256": files}, indent=2) + "\n")
    shutil.rmtree(final, ignore_errors=True)
    draft.rename(final)


def load(checkpoint: Path, policy: "Policy", optimizer: "torch.optim.Optimizer") -> None:
    """Puts policy and optimizer back to where they were.

    Raises:
        TallyError: a file is missing, or is not what was saved.
    """
    import torch

    policy.load_adapter(read_adapter(checkpoint))
    state = torch.load(_checked(checkpoint, OPTIMIZER), map_location=policy.device, weights_only=True)
    optimizer.load_state_dict(state)


def read_adapter(checkpoint: Path) -> bytes:
    """The adapter's bytes as they were published.

    Raises:
        TallyError: the file is missing, or is not what was saved.
    """
    return _checked(checkpoint, ADAPTER).read_bytes()


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _checked(checkpoint: Path, name: str) -> Path:
    path = checkpoint / name
    try:
        expected = json.loads((checkpoint / MANIFEST).read_text())["sha256"][name]
        actual = sha256_of(path)
    except (OSError, ValueError, KeyError) as error:
        fix = "restore it, or start a new run"
        raise TallyError(f"the checkpoint {checkpoint} is not whole: {error}", fix=fix) from None
    if actual != expected:
        raise TallyError(f"{path} is not what was saved: its hash is {actual[:12]}, not {expected[:12]}")
    return path
