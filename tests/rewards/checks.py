"""Checks that misbehave on demand, for the pool's tests. The worker processes import this module by name."""

import os
import signal
import time
from pathlib import Path

from rewards import Mark, Verdict
from rewards.processes.sandbox import inside

INSIDE_AT_IMPORT = inside()


def obey(completion_text: str, gold: str) -> Verdict:
    """Do what the completion says; the reason of an ordinary verdict is the id of the process that gave it."""
    for order in completion_text.split("; "):
        _obey(*order.partition(" ")[::2])
    return Verdict(
        mark=Mark.RIGHT if completion_text == gold else Mark.WRONG, reason=str(os.getpid()), answer=None, gold=gold
    )


def _obey(command: str, argument: str) -> None:
    if command == "spin":
        10 ** (10**10)  # one instruction of the interpreter: no signal handler and no other thread would ever run
    elif command == "burn":  # so many seconds of CPU time
        end = time.process_time() + float(argument)
        while time.process_time() < end:
            pass
    elif command == "sleep":
        time.sleep(3600)
    elif command == "disarm":
        signal.setitimer(signal.ITIMER_PROF, 0)
    elif command == "announce":  # say who we are
        _append(argument, str(os.getpid()))
    elif command == "note":  # write the second word as a line of the file that the first one names
        _append(*argument.split())
    elif command == "once":  # sleep at first sight, and say who sleeps
        if not Path(argument).exists():
            _obey("announce", argument)
            _obey("sleep", "")
    elif command == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif command == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    elif command == "start":  # a process that would outlive us
        if (child := os.fork()) == 0:
            _obey("sleep", "")
        _append(argument, str(child))
    elif command == "grow":
        bytearray(int(argument))
    elif command == "raise":
        raise LookupError("no such thing")
    elif command == "print":
        os.write(1, b"noise\n")
        os.write(2, b"noise\n")


def _append(path: str, line: str) -> None:
    with Path(path).open("a") as file:
        file.write(line + "\n")


def full(completion_text: str, gold: str) -> Verdict:
    """A verdict with all its fields."""
    return Verdict(
        mark=Mark.RIGHT, reason="because", answer=completion_text, gold=gold, paid=0.5, rule="found", compared="text"
    )


def where(completion_text: str, gold: str) -> Verdict:
    """Whether this is a process of ours, when the module is imported and when the check is called."""
    return Verdict(mark=Mark.RIGHT, reason=f"{INSIDE_AT_IMPORT} {inside()}", answer=None, gold=gold)
