"""What can go wrong, as a tree. An error says what, where and how to fix it; commands print it without a traceback.

TallyError            exit code 3: the run cannot go on
├── UsageError        exit code 2: the user's input is wrong; nothing was started, nothing was lost
├── ServerError       a rollout server refused, or none has served for too long
│   └── UnavailableError        it cannot serve this now: another one can, or the same one later
│       └── UnknownVersionError   it knows no such policy or version: it was restarted, or never got it
├── PublishError      an adapter was not proved to be what the server serves
├── LedgerError       the ledger's database cannot be used: full, locked, damaged, not to be opened
└── DivergedError     exit code 4: a gradient, or what the policy computes, is not finite; or the policy has collapsed
"""


class TallyError(Exception):
    """Base of all errors that a user should see as a sentence.

    Args:
        message: what went wrong, and where.
        fix: what the user can do about it.
    """

    exit_code = 3

    def __init__(self, message: str, *, fix: str = "") -> None:
        super().__init__(message)
        self.fix = fix


class UsageError(TallyError):
    exit_code = 2


class ServerError(TallyError):
    pass


class UnavailableError(ServerError):
    pass


class UnknownVersionError(UnavailableError):
    pass


class PublishError(TallyError):
    pass


class LedgerError(TallyError):
    pass


class DivergedError(TallyError):
    exit_code = 4


def first_line(error: BaseException) -> str:
    """What another library's error says, in one line; its type where it says nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
