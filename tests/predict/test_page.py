"""The HTML page, as a person uses it: in Chromium, without a network."""

import csv
import json
import re
import shutil
import time
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny import run_aum, sound

from aumcli.data.manifest import read_manifest
from aumcli.predict.page import _columns

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")

EVIL = "<img src=x onerror=document.title='run'>.wav"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--window-size=1280,1200",
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Sounds of every kind.

    One has a name that is markup, one is too large for the page, one is played by no browser, and one is bad.
    """
    monkeypatch.chdir(tmp_path)
    sound(Path("in") / EVIL, 300.0)
    sound(Path("in/long.wav"), 2000.0, seconds=4, seed=3)
    rate_hz = 48000
    wave = 0.3 * np.sin(2 * np.pi * 300 * np.arange(rate_hz) / rate_hz) + 0.05 * np.random.default_rng(
        0
    ).standard_normal(rate_hz)
    soundfile.write("in/tone.aiff", wave, rate_hz)
    large = 0.05 * np.random.default_rng(0).standard_normal(24 * rate_hz)
    soundfile.write("in/large & loud.wav", np.stack([large, large], 1), rate_hz)
    Path("in/bad.wav").write_text("no sound")
    return tmp_path


@pytest.fixture
def page(folder, trained, monkeypatch, capsys):
    result = run_aum(
        monkeypatch,
        capsys,
        "predict",
        "in",
        "--model",
        trained,
        "--html",
        "out/report.html",
        "--threshold",
        0.3,
        "--hop",
        0.25,
    )
    assert result.code == 1 and "wrote out/report.html" in result.err and "bad.wav is not audio" in result.err
    assert "in/long.wav" in result.out  # the table is printed all the same
    return folder / "out" / "report.html"


def test_it_holds_everything_and_names_are_text(page):
    text = page.read_text(encoding="utf-8")
    assert (
        "<img src=x" not in text
        and "http://" not in text.replace("http://www.w3.org/2000/svg", "")
        and "https://" not in text
    )
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])
    files = {Path(file["path"]).name: file for file in data["files"]}
    assert (
        len(files) == 5
        and files["bad.wav"]["problem"]
        and files[EVIL]["audio"].startswith("data:audio/wav;base64,UklGR")
    )
    assert (
        files["tone.aiff"]["audio"].startswith("data:audio/wav;base64,") and "WAV" in files["tone.aiff"]["audio_note"]
    )
    large = files["large & loud.wav"]
    assert (
        large["audio"] == "../in/large%20%26%20loud.wav"
        and "played from ../in/large" in large["audio_note"]
        and "4 MB" in data["header"]["note"]
    )
    long = files["long.wav"]
    assert (
        long["picture"].startswith("data:image/png;base64,")
        and 300 < len(long["peaks"]) <= 800
        and len(large["peaks"]) == 800
    )
    assert (
        all(-100 <= low <= high <= 100 for low, high in long["peaks"]) and max(high for _, high in long["peaks"]) > 50
    )
    assert set(long["curves"]) <= {"high", "hiss", "low"} and {len(curve) for curve in long["curves"].values()} == {
        long["windows"]
    }
    assert "embedding" not in long


@pytest.fixture
def browser(tmp_path):
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    chromium, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not chromium or not driver:
        pytest.skip("there is no chromium with its chromedriver: apt-get install chromium chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in [*FLAGS, f"--user-data-dir={tmp_path / 'profile'}"]:
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield driver
    driver.quit()


def column(browser, number):
    return browser.execute_script(
        "return [...document.querySelectorAll('#rows tr')].map(row => row.cells[arguments[0]]?.innerText ?? '')", number
    )


def wait(browser, condition, seconds=15):
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser, seconds).until(lambda driver: driver.execute_script("return " + condition))


def test_it_sorts_filters_and_plays_in_a_browser(page, browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.select import Select

    browser.get(page.as_uri())
    wait(browser, "document.querySelectorAll('#rows tr').length > 5")
    assert browser.title == "aum predict"  # the evil name has not run
    assert EVIL in browser.find_element(By.ID, "cards").text and len(browser.find_elements(By.CSS_SELECTOR, "img")) == 4

    score = browser.find_element(By.CSS_SELECTOR, "button[data-key=score]")
    score.click()
    scores = [float(text) for text in column(browser, 4) if text]
    assert scores == sorted(scores, reverse=True) and len(set(scores)) > 2
    score.click()
    scores = [float(text) for text in column(browser, 4) if text]
    assert scores == sorted(scores) and score.find_element(By.XPATH, "..").get_attribute("aria-sort") == "ascending"
    browser.find_element(By.CSS_SELECTOR, "button[data-key=file]").click()
    assert column(browser, 0) == sorted(column(browser, 0), key=str.lower)

    search = browser.find_element(By.ID, "filter")
    search.send_keys("LONG.wav high")
    assert {Path(name).name for name in column(browser, 0)} == {"long.wav"} and {
        label.split()[0] for label in column(browser, 3)
    } == {"high"}
    count = browser.find_element(By.ID, "count").text
    assert count.startswith(f"{len(column(browser, 0))} of ")
    search.clear()
    search.send_keys("nothing has this name")
    assert column(browser, 0) == []
    search.clear()
    search.send_keys("long.wav")
    Select(browser.find_element(By.ID, "kind")).select_by_value("event")
    rows = browser.find_elements(By.CSS_SELECTOR, "#rows tr")
    assert rows and {row.get_attribute("data-kind") for row in rows} == {"event"}

    rows[0].click()  # a row plays from its event
    playing = "[...document.querySelectorAll('audio')].find(each => !each.paused && each.currentTime > 0)"
    assert wait(
        browser, f"(player => player && player.closest('h2, article').innerText.includes('long.wav'))({playing})"
    )
    start = float(column(browser, 1)[0])
    assert wait(browser, f"{playing}?.currentTime > {start + 0.05}")
    head = browser.execute_script(f"return parseFloat({playing}.closest('article').querySelector('.head').style.left)")
    assert head > 0

    view = browser.find_element(By.XPATH, "//article[h2[contains(., 'long.wav')]]").find_element(
        By.CSS_SELECTOR, ".view"
    )
    browser.execute_script("document.querySelectorAll('audio').forEach(each => each.pause())")
    view.click()  # its middle
    place = browser.execute_script("return arguments[0].closest('article').querySelector('audio').currentTime", view)
    assert place == pytest.approx(2, abs=0.1)
    assert browser.execute_script("return [...document.querySelectorAll('.event')].length") > 1

    large = (
        "[...document.querySelectorAll('article')]"
        ".find(each => each.innerText.includes('large')).querySelector('audio')"
    )
    assert wait(browser, f"{large}.duration") == pytest.approx(24, abs=0.1)  # played from beside the page
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [
        each["params"]["request"]["url"]
        for each in asked
        if each["method"] == "Network.requestWillBeSent" and each["params"]["documentURL"] == page.as_uri()
    ]
    assert urls and all(url.startswith(("file:", "data:")) for url in urls)  # nothing else was asked for


@pytest.mark.parametrize("width", [375, 1280])
def test_it_fits_phones_and_desktops(page, browser, width):
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    browser.get(page.as_uri())
    wait(browser, "document.querySelectorAll('#rows tr').length > 5")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    table, box = (
        browser.execute_script(f"return document.querySelector('{name}').getBoundingClientRect().width")
        for name in ("table", ".scroll")
    )
    assert table <= box  # no column is hidden behind an edge
    reason = browser.execute_script(
        "return document.querySelector('tr[data-kind=failed] .bad').getBoundingClientRect().width"
    )
    assert reason > table / 2  # not squeezed into the labels' column
    outside = browser.execute_script(
        "return [...document.querySelectorAll('audio, .strip, .chip, .legend, input')]"
        ".filter(each => each.getBoundingClientRect().right > innerWidth).length"
    )
    assert outside == 0


@pytest.fixture
def many_events(tmp_path, trained, monkeypatch, capsys):
    """A page of a recording in which all classes occur one after another, with pauses, and of two short clips."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    rate_hz, parts = 8000, []
    for hz in (300, 2000, None, 2000, 300, None) * 2:
        wave = 0.05 * rng.standard_normal(int(1.5 * rate_hz))
        parts += [
            wave + (0.3 * np.sin(2 * np.pi * hz * np.arange(len(wave)) / rate_hz) if hz else 0),
            np.zeros(rate_hz),
        ]
    Path("in").mkdir()
    soundfile.write("in/all.wav", np.concatenate(parts), rate_hz)
    sound(Path("in/short.wav"), 300.0)
    sound(Path("in/tone.wav"), 2000.0)
    options = ("--model", trained, "--threshold", 0.8, "--hop", 0.25)
    assert run_aum(monkeypatch, capsys, "predict", "in", *options, "--html", "page.html").code == 0
    assert run_aum(monkeypatch, capsys, "predict", "in/tone.wav", *options, "--html", "other.html").code == 0
    return tmp_path / "page.html"


def page_data(page):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.S)[
            1
        ]
    )


ALL = "document.querySelector('#file-0')"
PLAYER = ALL + ".querySelector('audio')"


def keys(browser, *names):
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(browser).send_keys(*names).perform()


def measured(browser):
    """Widths in px of what shall be in step, the places of events over their times, and the axis."""
    return browser.execute_script(f"""
        const card = {ALL}, frame = element => element.getBoundingClientRect();
        const width = name => frame(card.querySelector(name)).width, left = frame(card.querySelector('.wide')).left;
        const boxes = [...card.querySelectorAll('.event')].map(box => frame(box).left - left);
        return {{wide: width('.wide'), image: width('img'), wave: width('.wave'), curves: width('.curves'), boxes,
                 ticks: [...card.querySelectorAll('.axis span')].map(
                     each => [each.innerText, parseFloat(each.style.left)])}}""")


def test_curves_of_all_classes_with_events(many_events):
    recording = page_data(many_events)["files"][0]
    heard = {event["label"] for event in recording["events"]}
    assert (
        heard == {"high", "hiss", "low"}
        and heard <= set(recording["curves"])
        and recording["classes"] == {"high": 0, "hiss": 1, "low": 2}
    )


def test_time_is_zoomed_with_all_in_step(many_events, browser):
    browser.get(many_events.as_uri())
    recording = page_data(many_events)["files"][0]
    duration = recording["duration_s"]
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.keys import Keys

    def in_step():
        found = measured(browser)
        assert found["image"] == found["wave"] == found["curves"] == pytest.approx(found["wide"], abs=1)
        starts = [event["start_s"] for event in recording["events"]]
        assert found["boxes"] == pytest.approx([start / duration * found["wide"] for start in starts], abs=1.5)
        times = [60 * int(text.split(":")[0]) + float(text.split(":")[1]) for text, _ in found["ticks"]]
        assert [left for _, left in found["ticks"]] == pytest.approx(
            [100 * time / duration for time in times], abs=1e-3
        )
        (step,) = {round(after - before, 3) for before, after in pairwise(times)}
        assert step in (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60) and step / duration * found["wide"] >= 64
        return found["wide"], step

    first, first_step = in_step()
    assert first_step == 2 and measured(browser)["ticks"][1][0] == "0:02"
    keys(browser, "+", "+", "+")
    closer, closer_step = in_step()
    assert closer == pytest.approx(first * 1.5**3, rel=0.01) and closer_step < first_step
    browser.find_element("css selector", "#file-0 [title='zoom out']").click()
    assert in_step()[0] == pytest.approx(closer / 1.5, rel=0.01)
    keys(browser, "0")
    assert in_step()[0] == pytest.approx(first, rel=0.01)
    anchor = f"""(() => {{ const strip = {ALL}.querySelector('.strip'), frame = strip.getBoundingClientRect();
        const time = () => (strip.scrollLeft + 200) / {ALL}.querySelector('.wide').getBoundingClientRect().width;
        const before = time(), how = {{deltaY: -100, clientX: frame.left + 200, bubbles: true, cancelable: true}};
        const wheel = ctrlKey => strip.dispatchEvent(new WheelEvent('wheel', {{ctrlKey, ...how}}));
        return [wheel(false), wheel(true), before, time()] }})()"""
    unprevented, taken, before, after = browser.execute_script("return " + anchor)
    assert unprevented and not taken and in_step()[0] > first * 1.4  # without Ctrl the wheel scrolls the page
    assert after == pytest.approx(before, abs=0.002)  # what is under the pointer stays there
    ActionChains(browser).key_down(Keys.CONTROL).send_keys("0").key_up(Keys.CONTROL).perform()  # the browser's own key
    assert in_step()[0] > first * 1.4


def test_keys_play_and_events_stop_at_their_end(many_events, browser):
    from selenium.webdriver.common.keys import Keys

    browser.get(many_events.as_uri())
    events = sorted(page_data(many_events)["files"][0]["events"], key=lambda event: event["start_s"])
    wait(browser, f"{PLAYER}.readyState > 0")
    keys(browser, Keys.SPACE)
    wait(browser, f"!{PLAYER}.paused && {PLAYER}.currentTime > 0")
    keys(browser, Keys.SPACE)
    assert wait(browser, f"{PLAYER}.paused")

    browser.find_element("css selector", "#filter").send_keys("all.wav")  # keys typed there are text
    browser.execute_script("document.activeElement.blur()")
    browser.execute_script(f"{PLAYER}.currentTime = 0")
    wait(browser, f"!{PLAYER}.seeking")
    visited = []
    for key, expected in ((Keys.ARROW_RIGHT, 0), (Keys.ARROW_RIGHT, 1), (Keys.ARROW_RIGHT, 2), (Keys.ARROW_LEFT, 1)):
        later = [event for event in events if event["start_s"] > 0]
        keys(browser, key)
        start, stop = later[expected]["start_s"], later[expected]["stop_s"]
        wait(browser, f"!{PLAYER}.paused && {PLAYER}.currentTime >= {start} && {PLAYER}.currentTime < {stop}")
        visited.append(start)
    assert len(set(visited)) == 3
    assert wait(browser, f"{PLAYER}.paused")  # by itself
    assert browser.execute_script(f"return {PLAYER}.currentTime") == pytest.approx(stop, abs=0.06)

    browser.find_element("css selector", "#file-0 audio").send_keys(Keys.ARROW_RIGHT)  # not the player's own seeking
    wait(
        browser,
        f"!{PLAYER}.paused && {PLAYER}.currentTime >= {later[2]['start_s']} "
        f"&& {PLAYER}.currentTime < {later[2]['stop_s']}",
    )
    browser.execute_script(f"{PLAYER}.currentTime = 0")  # who goes elsewhere is not stopped
    wait(browser, f"!{PLAYER}.paused && {PLAYER}.currentTime > 0.2 && {PLAYER}.currentTime < 5")

    row = browser.find_elements("css selector", "#rows tr[data-kind=event]")[0]
    stop = float(row.find_elements("css selector", "td")[2].text)
    row.click()
    wait(browser, f"!{PLAYER}.paused")
    wait(browser, f"{PLAYER}.paused")
    assert browser.execute_script(f"return {PLAYER}.currentTime") == pytest.approx(stop, abs=0.06)


def test_the_filter_acts_on_the_pictures_and_a_short_clip_is_there_once(many_events, browser):
    browser.get(many_events.as_uri())
    files = page_data(many_events)["files"]
    shown = "[...document.querySelectorAll('.{}')].filter(each => each.getBoundingClientRect().width > 0).length"
    events = [event for file in files for event in file["events"]]
    assert (
        browser.execute_script("return " + shown.format("event"))
        == browser.execute_script("return " + shown.format("label"))
        == len(events)
    )
    names = [Path(name).name for name in column(browser, 0)]
    assert names.count("short.wav") == names.count("tone.wav") == 1 and len(files[1]["events"]) == 1

    search = browser.find_element("css selector", "#filter")
    search.send_keys("hiss")
    hiss = [event for event in files[0]["events"] if event["label"] == "hiss"]
    for name in ("event", "label"):
        assert browser.execute_script("return " + shown.format(name)) == len(hiss) > 0
    assert (
        browser.execute_script("return [...document.querySelectorAll('article')].filter(each => !each.hidden).length")
        == 1
    )
    search.clear()
    search.send_keys(" ")
    least = sorted(event["score"] for event in events)[len(events) // 2]
    browser.execute_script(
        "const box = document.querySelector('#least'); box.value = arguments[0]; box.dispatchEvent(new Event('input'))",
        least,
    )
    expected = sum(event["score"] >= least for event in events)
    assert browser.execute_script("return " + shown.format("label")) == expected < len(events)
    assert all(float(score) >= round(least, 3) for score in column(browser, 4))


def test_labels_are_whole_or_have_a_tooltip_and_colours_stay(many_events, browser):
    browser.get(many_events.as_uri())
    found = browser.execute_script(
        "return [...document.querySelectorAll('.label')].map(each => "
        "[each.innerText, each.title, each.scrollWidth <= each.clientWidth])"
    )
    assert found and all(title.startswith((f"{label} 0.", f"{label} 1.")) for label, title, _ in found)
    assert all(whole for *_, whole in found)

    label, place = browser.execute_script(f"""
        for (let i = 0; i < 20; i++) zoomed(1.5);
        const strip = {ALL}.querySelector('.strip'), bar = {ALL}.querySelector('.label');
        strip.scrollLeft = bar.offsetLeft + bar.offsetWidth / 2;
        const text = bar.firstChild.getBoundingClientRect(), frame = strip.getBoundingClientRect();
        {ALL}.querySelector('.wide').dispatchEvent(new MouseEvent('mousemove', {{
            clientX: text.left, clientY: {ALL}.querySelector('img').getBoundingClientRect().bottom - 1}}));
        return [bar.innerText, text.left - frame.left]""")
    assert 0 <= place < 20  # the name of a long event is seen wherever one is in it
    readout = browser.find_element("css selector", "#file-0 .readout").text
    assert re.match(r"0:\d\d\.\d\d ", readout) and " Hz" in readout and f"{label} 0." in readout

    def colours():
        return {
            tuple(pair)
            for pair in browser.execute_script(
                "return [...document.querySelectorAll('.chip')].map("
                "each => [each.innerText.split(' ')[0], each.firstChild.style.background])"
            )
        }

    first = colours()
    assert (
        len(first) == 3 == len({label for label, _ in first}) == len({colour for _, colour in first})
    )  # one each, in all files
    browser.get((many_events.parent / "other.html").as_uri())
    assert colours() == first


def test_the_frequency_axis_is_where_the_picture_has_the_tone(many_events, browser, tmp_path):
    import base64
    import io

    from matplotlib.image import imread

    browser.get(many_events.as_uri())
    tone = next(file for file in page_data(many_events)["files"] if file["path"].endswith("tone.wav"))
    samples, rate_hz = soundfile.read("in/tone.wav")
    hz = np.fft.rfftfreq(len(samples), 1 / rate_hz)[np.argmax(np.abs(np.fft.rfft(samples)))]
    picture = imread(io.BytesIO(base64.b64decode(tone["picture"].split(",")[1])))
    row = len(picture) - 1 - int(np.argmax(picture[..., :3].sum((1, 2))))  # from the bottom
    assert browser.execute_script("return place(arguments[0])", float(hz)) * len(picture) == pytest.approx(
        row + 0.5, abs=1
    )
    assert browser.execute_script("return hertz(place(1234))") == pytest.approx(1234)
    ticks = browser.execute_script(
        "return [...document.querySelectorAll('#file-0 .hertz span')].map("
        "each => [each.innerText, parseFloat(each.style.bottom)])"
    )
    assert {"500 Hz", "1 kHz", "2 kHz"} <= {text for text, _ in ticks}
    for text, bottom in ticks:
        number, unit = text.split()
        value = float(number) * (1000 if unit == "kHz" else 1)
        assert bottom == pytest.approx(100 * browser.execute_script("return place(arguments[0])", value), abs=0.01)


def test_a_review_is_kept_saved_and_trained_on(folder, trained, browser, aum):
    """Predict, review, save, prepare: what was rejected is nothing, what was added is there."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    shutil.rmtree("in")
    sound(Path("in/a.wav"), 300.0, seconds=4, seed=1)
    sound(Path("in/b.wav"), 2000.0, seconds=4, seed=2)
    call = ("predict", "in", "--model", trained, "--threshold", "0.5", "--html", "page.html")
    assert aum(*call).code == 0
    browser.execute_cdp_cmd("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(folder)})
    browser.get((folder / "page.html").as_uri())
    data = browser.execute_script("return JSON.parse(document.getElementById('data').textContent)")
    events = [[event["label"] for event in file["events"]] for file in data["files"]]
    assert all(events) and not browser.find_element(By.CSS_SELECTOR, "#save button").is_enabled()

    def press(*keys):
        for key in keys:
            ActionChains(browser).send_keys(key).perform()

    def reviewed():
        return browser.find_element(By.ID, "reviewed").text

    total = sum(map(len, events))
    arrow = "\ue014"
    press(arrow, "y")  # the first is right, which goes to the next
    assert reviewed() == f"1 of {total} events reviewed"
    wait(browser, "document.querySelectorAll('.event.right').length === 1")
    browser.execute_script("window.scrollTo(0, 0)")
    for row in browser.find_elements(By.CSS_SELECTOR, "#rows tr[data-kind=event]"):
        if "b.wav" in row.text:
            row.click()
            break
    for _ in events[1]:
        press("n")
    assert reviewed() == f"{1 + len(events[1])} of {total} events reviewed"
    image = browser.find_elements(By.CSS_SELECTOR, ".view img")[1]
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", image)
    drag = ActionChains(browser).move_to_element_with_offset(image, -200, 0).click_and_hold().move_by_offset(60, 0)
    drag.release().perform()
    wait(browser, "document.getElementById('ask').open")
    field = browser.find_element(By.ID, "ask-label")
    field.clear()
    field.send_keys("fox, red\n")
    wait(browser, "!document.getElementById('ask').open")
    wait(browser, "document.querySelectorAll('.event.right').length === 2")
    assert any("fox, red" in text for text in column(browser, 3))
    press("r")
    wait(browser, "document.getElementById('ask').open")
    browser.find_element(By.ID, "ask-label").send_keys("\ue00c")  # Escape: it stays as it was
    wait(browser, "!document.getElementById('ask').open")
    browser.refresh()  # the browser kept it
    wait(browser, "document.querySelectorAll('.event.right').length === 2")
    assert reviewed() == f"{2 + len(events[1])} of {total + 1} events reviewed"
    for button in browser.find_elements(By.CSS_SELECTOR, "#save button"):
        button.click()
    names = ("review.csv", "a.txt", "b.txt", "review.selections.txt")
    for _ in range(100):
        if all((folder / name).exists() for name in names):
            break
        time.sleep(0.1)
    rows = (folder / "review.csv").read_text().splitlines()
    assert rows[0] == "path,start_s,stop_s,label,verdict" and "in/b.wav,,,,reviewed" in rows
    assert sum('"fox, red",added' in row for row in rows) == 1
    wrong = [row for row in rows if row.endswith("wrong")]
    assert len(wrong) == len(events[1]) and all(",(nothing)," in row for row in wrong)
    assert (folder / "b.txt").read_text().count("(nothing)") == len(events[1]) and "\tfox, red\n" in (
        folder / "b.txt"
    ).read_text()
    assert "\tfox, red\n" in (folder / "review.selections.txt").read_text()
    (folder / "labels").mkdir()
    shutil.move("review.csv", "labels")
    kept = ("--annotations", "labels", "--out", "data", "--set", "window=1", "--split", "100/0/0")
    done = aum("prepare", "annotations", "--source", "in", *kept)
    assert done.code == 0, done.err + done.out
    clips = read_manifest("data").clips
    assert {label for clip in clips if clip.path.name == "b.wav" for label in clip.labels} == {"fox, red"}
    assert any(not clip.labels for clip in clips if clip.path.name == "b.wav")
    assert {label for clip in clips if clip.path.name == "a.wav" for label in clip.labels} == {events[0][0]}


RATE_HZ = 8000


def night(path, seed, whistles):
    """A recording with sweeps up (owls) and down (foxes) every four seconds; gives the owls as (start, stop) in s."""
    rng = np.random.default_rng(seed)
    wave = 0.02 * rng.standard_normal(4 * RATE_HZ * len(whistles))
    t = np.arange(int(0.4 * RATE_HZ)) / RATE_HZ
    owls = []
    for number, kind in enumerate(whistles):
        start = int((4 * number + rng.uniform(0.5, 3.0)) * RATE_HZ)
        hz = rng.uniform(900, 1100) + (1 if kind == "owl" else -1) * 900 * (t - 0.2)
        wave[start : start + len(t)] += 0.3 * np.hanning(len(t)) * np.sin(2 * np.pi * np.cumsum(hz) / RATE_HZ)
        owls += [(start / RATE_HZ, start / RATE_HZ + 0.4)] if kind == "owl" else []
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, RATE_HZ)
    return owls


def mistakes(found, owls):
    """Events that are no owl, and owls that are no event."""
    hits = [any(start < event["stop_s"] and stop > event["start_s"] for start, stop in owls) for event in found]
    missed = [owl for owl in owls if not any(owl[0] < event["stop_s"] and owl[1] > event["start_s"] for event in found)]
    return hits.count(False) + len(missed)


def test_a_round_of_review_mends_mistakes(tmp_path, monkeypatch, browser, aum):
    """A model that has only heard owls takes foxes for them; the next one, since they were named in the page, not."""
    from selenium.webdriver.common.action_chains import ActionChains
    from selenium.webdriver.common.by import By

    monkeypatch.chdir(tmp_path)
    first = night(Path("night/1.wav"), 1, ["owl"] * 16)
    second = night(Path("night/2.wav"), 2, ["owl", "fox"] * 8)
    third = night(Path("other/3.wav"), 3, ["fox", "owl"] * 8)
    Path("labels").mkdir()
    track = "".join(f"{start:.6f}\t{stop:.6f}\towl\n\\\t700.0\t1300.0\n" for start, stop in first)
    Path("labels/1.txt").write_text(track)

    def fit(name):
        told = (
            "--annotations",
            "labels",
            "--source",
            "night",
            "--set",
            "window=0.6",
            "--set",
            "inside=0.8",
            "--split",
            "100/0/0",
        )
        assert aum("prepare", "annotations", *told, "--out", f"data-{name}").code == 0
        how = (
            "augment.policy=gentle",
            "data.val=train",
            "train.epochs=40",
            "train.ema=0.98",
            "train.batch_size=16",
            "seed=1",
        )
        small = ("model.width=32", "model.stem.channels=[8, 8, 16, 16]")
        sets = [word for value in (*how, *small) for word in ("--set", value)]
        assert aum("train", "--data", f"data-{name}", "--out", f"run-{name}", *sets).code == 0
        found = json.loads(aum("predict", "other/3.wav", "--model", f"run-{name}", "--format", "json").out)
        return mistakes([event for event in found["clips"][0]["events"] if event["label"] == "owl"], third)

    before = fit("before")
    assert before >= 4
    assert aum("predict", "night/2.wav", "--model", "run-before", "--html", "page.html").code == 0
    browser.execute_cdp_cmd("Page.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    browser.get((tmp_path / "page.html").as_uri())
    data = browser.execute_script("return JSON.parse(document.getElementById('data').textContent)")
    assert data["header"]["band_hz"] == [636, 1430]
    events = data["files"][0]["events"]
    ActionChains(browser).send_keys("\ue014").perform()
    for event in events:
        if mistakes([event], second) < len(second):
            ActionChains(browser).send_keys("y").perform()
            continue
        ActionChains(browser).send_keys("r").perform()
        wait(browser, "document.getElementById('ask').open")
        field = browser.find_element(By.ID, "ask-label")
        field.clear()
        field.send_keys("fox\n")
        wait(browser, "!document.getElementById('ask').open")
        ActionChains(browser).send_keys("\ue014").perform()
    assert browser.find_element(By.ID, "reviewed").text == f"{len(events)} of {len(events)} events reviewed"
    browser.find_element(By.CSS_SELECTOR, "#save button").click()
    for _ in range(100):
        if Path("review.csv").exists():
            break
        time.sleep(0.1)
    shutil.move("review.csv", "labels")
    after = fit("after")
    assert after < before / 2


def test_events_by_hour_of_the_day(trained, tmp_path, monkeypatch, browser, aum):
    from selenium.webdriver.common.by import By

    monkeypatch.chdir(tmp_path)
    for hour in (4, 21):
        sound(Path(f"rec/POND_20240501_{hour:02}5959.wav"), 300.0, seconds=3, seed=hour)
    sound(Path("rec/clip.wav"), 300.0, seconds=3, seed=1)
    call = ("predict", "rec", "--model", trained, "--threshold", "0.5", "--html", "page.html", "--review", "1")
    assert aum(*call, "--hours", "hours.csv", "--out", "all.csv").code == 0
    rows = list(csv.DictReader(Path("hours.csv").read_text().splitlines()))
    browser.get((tmp_path / "page.html").as_uri())
    table = browser.find_element(By.ID, "hours")
    assert "without 1 of unknown time" in table.text
    heads = [cell.text for cell in table.find_elements(By.TAG_NAME, "th")][1:]
    assert heads == ["04", "05", "21", "22"]  # the last minute of an hour and the next
    found = {}
    for line in table.find_elements(By.CSS_SELECTOR, "tbody tr"):
        name, *counts = (cell.text for cell in line.find_elements(By.TAG_NAME, "td"))
        found |= {(name, int(hour)): int(count or 0) for hour, count in zip(heads, counts)}
    assert found == {(row["label"], int(row["hour"])): int(row["events"]) for row in rows}  # all, not only the sample
    assert sum(found.values()) > 1
    assert aum(*call[:-2]).code == 0
    browser.get((tmp_path / "page.html").as_uri())
    assert "from 2024-05-01 04:59:59 at POND" in browser.find_element(By.ID, "cards").text
    aum("predict", "rec/clip.wav", "--model", trained, "--html", "page.html")
    browser.get((tmp_path / "page.html").as_uri())
    assert not browser.find_element(By.ID, "hours").is_displayed()


def test_the_columns_of_a_picture():
    rng = np.random.default_rng(0)
    for _ in range(300):
        samples, columns, step, count = (int(rng.integers(1, most)) for most in (5000, 900, 200, 400))
        start = int(rng.integers(0, samples))
        into, firsts, sizes = _columns(start, count, step, samples, columns)
        places = np.minimum((start + np.arange(count) * step) * columns // samples, columns - 1)
        wanted, got = (np.bincount(places, minlength=columns), np.zeros(columns, dtype=int))
        np.add.at(got, into, sizes)
        assert (got == wanted).all() and firsts[0] == 0 and (places[firsts] == into).all()
