"""What can go wrong inside the server.

ApiError       one request cannot be answered; becomes an `ErrorBody`, the server goes on
EngineError    the engine could not start or died; pending requests fail and the process ends with exit code 3 or 4
"""


class ApiError(Exception):
    """The answer to a request that cannot be served.

    Args:
        status: HTTP status, 400 to 599.
        title: what went wrong, in a few words, the same for the same cause.
        detail: what and where, with the values that were sent.
        fix: what the client can do about it.
    """

    def __init__(self, status: int, title: str, detail: str, *, fix: str) -> None:
        super().__init__(f"{title}: {detail}")
        self.status = status
        self.title = title
        self.detail = detail
        self.fix = fix


class EngineError(Exception):
    """The engine is not there: it could not load its model, or it died."""
