"""Which GPU each process gets."""

import pytest

from rl.core.errors import UsageError
from rl.launch.placement import place


@pytest.mark.parametrize(
    ("gpus", "servers", "learners", "gpu_memory", "shown"),
    [
        ("", 2, 3, None, "servers and learners: CPU"),
        ("0", 1, 1, None, "server 0: cuda 0 (45 %); learner 0: cuda 0"),
        ("0", 1, 1, 0.3, "server 0: cuda 0 (30 %); learner 0: cuda 0"),
        ("01", 1, 1, None, "server 0: cuda 0 (90 %); learner 0: cuda 1"),
        ("57", 1, 2, None, "server 0: cuda 5 (45 %); learner 0: cuda 5; learner 1: cuda 7"),
        ("01", 2, 1, None, "server 0: cuda 0 (90 %); server 1: cuda 1 (45 %); learner 0: cuda 1"),
        ("012", 2, 1, None, "server 0: cuda 0 (90 %); server 1: cuda 1 (90 %); learner 0: cuda 2"),
        ("01", 0, 2, None, "learner 0: cuda 0; learner 1: cuda 1"),
        ("0123", 1, 2, 0.8, "server 0: cuda 0 (80 %); learner 0: cuda 2; learner 1: cuda 3"),
    ],
)
def test_servers_from_the_front_learners_from_the_back(
    gpus: str, servers: int, learners: int, gpu_memory: float | None, shown: str
) -> None:
    assert str(place(list(gpus), servers, learners, gpu_memory)) == shown


def test_processes_see_only_their_devices() -> None:
    placement = place(["0", "GPU-5c2", "2", "3"], servers=2, learners=2)
    assert placement.server_env(1) == {"CUDA_VISIBLE_DEVICES": "GPU-5c2"}
    assert placement.learner_env() == {"CUDA_VISIBLE_DEVICES": "2,3"}
    assert place([], servers=1, learners=1).server_env(0) == {}
    assert place([], servers=1, learners=1).learner_env() == {}


@pytest.mark.parametrize(
    ("gpus", "servers", "learners", "fits"),
    [
        ("0", 1, 2, "--servers 1 --learners 1 fits"),
        ("01", 3, 2, "--servers 2 --learners 2 fits"),
        ("012", 1, 4, "--servers 1 --learners 3 fits"),
    ],
)
def test_too_few_gpus_name_what_fits(gpus: str, servers: int, learners: int, fits: str) -> None:
    with pytest.raises(UsageError) as error:
        place(list(gpus), servers, learners)
    assert fits in error.value.fix
    assert f"{len(gpus)} GPU" in str(error.value)
