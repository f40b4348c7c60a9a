"""`python -m rl.audit`: whether a run's books balance, and what they say of what was trained on, from its ledger alone.

Exit code: 0 when they balance; 1 when they do not, each broken rule with the groups or steps that break it; 2 when
there is no run, or no ledger that can be read. A run in progress may be audited.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from rl.core import cli
from rl.core.errors import UsageError

if TYPE_CHECKING:
    from rl.core.rundir import RunDir
    from rl.observe.audit import Audit, Gap, Lengths

NOT_BALANCED = 1


def main(argv: list[str]) -> int:
    args = _parser().parse_args(argv)
    from rl.core.rundir import RunDir  # these load what `--help` must not wait for
    from rl.observe.audit import audit

    run = RunDir(args.run)
    if args.compact:
        return _compact(run)
    found = audit(run)
    if args.json:
        print(json.dumps({"balanced": found.balanced, **asdict(found)}, indent=2))
    else:
        print("\n".join(_lines(run, found)))
    return 0 if found.balanced else NOT_BALANCED


def _parser() -> cli.Parser:
    parser = cli.Parser(prog="python -m rl.audit", description=(__doc__ or "").partition(": ")[2])
    parser.add_argument("run", type=Path, metavar="RUN", help="a run directory")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true", help="the same as JSON")
    how.add_argument(
        "--compact",
        action="store_true",
        help="drop the samples that no resume can need from the ledger of a run that is not in progress; what it "
        "states of them stays, but they can be neither shown nor replayed",
    )
    return parser


def _compact(run: "RunDir") -> int:
    """Compacts the ledger of a run whose books balance; returns the exit code."""
    from rl.buffer.compact import compact
    from rl.observe.audit import audit

    run.config()
    with run.locked():
        if not audit(run).balanced:
            fix = f"python -m rl.audit {run.root} says why; keep all of it until that is understood"
            raise UsageError(f"the books of {run.root} do not balance", fix=fix)
        done = compact(run.buffer_url)
    print(
        f"{done.ledger}: {done.bytes_before / 1e6:,.1f} MB before, {done.bytes_after / 1e6:,.1f} MB after\n"
        f"the samples of {done.groups:,} groups are gone: rl.show and --replay have them no more; their entries stay"
    )
    return 0


# ---- in words


def _lines(run: "RunDir", audit: "Audit") -> Iterator[str]:
    of = f", a replay of {audit.replay}" if audit.replay else ""
    committed = "nothing committed" if audit.committed is None else f"committed through step {audit.committed}"
    again = f"; {audit.trained_after_commit:,} groups after it" if audit.trained_after_commit else ""
    yield f"{run.root}{of}: {audit.steps:,} steps trained, {committed}{again}"
    yield ""
    yield f"{'':12}{'groups':>10}{'samples':>10}{'tokens each':>13}"
    for state, has in audit.states.items():
        length = "–" if has.tokens_per_sample is None else f"{has.tokens_per_sample:,.1f}"
        yield f"{state.value:12}{has.groups:10,}{has.samples:10,}{length:>13}"
    yield f"{'in all':12}{audit.issued:10,}{sum(has.samples for has in audit.states.values()):10,}"
    yield ""
    of_all = "" if audit.problems is None else f" of {audit.problems:,}"
    yield f"problems: {audit.problems_sampled:,}{of_all} sampled, {audit.problems_trained:,} trained on"
    if audit.lengths:
        yield from _of_lengths(audit.lengths)
    if audit.staleness:
        yield from _of_staleness(audit)
    launches = f"{audit.launches} {'launch' if audit.launches == 1 else 'launches'}"
    yield (
        f"proofs: {audit.versions:,} versions in {launches}; proved again in a later one: {audit.proved_again:,}, "
        f"with other bytes: {audit.proved_again_differently:,}"
    )
    yield ""
    if audit.balanced:
        yield f"the books balance: each of {len(audit.violations)} rules holds ({', '.join(audit.violations)})"
    else:
        yield "the books do NOT balance:"
        yield from (f"  {rule}: {what}" for rule, broken in audit.violations.items() for what in broken)


def _of_lengths(lengths: "Lengths") -> Iterator[str]:
    yield f"lengths: {lengths.trained:,.1f} tokens a sample trained on, {lengths.sampled:,.1f} sampled until then"
    if lengths.by_design:
        yield f"  by design, without signal or unverified: {_of_gap(lengths.by_design)}"
    yield f"  by staleness: {_of_gap(lengths.by_staleness) if lengths.by_staleness else 'nothing expired'}"


def _of_gap(gap: "Gap") -> str:
    verdict = "no bias shown" if gap.low <= 0 <= gap.high else "a bias"
    return f"{gap.value:+,.2f} [{gap.low:+,.2f}, {gap.high:+,.2f}]: {verdict}"


def _of_staleness(audit: "Audit") -> Iterator[str]:
    groups = sum(audit.staleness.values())
    mean = sum(age * n for age, n in audit.staleness.items()) / groups
    counted = ", ".join(f"{age}: {n:,}" for age, n in audit.staleness.items())
    yield (
        f"staleness: {mean:.2f} steps in the mean, at most {max(audit.staleness)} (bound {audit.staleness_bound}); "
        f"groups by steps: {counted}"
    )
    for ages in audit.staleness_by_step:
        steps = f"{ages.first}–{ages.last}" if ages.last > ages.first else f"{ages.first}"
        yield f"  steps {steps:>11}{ages.groups:8,} groups, mean {ages.mean:5.2f}, at most {ages.max}"


if __name__ == "__main__":
    cli.run(main)
