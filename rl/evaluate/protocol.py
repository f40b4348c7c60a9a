"""What makes two evaluations comparable."""

from typing import NamedTuple


class Protocol(NamedTuple):
    """What an evaluation's numbers depend on beside the policy: only evaluations with the same are compared."""

    problems: str
    """Their hash: `rl.evaluate.result.hash_problems`."""
    temperature: float
    max_tokens: int
    extraction: str

    def differing(self, other: "Protocol") -> list[str]:
        """The names of what is not the same in both."""
        return [name for name, a, b in zip(self._fields, self, other, strict=True) if a != b]
