"""The page as a visitor has it: ``mmmos app`` in a process of its own, files dropped in a headless Chromium."""

import csv
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest
import soundfile

from mmmos import scoring
from mmmos.app import demo

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium, which drives the browser, is not installed")

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.skipif(find_spec("gradio") is None, reason="the extra 'app' is not installed"),
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium"),
    pytest.mark.skipif(DRIVER is None, reason="there is no chromedriver"),
]

FLAGS = (
    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--window-size=1280,1600"),
)
PATIENCE = 60  # s
ROWS, NAMES = ".m-part tbody tr", ".m-part tbody th"


class Server:
    """``mmmos app`` with the demo bundle, in a process that is started anew when it has ended.

    ``scorer``: what it must agree with; ``temporary``: its temporary folder.
    """

    def __init__(self, folder: Path, bundle: Path) -> None:
        self.folder, self.temporary = folder, folder / "temporary"
        self.temporary.mkdir()
        self.said = folder / "stderr"
        self.scorer = scoring.load(bundle, device="cpu", threads=1)
        self.process: subprocess.Popen | None = None
        self.address = ""

    def start(self) -> None:
        if self.process is not None and self.process.poll() is None:
            return
        environment = os.environ | {"XDG_CACHE_HOME": str(self.folder / "cache"), "TMPDIR": str(self.temporary)}
        command = [sys.executable, "-c", "from mmmos.cli import main; main()"]
        arguments = ["app", "--port", "0", "--no-browser", "--device", "cpu"]
        with self.said.open("w") as said:
            self.process = subprocess.Popen([*command, *arguments], stderr=said, env=environment)
        self.address = self._address(self.process)

    def _address(self, process: subprocess.Popen) -> str:
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and process.poll() is None:
            found = re.search(r"http://127\.0\.0\.1:\d+/", self.said.read_text())
            if found:
                return found[0]
            time.sleep(0.1)
        self.stop()
        raise AssertionError(self.said.read_text())

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()


@pytest.fixture(scope="session")
def one_server(tiny_workspace, tmp_path_factory):
    """The page with the demo bundle, made of the workspace that other tests share."""
    folder = tmp_path_factory.mktemp("app")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmmos.demo.make_corpus", lambda to, **_: copied(tiny_workspace, to))
        bundle = demo.demo_bundle(folder / "cache" / "mmmos" / "demo-bundles")
    server = Server(folder, bundle)
    yield server
    server.stop()


@pytest.fixture
def server(one_server):
    one_server.start()
    return one_server


def copied(workspace: Path, to: Path) -> Path:
    return Path(shutil.copytree(workspace, to, dirs_exist_ok=True)) / "challenge.toml"


@pytest.fixture(scope="session")
def browser(one_server):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in (*FLAGS, f"--user-data-dir={one_server.folder / 'profile'}"):
        options.add_argument(flag)
    options.add_experimental_option("prefs", {"download.default_directory": str(one_server.folder / "downloads")})
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


@pytest.fixture
def page(server, browser):
    """The page, freshly loaded; at the end nothing was asked of other hosts, and the console is empty."""
    browser.get(server.address)
    until(browser, lambda: browser.find_elements(By.CSS_SELECTOR, ".m-drop input"))
    yield browser
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"]
    sockets = [e["params"]["url"] for e in events if e["method"] == "Network.webSocketCreated"]
    hosts = {urlsplit(url).netloc for url in asked + sockets if urlsplit(url).scheme in ("http", "https", "ws", "wss")}
    assert hosts <= {urlsplit(server.address).netloc}
    assert browser.get_log("browser") == []


def until(browser, condition):
    return WebDriverWait(browser, PATIENCE, 0.05).until(lambda _: condition())


def drop(page, *batches):
    """Give batches of files to the page, one right after the other, and wait for their rows."""
    before = len(page.find_elements(By.CSS_SELECTOR, ROWS))
    for paths in batches:
        page.find_element(By.CSS_SELECTOR, ".m-drop input").send_keys("\n".join(map(str, paths)))
    until(page, lambda: len(page.find_elements(By.CSS_SELECTOR, ROWS)) == before + sum(map(len, batches)))
    until(page, lambda: not page.find_elements(By.CSS_SELECTOR, ".m-status"))


def details(page, name):
    """The text of the details once they are of a file."""

    def shown():
        texts = [each.text for each in page.find_elements(By.CSS_SELECTOR, ".m-details")]
        return texts[0] if texts and texts[0].startswith(name) else None

    return until(page, shown)


def tone(path, seconds=3.0, rate=44_100):
    time_axis = np.arange(round(seconds * rate)) / rate
    soundfile.write(path, 0.2 * np.sin(2 * np.pi * 300 * time_axis * (1 + time_axis / 10)), rate)
    return path


def text_file(path):
    path.write_text("dear diary, this is no audio\n" * 20)
    return path


def test_four_scores_are_the_scorers(page, server, tmp_path):
    path = tone(tmp_path / "tone.wav")
    drop(page, [path])
    details(page, "tone.wav")
    (score,) = server.scorer.stream([scoring.inputs.Clip("x", str(path))])
    shown = {
        card.get_attribute("data-axis"): card.find_element(By.CSS_SELECTOR, ".m-score b").text
        for card in page.find_elements(By.CSS_SELECTOR, ".m-card")
    }
    assert shown == {axis: f"{value:.1f}" for axis, value in score.scores.items()}
    assert page.find_element(By.CSS_SELECTOR, "h1").text == "demo"
    assert "says nothing about people" in page.find_element(By.CSS_SELECTOR, ".m-head").text
    assert "% of the rated clips" in page.find_element(By.CSS_SELECTOR, ".m-cards").text


def test_the_sound_plays_and_the_curve_follows_the_axis(page, tmp_path):
    drop(page, [tone(tmp_path / "tone.wav")])
    details(page, "tone.wav")
    until(page, lambda: page.execute_script("return document.querySelector('audio').duration") or None)
    assert page.execute_script("return document.querySelector('audio').duration") == pytest.approx(3, abs=0.1)
    page.find_element(By.CSS_SELECTOR, '.m-axes [data-axis="CE"]').click()
    shown = [each for each in page.find_elements(By.CSS_SELECTOR, ".curve") if each.is_displayed()]
    assert [each.get_attribute("data-axis") for each in shown] == ["CE"]
    page.find_element(By.CSS_SELECTOR, ".m-box").click()
    middle = until(page, lambda: page.execute_script("return document.querySelector('audio').currentTime"))
    assert middle == pytest.approx(1.5, abs=0.1)


def test_a_text_file_has_a_reason_in_words(page, server, tmp_path):
    drop(page, [text_file(tmp_path / "notes.wav")])
    text = details(page, "notes.wav")
    assert "the content is not audio" in text
    assert str(server.temporary) not in page.page_source
    assert not page.find_elements(By.CSS_SELECTOR, ".m-card")


def test_several_files_are_compared_and_downloaded(page, server, tmp_path):
    name = "<b>${7*7} {{7*7}} ñandú, a rather long name of a take (2).wav"
    paths = [
        tone(tmp_path / "one.wav", 2),
        text_file(tmp_path / "notes.wav"),
        tone(tmp_path / name, 1.2),
        tone(tmp_path / "click.wav", 0.05),
    ]
    drop(page, paths[:3], paths[3:])
    wanted = [path.name for path in paths]
    assert [row.text for row in page.find_elements(By.CSS_SELECTOR, NAMES)] == wanted
    rows = page.find_elements(By.CSS_SELECTOR, ROWS)
    assert "not scored: less than 0.1 s of audio" in rows[3].text
    rows[2].find_element(By.TAG_NAME, "button").click()
    details(page, name)

    page.find_element(By.CSS_SELECTOR, 'thead button[data-column="5"]').click()
    by_length = [row.text for row in page.find_elements(By.CSS_SELECTOR, NAMES)]
    assert by_length == ["one.wav", name, "notes.wav", "click.wav"]

    page.find_element(By.LINK_TEXT, "Download CSV").click()
    file = server.folder / "downloads" / "scores.csv"
    until(page, file.is_file)
    with file.open(encoding="utf-8", newline="") as opened:
        table = list(csv.DictReader(opened))
    assert [row["id"] for row in table] == wanted
    assert [row["reason"] for row in table] == ["", "not_audio", "", "too_short"]
    (score,) = server.scorer.stream([scoring.inputs.Clip("x", str(paths[0]))])
    assert {axis: float(table[0][axis]) for axis in score.scores} == pytest.approx(score.scores, abs=1e-6)

    page.find_element(By.CSS_SELECTOR, "[data-clear]").click()
    until(page, lambda: not page.find_elements(By.CSS_SELECTOR, ROWS))


def test_ctrl_c_ends_it_and_leaves_no_files(server):
    assert list(server.temporary.rglob("*"))
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(timeout=3) == 130
    assert not list(server.temporary.glob("mmmos-app-*"))
    assert "Traceback" not in server.said.read_text()
