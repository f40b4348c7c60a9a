"""Plans: what is read, what is refused before anything runs, and what is written back."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rl import sweep
from rl.core.errors import UsageError
from rl.study.plan import Phase, Plan, PlannedRun, checked, configured, plan_text, read_plan, write_plan
from tests.commands import ROOT

STUDIES = sorted((ROOT / "configs" / "studies").glob("*.toml"))


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("text", "message", "fix"),
    [
        ("", "the plan study has no run", "[grid]"),
        ("[base]\nsteps = 3", "the plan study has no run", "[[run]]"),
        ("lr 3", "is not TOML", "--help"),
        ("lr = 3", "lr: Extra inputs", "--help"),
        ("seeds = 0\n[grid]\nlr = [1e-3]", "seeds: Input should be greater", ""),
        ("[grid]\nlr = 3", "grid.lr: Input should be a valid list", ""),
        ("[grid]\nlora_rnk = [8]", "run lora-rnk8: there is no setting 'lora_rnk'", "lora_rank"),
        ("[grid]\nlearning_rate = [1]", "run learning-rate1: there is no setting 'learning_rate'", "here it is --lr"),
        ("[grid]\nlr = [1e-3, 'x']", "run lrx: --lr x (plan): Input should be a valid number", "--lr is peak"),
        ("[grid]\nbatch = [30]", "run batch30: batch 30 is not a multiple of group_size 8", ""),
        ("[grid]\nlr = [1e-3, 0.001]", "two are called run 'lr0.001'", "a name of its own"),
        ("[[run]]\nname='a'\n[[run]]\nname='b'\nchanges={lr=5e-4}", "run b has the settings of run a", "out"),
        (f"[[run]]\nname='{'a' * 151}'", "aaa' cannot name a directory", "150 at the most"),
        ("[[run]]\nname='..'", "run '..' cannot name a directory", "letters"),
        ("name='.'\n[[run]]\nname='a'", "plan '.' cannot name a directory", "letters"),
        ("[grid]\nlr=[1e-3]\n[[phase]]\nname='..'", "phase '..' cannot name a directory", "letters"),
        ("[grid]\nlr=[1e-3, inf]", "run lrinf: --lr inf (plan): Input should be a finite number", "--lr is peak"),
        ("[[run]]\nname='a'\n[[phase]]\nname='p'\nspan=inf", "phase.0.span: Input should be a finite number", ""),
        ("metric='passs@1'\n[[run]]\nname='a'", "run a: its evaluations have no metric 'passs@1'", "pass@8, maj@8"),
        ("metric='pass@16'\n[[run]]\nname='a'", "run a: its evaluations have no metric 'pass@16'", "up to"),
        ("set='nope'\n[[run]]\nname='a'", "run a: it is not evaluated on the set 'nope'", "one of: heldout"),
        ("set='math500'\n[base]\neval_on='math500'\n[[run]]\nname='a'\nchanges={eval_on='svamp'}", "run a", "svamp"),
        ("[[run]]\nname='a/../b'", "run 'a/../b' cannot name a directory", "letters"),
        ("name='..x/y'\n[[run]]\nname='a'", "cannot name a directory", "letters"),
        ("[base]\nseed = 3\n[[run]]\nname='a'", "run a: a plan does not set seed", "seeds = 3"),
        ("[base]\nservers = 2\n[[run]]\nname='a'", "run a: a plan does not set servers", "share one server"),
        ("[[run]]\nname='a'\ncriteria=['good']", "'good' is no success criterion", "pass@1 >= 0.60"),
        ("[[run]]\nname='a'\ncriteria=['better than bb']", "the plan has no run bb", ""),
        ("[grid]\nlr=[1e-3]\n[[phase]]\nname='p'\nrefine='buffer'", "phase p: buffer has no finer values", "a rate"),
        ("[grid]\nlr=[1e-3]\n[[phase]]\nname='p'\nrefine='rate'", "phase p: there is no setting 'rate'", ""),
        ("[grid]\nbuffer=[32, 64]\n[[phase]]\nname='p'\nchanges={batch=64}", "phase p: buffer 32 cannot hold", ""),
        ("[grid]\nlr=[1e-3]\n[[phase]]\nname='p'\nchanges={stepz=3}", "phase p: there is no setting 'stepz'", "steps"),
        ("[grid]\nlr=[1e-3]\n[[phase]]\nname='p'\n[[phase]]\nname='p'", "two are called phase 'p'", ""),
    ],
)
def test_what_no_run_could_be_started_with_is_refused(tmp_path: Path, text: str, message: str, fix: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_plan(written(tmp_path, text))
    assert message in str(refused.value)
    assert str(tmp_path / "study.toml") in str(refused.value)
    assert fix in refused.value.fix


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"cannot read the plan .*none\.toml: No such file"):
        read_plan(tmp_path / "none.toml")


def test_the_grid_is_every_combination_and_rows_follow(tmp_path: Path) -> None:
    grid = "[grid]\nlr = [2e-6, 0.0005]\nbuffer = [64, 256]"
    rows = read_plan(written(tmp_path, f"{grid}\n[[run]]\nname = 'own'\nchanges = {{ lr = 1 }}")).rows()
    assert [row.name for row in rows] == [
        "lr2e-6-buffer64",
        "lr2e-6-buffer256",
        "lr0.0005-buffer64",
        "lr0.0005-buffer256",
        "own",
    ]
    assert rows[1].changes == {"lr": 2e-6, "buffer": 256}


texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)
names = st.from_regex(r"[a-z][a-z0-9.-]{0,10}", fullmatch=True)


@given(
    st.builds(
        Plan,
        name=names,
        reason=texts,
        seeds=st.integers(1, 5),
        stop_beaten=st.booleans(),
        base=st.fixed_dictionaries(
            {"prompt": texts.map(lambda text: text + "{problem}"), "wandb_adapter": st.booleans()}
        ),
        grid=st.just({"lr": [1e-3, 2e-6]}),
        runs=st.lists(
            st.builds(
                PlannedRun, name=names, reason=texts, changes=st.just({"buffer": 512}), priority=st.integers(-3, 3)
            ),
            max_size=1,
        ),
        phases=st.lists(st.builds(Phase, name=names, span=st.one_of(st.none(), st.floats(1.5, 1e9))), max_size=1),
    )
)
def test_a_plan_comes_back_from_its_text(plan: Plan) -> None:
    assert Plan.model_validate(tomllib.loads(plan_text(plan))) == plan


def test_a_written_plan_is_read_again(tmp_path: Path) -> None:
    plan = checked(Plan(name="s", runs=[PlannedRun(name="a", changes={"lr": 1e-3}, criteria=["pass@1 >= 60 %"])]))
    write_plan(plan, tmp_path / "s.toml")
    assert read_plan(tmp_path / "s.toml") == plan
    with pytest.raises(UsageError, match="exists, and nothing is overwritten"):
        write_plan(plan.model_copy(update={"name": "t"}), tmp_path / "s.toml")
    assert read_plan(tmp_path / "s.toml") == plan
    with pytest.raises(UsageError, match="cannot write the plan"):
        write_plan(plan, tmp_path / "none" / "s.toml")


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_study_can_be_started_and_says_what_it_is_for(path: Path) -> None:
    plan = read_plan(path)
    assert plan.name == path.stem
    assert plan.reason
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    for word in ("purpose:", "hardware:", "minutes:", "expect:"):
        assert any(word in line for line in head), f"{path} does not state its {word}"
    for row in plan.rows():
        assert configured(plan.base | row.changes).wandb == "off"


def test_there_are_five_studies() -> None:
    assert len(STUDIES) == 5


# ---- the command


def dry(tmp_path: Path, *argv: str) -> list[str]:
    command = [sys.executable, "-m", "rl.sweep", *argv, "--dry-run", "--out", str(tmp_path / "s")]
    answer = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")
    assert not (tmp_path / "s").exists()
    return answer.stdout.splitlines()


def test_flags_make_the_grid_of_the_issue(tmp_path: Path) -> None:
    flags = ["--lr", "1e-6,2e-6,2e-5", "--buffer", "64,256", "--lora-rank", "8,16,32", "--seeds", "3", "--steps", "7"]
    first, *runs, last = dry(tmp_path, *flags)
    assert first.startswith("54 runs in")
    assert runs[0].split() == ["buffer64-lr1e-6-lora-rank8-seed0", "planned", "buffer=64", "lr=1e-06", "lora_rank=8"]
    assert [run.split()[0][-1] for run in runs] == ["0"] * 18 + ["1"] * 18 + ["2"] * 18
    assert last == f"{54 * 7} steps are left to make"


def test_flags_change_the_base_of_a_plan(tmp_path: Path) -> None:
    plan = written(tmp_path, "[base]\nsteps = 9\n[grid]\nlr = [1e-3]\n[[run]]\nname = 'own'\nchanges = { lr = 1.0 }")
    lines = dry(tmp_path, str(plan), "--steps", "5", "--refine", "2")
    assert lines[3:] == [
        "10 steps are left to make",
        "then finer1: 5 values of lr around the best",
        "then finer2: 5 values of lr around the best",
    ]


def test_values_with_commas_of_their_own_make_no_grid(tmp_path: Path) -> None:
    lines = dry(tmp_path, "--problems", "starter-sums,starter-products", "--lr", "1e-3,1e-4")
    assert lines[0].startswith("2 runs in")


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--seeds", "0", "--lr", "1e-3"], "count from 1"),
        (["--refine", "0", "--lr", "1e-3"], "--refine 0 adds no phase"),
        (["--lr", "1e-3,x"], "run lrx"),
        (["--lrs", "1e-3"], "does not know '--lrs'"),
        (["none.toml"], "cannot read the plan none.toml"),
    ],
)
def test_wrong_flags_are_told(tmp_path: Path, argv: list[str], message: str) -> None:
    with pytest.raises(UsageError) as refused:
        sweep.main([*argv, "--out", str(tmp_path / "s")])
    assert message in str(refused.value)
    assert not (tmp_path / "s").exists()


def test_an_out_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UsageError, match="exists and is no sweep"):
        sweep.main(["--lr", "1e-3,1e-4", "--out", str(tmp_path)])
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
