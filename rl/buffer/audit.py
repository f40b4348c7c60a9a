"""Whether the books of a run balance: each rule that its ledger must keep, and where it does not.

    ids        issued ids are 1, 2, … without a gap: none is lost; an id is a row, so none is there twice
    states     each group is in one known state, and states what belongs to it: only what was sampled has samples, and
               only what was leased has a step
    groups     each sampled group has `group_size` samples
    steps      those that were leased are 1, 2, … without a gap, each with one batch in one state: trained, then at
               most one leased, then what waits to be trained again; none trained beyond `--steps`
    order      groups are trained in the order of issue, and none is left behind by a step
    staleness  no group was trained by a policy that is older than the bound allows, or newer than the learner's
    expired    each was too stale when its turn came: no group was thrown away that could be trained
    proofs     policy, version and hash of each sampled group are those of a proof
    commits    none is beyond what is trained
    capacity   groups in flight and stored fit into the buffer
    stored     what is stored of a group is whole, and is what its row states; what a resume may need is there

A replay keeps them too: its books are a copy of those of the recorded run, of all groups that had their turn.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise

from rl.buffer import codec
from rl.buffer.history import Books, History, Row
from rl.buffer.tables import State
from rl.core.config import TrainConfig
from rl.core.errors import LedgerError
from rl.core.types import Group

_SAMPLED = ("problem", "policy", "adapter_sha256", "oldest_version", "samples", "tokens")
_LEASED = (State.LEASED, State.TRAINED)
_OF_READY = (State.READY, *_LEASED, State.EXPIRED)
"""What a group with signal may be."""
_PLACE = {State.TRAINED: 0, State.LEASED: 1, State.READY: 2}
"""Of a step's state in the order of steps."""


def violations(history: History, books: Books, config: TrainConfig) -> dict[str, list[str]]:
    """Rule → what breaks it, in sentences that name the groups or steps; every rule is there.

    Args:
        books: of this history.
        config: of the run.
    """
    found = {rule: list(check(books, config)) for rule, check in _RULES.items()}
    stored = history.groups([row.id for row in books.rows if row.stored])
    return found | {"stored": list(_stored(books, stored))}


def _ids(books: Books, config: TrainConfig) -> Iterator[str]:
    if missing := _missing(row.id for row in books.rows):
        yield f"lost: {_named(missing)}"


def _states(books: Books, config: TrainConfig) -> Iterator[str]:
    wrong: dict[str, list[int]] = defaultdict(list)
    for row in books.rows:
        if row.state not in set(State):
            wrong[f"{row.state!r} is no state"].append(row.id)
            continue
        sampled = sum(getattr(row, name) is not None for name in _SAMPLED)
        if sampled != (0 if row.state == State.ISSUED else len(_SAMPLED)):
            wrong[f"{row.state}, but {sampled} of {len(_SAMPLED)} facts about samples are there"].append(row.id)
        if row.state != State.READY and (row.step is not None) != (row.state in _LEASED):
            wrong[f"{row.state} {'without a' if row.step is None else 'with a'} step"].append(row.id)
    for what, ids in wrong.items():
        yield f"{what}: {_named(ids)}"


def _groups(books: Books, config: TrainConfig) -> Iterator[str]:
    if ids := [row.id for row in books.rows if row.samples not in (None, config.group_size)]:
        yield f"not {config.group_size} samples: {_named(ids)}"


def _steps(books: Books, config: TrainConfig) -> Iterator[str]:
    leased, batch = by_step(books.rows), config.batch // config.group_size
    if missing := _missing(leased):
        yield f"no group is there of {_named(missing, 'step')}"
    for step, rows in leased.items():
        if len(rows) != batch:
            yield f"step {step} has {len(rows)} groups, not {batch}: {_named([row.id for row in rows])}"
        if len(states := {row.state for row in rows}) > 1:
            yield f"the groups of step {step} are not in one state: {', '.join(sorted(states))}"
    states_in_turn = [(step, rows[0].state) for step, rows in leased.items() if rows[0].state in _PLACE]
    for (before, first), (after, second) in pairwise(states_in_turn):
        if _PLACE[State(first)] > _PLACE[State(second)] or first == second == State.LEASED:
            yield f"step {after} is {second} while step {before} is {first}"
    if beyond := [step for step, state in states_in_turn if state in _LEASED and step > config.steps]:
        yield f"beyond --steps {config.steps}: {_named(beyond, 'step')}"


def _order(books: Books, config: TrainConfig) -> Iterator[str]:
    spans = [(step, rows[0].id, rows[-1].id) for step, rows in by_step(books.rows).items()]
    for (before, _, last), (after, first, _) in pairwise(spans):
        if last > first:
            yield f"group {last} of step {before} was issued after group {first} of step {after}"
    newest = max((last for _, _, last in spans), default=0)
    waiting = (State.ISSUED, State.READY)
    if behind := [row.id for row in books.rows if row.id < newest and row.step is None and row.state in waiting]:
        yield f"left behind, though group {newest} had its turn: {_named(behind)}"


def _staleness(books: Books, config: TrainConfig) -> Iterator[str]:
    bound = config.staleness_bound
    ages: dict[int, list[int]] = defaultdict(list)
    for row in books.rows:
        if (age := staleness(row)) is not None and not 0 <= age <= bound:
            ages[age].append(row.id)
    for age, ids in sorted(ages.items()):
        what = f"{age} steps stale, more than {bound}" if age > bound else "sampled by a version still to be made"
        yield f"{what}: {_named(ids)}"


def _expired(books: Books, config: TrainConfig) -> Iterator[str]:
    oldest = max(by_step(books.rows), default=0) - config.staleness_bound
    expired = [row for row in books.rows if row.state == State.EXPIRED and row.oldest_version is not None]
    if ids := [row.id for row in expired if (row.oldest_version or 0) >= oldest]:
        yield f"expired, though never more than {config.staleness_bound} steps stale: {_named(ids)}"


def _proofs(books: Books, config: TrainConfig) -> Iterator[str]:
    wrong: dict[str, list[int]] = defaultdict(list)
    for row in books.rows:
        if row.policy is None or row.oldest_version is None:
            continue
        proved = books.proofs.get((row.policy, row.oldest_version))
        if proved is None or proved != row.adapter_sha256:
            sampled = f"sampled by version {row.oldest_version} of {row.policy} ({_short(row.adapter_sha256)})"
            wrong[f"{sampled}, but proved was {_short(proved)}"].append(row.id)
    for what, ids in wrong.items():
        yield f"{what}: {_named(ids)}"


def _commits(books: Books, config: TrainConfig) -> Iterator[str]:
    trained = max((row.step or 0 for row in books.rows if row.state == State.TRAINED), default=0)
    if beyond := [step for step in books.commits if step > trained]:
        yield f"committed, but only {trained} steps are trained: {_named(beyond, 'step')}"


def _capacity(books: Books, config: TrainConfig) -> Iterator[str]:
    # What waits to be trained again had its slots before the run went back: only what is new must fit.
    waiting = sum(row.state in (State.ISSUED, State.READY) and row.step is None for row in books.rows)
    if waiting > (capacity := config.buffer // config.group_size):
        yield f"{waiting} groups are in flight or stored, and the buffer holds {capacity}"


_RULES: dict[str, Callable[[Books, TrainConfig], Iterator[str]]] = {
    "ids": _ids,
    "states": _states,
    "groups": _groups,
    "steps": _steps,
    "order": _order,
    "staleness": _staleness,
    "expired": _expired,
    "proofs": _proofs,
    "commits": _commits,
    "capacity": _capacity,
}


def _stored(books: Books, stored: Iterable[tuple[int, Group | LedgerError]]) -> Iterator[str]:
    rows, commit = {row.id: row for row in books.rows}, max(books.commits, default=0)
    if gone := [row.id for row in books.rows if not row.stored and _may_be_needed(row, commit)]:
        yield f"not stored any more, though a resume may need them: {_named(gone)}"
    for id, group in stored:
        if isinstance(group, LedgerError):
            yield f"group {id}: {group}"
            continue
        if group.id != id:
            yield f"group {id} holds what was sampled for group {group.id}"
            continue
        told, row = codec.row(group), rows[id]
        if strange := [name for name in (*_SAMPLED, "mean_reward") if getattr(row, name) != told[name]]:
            name = strange[0]
            yield f"group {id} states {name} {getattr(row, name)}, and what is stored of it {told[name]}"
        if row.state not in (_OF_READY if told["state"] == State.READY else (told["state"],)):
            yield f"group {id} is {row.state}, but by its verdicts {told['state']}"


def _may_be_needed(row: Row, commit: int) -> bool:
    return row.state in (State.READY, State.LEASED) or (row.state == State.TRAINED and (row.step or 0) > commit)


# ---- what the figures of an audit are made from, too


def by_step(rows: Iterable[Row]) -> dict[int, list[Row]]:
    """Step → the groups leased for it, trained in it, or to be trained in it again, in the order of steps and ids."""
    steps: dict[int, list[Row]] = defaultdict(list)
    for row in rows:
        if row.step is not None:
            steps[row.step].append(row)
    return dict(sorted(steps.items()))


def staleness(row: Row) -> int | None:
    """Steps that the group's oldest version was behind the learner's when it was leased; None where it was not."""
    return None if row.step is None or row.oldest_version is None else row.step - 1 - row.oldest_version


# ---- words


def _missing(numbers: Iterable[int]) -> list[int]:
    known = set(numbers)
    return sorted(set(range(1, max(known, default=0) + 1)) - known)


def _named(numbers: list[int], what: str = "group") -> str:
    """Example: ``groups 3, 5–9``"""
    spans: list[list[int]] = []
    for number in numbers:
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    listed = ", ".join(f"{first}–{last}" if last > first else f"{first}" for first, last in spans)
    return f"{what}{'s' if len(numbers) > 1 else ''} {listed}"


def _short(sha256: str | None) -> str:
    return "nothing" if sha256 is None else sha256[:12]
