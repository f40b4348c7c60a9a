"""Checkpoints: the adapter in peft's format, and everything needed to resume.

    checkpoints/step-000050/
        adapter_model.safetensors, adapter_config.json     `PeftModel.from_pretrained` reads these
        optimizer.pt                                       the optimizer's state
        checkpoint.json                                    step, and the hash of each file; written last

A checkpoint is made under another name and renamed when it is whole; it goes the same way. What a resume needs beside
these files (the order of problems, the learning rate) follows from the configuration and the step.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rl.buffer.ledger import Buffer
from rl.core.errors import TallyError
from rl.core.rundir import RunDir, best_evaluation, name_of, step_of

if TYPE_CHECKING:  # the evaluator reads adapters, and needs no torch for it
    import torch

    from rl.learner.policy import Policy

ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
OPTIMIZER = "optimizer.pt"
MANIFEST = "checkpoint.json"
FILES = (ADAPTER, ADAPTER_CONFIG, OPTIMIZER)
"""What the manifest has the hashes of."""


def save(final: Path, step: int, policy: "Policy", optimizer: "torch.optim.Optimizer") -> None:
    """Writes the folder `final`, in place of one that was never committed; then it survives a power cut.

    Raises:
        TallyError: the disk is full, or fails; nothing is left of what was written.
    """
    import torch

    state = io.BytesIO()
    torch.save(optimizer.state_dict(), state)
    contents = (policy.adapter_bytes(), policy.adapter_config().encode(), state.getvalue())
    files = dict(zip(FILES, contents, strict=True))
    files[MANIFEST] = _manifest(step, {name: hashlib.sha256(content).hexdigest() for name, content in files.items()})
    draft = _draft_of(final)
    try:
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(parents=True)
        for name, content in files.items():
            (draft / name).write_bytes(content)
            _sync(draft / name)
        _sync(draft)
        shutil.rmtree(final, ignore_errors=True)
        draft.rename(final)
        _sync(final.parent)
    except OSError as error:
        shutil.rmtree(draft, ignore_errors=True)
        raise TallyError(f"cannot save {final}: {error.strerror}", fix="make room on its disk") from None


def load(checkpoint: Path, policy: "Policy", optimizer: "torch.optim.Optimizer") -> None:
    """Puts policy and optimizer back to where they were.

    Raises:
        TallyError: a file is missing, or is not what was saved.
    """
    import torch

    policy.load_adapter(read_adapter(checkpoint))
    optimizer.load_state_dict(torch.load(_checked(checkpoint, OPTIMIZER), map_location="cpu", weights_only=True))


def read_adapter(checkpoint: Path) -> bytes:
    """The adapter's bytes as they were published.

    Raises:
        TallyError: the file is missing, or is not what was saved.
    """
    return _checked(checkpoint, ADAPTER).read_bytes()


def go_back(run: RunDir, buffer: Buffer, say: Callable[[str], None]) -> int:
    """Puts the ledger back to the newest sound checkpoint; returns its step, 0 for the beginning.

    Args:
        say: is told what is damaged, and what is trained again.

    Raises:
        TallyError: as `newest_sound`.
    """
    step = newest_sound(run, buffer, say)
    if again := buffer.rewind(step):
        steps = "1 step is" if again == 1 else f"{again} steps are"
        say(f"goes on from step {step}; {steps} trained again from the recorded groups")
    return step


def newest_sound(run: RunDir, buffer: Buffer, say: Callable[[str], None]) -> int:
    """The step of the newest commit whose checkpoint is what was saved; 0, the beginning, where there is none.

    Commits with a damaged checkpoint are taken back: all newer ones, and older ones that await an evaluation, which
    will be missing.

    Args:
        say: is told each damage in a sentence.

    Raises:
        TallyError: what was trained after that step cannot be trained again, as the ledger was compacted.
    """
    damaged: dict[int, str] = {}
    sound = 0
    for step in reversed(buffer.commits()):
        damage = damage_of(run.checkpoints / name_of(step))
        if damage is None:
            sound = step
            break
        damaged[step] = damage
    if damaged and (gone := buffer.compacted(sound)):
        damage = next(iter(damaged.values()))
        fix = f"restore {run.checkpoints / name_of(max(damaged))} from a copy, or start a new run"
        raise TallyError(f"{damage}; {gone} groups trained after step {sound} were compacted away", fix=fix)
    for step, damage in damaged.items():
        say(f"{damage}; the run goes back to step {sound}")
        buffer.forget_commit(step)
    for step in sorted({step for step, _ in buffer.awaited()}):
        if damage := damage_of(run.checkpoints / name_of(step), [ADAPTER]):
            say(f"{damage}; its evaluations will be missing")
            buffer.forget_commit(step)
    return sound


def damage_of(checkpoint: Path, names: Sequence[str] = FILES) -> str | None:
    """What is wrong with these files of a checkpoint, as a sentence; None where they are what was saved."""
    manifest = checkpoint / MANIFEST
    try:
        content = manifest.read_bytes()
        saved = json.loads(content)["sha256"]
        hashes = {name: (sha256_of(checkpoint / name), str(saved[name])) for name in names}
        for name, (actual, expected) in hashes.items():
            if actual != expected:
                path = checkpoint / name
                return f"{path} is not what was saved: its hash is {actual[:12]}, not {expected[:12]}"
        sound = content == _manifest(step_of(checkpoint), saved)
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    except (ValueError, KeyError, TypeError):
        sound = False
    return None if sound else f"{manifest} is not what was saved"


def prune(run: RunDir, buffer: Buffer, keep: int | None) -> None:
    """Removes all checkpoints but the newest `keep`, the best on held-out problems and those that await an evaluation.

    Whenever it is killed, what the ledger names is there, and the next call removes what is left. A checkpoint that is
    being saved meanwhile is newer than every commit, and left alone.

    Args:
        keep: None keeps all.
    """
    for step in _superfluous(run, buffer, keep) if keep is not None else []:
        folder = run.checkpoints / name_of(step)
        buffer.forget_commit(step)
        folder.rename(_draft_of(folder))
    newest = max(buffer.commits(), default=-1)
    for draft in run.checkpoints.glob(_draft_of(Path("step-*")).name):
        if step_of(Path(draft.stem.removeprefix("."))) <= newest:
            shutil.rmtree(draft)


def _superfluous(run: RunDir, buffer: Buffer, keep: int) -> list[int]:
    """The steps of the checkpoints that `prune` removes."""
    if not (commits := buffer.commits()):
        return []
    awaited = {step for step, _ in buffer.awaited()}  # read before the records: an evaluation is logged, then done
    best = best_evaluation(run.records())
    kept = {*awaited, *commits[-keep:], *([best["step"]] if best else [])}
    return [step for step in run.checkpoint_steps() if step < commits[-1] and step not in kept]


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest(step: int, hashes: Mapping[str, str]) -> bytes:
    return (json.dumps({"step": step, "sha256": hashes}, indent=2) + "\n").encode()


def _checked(checkpoint: Path, name: str) -> Path:
    if damage := damage_of(checkpoint, [name]):
        raise TallyError(damage, fix="take another checkpoint: --resume of its run takes the newest sound one")
    return checkpoint / name


def _draft_of(final: Path) -> Path:
    """Where a checkpoint is before it is whole, and after it was given up."""
    return final.with_name(f".{final.name}.part")


def _sync(path: Path) -> None:
    """Waits until a file, or the entries of a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
