"""What a process of a run says: a JSON object a line into its log, sentences on a terminal.

It is said by the standard library, with facts beside the sentence:

    logger.info("accepted version %d", 3, extra={"version": 3, "seconds": 0.2})
    {"time": "…", "level": "info", "run": "first", "role": "learner-0", "message": "accepted version 3", "version": 3, …

`critical` is why the process ends. Commands do not begin a log: what they say is for people.
"""

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

LEVEL = "TALLY_LOG"
"""The environment's name for how much is said: `info`, or `debug` for a line a step."""
logger = logging.getLogger("rl")
logger.addHandler(logging.NullHandler())  # else Python itself would print a command's warnings
_OF_EVERY_RECORD = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}
_begun = False


def begin(run: Path, role: str) -> None:
    """From now on this process's log is stderr: all that is said here, and the warnings of libraries.

    Args:
        run: its directory.
        role: what the process does, like `collector`, or `learner-0` of a rank.
    """
    global _begun
    handler = logging.StreamHandler()
    handler.setFormatter(Sentences() if sys.stderr.isatty() else Lines(run.resolve().name, role))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
    logger.setLevel(logging.DEBUG if os.environ.get(LEVEL) == "debug" else logging.INFO)
    _begun = True
    logger.info("started", extra={"pid": os.getpid()})


def say(text: str) -> None:
    """Says what a person wants to know meanwhile, in the log or, for a command, on stderr."""
    if _begun:
        logger.info(text)
    else:
        print(text, file=sys.stderr)


def last_words(message: str, *, fix: str = "", cause: BaseException | None = None) -> None:
    """Says why the process ends.

    Args:
        fix: what the user can do about it.
        cause: where its traceback is wanted.
    """
    if _begun:
        logger.critical(message, extra={"fix": fix} if fix else {}, exc_info=cause)
        return
    if cause:
        traceback.print_exception(cause)
    print(f"error: {with_fix(message, fix)}", file=sys.stderr)


@contextmanager
def waiting(what: str) -> Iterator[None]:
    """Says what it waits for, and afterwards for how long it did."""
    logger.info("waits for %s", what, extra={"waits_for": what})
    start = time.monotonic()
    yield
    seconds = round(time.monotonic() - start, 3)
    logger.info("waited %.1f s for %s", seconds, what, extra={"waited_for": what, "seconds": seconds})


class Lines(logging.Formatter):
    """A record as a line of JSON."""

    def __init__(self, run: str, role: str) -> None:
        super().__init__()
        self._run, self._role = run, role

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "run": self._run,
            "role": self._role,
            "message": record.getMessage(),
            **{name: value for name, value in vars(record).items() if name not in _OF_EVERY_RECORD},
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class Sentences(logging.Formatter):
    """A record as a person reads it."""

    def format(self, record: logging.LogRecord) -> str:
        text = record.getMessage()
        if record.levelno == logging.CRITICAL:
            text = f"error: {with_fix(text, getattr(record, 'fix', ''))}"
        elif record.levelno >= logging.WARNING:
            text = f"{record.levelname.lower()}: {text}"
        trace = self.formatException(record.exc_info) if record.exc_info else ""
        return "\n".join(filter(None, [trace, text]))


def parsed(line: str) -> dict[str, Any]:
    """The object in a line of a log; empty where it is somebody else's line."""
    try:
        found = json.loads(line) if line.startswith("{") else {}
    except ValueError:
        return {}
    return found if isinstance(found, dict) and {"level", "message"} <= found.keys() else {}


def with_fix(message: str, fix: str) -> str:
    """An error as people read it."""
    return f"{message}\n  fix: {fix}" if fix else message
