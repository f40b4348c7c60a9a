"""The page as a user has it: `python -m rl.web` in a process of its own, and a real Chromium that asks it."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NEEDS_CHROMIUM = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
ALONE = ("--no-sandbox", "--disable-background-networking", "--host-resolver-rules=MAP * ~NOTFOUND , EXCLUDE 127.0.0.1")
"""It reaches nobody but this machine."""


@dataclass(frozen=True)
class Service:
    url: str
    process: psutil.Process
    client: httpx.Client

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.client.get(self.url + path, **options)


@contextmanager
def served(root: Path, *flags: str, says: str = "", **environment: str) -> Iterator[Service]:
    """The page of a folder on a free port; it must end by itself when it is told to.

    Args:
        says: on stderr, until then.
    """
    command = [sys.executable, "-m", "rl.web", str(root), "--port", "0", *flags]
    env = {**{n: v for n, v in os.environ.items() if not n.startswith("TALLY_")}, **environment}
    process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        assert process.stderr
        line = process.stdout.readline()
        found = re.search(r"http://\S+:\d+", line)
        assert found, line + process.stderr.read()
        with httpx.Client(timeout=60, verify=False) as client:  # certificates take longer than most answers
            yield Service(found[0].replace("0.0.0.0", "127.0.0.1"), psutil.Process(process.pid), client)
        process.terminate()
        _, errors = process.communicate(timeout=20)
        assert process.returncode == 0
        assert errors == says
    finally:
        process.kill()
        process.communicate()


@contextmanager
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ALONE))
        try:
            yield chromium
        finally:
            chromium.close()


@dataclass
class Heard:
    """What a page did that it should not do."""

    console: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)

    @property
    def nothing(self) -> bool:
        return not (self.console or self.errors or self.dialogs or self.elsewhere)


def listened(page: Page, url: str) -> Heard:
    """Begins to listen.

    Args:
        url: where it may ask.
    """
    heard = Heard()
    page.on("console", lambda message: heard.console.append(message.text))
    page.on("pageerror", lambda error: heard.errors.append(str(error)))
    page.on("request", lambda request: request.url.startswith(url) or heard.elsewhere.append(request.url))

    def on_dialog(dialog) -> None:  # type: ignore[no-untyped-def]
        heard.dialogs.append(dialog.message)
        dialog.dismiss()

    page.on("dialog", on_dialog)
    return heard
