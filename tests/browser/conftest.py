"""A real JupyterLab on this machine and a real Chromium; both are closed however a test ends."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from helpers.browsers import ARGUMENTS, browser_path

TOKEN = "caft-test"
TIMEOUT = 90_000  # milliseconds for one step; an idle machine needs 10 seconds for all of them
SETTINGS = {  # no news toast, and cells off the screen stay in the document
    "apputils-extension/notification": {"fetchNews": "false", "checkForUpdates": False},
    "notebook-extension/tracker": {"windowingMode": "none"},
}
RUN_ALL = """async () => {
  const app = window.jupyterapp;
  await app.restored;
  const notebook = app.shell.currentWidget;
  await notebook.context.ready;
  await notebook.sessionContext.ready;
  await notebook.sessionContext.session.kernel.info;  // Lab says idle before it is connected
  return await app.commands.execute("notebook:run-all-cells");
}"""


@dataclass
class Lab:
    """A running JupyterLab that serves `folder`."""

    folder: Path
    url: str


@pytest.fixture
def lab(tmp_path, store_folder) -> Iterator[Lab]:
    folder, settings = tmp_path / "notebooks", tmp_path / "settings"
    folder.mkdir()
    for name, values in SETTINGS.items():
        file = settings / "@jupyterlab" / f"{name}.jupyterlab-settings"
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps(values))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "JUPYTERLAB_WORKSPACES_DIR": str(tmp_path / "workspaces"),
        "JUPYTERLAB_SETTINGS_DIR": str(settings),
        "JUPYTER_PREFER_ENV_PATH": "1",
        "CAFT_STORE": str(store_folder),
    }
    command = [
        *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--expose-app-in-browser"),
        *("--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"),
        *(f"--IdentityProvider.token={TOKEN}", f"--ServerApp.root_dir={folder}"),
    ]
    log = tmp_path / "lab.log"
    with log.open("w") as output:
        server = subprocess.Popen(command, env=environment, stdout=output, stderr=output, cwd=folder)
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(f"{url}/api?token={TOKEN}", server, log)
        yield Lab(folder, url)
    finally:
        server.terminate()
        try:
            server.wait(20)  # it ends its kernels first
        except subprocess.TimeoutExpired:
            server.kill()


def _wait(url: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + TIMEOUT / 1000
    while server.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(url, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.25)
    raise RuntimeError(f"JupyterLab did not come up:\n{log.read_text()[-2000:]}")


@pytest.fixture
def page():
    """A page of a headless Chromium that fails the test on an error in the page's own scripts."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        path = browser_path() or driver.chromium.executable_path
        if not Path(path).exists():
            pytest.skip(
                "no Chromium found: install one (Debian: apt-get install chromium; else `playwright "
                "install chromium`), or name it in CAFT_BROWSER"
            )
        browser = driver.chromium.launch(executable_path=path, args=ARGUMENTS)
        try:
            page = browser.new_page(viewport={"width": 1280, "height": 1250})
            page.set_default_timeout(TIMEOUT)
            playwright.expect.set_options(timeout=TIMEOUT)
            errors: list[str] = []
            page.on("pageerror", lambda error: errors.append(str(error)))
            yield page
            assert errors == []
        finally:
            browser.close()


@pytest.fixture
def run_notebook(lab, page):
    """Return `run(name)`, which opens a notebook in JupyterLab and runs all its cells."""

    def run(name: str) -> None:
        page.goto(f"{lab.url}/lab/tree/{name}?token={TOKEN}")
        page.wait_for_function("window.jupyterapp?.shell?.currentWidget?.sessionContext", timeout=TIMEOUT)
        ran = page.evaluate(RUN_ALL)
        assert ran, page.locator(".jp-OutputArea").all_inner_texts()

    return run
