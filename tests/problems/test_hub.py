"""Data sets of the hub, which is that of `tests.hub`; its client reads its settings when it is imported."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.hub import COMMIT, serve

LOAD = """
from rl.core.config import TrainConfig
from rl.problems.sources import find_source, load_eval_sets
config = TrainConfig(eval_on="tiny/set@train", eval_problems=0)
problems = load_eval_sets(config)["tiny/set@train"]
version = find_source("tiny/set", config, preferred="train").version
print(len(problems), min(p.gold for p in problems), version)
"""


def load(url: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HF_ENDPOINT": url, "HF_HOME": str(home)}
    return subprocess.run([sys.executable, "-c", LOAD], env=environment, capture_output=True, text=True, check=False)


def test_a_data_set_of_the_hub_is_fetched_once_and_then_on_this_machine(tmp_path: Path) -> None:
    (tmp_path / "hub/tiny/set").mkdir(parents=True)
    rows = [{"problem": f"{i}+1", "answer": i + 1} for i in range(20)]
    (tmp_path / "hub/tiny/set/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with serve(tmp_path / "hub") as hub:
        first = load(hub.url, tmp_path / "home")
        assert (first.returncode, first.stderr) == (0, "")
        count, gold, version = first.stdout.strip().split(maxsplit=2)
        assert (count, gold) == ("20", "1")
        assert COMMIT in version, "another commit is another version"
        assert hub.sent.count("train.jsonl") == 1
    again = load(hub.url, tmp_path / "home")  # now nobody answers there
    assert (again.returncode, again.stderr, again.stdout) == (0, "", first.stdout)
