"""Ray as what places the roles of a run on the machines of a cluster, and starts them again where one is lost.

Ray knows the machines, their GPUs, and who has died. What a role is to do it reads in the ledger, as whoever joins a
run (`rl.join`); data goes by HTTP and through the ledger, and never through Ray.
"""

import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rl.buffer.patience import in_passing
from rl.buffer.roles import Roles
from rl.core.config import TrainConfig
from rl.core.errors import TallyError, UsageError
from rl.core.parent import die_with_parent
from rl.core.roles import Role
from rl.core.rundir import RunDir
from rollout_server.access import KEY, api_key

PLACE_LIMIT_S = 300.0
"""For Ray to find room; what the cluster as a whole has not is refused before."""
LEAVE_S = 20.0
"""For members to see that the run has ended."""
AGAIN_S = 5.0
"""Before a member that has failed is started again."""
SECRETS = ("PGPASSWORD", "TALLY_BUFFER_URL", "HF_TOKEN")
"""What members need of this environment. It goes to them as an argument: Ray shows a `runtime_env` to everybody."""


class Cluster:
    """The members of a run as actors in one placement group; leaving the context ends them.

    Args:
        address: of the cluster, as `ray.init` takes it: `auto`, HOST:PORT.
        run: its ledger is in a database that all machines reach.

    Raises (when it is entered):
        UsageError: there is no such cluster, or it is too small.
        TallyError: it had no room for the run in time.
    """

    def __init__(self, address: str, run: RunDir, config: TrainConfig) -> None:
        self._address, self._run, self._config = address, run, config

    def __enter__(self) -> Self:
        import ray
        from ray.util.placement_group import placement_group

        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ[KEY] = api_key() or secrets.token_urlsafe(32)
        try:
            ray.init(self._address, log_to_driver=False, logging_level="ERROR")
        except (ConnectionError, ValueError, RuntimeError) as error:
            fix = "start one (ray start --head), or name its HOST:PORT"
            raise UsageError(f"no Ray cluster answers at {self._address}: {error}", fix=fix) from None
        members = roles(self._config)
        bundles = [need(role, ray.cluster_resources()) for role in members]
        check_room(bundles, ray.cluster_resources())
        self._group = placement_group(bundles, strategy="PACK")
        if not self._group.wait(PLACE_LIMIT_S):
            self._leave()
            fix = "others use the cluster: `ray status` says who; or lower --servers, --learners"
            raise TallyError(f"the Ray cluster had no room for the run in {PLACE_LIMIT_S:.0f} s", fix=fix)
        self._runs = [self._start(i, members[i], bundle) for i, bundle in enumerate(bundles)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        import ray

        with in_passing(), closing(Roles(self._run.buffer_url)) as board:
            board.dissolve()  # where the run was stopped, too: they are ours
        ray.wait(self._runs, num_returns=len(self._runs), timeout=LEAVE_S)
        self._leave()

    def _start(self, number: int, role: Role, bundle: Mapping[str, float]) -> Any:
        """Has Ray run a member, and start it again wherever its bundle goes; returns the future of its end."""
        import ray
        from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

        place = PlacementGroupSchedulingStrategy(self._group, placement_group_bundle_index=number)
        actor = ray.remote(_Member).options(
            num_cpus=bundle["CPU"],
            num_gpus=bundle.get("GPU", 0),
            max_restarts=-1,
            max_task_retries=-1,
            scheduling_strategy=place,
        )
        env = {name: os.environ[name] for name in (KEY, *SECRETS) if name in os.environ}
        folder = f"tally-{self._run.root.name}-{role}-{number}"
        return actor.remote().run.remote(role, self._run.buffer_url, folder, env)

    def _leave(self) -> None:
        import ray
        from ray.util.placement_group import remove_placement_group

        remove_placement_group(self._group)
        ray.shutdown()


class _Member:
    """On the machine that Ray has chosen."""

    def run(self, role: Role, ledger: str, folder: str, env: Mapping[str, str]) -> None:
        """Takes part in the run, again and again until that has ended."""
        import ray

        address = str(ray.util.get_node_ip_address())
        kept = str(Path(tempfile.gettempdir()) / folder)
        command = [sys.executable, "-m", "rl.join", role, ledger, "--run-dir", kept, "--address", address]
        while True:
            process = subprocess.Popen(
                command,
                env={**os.environ, **env},
                start_new_session=True,
                preexec_fn=partial(die_with_parent, os.getpid()),
            )
            if process.wait() == 0:
                return
            time.sleep(AGAIN_S)


def roles(config: TrainConfig) -> list[Role]:
    """Of each member: every server and every rank of the learner is one."""
    server: Role = "server"
    learner: Role = "learner"
    return [server] * config.servers + [learner] * config.learners + ["collector", "evaluator"]


def need(role: Role, resources: Mapping[str, float]) -> dict[str, float]:
    """What a member takes of the cluster: a GPU for servers and learners, where it has any."""
    gpu = {"GPU": 1.0} if resources.get("GPU") and role in ("server", "learner") else {}
    return {"CPU": 1.0, **gpu}


def check_room(bundles: Sequence[Mapping[str, float]], resources: Mapping[str, float]) -> None:
    """Raises:
    UsageError: the whole cluster has not as much.
    """
    for name in ("GPU", "CPU"):
        wanted, there = sum(bundle.get(name, 0.0) for bundle in bundles), resources.get(name, 0.0)
        if wanted > there:
            fix = "add machines to it, or lower --servers, --learners"
            raise UsageError(f"the run takes {wanted:g} {name}s, and the Ray cluster has {there:g}", fix=fix)
