"""The same problems before and after, for every run: chosen by rule, so that nobody chose the ones that look well."""

import hashlib
from collections.abc import Sequence

from rewards.verdict import Mark
from rl.evaluate.result import QuestionResult
from rl.present.document import Completion, Example
from rl.present.study import Study

DRAWN = 3
"""Problems that are drawn by the hash of their id, beside those of the largest gain and loss."""


def examples(study: Study) -> list[Example]:
    """The problem gained most, the one lost most, and some drawn without a look at the results.

    Only problems that every run was asked before training and after it; none where there is no such problem.
    """
    pairs = {
        run.name: (_by_id(own[0].result.questions), _by_id(own[-1].result.questions))
        for run in study.runs
        if len(own := run.evaluations.get(study.set, [])) > 1 and own[0].step == 0
    }
    if not pairs:
        return []
    common = sorted(set.intersection(*(before.keys() & after.keys() for before, after in pairs.values())))
    changes = {id: sum(_pass_rate(a[id]) - _pass_rate(b[id]) for b, a in pairs.values()) / len(pairs) for id in common}
    drawn = sorted(common, key=lambda id: hashlib.sha256(id.encode()).digest())[:DRAWN]
    chosen = {id: f"Problem {n}, drawn by the hash of its id" for n, id in enumerate(drawn, 1)}
    extremes = {}
    if changes and (gained := max(changes, key=lambda id: changes[id])) and changes[gained] > 0:
        extremes[gained] = f"Gained most: {changes[gained]:+.2f} pass@1, the mean of all runs"
    if changes and (lost := min(changes, key=lambda id: changes[id])) and changes[lost] < 0:
        extremes[lost] = f"Lost most: −{-changes[lost]:.2f} pass@1, the mean of all runs"
    return [_example(title, id, pairs) for id, title in (extremes | chosen | extremes).items()]


def _example(
    title: str, id: str, pairs: dict[str, tuple[dict[str, QuestionResult], dict[str, QuestionResult]]]
) -> Example:
    completions = []
    for name, (before, after) in pairs.items():
        for when, questions in (("before", before), ("after", after)):
            question = questions[id]
            right = question.marks.count(Mark.RIGHT)
            text = question.completions[0] if question.completions else ""
            mark = f"; this one is {question.marks[0].value}" if question.marks else ""
            line = f"{name}, {when}: {right} of {len(question.marks)} right{mark}"
            completions.append(Completion(title=line, text=text))
    question = next(iter(pairs.values()))[0][id]
    return Example(title=title, problem=question.problem, gold=question.gold, completions=completions)


def _by_id(questions: Sequence[QuestionResult]) -> dict[str, QuestionResult]:
    return {question.problem_id: question for question in questions if question.verified}


def _pass_rate(question: QuestionResult) -> float:
    return question.pass_at(1) or 0.0
