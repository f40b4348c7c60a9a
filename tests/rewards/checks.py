"""Checks that misbehave on demand, for the pool's tests. The worker processes import this module by name."""

import os
import signal
import time
from pathlib import Path

from rewards import Mark, Verdict


def obey(completion_text: str, gold: str) -> Verdict:
    """Do what the completion says; the reason of an ordinary verdict is the id of the process that gave it."""
    command, _, argument = completion_text.partition(" ")
    if command == "hang":
        10 ** (10**10)  # one instruction of the interpreter: no signal handler and no other thread would ever run
    elif command == "announce":  # say who we are, then hang
        Path(argument).write_text(str(os.getpid()))
        time.sleep(3600)
    elif command == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif command == "once":  # hang at first sight, answer at second
        if not Path(argument).exists():
            Path(argument).write_text(str(os.getpid()))
            time.sleep(3600)
    elif command == "grow":
        bytearray(int(argument))
    elif command == "raise":
        raise LookupError("no such thing")
    elif command == "print":
        os.write(1, b"noise\n")
        os.write(2, b"noise\n")
    return Verdict(
        mark=Mark.RIGHT if completion_text == gold else Mark.WRONG, reason=str(os.getpid()), answer=None, gold=gold
    )
