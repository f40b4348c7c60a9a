"""What is asked of whoever joins a run: where that is, and where a server is reached."""

from pathlib import Path

import pytest

from rl.core.errors import UsageError
from rl.join import _parser
from rl.launch.joining import found, reached
from tests.observe.recorded import new_run


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("foo://bar", "no URL of a database"),
        ("mysql://tally@db/tally?options=-csearch_path%3Drun", "no URL of a database"),
        ("postgresql://db:abc/tally", "no URL of a database"),
        ("postgresql://tally:secret@db/tally?options=-csearch_path%3Drun", "has a password"),
        ("postgresql://tally@db/tally", "postgresql://tally@db/tally names no run"),
    ],
)
def test_what_names_no_run_is_refused(url: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as told, found(url, "server", None):
        pass
    assert "secret" not in f"{told.value} {told.value.fix}"


@pytest.mark.parametrize(
    "url", ["http://host:80port", "http://host:99999", "http://[::1", "server:8000", "https://", "host"]
)
def test_an_address_at_which_no_server_is_reached_is_refused(url: str, tmp_path: Path) -> None:
    args = _parser().parse_args(["server", "run", "--url", url])
    with pytest.raises(UsageError, match="--url") as told, reached(args, new_run(tmp_path / "run")):
        pass
    assert "http://HOST:PORT" in told.value.fix
