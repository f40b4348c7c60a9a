"""The URL of a database: what `--buffer-url` takes."""

URL_VARIABLE = "TALLY_BUFFER_URL"
"""Of the environment: such a URL, which may have a password."""


def check_database_url(url: str, *, secret: bool = False) -> None:
    """Args: secret: whether it may have a password.

    Raises:
        ValueError: it is no such URL. What it is, is not said: it may hold a secret.
    """
    from sqlalchemy import make_url  # which whoever names none does not wait for
    from sqlalchemy.exc import ArgumentError

    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.drivername != "postgresql" or not parsed.database:
        raise ValueError("buffer_url is no URL of a database: write postgresql://USER@HOST/DATABASE")
    if (parsed.password or any("password" in name for name in parsed.query)) and not secret:
        raise ValueError(
            "buffer_url has a password, which others would see (ps) and the run would record: put it into PGPASSWORD "
            f"or ~/.pgpass, or the whole URL into {URL_VARIABLE}"
        )
