"""Rewards: from a completion and a gold to a verdict. Knows nothing of the rest of the service.

`verify` marks one completion in this process, `VerifierPool` many in killable ones. Neither imports sympy into this
process before an answer needs it.
"""

from rewards.extract import extract
from rewards.pool import VerifierPool
from rewards.verdict import Mark, Verdict
from rewards.verify import check_gold, verify

__all__ = ["Mark", "Verdict", "VerifierPool", "check_gold", "extract", "verify"]
