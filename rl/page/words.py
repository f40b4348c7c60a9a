"""A look at a run in the words and numbers of the page: plain data, which templates and script show in the same way."""

from typing import Any

from rl.buffer.tables import State
from rl.core.config import HELDOUT, TrainConfig
from rl.core.metrics import AGE
from rl.observe.findings import Finding
from rl.observe.readings import RECENT, Record, clock, headline
from rl.page.curves import window_for
from rl.page.numbers import Numbers
from rl.page.shelf import Now
from rl.page.sight import Look
from rl.study.words import counted, interval, number, plain, where

NO_DATA = "–"
EVALUATIONS = 50
"""Rows of a set's table."""
LONGEST_S = 1e9
"""Of a run: thirty years."""
POINTS = 300
"""Evaluations of a curve."""
MEANINGS = {
    State.ISSUED: "a slot is taken; completions are sampled or verified",
    State.READY: "sampled, verified, and waits for its turn",
    State.LEASED: "is trained on now",
    State.TRAINED: "its update is published",
    State.NO_SIGNAL: "all rewards are equal: nothing to learn",
    State.EXPIRED: "too stale when its turn came",
    State.UNVERIFIED: "the verifier could not say",
}
"""What becomes of a group."""


# ---- where it stands


def standing(look: Look, step: int) -> tuple[str, str]:
    """(a word for its colour, a sentence)."""
    if look.running and look.ended:
        return "running", f"ending: {look.ended.reason}; the last evaluations are made"
    if look.running:
        return "running", "running" if step else "starting"
    if look.ended:
        return "done", f"ended: {look.ended.reason}"
    ago = f", {clock(look.quiet_s)} ago" if look.quiet_s is not None else ""
    return "stopped", f"not running on this machine; last seen at step {step}{ago}"


def recent(numbers: Numbers, name: str) -> float | None:
    """The mean of the last steps; None where there is none."""
    values = numbers.columns[name].values[-RECENT:]
    return sum(values) / len(values) if values else None


def tiles(look: Look, numbers: Numbers) -> list[dict[str, str]]:
    """What one wants to know first: a label, a number, and a note on it."""
    config, shown = look.config, [_progress(look, numbers)]
    reward, tied = recent(numbers, "reward"), recent(numbers, "no_signal")
    note = f"mean of the last {min(RECENT, len(numbers.steps))} steps" if reward is not None else ""
    shown.append(_tile("reward", _plain(reward), note))
    newest = newest_evaluation(numbers)
    for name, estimate in headline(newest["summary"]).items() if newest else ():
        if estimate and newest:
            shown.append(_tile(name, number(estimate["value"]), f"{_bounds(estimate)} at step {newest['step']:,}"))
    shown = shown[:4]
    shown.append(_tile("signal", "" if tied is None else f"{1 - tied:.0%}", "of the groups teach something"))
    seconds, waited = recent(numbers, "step_s"), recent(numbers, "wait_s")
    wait = f"{waited / seconds:.0%}" if seconds and waited is not None else ""
    shown.append(_tile("waits", wait, "of its time the learner waits for a batch"))
    stale = numbers.columns["staleness_max"].values
    bound = f"bound {config.staleness_bound}" if config else ""
    shown.append(_tile("staleness", plain(stale[-1]) if stale else "", f"steps at the most now; {bound}".rstrip("; ")))
    return shown


def _progress(look: Look, numbers: Numbers) -> dict[str, str]:
    of = f"of {look.config.steps:,}" if look.config else ""
    return _tile("step", f"{numbers.step:,}", "; ".join(filter(None, (of, times(look)))))


def times(look: Look) -> str:
    """How long it took, and will take; nothing of what is no time, as a log may hold any number."""
    told = {"of training": look.spent_s, "left": look.left_s}
    return ", ".join(f"{clock(s)} {word}" for word, s in told.items() if s and 0 < s < LONGEST_S)


def _tile(label: str, value: str, note: str) -> dict[str, str]:
    return {"label": label, "value": value or NO_DATA, "note": note if value else "no data yet"}


# ---- what was measured


def newest_evaluation(numbers: Numbers) -> Record | None:
    """Of the held-out problems; None before the first."""
    records = evaluations_of(numbers, HELDOUT)
    return records[-1] if records else None


def evaluations_of(numbers: Numbers, set: str) -> list[Record]:
    """In the order of steps."""
    return [record for (name, _), record in sorted(numbers.evals.items()) if name == set]


def evaluated_at(numbers: Numbers, set: str) -> list[int]:
    """The steps, rising."""
    return sorted(step for name, step in numbers.evals if name == set)


def sets(numbers: Numbers) -> list[str]:
    """That were evaluated, the held-out problems first."""
    return sorted({name for name, _ in numbers.evals}, key=lambda name: (name != HELDOUT, name))


def evaluation_table(look: Look, numbers: Numbers, set: str) -> dict[str, Any]:
    """The first, the best and the newest evaluation of a set side by side; and the newest ones as rows."""
    records = evaluations_of(numbers, set)
    names = list(dict.fromkeys(name for record in records for name in record["summary"]))
    measured = [record for record in records if record["summary"]["pass@1"]]
    best = max(measured, key=lambda record: (record["summary"]["pass@1"]["value"], -record["step"]), default=records[0])
    telling = (records[0], best, records[-1])
    gains = [look.gains.get((set, record["step"])) for record in telling]
    newest = reversed(records[-EVALUATIONS:])
    rows = [[f"{r['step']:,}", *(estimate(r["summary"].get(name)) for name in names)] for r in newest]
    n = len(records)
    return {
        "set": set,
        "name": where(set),
        "brief": [
            ["step", *(f"{record['step']:,}" for record in telling)],
            *([name, *(estimate(record["summary"].get(name)) for record in telling)] for name in names),
            ["pass@1 − first", *(interval(gain, "+") if gain else "" for gain in gains)],
        ],
        "head": ["step", *names],
        "rows": rows,
        "all": counted(n, "evaluation") + f", the newest {EVALUATIONS}" * (n > EVALUATIONS),
    }


def evaluation_curves(numbers: Numbers, set: str) -> dict[str, Any]:
    """pass@1, the largest pass@k and maj@k by step, each with its interval: None where it was not measured."""
    records = evaluations_of(numbers, set)
    records = [*records[: -1 : -(-len(records) // POINTS)], records[-1]]
    curves: dict[str, dict[str, list[float | None]]] = {}
    for name in headline(records[-1]["summary"]):
        estimates = [record["summary"].get(name) or {} for record in records]
        curves[name] = {key: [_rounded(e.get(key)) for e in estimates] for key in ("value", "low", "high")}
    return {"steps": [record["step"] for record in records], "curves": curves}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def estimate(of: dict[str, float] | None) -> str:
    """Example: ``0.731 [0.692, 0.768]``"""
    return f"{number(of['value'])} {_bounds(of)}" if of else NO_DATA


def _bounds(estimate: dict[str, float]) -> str:
    return f"[{number(estimate['low'])}, {number(estimate['high'])}]"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


# ---- what looks wrong, and what became of the groups


def findings(look: Look) -> list[dict[str, str]]:
    """What looks wrong, in sentences; causes first."""
    found = [_finding(finding) for finding in look.findings]
    if look.silence:
        found.append({"what": "it is silent", "evidence": look.silence, "cure": "", "pasted": ""})
    return found


def _finding(finding: Finding) -> dict[str, str]:
    return {"what": finding.what, "evidence": finding.evidence, "cure": finding.cure, "pasted": finding.pasted}


def groups(now: Now) -> list[list[str]]:
    """State, how many, and what that is."""
    return [[state.value, f"{now.counts[state]:,}", meaning] for state, meaning in MEANINGS.items()]


def books(look: Look, numbers: Numbers, config: TrainConfig, now: Now) -> list[str]:
    """What is waited for, and what is certain, in sentences."""
    said = []
    held = sum(now.counts[state] for state in (State.ISSUED, State.READY, State.LEASED))
    if look.running and not look.ended:
        said += _waits(now, held, config)
    said.append(
        f"{held:,} of {config.buffer // config.group_size:,} slots are taken ({counted(config.group_size, 'sample')} "
        f"each); samples are at most {config.staleness_bound} steps stale"
    )
    committed = "no checkpoint yet" if now.committed is None else f"committed through step {now.committed:,}"
    said.append(f"{committed}; versions of the policy that servers have proved: {now.proved:,}")
    gap, noise = (numbers.published.get(name) for name in ("logprob_gap", "noise"))
    if isinstance(gap, float) and isinstance(noise, float):
        version = numbers.published["step"]
        said.append(f"version {version}: server and learner differ by {gap:.1e} nats a token, noise {noise:.1e}")
    coverage = numbers.columns["coverage"].values
    if coverage:
        of = "the" if now.problems is None else f"{now.problems:,}"
        said.append(f"{coverage[-1]:.1%} of {of} problems were sampled at least once")
    return said


def _waits(now: Now, held: int, config: TrainConfig) -> list[str]:
    said = []
    missing = now.next_batch.count(State.ISSUED) + config.batch // config.group_size - len(now.next_batch)
    if now.leased_for is not None:
        said.append(f"step {now.leased_for} is trained from {counted(now.counts[State.LEASED], 'group')}")
    elif missing:
        groups = counted(config.batch // config.group_size, "group")
        said.append(f"the learner waits for {missing} of the next {groups}, which are sampled or verified")
    if held >= config.buffer // config.group_size:
        said.append("the buffer is full: new prompts wait for the next update")
    return said


def ages(numbers: Numbers) -> list[list[str]]:
    """The last step by the staleness of its tokens: a row for each age, with the numbers of `AGE`."""
    return [[age, *(_plain(of.get(metric.name)) for metric in AGE)] for age, of in numbers.by_age.items()]


def restarts(numbers: Numbers) -> list[list[str]]:
    """When, at which step, and what happened; the newest first."""
    told = reversed(numbers.restarts)
    return [[r["time"][:19].replace("T", " "), r["step"], f"the {r['worker']} {r['why']}"] for r in told]


# ---- all of it


def now(look: Look, numbers: Numbers) -> dict[str, Any]:
    """What the page of a run says, but for its curves."""
    config = look.config
    word, text = standing(look, numbers.step)
    tables = [evaluation_table(look, numbers, set) for set in sets(numbers)]
    found = findings(look)
    looked_at = f"{counted(len(numbers.steps), 'step')} and {counted(len(numbers.evals), 'evaluation')}"
    return {
        "shape": " ".join([*(repr(table["set"]) for table in tables), "groups" if look.now else ""]),
        "over": not look.running,
        "standing": {"word": word, "text": text},
        "about": about(config) if config else "",
        "progress": [numbers.step, config.steps if config else max(1, numbers.step)],
        "tiles": tiles(look, numbers),
        "window": str(window_for(numbers.step)),
        "notices": [{"text": notice} for notice in look.notices],
        "fine": f"Nothing looks wrong in {looked_at}." if numbers.steps else "There is nothing to look at yet.",
        "findings": found,
        "tables": tables,
        "groups": groups(look.now) if look.now else [],
        "books": [{"text": line} for line in books(look, numbers, config, look.now)] if config and look.now else [],
        "ages": ages(numbers),
        "restarts": restarts(numbers),
    }


def about(config: TrainConfig) -> str:
    """What it trains, and how."""
    sizes = f"buffer {config.buffer}, batch {config.batch}, group {config.group_size}"
    tuning = "full" if config.tuning == "full" else f"LoRA rank {config.lora_rank}"
    return f"{config.model} on {config.problems} · {sizes} · lr {config.lr:g} · {tuning} · {config.loss}"
