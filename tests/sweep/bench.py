"""Times three rates side by side on one server against three runs one after the other, each with its own server.

    python -m tests.sweep.bench [--steps 60] [--rounds 1]

Both are whole commands, from their start to their last line; the sweep's report is in its time. They alternate, so that
what else the machine does meets both.
"""

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RATES = ("2e-4", "5e-4", "1e-3")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=1)
    args = parser.parse_args()
    flags = [f"--steps={args.steps}", f"--eval-every={args.steps}", "--eval-problems=128", "--eval-samples=4"]
    flags.append("--wandb=off")
    for number in range(args.rounds):
        with tempfile.TemporaryDirectory(prefix="tally-bench-") as folder:
            after = sum(
                seconds("rl.train", f"--lr={rate}", *flags, f"--run-dir={Path(folder, rate)}") for rate in RATES
            )
            rates = ",".join(RATES)
            beside = seconds("rl.sweep", f"--lr={rates}", "--parallel=3", *flags, f"--out={Path(folder, 'sweep')}")
        print(f"round {number + 1}: one after the other {after:.1f} s, side by side {beside:.1f} s", end="")
        print(f": {beside / after:.2f} of the time", flush=True)


def seconds(module: str, *argv: str) -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", module, *argv], check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
