"""The page in a real browser, which is kept from any network: it renders, complains of nothing and asks for nothing."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from rl.present.report import write_report
from rl.present.study import read_study
from tests.present.studies import recorded_run

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of nine rates with two seeds."""
    root = tmp_path_factory.mktemp("page")
    runs = [
        recorded_run(root / f"lr{rate}e-5-seed{seed}", "--lr", f"{rate}e-5", "--seed", seed, gain=rate / 3).root
        for rate in range(1, 10)
        for seed in "01"
    ]
    return write_report(read_study(runs), root / "out")


def opened(page: Path, profile: Path, *flags: str) -> tuple[str, list[str]]:
    """The page as the browser has it, and what it wrote to its console."""
    assert CHROMIUM
    quiet = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-background-networking",
        "--enable-logging=stderr",
    ]
    alone = ["--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}"]
    answer = subprocess.run(
        [CHROMIUM, *quiet, *alone, *flags, page.as_uri()], capture_output=True, text=True, check=True, timeout=120
    )
    return answer.stdout, [line for line in answer.stderr.splitlines() if ":CONSOLE" in line]


def test_it_renders_without_a_network_and_without_a_complaint(page: Path, tmp_path: Path) -> None:
    dom, console = opened(page, tmp_path / "profile", "--dump-dom")
    assert console == []
    assert dom.count('role="img"') == 4
    assert len(re.findall(r'<th scope="row"', dom)) > 100
    assert dom.rstrip().endswith("</html>")


def test_it_asks_for_nothing_and_forbids_itself_to(page: Path) -> None:
    text = page.read_text()
    assert "default-src 'none'; style-src 'unsafe-inline'" in text
    links = re.findall(r'\b(?:src|href)="([^"]*)"', text) + re.findall(r"url\(([^)]*)\)", text)
    assert links
    assert [link for link in links if not link.startswith("#")] == []
    ids = re.findall(r'\bid="([^"]*)"', text)
    assert {link[1:] for link in links} <= set(ids)
    assert len(ids) == len(set(ids))
    assert page.stat().st_size < 5_000_000


def test_the_browser_would_have_told_of_a_picture_from_elsewhere(page: Path, tmp_path: Path) -> None:
    """Else the test above could not fail."""
    other = tmp_path / "other.html"
    other.write_text(page.read_text().replace("<main>", '<main><img src="http://elsewhere.example/x.png">'))
    _, console = opened(other, tmp_path / "profile", "--dump-dom")
    assert len(console) == 1
    assert "elsewhere.example" in console[0]


@pytest.mark.parametrize(("scheme", "background"), [("1", (255, 255, 255)), ("0", (21, 23, 26))], ids=["light", "dark"])
def test_it_follows_light_and_dark(page: Path, tmp_path: Path, scheme: str, background: tuple[int, int, int]) -> None:
    from PIL import Image

    picture = tmp_path / "picture.png"
    shot = (f"--screenshot={picture}", "--window-size=900,700", f"--blink-settings=preferredColorScheme={scheme}")
    opened(page, tmp_path / "profile", *shot)
    with Image.open(picture) as image:
        assert image.size == (900, 700)
        assert image.convert("RGB").getpixel((3, 3)) == background
