"""The whole of the fault suite: `python -m tests.faults [--postgres] [--kills 60] [--seed 0] [--folder DIR]`.

Seeded kills of every process of real runs, several in each run (every second one with two servers), then every worker
frozen. With `--postgres` the ledgers are in a PostgreSQL server, which crashes now and then. After each run its books
are audited, and it is trained again from its ledger: the last adapter has to be the same to the bit.
"""

import argparse
import random
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path

from tests.faults.books import check_books
from tests.faults.service import DATABASE_KILLS, KILLS, STOPS, Fault, Recovery, Service
from tests.postgres import Server, server


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("--postgres", action="store_true", help="the ledgers are in a server, a victim, too")
    parser.add_argument("--kills", type=int, help="in all (default: three rounds)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments and of the order")
    parser.add_argument("--folder", type=Path, help="where the runs go (default: a temporary folder)")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    kills = [*KILLS, *DATABASE_KILLS] if args.postgres else KILLS
    recoveries: list[Recovery] = []
    with server() if args.postgres else nullcontext() as database:
        for number, start in enumerate(range(0, args.kills or 3 * len(kills), len(kills))):
            order = random.Random(args.seed + number).sample(kills, len(kills))
            if args.kills:
                order = order[: args.kills - start]
            servers = ["--servers", str(1 + number % 2)]
            recoveries += _suffer(folder / f"killed-{number}", args.seed + number, order, database, *servers)
        stopped = _suffer(folder / "stopped", args.seed, STOPS, database)
    slowest = max(recoveries, key=lambda recovery: recovery.after_s)
    print(f"{len(recoveries)} kills and {len(stopped)} stops: no group lost, none counted twice; slowest: {slowest}")
    print(f"the runs are in {folder}")
    return 0


def _suffer(root: Path, seed: int, faults: list[Fault], database: Server | None, *flags: str) -> list[Recovery]:
    print(f"run {root}", flush=True)
    service = Service(root, seed, *flags, server=database)
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
