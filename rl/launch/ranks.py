"""The learner's ranks by torchrun's elastic agent: `python -m rl.launch.ranks N RUN --policy NAME …`.

torchrun's own command ends with 1 whatever its ranks ended with. This one says what became of them: it ends with 2 or 3
where a rank ended so, for a reason, and with 1 after an accident. Ranks do not outlive it. They are forked from it, and
so it imports for them, and leaves CUDA alone.
"""

import os
import signal
import uuid
from pathlib import Path
from typing import NoReturn

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

from rl.core import cli, log
from rl.core.nursery import cuda_left_alone, run_module
from rl.core.processes import REASONS, STOP_S

HOST = "localhost"  # the agent would look its own name up


def main(argv: list[str]) -> int:
    ranks, *arguments = argv
    log.begin(Path(arguments[0]), "learner")
    with cuda_left_alone():  # the configuration asks for GPUs
        config = LaunchConfig(
            min_nodes=1,
            max_nodes=1,
            nproc_per_node=int(ranks),
            run_id=uuid.uuid4().hex,
            rdzv_backend="c10d",
            rdzv_endpoint=f"{HOST}:0",
            local_addr=HOST,
            max_restarts=0,  # the ledger has to go back first: the supervisor starts them again
            shutdown_timeout=int(STOP_S / 2),  # before the supervisor's patience with this process ends
            start_method="fork",
        )
    try:
        elastic_launch(config, _learner)(*arguments, "--parent", str(os.getpid()))
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return _exit_code(failure)
    except SignalException as end:
        return 128 + end.sigval
    return 0


def _learner(*arguments: str) -> NoReturn:
    """One rank, in the process that the agent has forked for it."""
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT):  # the agent has handlers of its own
        signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run_module(["rl.learner", *arguments], note=f"(rank {os.environ['RANK']})")


def _exit_code(failure: ProcessFailure) -> int:
    """Of the rank that failed first; what the others ended with follows from it."""
    if failure.exitcode in REASONS:
        return failure.exitcode
    if failure.exitcode < 0:
        killer = signal.Signals(-failure.exitcode).name
        log.last_words(f"rank {failure.local_rank} was killed by {killer}")
    return 1


if __name__ == "__main__":
    cli.run(main)
