"""Real runs under fire: every process is killed and frozen, at random and at the worst moments; the books balance."""

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.books import check_books
from tests.faults.service import FEW_KILLS, FEW_WITH_DATABASE, STOPS, Fault, Service
from tests.postgres import Server

pytestmark = [pytest.mark.e2e, pytest.mark.vllm]
Start = Callable[..., Service]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    services: list[Service] = []

    def start(seed: int, server: Server | None = None) -> Service:
        services.append(Service(tmp_path / "run", seed, server=server))
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


@pytest.mark.timeout(1800)
def test_so_it_does_where_its_database_is_the_one_that_crashes(start: Start, postgres: Server) -> None:
    service = start(0, postgres)
    for fault in random.Random(0).sample(FEW_WITH_DATABASE, len(FEW_WITH_DATABASE)):
        print(service.inject(fault))
    code, _, err = service.end()
    assert code == 130
    assert all(line.startswith("the ledger ") for line in err.splitlines()), "it says what it waited for, and no more"
    for line in check_books(service.run):
        print(line)
