"""The roles of a run's processes that may be on other machines."""

from typing import Literal, get_args

Role = Literal["supervisor", "server", "learner", "collector", "evaluator"]
SUPERVISOR: Role = "supervisor"
JOINABLE: tuple[Role, ...] = get_args(Role)[1:]
"""Those that a machine takes by `rl.join`."""
