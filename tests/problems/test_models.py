"""Where models come from."""

from pathlib import Path

import pytest

from rl.core.config import TrainConfig
from rl.core.errors import UsageError
from rl.problems.models import resolve_model
from rl.problems.starter import STARTER_MODEL


def test_models_are_folders_or_of_the_hub(tmp_path: Path) -> None:
    assert resolve_model(TrainConfig(model="starter")) == str(STARTER_MODEL)
    assert resolve_model(TrainConfig(model=str(STARTER_MODEL))) == str(STARTER_MODEL)
    with pytest.raises(UsageError, match=r"no config\.json"):
        resolve_model(TrainConfig(model=str(tmp_path)))
    with pytest.raises(UsageError, match="is no folder, and the hub does not give it"):
        resolve_model(TrainConfig(model="not/a/hub/name"))
