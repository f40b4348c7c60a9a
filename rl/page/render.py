"""Data → HTML and JSON. Whatever a model, a file or a name holds is text in both, and neither hides nor moves other."""

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.responses import Response

from rl.observe.show import printable


def html(template: str, /, status: int = 200, **data: Any) -> Response:
    """A page. All that is put into a template is escaped, and made printable before that: no template can forget it."""
    return Response(_ENVIRONMENT.get_template(template).render(**data), status_code=status, media_type="text/html")


def json(data: Any) -> Response:
    """Numbers that are not finite become null."""
    return Response(msgspec.json.encode(_printable(data)), media_type="application/json")


def address(view: str, run: str = "", **query: Any) -> str:
    """Of a view, with what is asked of it.

    Example: ``address("completions", "a/b", step=3, set="")`` is ``/completions/a/b?step=3``
    """
    asked = urlencode({name: value for name, value in query.items() if value not in (None, "")})
    return "/".join(["", view, *([quote(run)] if run else [])]) + (f"?{asked}" if asked else "")


def _printable(data: Any) -> Any:
    match data:
        case str():
            return printable(data)
        case dict():
            return {_printable(key): _printable(value) for key, value in data.items()}
        case [int() | float(), *_]:
            return data  # a curve, of some hundred numbers
        case list() | tuple():
            return [_printable(value) for value in data]
        case _:
            return data


def _final(value: Any) -> Any:
    return value if isinstance(value, Markup) or not isinstance(value, str) else printable(value)


_ENVIRONMENT = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    auto_reload=False,
    finalize=_final,
    lstrip_blocks=True,
    trim_blocks=True,
    undefined=StrictUndefined,
)
_ENVIRONMENT.globals.update(address=address, blank=defaultdict(str), data={}, thousands=partial("{:,}".format))
for _name in _ENVIRONMENT.list_templates():
    _ENVIRONMENT.get_template(_name)  # compiled now, and not while somebody waits
