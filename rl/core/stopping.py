"""When a run ends: a pure function of its configuration and its records."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rl.core.config import TrainConfig
from rl.core.rundir import best_evaluation, heldout_evaluations


@dataclass(frozen=True, kw_only=True)
class Ending:
    """Why a run ends."""

    reason: str
    longer: str
    """The flag of `--resume` that lets it go on."""
    early: bool = True
    """Before all steps are made: the learner has to be asked."""


def ending(config: TrainConfig, records: Iterable[dict[str, Any]]) -> Ending | None:
    """The reason to end, if there is one: all steps made, the time or the tokens used up, or no better evaluation.

    Args:
        records: those of the surviving steps, one of each (`RunDir.records`). What was made again after a crash counts
            once, so that a resumed run has the limits of one that was not interrupted.
    """
    records = list(records)
    steps = [record for record in records if record["kind"] == "step"]
    made = max((record["step"] for record in steps), default=0)
    minutes = sum(record["step_s"] for record in steps) / 60
    tokens = sum(record["tokens"] for record in steps)
    if made >= config.steps:
        return Ending(reason=f"all {made} steps are made", longer=f"--steps {2 * made}", early=False)
    if config.max_minutes is not None and minutes >= config.max_minutes:
        reason = f"{minutes:.1f} minutes of training are over (--max-minutes {config.max_minutes:g})"
        return Ending(reason=reason, longer=f"--max-minutes {max(1, round(2 * minutes))}")
    if config.token_budget is not None and tokens >= config.token_budget:
        reason = f"{tokens} completion tokens are trained on (--token-budget {config.token_budget})"
        return Ending(reason=reason, longer=f"--token-budget {2 * tokens}")
    if config.patience is not None and (best := best_evaluation(records)) is not None:
        since = sum(record["step"] > best["step"] for record in heldout_evaluations(records))
        if since >= config.patience:
            value, best_step = best["summary"]["pass@1"]["value"], best["step"]
            times = f"{since} evaluation{'s' if since > 1 else ''}"
            reason = f"no held-out pass@1 above {value:.3f} in {times} since step {best_step}"
            return Ending(reason=f"{reason} (--patience {config.patience})", longer=f"--patience {2 * since}")
    return None
