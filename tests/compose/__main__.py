"""`python -m tests.compose`: builds the image, and takes the services through all that may befall them."""

import sys
import time

from tests.compose.composed import SERVICES, Composed, engine_runs

KILLED = 137


def main() -> int:
    if not engine_runs():
        print(
            "error: no Docker engine with compose answers\n  fix: start one; `docker info` has to work", file=sys.stderr
        )
        return 2
    with Composed() as composed:
        for line in check(composed):
            print(line, flush=True)
    return 0


def check(composed: Composed):
    """Raises:
    AssertionError: one of the promises is not kept.
    """
    began = time.monotonic()
    composed.build()
    yield f"built in {time.monotonic() - began:.0f} s"
    composed.up()
    step = composed.wait_for_steps(10)
    yield f"up: trained to step {step}"
    assert composed.page(key=False)[0] == 401
    assert composed.page()[0] == 200
    yield "the page answers who has the key, and nobody else"
    assert "not running" not in composed.page("/run/main")[1]
    yield "it shows the run as one that is running"
    began = time.monotonic()
    codes = composed.stop()
    assert KILLED not in codes.values(), codes
    composed.down()
    yield f"down: each of {len(codes)} services stopped by itself, in {time.monotonic() - began:.0f} s: {codes}"
    composed.up()
    composed.wait_for_steps(1)
    saved = composed.steps()
    assert saved > step
    yield f"up again: went on to step {saved}"
    for service in SERVICES:
        composed.kill(service)
        yield f"killed: {service}; it is back and well, and the run is at step {composed.wait_for_steps(5)}"
    composed.up(LR="1e-3")
    assert composed.wait_for_end() == 0
    assert "was begun with --lr 0.0005, not 1e-3" in composed.logs("learner")
    yield "another rate for the same run: the learner says that it cannot be, and stays down"
    last = composed.steps() + 20
    composed.up(LR="", STEPS=str(last))
    assert composed.wait_for_end() == 0
    assert composed.steps() == last
    yield f"trained to its end, step {last}"
    yield composed.audit()


if __name__ == "__main__":
    sys.exit(main())
