"""Rewards: from a completion and a gold to a verdict. Knows nothing of the rest of the service.

`verify` marks one completion, in any thread; `VerifierPool` many at a time, for an asyncio program. What could hang or
grow is done in processes that can be killed; none of it imports sympy into this process.
"""

from rewards.extract import Extraction, extract
from rewards.processes.pool import VerifierPool
from rewards.verdict import Mark, Verdict
from rewards.verify import check_gold, judge_gold, verify, verify_leniently

__all__ = [
    "Extraction",
    "Mark",
    "Verdict",
    "VerifierPool",
    "check_gold",
    "extract",
    "judge_gold",
    "verify",
    "verify_leniently",
]
