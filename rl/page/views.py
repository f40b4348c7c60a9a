"""What each page shows: from a request to its answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from time import monotonic

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from rl.buffer.tables import State
from rl.core.errors import LedgerError, UsageError
from rl.core.metrics import AGE
from rl.page import auditing, comparison, completions, telemetry, words
from rl.page.board import Board
from rl.page.curves import curves
from rl.page.panels import GLOSSARY, PANELS
from rl.page.render import address, html, json
from rl.page.settings import launches, settings
from rl.page.sight import Look, Sight
from rl.study.words import counted, where

A_PAGE = 50
"""Runs of the list."""
READING_S = 0.4
"""What a list of runs takes to read those that have changed; the others are read when it is asked for again."""


class Views:
    """The pages of one board."""

    def __init__(self, board: Board) -> None:
        self._board = board

    @contextmanager
    def _looked(self, request: Request) -> Iterator[tuple[str, Sight, Look]]:
        """(name, run, what it is now) of the run that is asked for, which nobody else touches meanwhile."""
        name = request.path_params["name"]
        sight = self._board.sight(name)
        with sight.lock:
            yield name, sight, sight.look()

    # ---- all runs

    def runs(self, request: Request) -> Response:
        if self._board.folder.is_run:
            return RedirectResponse(address("run", self._board.folder.found()[0].name))
        page = completions.number(request.query_params, "page") or 1
        rows, said, more = self._rows(page)
        data = {"live": f"/live?page={page}", "shape": _shape(rows)}
        folder = self._board.folder.root.name
        return html("runs.html", runs=rows, said=said, more=more, page=page, folder=folder, data=data)

    def live_runs(self, request: Request) -> Response:
        rows, _, _ = self._rows(completions.number(request.query_params, "page") or 1)
        return json({"shape": _shape(rows), "runs": rows, "over": False})

    def _rows(self, page: int) -> tuple[list[dict[str, str]], str, bool]:
        found, end = self._board.folder.found(), monotonic() + READING_S
        telemetry.RUNS.set(len(found))
        first = (page - 1) * A_PAGE
        rows = [self._board.row(one, read=monotonic() < end) for one in found[first : first + A_PAGE]]
        telemetry.SIGHTS.set(self._board.sights)
        return rows, counted(len(found), "run"), first + A_PAGE < len(found)

    # ---- one run

    def run(self, request: Request) -> Response:
        with self._looked(request) as (name, sight, look):
            now = words.now(look, sight.numbers)
        data = {"live": address("live", name), "shape": now["shape"]}
        head = ["steps", *(metric.name for metric in AGE)]
        return html("run.html", name=name, now=now, panels=PANELS, glossary=GLOSSARY, age_head=head, data=data)

    def live(self, request: Request) -> Response:
        """What has changed of a run, for the script: words are sent whole, curves from where it has them."""
        known, _, evaluated = request.query_params.get("known", "").partition("~")
        with self._looked(request) as (_, sight, look):
            numbers = sight.numbers
            now = words.now(look, numbers)
            sent = curves(numbers, known)
            count = str(len(numbers.evals))
            if count != evaluated:
                now["evaluations"] = {set: words.evaluation_curves(numbers, set) for set in words.sets(numbers)}
        return json({**now, "curves": sent, "known": f"{sent['key']}~{count}"})

    def completions(self, request: Request) -> Response:
        asked = completions.wanted(request.query_params)
        name = request.path_params["name"]
        sight = self._board.sight(name)
        notices: list[str] = []
        config, _ = sight.config(notices)
        with sight.lock:
            sight.numbers.read()
            steps = {set: words.evaluated_at(sight.numbers, set) for set in words.sets(sight.numbers)}
        try:
            shown = completions.shown(sight.run, config, steps, asked)
        except (UsageError, LedgerError) as error:
            shown = completions.Shown(cards=[], said=[str(error)])
        query = dict(request.query_params)
        following = {**query, "after": shown.after}
        any_ = ("", "any")
        return html(
            "completions.html",
            name=name,
            asked=asked,
            cards=shown.cards,
            said=shown.said,
            next=address("completions", name, **following) if shown.after is not None else "",
            first=address("completions", name, **{**query, "after": None}),
            sets=[("", "training"), *((set, f"evaluation of {where(set)}") for set in steps)],
            verdicts=[any_, *((word, word) for word in completions.VERDICTS)],
            states=[any_, *((state.value, state.value) for state in State)],
            changes=[any_, *completions.CHANGES.items()],
            orders=[(order, order) for order in completions.ORDERS],
            lines=completions.LINES,
            prompt=partial(completions.prompt, config),
            part=partial(completions.part, alone=asked.alone),
        )

    def config(self, request: Request) -> Response:
        with self._looked(request) as (name, sight, look):
            restarts = words.restarts(sight.numbers)
            made, notices = launches(sight.run)
        return html(
            "config.html",
            name=name,
            notices=[*([] if look.config else look.notices), *notices],
            settings=settings(look.config, look.sources) if look.config else [],
            consequences=look.config.consequences() if look.config else [],
            launches=made,
            restarts=restarts,
        )

    def audit(self, request: Request) -> Response:
        name = request.path_params["name"]
        sight = self._board.sight(name)
        with sight.lock:
            now = sight.look().now
        try:
            made = auditing.audited(sight.run, now)
        except (UsageError, LedgerError) as error:
            return html("audit.html", name=name, audit=None, why=str(error))
        said, states, ages = auditing.said(made), auditing.states(made), auditing.ages(made)
        return html("audit.html", name=name, audit=made, said=said, states=states, ages=ages)

    # ---- several runs

    def compare(self, request: Request) -> Response:
        sights, said = self._chosen(request)
        comparison.state(sights)
        return html(
            "compare.html",
            names=list(sights),
            said=said,
            rows=comparison.table(sights),
            differing=comparison.differing(sights),
            panels=comparison.SINGLE,
            data={"live": f"/compared?{request.url.query}", "shape": ""},
        )

    def compared(self, request: Request) -> Response:
        """For the script, what has changed of several runs."""
        sights, _ = self._chosen(request)
        known = comparison.state(sights)
        sent = {"shape": "", "over": not any(sight.run.in_progress for sight in sights.values()), "known": known}
        if known != request.query_params.get("known"):
            sent |= {"pass": comparison.table(sights), "compared": comparison.lines(sights)}
        return json(sent)

    def _chosen(self, request: Request) -> tuple[dict[str, Sight], list[str]]:
        names = list(dict.fromkeys(request.query_params.getlist("run")))
        if not names:
            raise UsageError("no run is chosen", fix="choose two or more in the list of runs")
        said = []
        if left_out := names[comparison.MOST :]:
            said.append(f"{counted(len(left_out), 'run')} left out: {comparison.MOST} are compared at a time")
        return {name: self._board.sight(name) for name in names[: comparison.MOST]}, said


def _shape(rows: list[dict[str, str]]) -> str:
    return " ".join(sorted(repr(row["key"]) for row in rows))
