"""Checkpoints: the adapter in peft's format, and everything needed to resume.

    checkpoints/step-000050/
        adapter_model.safetensors, adapter_config.json     `PeftModel.from_pretrained` reads these
        optimizer.pt                                       AdamW's state
        checkpoint.json                                    step, and the hash of each file; written last

A checkpoint is made under another name and renamed when it is whole; it goes the same way. What a resume needs beside
these files (the order of problems, the learning rate) follows from the configuration and the step.
"""

import hashlib
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from rl.buffer.ledger import Buffer
from rl.core.errors import TallyError
from rl.core.rundir import RunDir, best_evaluation, name_of

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

    draft = _draft_of(final)
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    (draft / ADAPTER).write_bytes(policy.adapter_bytes())
    (draft / ADAPTER_CONFIG).write_text(policy.adapter_config())
    torch.save(optimizer.state_dict(), draft / OPTIMIZER)
    files = {name: sha256_of(draft / name) for name in (ADAPTER, ADAPTER_CONFIG, OPTIMIZER)}
    (draft / MANIFEST).write_text(json.dumps({"step": step, "sha256": files}, indent=2) + "\n")
    shutil.rmtree(final, ignore_errors=True)
    draft.rename(final)


def prune(run: RunDir, buffer: Buffer, keep: int | None) -> None:
    """Removes all checkpoints but the newest `keep`, the best on held-out problems and those that await an evaluation.

    Whenever it is killed, what the ledger names is there, and the next call removes what is left. Call it only where
    no checkpoint is being saved.

    Args:
        keep: None keeps all.
    """
    commits = buffer.commits()
    if keep is None or not commits:
        return
    awaited = {step for step, _ in buffer.awaited()}  # read before the records: an evaluation is logged, then done
    best = best_evaluation(run.records())
    kept = {*awaited, *commits[-keep:], *([best["step"]] if best else [])}
    for step in run.checkpoint_steps():
        if step < commits[-1] and step not in kept:
            folder = run.checkpoints / name_of(step)
            buffer.forget_commit(step)
            folder.rename(_draft_of(folder))
    for draft in run.checkpoints.glob(_draft_of(Path("*")).name):
        shutil.rmtree(draft)


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


def _draft_of(final: Path) -> Path:
    """Where a checkpoint is before it is whole, and after it was given up."""
    return final.with_name(f".{final.name}.part")


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
