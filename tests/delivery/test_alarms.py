"""The proof refuses nothing that is as published: a small count of what `python -m tests.delivery.alarms` counts."""

import asyncio

import pytest

from tests.delivery.alarms import count_alarms
from tests.delivery.conftest import PeftServer


def test_no_false_alarm_in_publishes_to_peft(pair: list[PeftServer]) -> None:
    count = asyncio.run(count_alarms(pair[0].url, 40))
    assert count.alarms == []
    assert len(count.proofs) == 40
    assert max(proof.moved for proof in count.proofs) > 1e-4  # it was not the base all along


@pytest.mark.vllm
def test_no_false_alarm_in_publishes_to_vllm(vllm_urls: list[str]) -> None:
    count = asyncio.run(count_alarms(vllm_urls[0], 5))
    assert count.alarms == []
    assert len(count.proofs) == 5
