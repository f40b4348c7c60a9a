"""What can go wrong inside the server.

ApiError            one request cannot be answered; becomes an `ErrorBody`, the server goes on
EngineError         the engine could not start or died; pending requests fail and the process ends with exit code 3 or 5
├── DivergedError   it was given up, as a policy's log-probabilities are not finite; exit code 4
└── KilledError     a signal ended its process; exit code 5
"""

from collections.abc import Callable
from functools import partial

_LONGEST_DETAIL = 1000
"""Characters: what was sent may be megabytes."""


class ApiError(Exception):
    """The answer to a request that cannot be served.

    Args:
        status: HTTP status, 400 to 599.
        title: what went wrong, in a few words, the same for the same cause.
        detail: what and where, with the values that were sent.
        fix: what the client can do about it.
        retry_after_s: when to ask again; with status 429.
    """

    def __init__(self, status: int, title: str, detail: str, *, fix: str, retry_after_s: int | None = None) -> None:
        super().__init__(f"{title}: {detail}")
        self.status = status
        self.title = title
        self.detail = detail if len(detail) <= _LONGEST_DETAIL else f"{detail[:_LONGEST_DETAIL]} …"
        self.fix = fix
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[Callable[..., "ApiError"], tuple[int, str, str]]:
        """As an engine may be in another process."""
        make = partial(ApiError, fix=self.fix, retry_after_s=self.retry_after_s)
        return make, (self.status, self.title, self.detail)


class EngineError(Exception):
    """The engine is not there: it could not load its model, or it died."""


class DivergedError(EngineError):
    """What it samples by has diverged: another engine would meet that again."""


class KilledError(EngineError):
    """A signal has ended its process: another one may well go on."""
