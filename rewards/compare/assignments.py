"""Names and what is assigned to them."""

from rewards.latex.answer import Answer, Collection, Relation
from rewards.latex.names import is_name


def assignment(answer: Answer) -> tuple[str, Answer] | None:
    r"""The name and the value of ``x = 5``, ``5 = x`` or ``x \in [0, 1]``; None for anything else."""
    if not isinstance(answer, Relation) or answer.operators not in (("=",), (r"\in",)):
        return None
    if is_name(answer.texts[0]):
        if answer.operators == (r"\in",) and not isinstance(answer.parts[1], Collection):
            return None
        return answer.texts[0].replace(" ", ""), answer.parts[1]
    if is_name(answer.texts[1]) and answer.operators == ("=",):
        return answer.texts[1].replace(" ", ""), answer.parts[0]
    return None
