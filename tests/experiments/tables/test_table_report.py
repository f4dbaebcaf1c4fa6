from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from sparselab.experiments.tables.entries import Entry
from sparselab.experiments.tables.report import html
from sparselab.experiments.tables.schema import Table
from sparselab.experiments.tables.summary import Summary, summarise

EVIL = "</script><img src=x onerror=\"document.title='owned'\"><b>&amp;'"


class Parsed(HTMLParser):
    """Elements and their attributes, and the text of the data block."""

    def __init__(self, page: str):
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.data = ""
        self._inside = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag == "script" and dict(attrs).get("id") == "data"

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.data += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = False


@pytest.fixture
def page(table: Table, entries: list[Entry]) -> str:
    return html([summarise(table, "cpu", entries), summarise(table, "paper", [])])


def test_everything_is_in_the_file_and_nothing_is_fetched(page: str):
    parsed = Parsed(page)
    assert [tag for tag, _ in parsed.elements if tag in ("link", "img", "iframe", "object", "base")] == []
    assert not any(key in ("src", "srcset", "action") or key.startswith("on") for _, a in parsed.elements for key in a)
    assert {a["href"][0] for tag, a in parsed.elements if tag == "a" and a.get("href")} == {"#"}
    assert "default-src 'none'" in page
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)


def test_every_record_is_behind_a_link(page: str, entries: list[Entry]):
    parsed = Parsed(page)
    ((anchor, (data, layers)),) = json.loads(parsed.data).items()
    assert data["ids"] == [entry.id for entry in entries]
    links = [a["href"] for tag, a in parsed.elements if tag == "a" and str(a.get("href")).startswith("#r-")]
    assert anchor == data["anchor"] == "demo-cpu" and links == [f"#r-demo-cpu-{i}" for i in range(15)]
    row, column, seed, shape, values, overrides = data["records"][4]
    assert (data["name"], data["pool"][row], data["pool"][column], seed) == ("demo", "2:4", "ste", 1)
    shown = dict(zip((data["pool"][k] for k in data["shapes"][shape]), (data["pool"][v] for v in values), strict=True))
    assert shown["metrics.test.accuracy"] == "0.95"
    assert shown["environment.commit"] == "0123abc"
    assert [data["pool"][i] for i in overrides] == list(entries[4].cell.overrides)
    texts, of = layers
    assert json.loads(texts[of[4][0]]) == ["head", "10 × 64", "2:4", "0.5"]


def test_the_points_of_the_figure(page: str):
    ((table, _),) = json.loads(Parsed(page).data).values()
    line = table["lines"][2]
    assert (line["mean"], line["x"], line["values"], line["published"]["number"]) == (
        97.0,
        0.5,
        [96.9, 97.0, 97.1],
        97.0,
    )
    assert table["curves"] == [["ste", [0, 1, 3], [0, 0, 0]], ["srste", [0, 2, 4], [1, 1, 0]]]


def test_text_of_records_and_tables_is_escaped(table: Table, entries: list[Entry]):
    for entry in entries:
        entry.record.update({"id": EVIL, "environment": {EVIL: EVIL}, "data": {"title": EVIL}})
        entry.record["sparsity"]["layers"][0]["name"] = EVIL
    parsed = Parsed(html([summarise(table.model_copy(update={"differences": [EVIL]}), "cpu", entries)]))
    assert not any(tag in ("img", "b") for tag, _ in parsed.elements)
    assert json.loads(parsed.data)["demo-cpu"][0]["ids"][0] == EVIL


def test_an_empty_report_says_what_to_do(table: Table):
    assert "No record yet" in html([summarise(table, "cpu", [])])


def test_layers_beyond_the_budget_stay_in_the_records(
    table: Table, entries: list[Entry], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("sparselab.experiments.tables.report.LAYER_BUDGET", 10)
    data, layers = json.loads(Parsed(html([summarise(table, "cpu", entries)])).data)["demo-cpu"]
    assert layers is None and len(data["records"]) == len(entries)
    assert not any(text.startswith("[") for text in data["pool"])


class Chromium:
    """A headless Chromium, spoken to over two pipes in its own protocol."""

    def __init__(self, binary: str, profile: Path, size: str = "1200,900"):
        here_out, there_in = os.pipe()
        there_out, here_in = os.pipe()
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--window-size={size}"]
        command = ["bash", "-c", f'exec "$@" 3<&{there_out} 4>&{there_in}', "bash", binary, *flags]
        self.process = subprocess.Popen(
            [*command, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(there_out, there_in),
            stderr=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        os.close(there_in)
        os.close(there_out)
        self.read, self.write = os.fdopen(here_out, "rb"), os.fdopen(here_in, "wb")
        self.number, self.events, self.session = 0, [], None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Page", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.write.write(json.dumps(message).encode() + b"\0")
        self.write.flush()
        while True:
            answer = self._next()
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _next(self) -> dict[str, Any]:
        found = bytearray()
        while (byte := self.read.read(1)) != b"\0":
            assert byte, "Chromium went away"
            found += byte
        return json.loads(found)

    def js(self, expression: str) -> Any:
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def open(self, path: Path) -> float:
        """Seconds until the page's script has run."""
        start = time.monotonic()
        self.call("Page.navigate", url=path.as_uri())
        while self.js("document.documentElement?.dataset.ready") != "true":
            assert time.monotonic() - start < 60
            time.sleep(0.02)
        return time.monotonic() - start

    def complaints(self) -> list[dict[str, Any]]:
        noisy = ("Runtime.exceptionThrown", "Log.entryAdded")
        console = [e for e in self.events if e.get("method") == "Runtime.consoleAPICalled"]
        return [e for e in self.events if e.get("method") in noisy] + console

    def fetched(self) -> list[str]:
        sent = [e for e in self.events if e.get("method") == "Network.requestWillBeSent"]
        return [e["params"]["request"]["url"] for e in sent]

    def close(self) -> None:
        with contextlib.suppress(OSError, AssertionError, ValueError):
            self.session = None
            self.call("Browser.close")
        self.process.wait(20)
        self.read.close()
        self.write.close()


@pytest.fixture
def chromium(tmp_path: Path) -> Iterator[Chromium]:
    binary = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if binary is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    browser = Chromium(binary, tmp_path / "profile")
    yield browser
    browser.close()


def test_in_a_real_browser(chromium: Chromium, tmp_path: Path, table: Table, entries: list[Entry]):
    entries[0].record["environment"]["commit"] = EVIL
    path = tmp_path / "report.html"
    path.write_text(html([summarise(table, "cpu", entries)]))
    chromium.open(path)
    js = chromium.js
    rows = "[...document.querySelectorAll('table.cells tbody tr')]"
    column = f"{rows}.filter(r => !r.hidden).map(r => r.cells[2].textContent.slice(0, 5)).join(' ')"
    assert js(column) == "98.00 95.00 97.00 94.00 96.00"

    # sorts by number, up, down and back, and says so to a screen reader
    head = "document.querySelectorAll('table.cells thead th')[2]"
    for state, order in (
        ("ascending", "94.00 95.00 96.00 97.00 98.00"),
        ("descending", "98.00 97.00 96.00 95.00 94.00"),
        ("none", "98.00 95.00 97.00 94.00 96.00"),
    ):
        js(f"{head}.querySelector('button').click()")
        assert js(f"{head}.getAttribute('aria-sort')") == state
        assert js(column) == order

    # filters by words, and by a claim
    field = "document.querySelector('input[type=search]')"
    js(f"{field}.value = '1:4 srste'; {field}.dispatchEvent(new Event('input'))")
    assert js(column) == "96.00"
    assert js("document.querySelector('.count').textContent") == "1 of 5 cells"
    js("document.querySelector('[data-filter=C2]').click()")
    assert js(column) == "98.00 97.00"

    # opens a record from its link, shows hostile text as text, and closes by Escape
    js("document.querySelector('a[href=\"#r-demo-cpu-0\"]').click()")
    js("new Promise(done => setTimeout(done, 100))")
    assert js("document.querySelector('dialog').open")
    assert js("document.querySelector('dialog h2').textContent") == f"Record {entries[0].id}"
    assert EVIL in js("document.querySelector('dialog').textContent")
    assert js("document.querySelectorAll('dialog img').length") == 0
    for kind in ("keyDown", "keyUp"):
        chromium.call("Input.dispatchKeyEvent", type=kind, key="Escape", code="Escape", windowsVirtualKeyCode=27)
    assert not js("document.querySelector('dialog').open")

    # the figure: means that the keyboard reaches, a dot for every seed, hollow published points
    js("document.querySelector('figure').scrollIntoView(); new Promise(done => setTimeout(done, 300))")
    assert js("document.querySelectorAll('figure .panels svg').length") == 2
    assert js("document.querySelector('svg').querySelectorAll('.mean[tabindex=\"0\"]').length") == 6
    assert js("document.querySelector('svg').querySelectorAll('.seed').length") == 18
    assert js("document.querySelector('svg').querySelectorAll('.bar').length") == 6
    assert js("document.querySelector('svg').querySelectorAll('.hollow').length") == 1
    js("document.querySelector('.seed').dispatchEvent(new MouseEvent('click')); new Promise(d => setTimeout(d, 100))")
    assert js("document.querySelector('dialog').open")
    js("document.querySelector('dialog').close()")
    js("document.querySelector('.mean').dispatchEvent(new KeyboardEvent('keydown', {key: 'Enter'}))")
    assert js("document.querySelectorAll('dialog li a').length") == 3
    js("document.querySelector('dialog').close()")

    # light and dark
    ink = "getComputedStyle(document.body).color"
    light = js(ink)
    js("document.querySelector('#theme').click(); document.querySelector('#theme').click()")
    assert js("document.documentElement.dataset.theme") == "dark"
    assert js(ink) != light
    assert js("document.title") == "sparselab report"

    # fits a phone: only the tables scroll sideways
    chromium.call("Emulation.setDeviceMetricsOverride", width=360, height=740, deviceScaleFactor=2, mobile=True)
    assert js("document.documentElement.scrollWidth") <= 360

    assert chromium.complaints() == []
    assert {url.split(":")[0] for url in chromium.fetched()} == {"file"}
    assert len(chromium.fetched()) == 1


def large(table: Table, fill: Callable[[Table, str], list[Entry]], rows: int, seeds: int) -> Summary:
    """A table of ``rows`` x 2 cells over ``seeds``."""
    names = {f"{n % 4 + 1}:{n + 8}": [f"sparsity={n % 4 + 1}:{n + 8}"] for n in range(rows)}
    tier = table.tiers["cpu"].model_copy(update={"seeds": list(range(seeds))})
    columns = {name: table.columns[name] for name in ("ste", "srste")}
    update = {"rows": names, "columns": columns, "tiers": {"cpu": tier}, "exclude": [], "reference": None}
    big = table.model_copy(update={**update, "published": [], "claims": table.claims[:1]})
    return summarise(big, "cpu", fill(big, "cpu"))


@pytest.mark.slow  # seconds are measured: by hand, not where machines are shared
def test_ten_thousand_records_in_a_browser(
    chromium: Chromium, tmp_path: Path, table: Table, fill: Callable[[Table, str], list[Entry]]
):
    summaries = [large(table, fill, 1000, 5)]
    start = time.monotonic()
    page = html(summaries)
    assert summaries[0].done == 10_000
    assert time.monotonic() - start < 5
    assert len(page.encode()) < 5_000_000
    path = tmp_path / "report.html"
    path.write_text(page)
    assert chromium.open(path) < 5  # about 0.5 s where nothing else runs
    assert chromium.js("document.querySelectorAll('table.cells tbody tr').length") == 2000
    assert chromium.complaints() == []
