"""The only place where metric names exist: what each number of `metrics.jsonl` is, its unit, and which way is good; and
what Prometheus is told, where `--metrics-port` asks for it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    Summary,
    disable_created_metrics,
)


@dataclass(frozen=True, slots=True)
class Metric:
    """One field of a record. `good` is where it should go: empty for what has no direction."""

    name: str
    section: Literal["progress", "train", "sampler", "age", "time", "publish", "eval"]
    unit: str
    good: Literal["up", "down", "steady", ""]
    text: str


STEP = (
    Metric("step", "progress", "steps", "up", "updates made so far"),
    Metric("epoch", "progress", "passes", "up", "passes over the training problems"),
    Metric("coverage", "progress", "share", "up", "training problems that were sampled at least once"),
    Metric("samples", "progress", "samples", "up", "of all batches since the start"),
    Metric("tokens", "progress", "tokens", "", "completion tokens trained on in this step"),
    Metric("reward", "train", "reward", "up", "mean of all groups whose turn came, those without signal included"),
    Metric(
        "reward_trained", "train", "reward", "", "mean of the samples trained on, all of them from groups with signal"
    ),
    Metric("loss", "train", "", "", "the global loss; no sign of progress by itself"),
    Metric("grad_norm", "train", "", "steady", "norm of the gradient before clipping; the step line calls it grad"),
    Metric("lr", "train", "", "", "learning rate of this update"),
    Metric("ratio", "train", "", "steady", "mean probability ratio, policy / old; near 1"),
    Metric(
        "clipped_low", "train", "share", "down", "tokens that the lower clip acted on; the step line's clip is both"
    ),
    Metric(
        "clipped_high", "train", "share", "down", "tokens that the upper clip acted on; the step line's clip is both"
    ),
    Metric("kl", "train", "nats", "steady", "mean KL to the base, where --kl-coef is not 0"),
    Metric(
        "entropy",
        "sampler",
        "nats",
        "steady",
        "of the sampler's next token: mean −logprob of the batch's tokens, an unbiased estimate at those places",
    ),
    Metric(
        "no_signal",
        "sampler",
        "share",
        "down",
        "groups whose rewards were all equal: not trained on; signal is 1 − this",
    ),
    Metric("unverified", "sampler", "groups", "down", "groups the verifier could not mark"),
    Metric(
        "errors", "sampler", "samples", "down", "of the batch that the verifier could not mark; they left their groups"
    ),
    Metric("length", "sampler", "tokens", "", "mean length of the completions trained on; the step line calls it len"),
    Metric("truncated", "sampler", "share", "down", "completions cut at --max-tokens; the step line calls it cut"),
    Metric(
        "staleness_mean", "sampler", "steps", "down", "how far the samples' policy was behind the learner's (stale)"
    ),
    Metric("staleness_max", "sampler", "steps", "down", "the most of the batch; never above the configuration's bound"),
    Metric("ess", "sampler", "share", "up", "effective sample size of policy / sampler, as a share of the tokens"),
    Metric(
        "mismatch_kl",
        "sampler",
        "nats",
        "down",
        "sampler against learner at the same version: an alarm for numerics; none in a replay",
    ),
    Metric("by_age", "age", "", "", "the numbers of each age; a token's age is its staleness"),
    Metric(
        "wait_s",
        "time",
        "s",
        "down",
        "the learner waited for a complete batch; the step line's wait is its share, and names the slower side",
    ),
    Metric("train_s", "time", "s", "down", "forward, backward and update"),
    Metric("publish_s", "time", "s", "down", "until the server had proved the new version; none in a replay"),
    Metric("step_s", "time", "s", "down", "the whole step; the step line calls it sec"),
)
"""Fields of the records of kind `step`."""

AGE = (
    Metric("tokens", "age", "tokens", "", "of this age"),
    Metric(
        "mismatch_kl", "age", "nats", "down", "KL(sampler ‖ learner) at this age: numerics, and what was learned since"
    ),
    Metric("ess", "age", "share", "up", "effective sample size at this age: where it is low, few tokens decide"),
    Metric("clipped", "age", "share", "down", "tokens of this age that either clip acted on"),
)
"""Fields of each entry of a step's `by_age`. An age is a staleness in steps, like ``3``; with a bound above 7 it is
several, like ``18-20``."""

PUBLISH = (
    Metric("step", "publish", "steps", "up", "the version that was proved and accepted"),
    Metric("policy", "publish", "", "", "its policy's name on the server, new for every launch"),
    Metric("sha256", "publish", "", "", "of the adapter's bytes"),
    Metric("modules", "publish", "modules", "steady", "modules that the adapter targets"),
    Metric("logprob_gap", "publish", "nats", "down", "mean |logprob difference| of the canary, server against learner"),
    Metric("noise", "publish", "nats", "down", "the same on the base model, measured once a launch"),
    Metric("moved", "publish", "nats", "up", "mean |logprob difference| of the canary, learner against base"),
    Metric("mismatch_kl", "publish", "nats", "down", "KL(sampler ‖ learner) over the canary"),
    Metric("publish_s", "publish", "s", "down", "from the upload to the acceptance"),
)
"""Fields of the records of kind `publish`."""

EVAL = (
    Metric("step", "eval", "steps", "up", "the checkpoint's step"),
    Metric("set", "eval", "", "", "the evaluated problems: heldout, or a name of --eval-on"),
    Metric("adapter_sha256", "eval", "", "", "the evaluated adapter"),
    Metric("summary", "eval", "", "", "the estimates below, each with a 95 % interval clustered by question"),
    Metric("seconds", "eval", "s", "down", "the evaluation took"),
)
"""Fields of the records of kind `eval`, one for each set."""

SUMMARY = (
    Metric("pass@k", "eval", "share", "up", "questions that at least one of k samples answers rightly, unbiased"),
    Metric("maj@k", "eval", "share", "up", "questions that the most frequent of k answers answers rightly"),
    Metric("error", "eval", "share", "down", "samples that the verifier could not mark"),
    Metric("no_answer", "eval", "share", "down", "samples from which nothing was extracted"),
)
"""The estimates in an evaluation's `summary`: `value`, `low`, `high` and `n_questions` each."""

# ---- for Prometheus: a registry for each kind of process; `rl.core.telemetry` adds the labels run and role

UNITS = {"s": "seconds", "share": "ratio", "steps": "", "reward": ""}
"""Of the units above those that Prometheus calls otherwise, or that say nothing in a name."""
SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)
STALENESS = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 64)
"""Buckets."""


def gauges_of(fields: Sequence[Metric], prefix: str, registry: CollectorRegistry, *labels: str) -> dict[str, Gauge]:
    """A gauge for each field of a record, by the field's name; without labels it is not a number until it is set.

    Example: ``wait_s`` of a step is ``tally_step_wait_seconds``, and ``no_signal`` is ``tally_step_no_signal_ratio``.
    """
    gauges = {}
    for field in fields:
        name, unit = field.name.removesuffix("_s"), UNITS.get(field.unit, field.unit)
        words = [prefix, "" if prefix.endswith(name) else name, "" if name.endswith(unit) else unit]
        gauges[field.name] = gauge = Gauge("_".join(filter(None, words)), f"{field.text}.", labels, registry=registry)
        if not labels:
            gauge.set(math.nan)
    return gauges


disable_created_metrics()  # type: ignore[no-untyped-call]
PROCESS = CollectorRegistry()
"""Of every process: its CPU time, memory and files."""
ProcessCollector(registry=PROCESS)

SAMPLING = CollectorRegistry()
"""Of the collector and of the evaluator."""
SAMPLES = Counter("tally_samples_total", "Samples, by the verifier's mark.", ["mark"], registry=SAMPLING)
COMPLETION_TOKENS = Counter("tally_completion_tokens_total", "Tokens of all samples.", registry=SAMPLING)
GROUPS_IN_FLIGHT = Gauge("tally_groups_in_flight", "Groups that servers are sampling now.", registry=SAMPLING)
GENERATE_SECONDS = Histogram(
    "tally_generate_seconds", "From asking for a group to its completions.", buckets=SECONDS, registry=SAMPLING
)
VERIFY_SECONDS = Histogram(
    "tally_verify_seconds", "From a group's completions to their verdicts.", buckets=SECONDS, registry=SAMPLING
)
SERVERS = Gauge(
    "tally_servers", "Rollout servers: that serve (there), or do not now (away).", ["state"], registry=SAMPLING
)
RETRIES = Counter(
    "tally_retries_total", "Requests that a server failed to answer, and that were made again.", registry=SAMPLING
)

COLLECTING = CollectorRegistry()
"""Of the collector alone."""
GROUPS_PUT = Counter(
    "tally_groups_put_total", "Groups put into the buffer, by the state they got.", ["state"], registry=COLLECTING
)

EVALUATING = CollectorRegistry()
"""Of the evaluator alone."""
EVALUATION_SECONDS = Summary("tally_evaluation_seconds", "The evaluations made.", ["set"], registry=EVALUATING)
QUESTIONS = Counter("tally_questions_total", "Questions of the evaluations made.", ["set"], registry=EVALUATING)
EVALUATED_STEP = Gauge("tally_evaluated_step", "Step of the newest evaluation.", ["set"], registry=EVALUATING)
PASS_AT_1 = Gauge(
    "tally_pass_at_1_ratio",
    "pass@1 in the newest evaluation: its value, and low and high of its 95 % interval.",
    ["set", "bound"],
    registry=EVALUATING,
)

LEARNING = CollectorRegistry()
"""Of a learner's rank; what is logged of a step is known to the first."""
OF_STEP = gauges_of([f for f in STEP if f.name not in ("samples", "by_age")], "tally_step", LEARNING)
OF_AGE = gauges_of(AGE, "tally_age", LEARNING, "age")
SAMPLES_TRAINED = Counter("tally_samples_trained_total", "Samples trained on.", registry=LEARNING)
TOKENS_TRAINED = Counter("tally_tokens_trained_total", "Completion tokens trained on.", registry=LEARNING)
SAMPLE_STALENESS = Histogram(
    "tally_staleness_steps", "Of each sample trained on.", buckets=STALENESS, registry=LEARNING
)
PUBLISH_SECONDS = Histogram(
    "tally_publish_seconds", "From the upload of a version to its acceptance.", buckets=SECONDS, registry=LEARNING
)
PHASE_SECONDS = Counter(
    "tally_learner_seconds_total",
    "Time of the training loop by phase: start, wait (for a batch), train, publish (what is not done by then).",
    ["phase"],
    registry=LEARNING,
)
BUFFER_GROUPS = Gauge("tally_buffer_groups", "Groups in the ledger, by state.", ["state"], registry=LEARNING)

SUPERVISING = CollectorRegistry()
WORKER_UP = Gauge("tally_worker_up", "Whether a worker's process runs.", ["worker"], registry=SUPERVISING)
RESTARTS = Counter("tally_worker_restarts_total", "Workers replaced.", ["worker"], registry=SUPERVISING)
OVERDUE = Gauge("tally_overdue", "Whether the next step takes unusually long.", registry=SUPERVISING)
