"""Real runs under fire: every process is killed and frozen, at random and at the worst moments; the books balance."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.books import check_books
from tests.faults.service import FEW_KILLS, STOPS, Fault, Service

pytestmark = [pytest.mark.e2e, pytest.mark.vllm]
Start = Callable[[int], Service]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    services: list[Service] = []

    def start(seed: int) -> Service:
        services.append(Service(tmp_path / "run", seed))
        return services[-1]

    yield start
    for service in services:
        service.kill()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("faults", [random.Random(0).sample(FEW_KILLS, len(FEW_KILLS)), STOPS], ids=["kills", "stops"])
def test_a_run_goes_on_and_its_books_balance(start: Start, faults: list[Fault]) -> None:
    service = start(0)
    for fault in faults:
        print(service.inject(fault))
    code, _, err = service.end()
    assert (code, err) == (130, "")
    for line in check_books(service.run):
        print(line)
