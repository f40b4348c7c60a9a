"""The page as a person has it: numbers, curves that say their values, runs that go on meanwhile, what one looks for."""

import re
from collections.abc import Iterator
from contextlib import closing
from itertools import pairwise
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from rewards.verdict import Mark, Verdict
from rl.buffer.ledger import Buffer
from rl.core.rundir import RunDir
from rl.core.types import Group, Problem, Rollout, Sample
from rl.present.ink import COLOURS
from tests.observe.recorded import evaluation, log_evaluation, new_run, step_record
from tests.page.service import NEEDS_CHROMIUM, ROOT, Service, listened, served
from tests.present.studies import STEPS, recorded_run

pytestmark = NEEDS_CHROMIUM
GROUPS = 20
VIEWS = ("/", "/run/slow", "/completions/slow", "/completions/slow?set=heldout", "/config/slow", "/audit/slow")
VIEWS += ("/compare?run=slow&run=fast", "/run/nothing")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs, of one of them with the groups that it was trained on: one a step, a right and a wrong sample each."""
    root = tmp_path_factory.mktemp("browser") / "runs"
    slow = recorded_run(root / "slow", "--lr", "1e-5", gain=0.5)
    recorded_run(root / "fast", "--lr", "1e-3", gain=3.0)
    with closing(Buffer(slow.buffer_url, capacity=1_000, group_size=2)) as buffer:
        buffer.proved("p", 0, "ab")
        buffer.issue()
        for id in range(1, GROUPS + 1):
            buffer.put(_group(id))
        for step in range(10):
            leased = buffer.lease(1, policy_version=step, max_staleness=99)
            buffer.trained([group.id for group in leased])
    return root


def _group(id: int) -> Group:
    samples = [_sample(id, Mark.RIGHT), _sample(id, Mark.ERROR if id == 7 else Mark.WRONG)]
    if id == 7:
        samples.append(_sample(id, Mark.WRONG))
    problem = Problem(id=f"id-{id}", text=f"How much is {id} + {id}?", gold=str(2 * id))
    return Group(id=id, problem=problem, prompt_ids=[3, 4], policy="p", adapter_sha256="ab", samples=samples)


def _sample(id: int, mark: Mark) -> Sample:
    rollout = Rollout(
        token_ids=[5, 6, 1],
        sampler_logprobs=[-0.5, -0.25, -0.125],
        policy_version=0,
        finish_reason="length" if id == 9 and mark is Mark.WRONG else "stop",
        text=f"{mark.value} of {id}",
    )
    answer = str(2 * id) if mark is Mark.RIGHT else None
    verdict = Verdict(mark=mark, reason=f"{mark.value} by hand", answer=answer, gold=str(2 * id), rule="last box")
    return Sample(rollout=rollout, verdict=verdict)


@pytest.fixture(scope="module")
def service(root: Path) -> Iterator[Service]:
    with served(root) as service:
        yield service


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    page = chromium.new_page(viewport={"width": 1200, "height": 900})
    yield page
    page.close()


def curve(name: str) -> str:
    return f'figure[data-names="{name}"]'


# ---- what is seen


def test_a_run_and_its_numbers(service: Service, page: Page, root: Path) -> None:
    heard = listened(page, service.url)
    page.goto(f"{service.url}/run/slow")
    expect(page.locator(curve("reward"))).to_be_visible()
    assert page.title() == "slow – Tally"
    assert page.inner_text(".standing") == f"ended: all {STEPS} steps are made"
    newest = [record for record in RunDir(root / "slow").records() if record["kind"] == "eval"][-1]["summary"]["pass@1"]
    told = f"{newest['value']:.3f} [{newest['low']:.3f}, {newest['high']:.3f}]"
    rows = page.locator('tbody[data-items="tables.0.brief"] tr')
    assert rows.nth(1).locator("td").last.inner_text() == told
    assert re.fullmatch(r"[+−]0\.\d{3} \[[+−]0\.\d{3}, [+−]0\.\d{3}\]", rows.last.locator("td").last.inner_text())
    shown = page.locator("figure:visible")
    assert shown.count() >= 10
    assert all(name in page.inner_text("main") for name in ("grad_norm", "staleness_max", "wait_s", "mismatch_kl"))
    groups = page.locator('tbody[data-items="groups"] tr').all_inner_texts()
    assert dict(row.split("\t")[:2] for row in groups)["trained"] == "10"
    assert heard.nothing, heard


def test_a_curve_says_its_values_where_one_points(service: Service, page: Page) -> None:
    page.goto(f"{service.url}/run/slow")
    reward, other = page.locator(curve("reward")), page.locator(curve("entropy"))
    expect(reward).to_be_visible()
    newest = reward.locator(".legend").inner_text()
    reward.locator("svg").hover(position={"x": 60, "y": 80})
    expect(reward.locator(".cross line")).to_have_count(1)
    assert reward.locator(".legend").inner_text() != newest
    step = int(reward.locator("svg").get_attribute("aria-valuenow") or 0)
    assert 1 <= step < STEPS / 4
    assert other.locator("svg").get_attribute("aria-valuenow") == str(step)  # all point at the same step
    page.mouse.move(0, 0)
    expect(reward.locator(".cross line")).to_have_count(0)
    assert reward.locator(".legend").inner_text() == newest


def test_a_curve_says_its_values_to_the_keyboard(service: Service, page: Page, root: Path) -> None:
    page.goto(f"{service.url}/run/slow")
    svg = page.locator(f"{curve('reward')} svg")
    expect(svg).to_be_visible()
    svg.focus()
    records = [record for record in RunDir(root / "slow").records() if record["kind"] == "step"]
    for key, step in (("Home", 1), ("ArrowRight", 2), ("End", STEPS), ("ArrowLeft", STEPS - 1)):
        svg.press(key)
        said = svg.get_attribute("aria-valuetext") or ""
        assert said.startswith(f"step {step}: reward ")
        assert said.endswith(f", {records[step - 1]['reward']:#.3g}")
    svg.press("Home")
    svg.press("Enter")
    page.wait_for_url("**/completions/slow?step=1")
    assert page.locator(".card").count() == 1


def test_two_runs_over_each_other(service: Service, page: Page) -> None:
    heard = listened(page, service.url)
    page.goto(service.url)
    assert page.locator("tbody tr").count() == 2
    for name in ("slow", "fast"):
        page.get_by_label(f"compare {name}").check()
    page.get_by_role("button", name="Compare").click()
    figure = page.locator('figure[data-metric="reward"]')
    expect(figure.locator(".legend .name")).to_have_text(["fast", "slow"])
    assert figure.locator("path.line").count() == 2
    settings = page.locator('tbody[data-items="differing"] tr').all_inner_texts()
    assert [row.split("\t") for row in settings] == [["lr", "0.001", "1e-5"]]
    rows = page.locator('tbody[data-items="pass"] tr').all_inner_texts()
    assert "[" in rows[1].split("\t")[-1]
    assert heard.nothing, heard


# ---- completions


def marks(page: Page) -> list[str]:
    return [text.split()[0] for text in page.locator(".completion .mark").all_inner_texts()]


def test_completions_are_found_by_what_they_are(service: Service, page: Page) -> None:
    page.goto(f"{service.url}/completions/slow")
    assert page.locator(".card h2").first.inner_text().startswith("group 20, ready")
    first = page.locator(".completion").first.inner_text()
    for told in (
        "right",
        "reward 1",
        "answer 40",
        "(last box)",
        "right by hand",
        "version 0",
        "3 tokens",
        "right of 20",
    ):
        assert told in first
    assert "gold 40" in page.locator(".card").first.inner_text()
    for verdict, expected in (("wrong", 8 * ["wrong"]), ("error", ["error"]), ("truncated", ["wrong"])):
        page.get_by_label("verdict").select_option(verdict)
        page.get_by_role("button", name="Show").click()
        assert marks(page) == expected
    page.goto(f"{service.url}/completions/slow")
    page.get_by_label("step").fill("3")
    page.get_by_role("button", name="Show").click()
    assert page.locator(".card h2").all_inner_texts() == ["group 3, trained in step 3, mean reward 0.50"]
    page.get_by_label("step").fill("")
    page.get_by_role("textbox", name="problem").fill("much is 12 +")
    page.get_by_role("button", name="Show").click()
    assert page.locator(".card").count() == 1
    assert "How much is 12 + 12?" in page.inner_text(".problem")


def test_all_groups_are_on_the_pages_once(service: Service, page: Page) -> None:
    page.goto(f"{service.url}/completions/slow")
    found = page.locator(".card h2").all_inner_texts()
    while (following := page.get_by_role("link", name="next page")).count():
        following.click()
        found += page.locator(".card h2").all_inner_texts()
    assert [int(re.findall(r"\d+", title)[0]) for title in found] == list(range(GROUPS, 0, -1))


def test_right_at_first_and_wrong_now(service: Service, page: Page) -> None:
    page.goto(f"{service.url}/run/slow")
    page.get_by_role("link", name="the reverse").click()
    assert re.match(
        r"48 questions; right at step 0 and wrong at step 40: \d+; the reverse: \d+", page.inner_text("form + p")
    )
    titles = page.locator(".card").first.locator("h2").all_inner_texts()
    assert [title.rpartition(",")[0] for title in titles] == ["heldout at step 0", f"heldout at step {STEPS}"]
    right = [int(re.search(r"(\d) of 4 right", title)[1]) for title in titles]  # type: ignore[index]
    assert right[0] <= 2 < right[1]


# ---- a run that goes on


def test_the_page_of_a_run_goes_on_with_it(tmp_path: Path, page: Page) -> None:
    run = new_run(tmp_path / "runs" / "live", "--steps", "30")
    with served(tmp_path / "runs") as service, run.locked():
        heard = listened(page, service.url)
        page.goto(f"{service.url}/run/live")
        expect(page.locator(".standing")).to_have_text("starting")
        tile = page.locator(".tiles .value").first
        expect(tile).to_have_text("0")
        for step in range(1, 9):
            run.log(**step_record(step, reward=step / 10))
        expect(tile).to_have_text("8")
        expect(page.locator(".standing")).to_have_text("running")
        expect(page.locator(f"{curve('reward')} .own")).to_have_text("0.800")
        run.log(**step_record(9, reward=0.9))
        expect(page.locator(f"{curve('reward')} .own")).to_have_text("0.900")
        run.log(kind="restart", step=9, worker="server", why="was killed by SIGKILL", attempt=1)
        expect(page.get_by_text("the server was killed by SIGKILL")).to_be_visible()
        log_evaluation(run, evaluation(9, {"1+1": 4, "2+2": 2}))
        expect(page.locator('tbody[data-items="tables.0.brief"] tr').nth(1)).to_contain_text("0.750 [")
        for step in range(5, 7):  # a resume went back
            run.log(**step_record(step, reward=0.55))
        expect(tile).to_have_text("6")
        expect(page.locator(f"{curve('reward')} .own")).to_have_text("0.550")
        for step in range(7, 31):
            run.log(**step_record(step, reward=0.0, grad_norm=float("nan")))
        expect(page.locator(".findings li").first).to_be_visible()
        expect(page.locator(f"{curve('grad_norm')} .own")).to_contain_text("24 not finite")
        expect(page.locator(".standing")).to_contain_text("ending: all 30 steps are made")
        assert heard.nothing, heard


def test_the_end_of_a_run_is_told(tmp_path: Path, page: Page) -> None:
    run = new_run(tmp_path / "runs" / "live", "--steps", "2")
    with served(tmp_path / "runs") as service:
        with run.locked():
            run.log(**step_record(1))
            page.goto(f"{service.url}/run/live")
            expect(page.locator(".standing")).to_have_text("running")
            run.log(**step_record(2))
        expect(page.locator(".standing")).to_have_text("ended: all 2 steps are made")
        expect(page.locator("#pulse")).to_have_attribute("data-is", "done")


def test_the_list_of_runs_goes_on_with_them(tmp_path: Path, page: Page) -> None:
    run = new_run(tmp_path / "runs" / "one", "--steps", "9")
    with served(tmp_path / "runs") as service:
        page.goto(service.url)
        page.get_by_label("compare one").check()
        with run.locked():
            run.log(**step_record(1))
            expect(page.locator("tbody tr")).to_contain_text("running")
            expect(page.locator("tbody tr")).to_contain_text("1 / 9")
            assert page.get_by_label("compare one").is_checked()
        new_run(tmp_path / "runs" / "two")
        expect(page.locator("tbody tr")).to_have_count(2)


def test_a_server_that_is_gone_is_told(root: Path, page: Page) -> None:
    with served(root) as service:
        page.goto(service.url)
        expect(page.locator("#pulse")).to_contain_text("updated")
    expect(page.locator("#pulse")).to_contain_text("no answer from the page's server")


# ---- for every eye


@pytest.mark.parametrize(("scheme", "background"), [("light", "rgb(255, 255, 255)"), ("dark", "rgb(21, 23, 26)")])
def test_it_follows_light_and_dark(service: Service, page: Page, scheme: str, background: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.goto(f"{service.url}/run/slow")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == background


def test_its_colours_are_those_of_the_reports() -> None:
    style = (ROOT / "rl" / "page" / "static" / "page.css").read_text()
    light = style[: style.index("@media (prefers-color-scheme: dark)")]
    assert tuple(re.findall(r"--arm\d: (#\w+);", light)) == COLOURS


@pytest.mark.parametrize("path", VIEWS)
def test_nothing_is_wider_than_a_phone(service: Service, page: Page, path: str) -> None:
    page.set_viewport_size({"width": 360, "height": 700})
    page.goto(service.url + path)
    page.wait_for_load_state("networkidle")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360


@pytest.mark.parametrize("path", VIEWS)
def test_it_is_for_those_who_hear_it_or_use_the_keyboard(service: Service, page: Page, path: str) -> None:
    page.goto(service.url + path)
    page.wait_for_load_state("networkidle")
    assert page.locator("h1").count() == page.locator("main").count() == 1
    assert page.evaluate("document.documentElement.lang") == "en"
    nameless = """() => [...document.querySelectorAll("a, button, input, select, svg[role], [role=region]")]
      .filter((e) => !(e.labels?.length || e.getAttribute("aria-label") || e.textContent.trim()))
      .map((e) => e.outerHTML)"""
    assert page.evaluate(nameless) == []
    levels = [int(tag[1]) for tag in page.locator("h1, h2, h3").evaluate_all("all => all.map((e) => e.tagName)")]
    assert all(after - before <= 1 for before, after in pairwise(levels))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
