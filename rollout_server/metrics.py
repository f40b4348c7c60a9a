"""What the server measures, beside what vLLM does: the only place with these names. /metrics shows them all.

`by` says whose requests they are: the run's own wire, or guests on OpenAI's paths.
"""

from prometheus_client import Counter, Gauge, Histogram
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rollout_server.shares import Share

REQUESTS = Counter("tally_server_requests", "Requests that were answered", ["path", "status"])
REFUSED = Counter("tally_server_refused", "Requests that were refused, or failed", ["reason"])
COMPLETIONS = Counter("tally_server_completions", "Completions that were sampled", ["by"])
PROMPT_TOKENS = Counter("tally_server_prompt_tokens", "Tokens of the prompts of these", ["by"])
COMPLETION_TOKENS = Counter("tally_server_completion_tokens", "Tokens that were sampled", ["by"])
HERE = Gauge("tally_server_requests_here", "Requests that are being answered", ["by"])
SAMPLING = Gauge("tally_server_completions_sampling", "Completions that the engine has", ["by"])
WAITING = Gauge("tally_server_completions_waiting", "Completions that wait for their turn", ["by"])
SAMPLED = Gauge("tally_server_sampled_seconds", "Time in which the engine had completions", ["by"])
ADAPTERS = Gauge("tally_server_adapters", "Versions of policies that are served")
LOADING = Histogram("tally_server_adapter_load_seconds", "Time to check an adapter and load it")
READY = Gauge("tally_server_ready", "Whether the engine serves")


def watch(share: Share) -> None:
    """Shows from now on what the share's clients hold."""
    HERE.labels(share.name).set_function(lambda: share.here)
    SAMPLING.labels(share.name).set_function(lambda: share.sampling)
    SAMPLED.labels(share.name).set_function(lambda: share.sampled_s)
    WAITING.labels(share.name).set_function(lambda: share.waiting)


def count_sampled(by: str, completions: int, prompt_tokens: int, completion_tokens: int) -> None:
    COMPLETIONS.labels(by).inc(completions)
    PROMPT_TOKENS.labels(by).inc(prompt_tokens)
    COMPLETION_TOKENS.labels(by).inc(completion_tokens)


class Counted:
    """ASGI middleware: counts requests by path and status; those whose client left before it was answered have none."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = _path(scope)

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                REQUESTS.labels(path, message["status"]).inc()
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:
            REQUESTS.labels(path, 500).inc()  # which is answered outside of this
            raise


def _path(scope: Scope) -> str:
    """As the application declares it, so that there are few."""
    found = (route.path for route in scope["app"].routes if route.matches(scope)[0] is not Match.NONE)
    return next(found, "unknown")
