"""How soon a page is there, and what its server keeps, of a run of 10,000 steps and 1M samples.

python -m tests.page.bench [RUN]
"""

import sys
import tempfile
from pathlib import Path
from statistics import median

from playwright.sync_api import Browser, Page

from tests.page.large import large_run
from tests.page.service import Service, browser, served

LOADS, AGAIN = 200, 5
VIEWS = ("/run/{}", "/completions/{}", "/completions/{}?step=5000", "/completions/{}?verdict=wrong&order=worst")
FIRST_PAINT = """() => new Promise((done) => {
  const known = performance.getEntriesByName("first-contentful-paint");
  if (known.length) return done(known[0].startTime);
  new PerformanceObserver((list) => {
    const paint = list.getEntriesByName("first-contentful-paint");
    if (paint.length) done(paint[0].startTime);
  }).observe({ type: "paint", buffered: true });
})"""
SENT = "() => performance.getEntries().reduce((sum, entry) => sum + (entry.transferSize ?? 0), 0)"


def painted(chromium: Browser, url: str) -> tuple[float, int]:
    """(milliseconds until something is seen, bytes until all is drawn) for somebody who was never there before."""
    context = chromium.new_context()
    try:
        page = context.new_page()
        page.goto(url)
        first = page.evaluate(FIRST_PAINT)
        page.wait_for_load_state("networkidle")
        return first, page.evaluate(SENT)
    finally:
        context.close()


def measure(root: Path, name: str) -> None:
    with browser() as chromium:
        for view in ("/health", "/", *VIEWS):  # the first is a word, which tells what browser and machine take
            url = view.format(name)
            with served(root) as service:  # a server that has read nothing yet
                cold, size = painted(chromium, service.url + url)
                again = [painted(chromium, service.url + url)[0] for _ in range(AGAIN)]
            print(f"{url:55} first paint {cold:4.0f} ms, then {median(again):4.0f} ms; {size / 1000:4.0f} kB")
        with served(root) as service:
            _loads(service, chromium.new_page(), name)


def _loads(service: Service, page: Page, name: str) -> None:
    began = service.process.memory_info().rss
    first = 0
    for number in range(LOADS):
        page.goto(service.url + VIEWS[number % len(VIEWS)].format(name))
        page.wait_for_load_state("load")
        if number == len(VIEWS):
            first = service.process.memory_info().rss
    ended = service.process.memory_info().rss
    at_first, at_end = (f"{rss / 1e6:.0f} MB" for rss in (first, ended))
    print(f"server's memory: {began / 1e6:.0f} MB at its start, {at_first} with the run, {at_end} after {LOADS} pages")


def main(argv: list[str]) -> None:
    if argv:
        run = Path(argv[0])
        measure(run.parent, run.name)
        return
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        large_run(root / "large")
        measure(root, "large")


if __name__ == "__main__":
    main(sys.argv[1:])
