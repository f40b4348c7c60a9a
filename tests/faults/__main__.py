"""The whole of the fault suite: `python -m tests.faults [--kills 60] [--seed 0] [--folder DIR]`.

Seeded kills of every process of real runs, several in each run (every second one with two servers), then every worker
frozen. After each run its books are audited, and it is trained again from its ledger: the last adapter has to be the
same to the bit.
"""

import argparse
import random
import sys
import tempfile
from pathlib import Path

from tests.faults.books import check_books
from tests.faults.service import KILLS, STOPS, Fault, Recovery, Service

KILLS_IN_A_RUN = len(KILLS)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=3 * KILLS_IN_A_RUN, help="in all")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of the order")
    parser.add_argument("--folder", type=Path, help="where the runs go (default: a temporary folder)")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    recoveries: list[Recovery] = []
    for number, start in enumerate(range(0, args.kills, KILLS_IN_A_RUN)):
        order = random.Random(args.seed + number).sample(KILLS, KILLS_IN_A_RUN)
        servers = ["--servers", str(1 + number % 2)]
        recoveries += _suffer(folder / f"killed-{number}", args.seed + number, order[: args.kills - start], *servers)
    stopped = _suffer(folder / "stopped", args.seed, STOPS)
    slowest = max(recoveries, key=lambda recovery: recovery.after_s)
    print(f"{len(recoveries)} kills and {len(stopped)} stops: no group lost, none counted twice; slowest: {slowest}")
    print(f"the runs are in {folder}")
    return 0


def _suffer(root: Path, seed: int, faults: list[Fault], *flags: str) -> list[Recovery]:
    print(f"run {root}", flush=True)
    service = Service(root, seed, *flags)
    try:
        recoveries = []
        for fault in faults:
            recoveries.append(service.inject(fault))
            print(f"  {recoveries[-1]}", flush=True)
        service.end()
    finally:
        service.kill()
    for line in check_books(service.run):
        print(f"  {line}", flush=True)
    return recoveries


if __name__ == "__main__":
    sys.exit(main())
