"""The MLflow UI of a database, and headless Chromium to look at it with."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests
from playwright.sync_api import Page, sync_playwright

#: None where there is no browser: Playwright drives the system's, for it can't fetch its own everywhere.
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
WIDTH, HEIGHT = 1600, 1080
# What the UI keeps of a person who has chosen "Model training" and has closed the assistant's panel.
_REMEMBERED = """
localStorage.setItem("mlflow.workflowType_v1", '"machine_learning"');
localStorage.setItem("mlflow.assistant.fab.autoOpenedOnFirstLoad_v1", "true");
localStorage.setItem("mlflow.assistant.panelOpen_v1", "false");
"""
_SECONDS = 240  # the server imports all of MLflow; test machines are busy


@contextmanager
def mlflow_ui(uri: str, folder: Path) -> Iterator[str]:
    """Serve MLflow's UI on a free loopback port; yield its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "ui", "--backend-store-uri", uri, "--workers", "1"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    with (
        (folder / "ui.log").open("wb") as log,
        subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True) as server,
    ):
        try:
            _wait(f"http://127.0.0.1:{port}", server, folder / "ui.log")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            try:
                server.wait(30)
            except subprocess.TimeoutExpired:
                server.kill()


@contextmanager
def browser_page(asked: list[str]) -> Iterator[Page]:
    """Yield a page of headless Chromium; `asked` receives the address of every request that it makes."""
    with sync_playwright() as playwright:
        # Root has no sandbox, containers little shared memory.
        options = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options)
        try:
            page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, timezone_id="UTC")
            page.add_init_script(_REMEMBERED)
            page.set_default_timeout(90_000)
            page.on("request", lambda request: asked.append(request.url))
            yield page
        finally:
            browser.close()


def _wait(address: str, server: subprocess.Popen, log: Path) -> None:
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        try:
            if requests.get(f"{address}/health", timeout=5).ok:
                return
        except requests.RequestException:
            time.sleep(0.5)
    raise AssertionError(f"mlflow ui does not answer: {log.read_text()[-2000:]}")
