"""The pages in a real browser: filters, sorting, playing, keys, repaired labels, hostile names, many clips, a phone."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import soundfile

from blending.candidates import Candidates
from blending.ensemble_folder import load_ensemble
from blending.label_errors import find_doubts
from configs.paths import Paths
from find_label_errors import repair
from input.competition import load_competition
from input.corrections import read_corrections
from pages.clips import clip_rows
from pages.page import render
from pages.repair import page_server, repair_data
from pages.sound import address
from report import report

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed: pip install -e '.[dev]'")
CLASSES = ("bark", "gong", "siren")
NOBODY = pd.DataFrame({"fname": [], "given": [], "suggested": []})


class Page:
    """A browser with a page open; errors of its script, and what its policy blocks, fail the test at the end."""

    def __init__(self, browser: Any, address: str) -> None:
        self.browser = browser
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        browser.get_log("browser")
        browser.get(address)

    def run(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def all(self, selector: str) -> list[Any]:
        return self.browser.find_elements("css selector", selector)

    def text(self, selector: str) -> str:
        """In one step: the row may be drawn again meanwhile."""
        return str(self.run("return document.querySelector(arguments[0]).innerText", selector))

    def press(self, *keys: str) -> None:
        webdriver.ActionChains(self.browser).send_keys(*keys).perform()

    def choose(self, selector: str, value: str) -> None:
        self.browser.find_element("css selector", f"{selector} option[value='{value}']").click()

    def names(self) -> list[str]:
        """Of the clips that are drawn, from above."""
        rows = "[...document.querySelectorAll('.clip:not(.probe)')]"
        script = f"return {rows}.map((row) => [Number(row.ariaPosInSet), row.querySelector('.name').innerText])"
        return [name for _, name in sorted(self.run(script))]

    def current(self) -> str:
        return self.text(".clip[aria-current=true] .name")

    def wait(self, is_true: Callable[[], Any], what: str) -> None:
        end = time.monotonic() + 20
        while not is_true():
            assert time.monotonic() < end, f"never: {what}"
            time.sleep(0.02)

    def play(self) -> None:
        """Space on the current clip, until its sound has moved on."""
        self.press(" ")
        self.wait_for_sound()

    def hear(self) -> None:
        self.play()
        self.wait_until_heard()

    def wait_until_heard(self) -> None:
        self.wait(lambda: self.text(".clip[aria-current=true] .decision") == "heard", "it was heard")

    def wait_for_sound(self) -> None:
        seconds = "return document.querySelector('.clip[aria-current=true] audio').currentTime"
        self.wait(lambda: self.run(seconds) > 0, "the sound moves")


@pytest.fixture
def look(chromium: Any) -> Iterator[Callable[[str | Path], Page]]:
    yield lambda where: Page(chromium, where if isinstance(where, str) else where.resolve().as_uri())
    assert not chromium.get_log("browser")


def made(clips: int, names: list[str] | None = None, classes: tuple[str, ...] = CLASSES) -> Candidates:
    """Two models of some clips: the first puts the true class first, the second the class after it."""
    truth = np.eye(len(classes), dtype=bool)[np.arange(clips) % len(classes)]
    sure = np.linspace(0.4, 0.9, clips)[:, None]
    one = np.where(truth, sure, (1 - sure) / (len(classes) - 1))
    oof = np.stack([one, np.roll(one, 1, axis=1)]).astype(np.float32)
    return Candidates(
        names=("one", "two"),
        ids=((), ()),
        classes=classes,
        fnames=tuple(names or [f"{i:05}.wav" for i in range(clips)]),
        truth=truth,
        verified=np.zeros(clips, bool),
        fold=np.zeros(clips, int),
        group=np.arange(clips),
        oof=oof,
        test_fnames=(),
        test=np.zeros((2, 0, len(classes))),
        test_faults={},
    )


def page_of(c: Candidates, file: Path, found: pd.DataFrame = NOBODY, **more: Any) -> Path:
    data = {"mode": "report", "title": "Title", "facts": [], "expected": "", "methods": None, "experiments": []}
    data |= {"curves": [], "confusion": None, "classes": list(c.classes), "models": list(c.names), "task": c.task}
    file.write_text(render(data | {"clips": clip_rows(c, c.oof[0], found)} | more))
    return file


@pytest.fixture
def own(blended: Paths, tmp_path: Path) -> Paths:
    shutil.copytree(blended.work, tmp_path / "work")
    return Paths(blended.input, tmp_path / "work")


def test_a_report_is_filtered_sorted_heard_and_read_aloud(own: Paths, look: Callable[[Path], Page]) -> None:
    page = look(report(own, [], "default"))
    blend = load_ensemble(own.ensemble("default"))
    table = load_competition(own.input).train.set_index("fname")
    first = dict(zip(blend.oof.fnames, (blend.blend.classes[k] for k in blend.oof.probs.argmax(1)), strict=True))
    wrong = [fname for fname, label in first.items() if label != table["label"][fname]]
    n = len(first)
    low, high = blend.comparison.expected.interval
    assert f"lies between {low:.3f} and {high:.3f}." in page.text("#page")
    assert page.text("#count") == f"{n} of {n} clips"

    page.choose("#only", "wrong")
    assert page.text("#count") == f"{len(wrong)} of {n} clips" and 0 < len(wrong) < n
    label = table["label"][wrong[0]]
    page.choose("#label", str(blend.blend.classes.index(label)))
    of_class = [fname for fname in wrong if table["label"][fname] == label]
    assert page.text("#count") == f"{len(of_class)} of {n} clips" and set(page.names()) <= set(of_class)
    cell = page.all(".confusion button")[0]
    count = int(cell.text)
    cell.click()
    assert page.text("#count").startswith(f"{count} of {n} clips: ")

    header = next(one for one in page.all("th button") if one.text == "MAP@3")
    column = "return [...arguments[0].closest('table').tBodies[0].rows].map((row) => Number(row.cells[3].textContent))"
    for order in (-1, 1):
        header.click()
        scores = page.run(column, header)
        assert scores == sorted(scores, key=lambda score: order * score) and len(set(scores)) > 1
    for drawn in page.all("svg[role=img]"):
        named = drawn.get_attribute("aria-labelledby").split()
        assert all(page.run("return document.getElementById(arguments[0]).textContent", name) for name in named)
    assert len(page.all("svg[role=img]")) >= 4
    page.run("document.activeElement.blur()")
    page.play()


def test_arrows_move_and_space_plays_one_clip_at_a_time(tmp_path: Path, look: Callable[[Path], Page]) -> None:
    c = made(40)
    clips = [clip | {"sound": f"{i % 2}.wav"} for i, clip in enumerate(clip_rows(c, c.oof[0], NOBODY))]
    for i in range(2):
        soundfile.write(tmp_path / f"{i}.wav", np.sin(np.arange(40_000) / 9) / 9, 8000)
    page = look(page_of(c, tmp_path / "page.html", clips=clips))
    page.choose("#order", "name")
    page.run("document.activeElement.blur()")
    assert page.current() == "00000.wav"
    page.play()
    page.press(webdriver.Keys.ARROW_DOWN)
    assert page.current() == "00001.wav"
    page.play()
    playing = "return [...document.querySelectorAll('audio')].filter((one) => !one.paused).length"
    assert page.run(playing) == 1
    page.press(" ")
    assert page.run(playing) == 0
    page.press(*[webdriver.Keys.ARROW_DOWN] * 30)
    assert page.current() == "00031.wav", "and it is in sight"
    page.press(webdriver.Keys.ARROW_UP)
    assert page.current() == "00030.wav"
    (tmp_path / "0.wav").write_bytes(b"no sound")
    page.press(" ")
    page.wait(lambda: "cannot play" in page.text(".clip[aria-current=true]"), "it is said")
    page.browser.get_log("browser")


def test_hostile_names_are_only_text(tmp_path: Path, look: Callable[[Path], Page]) -> None:
    """As a clip (whose file has that name), a class, a model and a title; nothing of them runs or is an element."""
    evil = "<img src=x onerror=alert(1)>#?%41.wav"
    label = "</script ><script >alert(2)</script ><!--"
    c = replace(made(3, [evil, "b.wav", "c.wav"], (label, "gong", "siren")), names=("<b>one", "'\"two"))
    soundfile.write(tmp_path / evil, np.sin(np.arange(40_000) / 9) / 9, 8000)
    clips = clip_rows(c, c.oof[0], NOBODY)
    clips[0]["sound"] = address(str(tmp_path / evil), tmp_path / "page.html")
    more = {"title": label, "clips": clips, "facts": [evil], "confusion": [[1, 0, 1], [0, 1, 0], [0, 0, 1]]}
    page = look(page_of(c, tmp_path / "page.html", **more))
    page.choose("#label", "0")
    assert page.names() == [evil] and all(text in page.text(".clip:not(.probe)") for text in (label, "<b>one"))
    assert page.browser.title == label and page.text("h1") == label
    page.all(".confusion button")[0].click()
    assert page.text("#count").endswith(f": {label}, put first as {label}")
    assert not page.all("img") and len(page.all("script")) == 2 and not page.all("b")
    page.run("document.activeElement.blur()")
    page.play()


def test_ten_thousand_clips_are_drawn_as_they_come_into_sight(tmp_path: Path, look: Callable[[Path], Page]) -> None:
    c = made(10_000)
    doubted = ["00007.wav", "09998.wav"]
    found = pd.DataFrame({"fname": doubted, "given": [CLASSES[int(n[:5]) % 3] for n in doubted], "suggested": "siren"})
    page = look(page_of(c, tmp_path / "page.html", found))
    page.choose("#order", "name")
    assert page.names()[0] == "00000.wav" and len(page.names()) < 20
    for part in (1e5, 2e5, 3e5, 1e9):
        seen = page.names()
        page.run("document.querySelector('#list').scrollTop = arguments[0]", part)
        page.wait(lambda seen=seen: page.names() != seen, "other clips are drawn")
    page.wait(lambda: page.names()[-1:] == ["09999.wav"], "the last clip is drawn")
    assert len(page.names()) < 20
    page.choose("#order", "differ")
    assert page.names()[0] >= "09990.wav", "their probabilities are the furthest apart"
    page.choose("#only", "doubt")
    page.choose("#order", "doubt")
    assert page.names() == doubted and page.text("#count") == "2 of 10000 clips"
    page.choose("#only", "")
    page.browser.find_element("css selector", "#search").send_keys("0999")
    assert page.text("#count") == "11 of 10000 clips", "00999.wav too"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_shows_both_pages_without_scrolling_sideways(
    own: Paths, look: Callable[[Path], Page], scheme: str
) -> None:
    files = [report(own, [], "default"), report(own, ["demo_vggish"], "default"), repair(own, find_doubts(own, []))]
    page = look(files[0])
    page.browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride", {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    )
    wanted = [{"name": "prefers-color-scheme", "value": scheme}]
    page.browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": wanted})
    for file in files:
        page.browser.get(file.resolve().as_uri())
        assert page.run("return [innerWidth, document.documentElement.scrollWidth]") == [400, 400], file
        light = page.run("return getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert light == (scheme == "light")
        letters = "return [...document.querySelectorAll('svg text')].map((one) => one.getBoundingClientRect().height)"
        assert min(page.run(letters), default=99) > 10, "letters of a plot can be read"
        inside = (
            "return [...document.querySelectorAll('svg')].filter((plot) => [...plot.querySelectorAll('text')].some("
            "(one) => one.getBoundingClientRect().left < plot.getBoundingClientRect().left - 1)).length"
        )
        assert page.run(inside) == 0, "no label of a plot is cut"
        cut = (
            "return [...document.querySelectorAll('.clip')].filter((one) => one.scrollHeight > one.clientHeight).length"
        )
        assert page.run(cut) == 0, "every row shows all of itself"


def test_labels_are_repaired_by_keys_and_saved(
    own: Paths, tmp_path: Path, look: Callable[[Path], Page], capsys: pytest.CaptureFixture[str]
) -> None:
    """Keep, change, choose, drop; a change that is undone; a clip that nobody heard; all of it there after a reload."""
    doubts = find_doubts(own, [], verified=True)
    listed = doubts.listed
    page = look(repair(own, doubts))
    assert page.names()[0] == listed["fname"][0]
    page.press("c")
    assert "listen first" in page.text("#note") and page.text("#progress").startswith("0 of")
    page.all("#save")[0].click()
    assert "nothing is decided yet" in page.text("#note")
    page.run("document.activeElement.blur(); document.querySelector('#auto').checked = false")
    for key in ("k", "c", "2", "d", "c"):
        page.hear()
        page.press(key)
    page.press("u")
    page.press(webdriver.Keys.ARROW_DOWN, "d")  # that one was not heard
    page.browser.refresh()
    n = len(set(listed["fname"]))
    assert page.text("#progress") == f"4 of {n} clips decided"

    page.browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page.all("#save")[0].click()
    page.wait((tmp_path / "corrections.csv").exists, "the file is there")
    competition = doubts.competition
    found = read_corrections(tmp_path / "corrections.csv", competition.train, competition.classes)
    mean = doubts.candidates.oof.mean(axis=0)[doubts.candidates.fnames.index(listed["fname"][2])]
    second = competition.classes[np.argsort(-mean, kind="stable")[1]]
    assert list(found.items()) == list(
        zip(listed["fname"][:4], [listed["given"][0], listed["suggested"][1], second, ""], strict=True)
    )
    page.run("localStorage.clear()")


def test_a_served_page_plays_and_saves_every_decision_at_once(own: Paths, look: Callable[[str], Page]) -> None:
    """Corrections that were in the file stay; those of an undone decision go."""
    file = own.work / "corrections.csv"
    other = load_competition(own.input).train["fname"].iloc[-1]
    file.write_text(f"fname,label\n{other},\n")
    doubts = find_doubts(own, [], corrections=file)
    first, second = doubts.listed["fname"].iloc[:2]
    data = repair_data(doubts.listed, doubts.competition, doubts.candidates, doubts.runs, own)
    with page_server(data, doubts.competition, file) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = look(server.address)
        page.hear()
        page.press("d")
        page.wait(lambda: "saved 1" in page.text("#progress"), "it is saved")
        page.wait_until_heard()  # the next one plays by itself
        page.press("k")
        page.wait(lambda: "saved 2" in page.text("#progress"), "it is saved")
        rows = f"fname,label\n{other},\n{first},\n"
        assert file.read_text() == rows + f"{second},{doubts.listed['given'].iloc[1]}\n"
        page.press("u")
        page.wait(lambda: file.read_text() == rows, "the undone one is gone")
        page.wait(lambda: "saved 1" in page.text("#progress"), "it is saved")
        server.shutdown()


def as_aiff(own: Paths, fname: str, work: Path) -> Paths:
    """The competition with one of its clips as AIFF under its old name, which Chromium cannot play."""
    shutil.copytree(own.input, work / "input")
    file = next((work / "input").rglob(fname))
    samples, rate = soundfile.read(file)
    soundfile.write(file, samples, rate, format="AIFF", subtype="PCM_16")
    return replace(own, input=work / "input")


@pytest.mark.parametrize("served", [False, True])
def test_a_copy_plays_where_the_browser_cannot_play_the_original(
    own: Paths, tmp_path: Path, look: Callable[[str | Path], Page], served: bool
) -> None:
    """The first clip has a copy that plays; the second, a WAV, plays itself."""
    first = find_doubts(own, []).listed["fname"][0]
    changed = as_aiff(own, first, tmp_path)
    doubts = replace(find_doubts(own, []), competition=load_competition(changed.input))
    source = "return document.querySelector('.clip[aria-current=true] audio').getAttribute('src')"

    def hear_both(page: Page, copy: str, original: str) -> None:
        page.run("document.querySelector('#auto').checked = false")
        page.hear()
        assert page.run(source).endswith(copy) and "a short copy" in page.text(".clip[aria-current=true]")
        page.press(webdriver.Keys.ARROW_DOWN)
        page.hear()
        assert page.run(source).endswith(original)
        page.run("localStorage.clear()")
        page.browser.get_log("browser")  # what it says of the original

    if served:
        data = repair_data(doubts.listed, doubts.competition, doubts.candidates, doubts.runs, own)
        n = len(data["clips"])
        with page_server(data, doubts.competition, own.work / "c.csv", copies=tmp_path / "copies") as server:
            threading.Thread(target=server.serve_forever, daemon=True).start()
            hear_both(look(server.address), f"clips/{n}", "clips/1")
            server.shutdown()
    else:
        hear_both(look(repair(own, doubts, with_sound=True)), "sound/0.ogg", ".wav")


def test_several_labels_are_added_and_removed(tmp_path: Path, look: Callable[[Path], Page]) -> None:
    """A clip of bark: the likely labels are bark and gong; then one by one."""
    c = replace(made(2), task="multi_label")
    found = pd.DataFrame({"fname": c.fnames[:1], "given": [""], "suggested": ["gong"]})
    clips = clip_rows(c, c.oof[0], found)
    for clip in clips:
        clip["heard"] = True
    more = {"mode": "repair", "identity": "several", "save": "", "before": [["z,z.wav", "bark"]], "clips": clips}
    page = look(page_of(c, tmp_path / "page.html", found, **more))
    decided = "return JSON.parse(localStorage.getItem('label-repair:several'))"
    page.press("c")
    assert page.run(decided) == [["00000.wav", "bark|gong"]]
    page.press(webdriver.Keys.ARROW_UP, "1")
    assert page.run(decided) == [["00000.wav", "gong"]], "1 is bark, the blend's first"
    page.press("k")
    assert page.run(decided) == [["00000.wav", "bark"]]
    page.press(webdriver.Keys.ARROW_UP, "1")
    assert page.run(decided) == [["00000.wav", "|"]], "none"
    page.browser.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    page.all("#save")[0].click()
    page.wait((tmp_path / "corrections.csv").exists, "the file is there")
    assert (tmp_path / "corrections.csv").read_text() == 'fname,label\n"z,z.wav",bark\n00000.wav,|\n'
    page.run("localStorage.clear()")
