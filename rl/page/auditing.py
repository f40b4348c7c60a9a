"""The audit of a run as the page says it; of a large run, which takes minutes and all of its ledger, it is not made."""

from threading import Lock

from rl.core.errors import UsageError
from rl.core.rundir import RunDir
from rl.observe.audit import Audit, Gap, audit
from rl.page.shelf import Now

MOST = 5_000
"""Groups of a ledger that is audited while somebody waits: every one of them is read."""
_one = Lock()


def audited(run: RunDir, now: Now | None) -> Audit:
    """Raises:
    UsageError: it is too much for a page, or another audit is being made, or the ledger cannot be read.
    """
    groups = sum(now.counts.values()) if now else 0
    if groups > MOST:
        raise UsageError(f"{groups:,} groups take a while to be read, each of them; the audit is made in the terminal:")
    if not _one.acquire(timeout=1):
        raise UsageError("another audit is being made; ask again when it is done, or make it in the terminal:")
    try:
        return audit(run)
    finally:
        _one.release()


def said(audit: Audit) -> list[str]:
    """What follows from the ledger, in sentences."""
    committed = "nothing is committed" if audit.committed is None else f"committed through step {audit.committed:,}"
    again = f"; a resume would train {audit.trained_after_commit:,} groups again" if audit.trained_after_commit else ""
    of = "" if audit.problems is None else f" of {audit.problems:,}"
    lines = [
        f"{audit.steps:,} steps are trained, {committed}{again}",
        f"{audit.problems_sampled:,}{of} problems were sampled, {audit.problems_trained:,} trained on",
        f"{audit.versions:,} versions were proved; {audit.proved_again:,} of them again after a restart, "
        f"{audit.proved_again_differently:,} with other bytes",
    ]
    if audit.replay:
        lines.insert(0, f"it is a replay of {audit.replay}")
    if lengths := audit.lengths:
        lines.append(f"tokens a sample: {lengths.trained:,.1f} of those trained on, {lengths.sampled:,.1f} of all")
        if lengths.by_design:
            lines.append(f"of that by design, without signal or unverified: {_of_gap(lengths.by_design)}")
        lines.append(f"by staleness: {_of_gap(lengths.by_staleness) if lengths.by_staleness else 'nothing expired'}")
    return lines


def states(audit: Audit) -> list[list[str]]:
    """Of each state its groups, samples, and tokens a sample."""
    rows = []
    for state, held in audit.states.items():
        length = "" if held.tokens_per_sample is None else f"{held.tokens_per_sample:,.1f}"
        rows.append([state.value, f"{held.groups:,}", f"{held.samples:,}", length])
    return rows


def ages(audit: Audit) -> list[list[str]]:
    """Of stretches of steps the groups, and how stale they were."""
    return [
        [f"{a.first:,}–{a.last:,}", f"{a.groups:,}", f"{a.mean:.2f}", f"{a.max} of {audit.staleness_bound}"]
        for a in audit.staleness_by_step
    ]


def _of_gap(gap: Gap) -> str:
    verdict = "no bias shown" if gap.low <= 0 <= gap.high else "a bias"
    return f"{gap.value:+,.2f} [{gap.low:+,.2f}, {gap.high:+,.2f}], {verdict}"
