"""The learner's ranks on one node by torchrun's elastic agent: `python -m rl.launch.ranks N RUN --policy NAME …`.

Where the learner has several nodes, each has such an agent, and they meet by torchrun's static rendezvous.

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
MEETING_LIMIT_S = 600
"""For the agents of all nodes to meet: each begins once it has a seat, and imports first."""


def main(argv: list[str]) -> int:
    args, arguments = _parser().parse_known_args(argv)
    alone = args.nodes == 1
    log.begin(Path(arguments[0]), "learner")
    with cuda_left_alone():  # the configuration asks for GPUs
        config = LaunchConfig(
            min_nodes=args.nodes,
            max_nodes=args.nodes,
            nproc_per_node=args.ranks,
            run_id=args.meeting or uuid.uuid4().hex,
            rdzv_backend="c10d" if alone else "static",
            rdzv_endpoint=f"{HOST}:0" if alone else args.meeting,
            rdzv_configs={} if alone else {"rank": args.node, "timeout": MEETING_LIMIT_S},
            local_addr=HOST if alone else args.address,
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


def _parser() -> cli.Parser:
    parser = cli.Parser(prog="python -m rl.launch.ranks", description="The learner's ranks of one node.")
    parser.add_argument("ranks", type=int, help="of this node")
    parser.add_argument("--nodes", type=int, default=1, help="in all, each with as many ranks")
    parser.add_argument("--node", type=int, default=0, help="this one's number, from 0")
    parser.add_argument("--meeting", metavar="HOST:PORT", help="where node 0 is reached")
    parser.add_argument("--address", metavar="HOST", help="where the others reach this node")
    return parser


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
