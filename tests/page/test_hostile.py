"""Hostile text is text: in a real browser no page of a run that is nothing but attacks does anything but show them."""

import re
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest
from playwright.sync_api import Browser

from rl.observe.show import printable
from tests.observe.recorded import new_run
from tests.page.hostile import ATTACKS, NAME, hostile_run
from tests.page.service import NEEDS_CHROMIUM, Service, listened, served

RUN = quote(NAME)
SET = quote(NAME, safe="")
PAGES = {
    "runs": "/",
    "run": f"/run/{RUN}",
    "newest": f"/completions/{RUN}",
    "oldest": f"/completions/{RUN}?order=oldest",
    "second page": f"/completions/{RUN}?after=16",
    "last page": f"/completions/{RUN}?after=8",
    "alone": f"/completions/{RUN}?group=20",
    "found": f"/completions/{RUN}?problem={quote(ATTACKS['script'], safe='')}",
    "evaluation": f"/completions/{RUN}?set=heldout",
    "evaluation of a set": f"/completions/{RUN}?set={SET}",
    "changed": f"/completions/{RUN}?set={SET}&change=lost&step=5",
    "unknown set": f"/completions/{RUN}?set={quote(ATTACKS['end of an attribute'], safe='')}",
    "config": f"/config/{RUN}",
    "audit": f"/audit/{RUN}",
    "compare": f"/compare?run={SET}&run=other",
    "no such run": f"/run/{quote(ATTACKS['end of an attribute'])}",
    "no such page": f"/{quote(ATTACKS['end of an attribute'], safe='')}",
    "no such verdict": f"/completions/{RUN}?verdict={quote(ATTACKS['script'], safe='')}",
}
STRANGE = """() => [
  ...document.querySelectorAll("img, iframe, object, base, meta[http-equiv], style, script:not([src])"),
  ...[...document.querySelectorAll("*")].filter((e) => e.getAttributeNames().some((n) => /^(on|style$)/.test(n))),
].map((element) => element.outerHTML)"""
"""What no page of ours has."""


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    root: Path = tmp_path_factory.mktemp("hostile")
    hostile_run(root)
    new_run(root / "other", "--wandb-tags", "quiet")
    with served(root) as service:
        yield service


@NEEDS_CHROMIUM
@pytest.mark.parametrize("name", PAGES)
def test_a_browser_shows_it_and_does_nothing_else(hostile: Service, chromium: Browser, name: str) -> None:
    page = chromium.new_page()
    heard = listened(page, hostile.url)
    answer = page.goto(hostile.url + PAGES[name])
    page.wait_for_load_state("networkidle")
    for summary in page.locator("summary").all():
        summary.click()
    assert answer is not None
    assert answer.status == (
        404 if name in ("no such run", "no such page") else 400 if name == "no such verdict" else 200
    )
    if answer.status != 200:
        heard.console = [line for line in heard.console if f"status of {answer.status}" not in line]
    assert heard.nothing, heard
    assert page.evaluate(STRANGE) == []
    assert page.evaluate("document.scripts.length") == 1
    page.close()


@NEEDS_CHROMIUM
def test_each_attack_is_there_to_be_read(hostile: Service, chromium: Browser) -> None:
    page = chromium.new_page()
    shown = ""
    for after in ("", "?after=16", "?after=8"):
        page.goto(f"{hostile.url}/completions/{RUN}{after}")
        shown += "\n".join(page.locator("pre").all_text_contents())
    for name, text in ATTACKS.items():
        assert printable(text[:3_000]) in shown, name
    assert "991,000 characters" in shown
    page.goto(f"{hostile.url}/config/{RUN}")
    assert "<script>alert(1)</script>" in page.inner_text("main")
    assert page.inner_text("h1").startswith('"><img src=x onerror=alert(1)> {{ 7*7 }}')
    page.close()


@pytest.mark.parametrize("path", [*PAGES.values(), f"/live/{RUN}", "/live", f"/compared?run={SET}"])
def test_no_answer_has_what_hides_or_turns_text(hostile: Service, path: str) -> None:
    text = hostile.get(path).text
    assert (
        re.findall(r"[^\n -~\xa0-\U0010ffff]|[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff\u2028\u2029\xad]", text)
        == []
    )
    assert "49" not in re.findall(r"\{\{ 7\*7 \}\}|\b49\b", text)


def test_what_was_searched_for_comes_back_as_text(hostile: Service) -> None:
    for name, attack in ATTACKS.items():
        if len(attack) < 1000:
            answer = hostile.get(f"/completions/{RUN}", params={"problem": attack})
            assert answer.status_code == 200, name
            assert attack not in answer.text or not re.search(r"[<>\"']", attack), name
