"""Prepared problems go to a cache of the tests' own, shared by all of them: checking MATH's golds takes seconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

DATA = Path(__file__).parents[3] / "shared" / "data"


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    cache = tmp_path_factory.mktemp("hf")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HOME", str(cache))
        yield cache


@pytest.fixture(scope="session")
def data_dir() -> str:
    """The real files of GSM8K, MATH, MATH-500 and SVAMP in their authors' schemas."""
    if not DATA.is_dir():
        pytest.skip(f"needs {DATA}")
    return str(DATA)
