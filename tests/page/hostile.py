"""A run whose every text is an attack: what a model, a data set, a user or another program may have written."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from rewards.verdict import Mark, Verdict
from rl.buffer.ledger import Buffer
from rl.core.rundir import RunDir
from rl.core.types import Group, Problem, Rollout, Sample
from rl.evaluate.result import EvalResult, QuestionResult
from tests.observe.recorded import log_evaluation, new_run, step_record
from tests.results import eval_result

ATTACKS = {
    "script": "<script>alert(1)</script>",
    "end of a script": "</script><script>alert(1)</script>",
    "end of a text": "</pre></textarea></title><svg/onload=alert(1)>",
    "end of an attribute": "\"><img src=x onerror=alert(1)><a b='",
    "attribute": "' onmouseover='alert(1)' autofocus onfocus=alert(1) x='",
    "elsewhere": "<img src=http://elsewhere.example/x.png><link rel=stylesheet href=//elsewhere.example/x.css>",
    "base": "<base href=http://elsewhere.example/><meta http-equiv=refresh content=0;url=//elsewhere.example>",
    "frame": "<iframe srcdoc='<script>alert(1)</script>'></iframe><object data=x></object><form action=//a.example>",
    "address": "javascript:alert(1)//http://elsewhere.example",
    "template": "{{ 7*7 }} {% include 'base.html' %} ${7*7} #{7*7} <%= 7*7 %> {{ config }}",
    "comment": "<!-- <![CDATA[ --!> ]]>",
    "entities": "&lt;script&gt;alert(1)&lt;/script&gt; &#60;b&#62; &amp;",
    "direction": "\u202egnirts desrever\u202c \u2066isolated\u2069 \u200f",
    "invisible": "zero\u200bwidth\u00ad\ufeff\u2060",
    "NUL": "before\x00after",
    "ANSI": "\x1b[2J\x1b[31mred\x1b]0;title\x07\x9b",
    "lines": "one\r\ntwo\rthree\u2028four\u2029five\x0bsix\x85seven",
    "tags": "\U000e0041\U000e0042",
    "accents": "Z" + 500 * "\u0301",
    "one long line": "a" * 1_000_000,
    "many tags": "<b><i>" * 20_000,
    "JSON": '{"a": [1, "\\ud800"]}\n{"kind": "step"}',
    "style": "</style><style>*{display:none}</style><b style='position:fixed;inset:0'>",
}
NAME = "\"><img src=x onerror=alert(1)> {{ 7*7 }} %2e%2e '#&a=b\u202e\n"
"""Of a run and of a set: what a file system takes."""


def hostile_run(root: Path) -> RunDir:
    """In a folder, under a name that is an attack, too. Of each attack there is a group and an evaluated question."""
    texts = list(ATTACKS.values())
    short = "".join(text[:200] for text in texts)
    run = new_run(root / NAME, "--wandb-tags", short, "--system-prompt", short, "--prompt", short + "{problem}")
    _put(run, texts)
    for step in (0, 5):
        log_evaluation(run, _evaluation(texts, "heldout", step))
        log_evaluation(run, _evaluation(texts[:3], NAME, step))
    run.log(**step_record(1, by_age={text[:50]: {"tokens": 1, "clipped": 0.1} for text in texts}))
    run.log(kind="restart", step=1, worker=short, why=short, attempt=1)
    run.log(kind="restart", step=1, worker=["<b>"], why={"<script>": "alert(1)"})
    with run.metrics_file.open("a") as out:
        out.write(short.replace("\n", " ") + "\n")
        out.write('{"kind": "restart", "step": 1, "worker": "\\ud800<b>", "why": "\\udfff"}\n')
    _rewrite(run.config_file, "config", wandb_project=short, model=short, problems="\ud800" + short, data_dir=short)
    _rewrite(run.config_file, "sources", lr=short, model="\ud800")
    launch = {"started": short, "command": texts, "git_commit": short, "packages": {text: text for text in texts[:4]}}
    run.provenance_file.write_text(json.dumps([launch, {"command": "\ud800", "python": short}]))
    (run.evals / f"step-{NAME.replace('/', '')}.json").write_text("{}")
    return run


def _put(run: RunDir, texts: list[str]) -> None:
    config = run.config()
    with closing(Buffer(run.buffer_url, capacity=10_000, group_size=config.group_size)) as buffer:
        buffer.proved("<b>", 0, "ab")
        buffer.issue()
        for id, text in enumerate(texts, start=1):
            buffer.put(_group(id, text))


def _group(id: int, text: str) -> Group:
    samples = [
        Sample(
            rollout=Rollout(
                token_ids=[1, 2],
                sampler_logprobs=[-0.5, -0.5],
                policy_version=0,
                finish_reason="length" if mark is Mark.WRONG else "stop",
                text=text,
            ),
            verdict=Verdict(
                mark=mark, reason=text[:999], answer=text[:999], gold=text, rule=text[:999], compared=text[:99]
            ),
        )
        for mark in (Mark.RIGHT, Mark.WRONG)
    ]
    problem = Problem(id=f"{id}{text[:300]}", text=text, gold=text[:999])
    return Group(id=id, problem=problem, prompt_ids=[3], policy="<b>", adapter_sha256="ab", samples=samples)


def _evaluation(texts: list[str], set: str, step: int) -> EvalResult:
    marks = [Mark.WRONG, Mark.RIGHT] if step else [Mark.RIGHT, Mark.RIGHT]
    questions = [
        QuestionResult(
            problem_id=f"{number}{text[:300]}",
            problem=text,
            gold=text[:999],
            completions=[text, text[:9999]],
            answers=[text[:999], None],
            marks=marks,
            reasons=[text[:999], text[:99]],
        )
        for number, text in enumerate(texts)
    ]
    return eval_result(questions, step=step, n=2, set=set)


def _rewrite(file: Path, part: str, **values: Any) -> None:
    recorded = json.loads(file.read_text())
    recorded[part] |= values
    file.write_text(json.dumps(recorded))
