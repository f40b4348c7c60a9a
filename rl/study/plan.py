"""A plan: the runs of a sweep, each with its changes against a base, its priority, its reason and its criteria.

name = "buffer-batch-rate"          # of the sweep's directory, unless --out names one
seeds = 2                           # runs of each row, with seeds 0 and 1
parallel = 2                        # runs side by side, on one rollout server

[base]                              # settings of all runs, by their names in `TrainConfig`
steps = 64

[grid]                              # every combination; and/or rows
lr = [1e-6, 2e-6]

[[run]]
name = "buffer256"
priority = 1                        # lower goes first
reason = "…"
changes = { buffer = 256, batch = 32 }
criteria = ["pass@1 >= 0.60", "grad_norm stays < 1.0", "no non-finite loss", "better than batch64"]
"""

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, PositiveInt


class PlannedRun(BaseModel):
    """One row: an arm of the study."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    priority: int = 1
    reason: str = ""
    changes: dict[str, Any] = Field(default_factory=dict)
    criteria: list[str] = Field(default_factory=list)


class Plan(BaseModel):
    """What a plan file holds."""

    model_config = ConfigDict(frozen=True, extra="forbid", populate_by_name=True)

    name: str
    reason: str = ""
    seeds: PositiveInt = 1
    parallel: PositiveInt = 1
    metric: str = "pass@1"
    """What arms are compared by."""
    set: str = "heldout"
    """The problem set that it is measured on."""
    base: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    runs: list[PlannedRun] = Field(default_factory=list, alias="run")
