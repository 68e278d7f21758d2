"""The HTML page, as a person uses it: in Chromium, without a network."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tiny import run_aum, sound

pytest_plugins = ["aum_fixtures"]
pytestmark = pytest.mark.usefixtures("on_one_thread")

EVIL = "<img src=x onerror=document.title='run'>.wav"
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-component-update",
         "--disable-sync", "--autoplay-policy=no-user-gesture-required", "--window-size=1280,1200"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Sounds of every kind: one whose name is markup, one too large for the page, one that no browser plays, a bad one."""
    monkeypatch.chdir(tmp_path)
    sound(Path("in") / EVIL, 300.0)
    sound(Path("in/long.wav"), 2000.0, seconds=4, seed=3)
    rate_hz = 48000
    wave = 0.3 * np.sin(2 * np.pi * 300 * np.arange(rate_hz) / rate_hz) + 0.05 * np.random.default_rng(0).standard_normal(rate_hz)
    soundfile.write("in/tone.aiff", wave, rate_hz)
    large = 0.05 * np.random.default_rng(0).standard_normal(24 * rate_hz)
    soundfile.write("in/large & loud.wav", np.stack([large, large], 1), rate_hz)
    Path("in/bad.wav").write_text("no sound")
    return tmp_path


@pytest.fixture
def page(folder, trained, monkeypatch, capsys):
    result = run_aum(monkeypatch, capsys, "predict", "in", "--model", trained, "--html", "out/report.html", "--threshold", 0.3, "--hop", 0.25)
    assert result.code == 1 and "wrote out/report.html" in result.err and "bad.wav is not audio" in result.err
    assert "in/long.wav" in result.out                                        # the table is printed all the same
    return folder / "out" / "report.html"


def test_it_holds_everything_and_names_are_text(page):
    text = page.read_text(encoding="utf-8")
    assert "<img src=x" not in text and "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text
    data = json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])
    files = {Path(file["path"]).name: file for file in data["files"]}
    assert len(files) == 5 and files["bad.wav"]["problem"] and files[EVIL]["audio"].startswith("data:audio/wav;base64,UklGR")
    assert files["tone.aiff"]["audio"].startswith("data:audio/wav;base64,") and "WAV" in files["tone.aiff"]["audio_note"]
    large = files["large & loud.wav"]
    assert large["audio"] == "../in/large%20%26%20loud.wav" and "played from ../in/large" in large["audio_note"] and "4 MB" in data["header"]["note"]
    long = files["long.wav"]
    assert long["picture"].startswith("data:image/png;base64,") and 300 < len(long["peaks"]) <= 800 and len(large["peaks"]) == 800
    assert all(-100 <= low <= high <= 100 for low, high in long["peaks"]) and max(high for _, high in long["peaks"]) > 50
    assert set(long["curves"]) <= {"high", "hiss", "low"} and {len(curve) for curve in long["curves"].values()} == {long["windows"]}
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
    return browser.execute_script("return [...document.querySelectorAll('#rows tr')].map(row => row.cells[arguments[0]]?.innerText ?? '')", number)


def wait(browser, condition, seconds=15):
    from selenium.webdriver.support.wait import WebDriverWait

    return WebDriverWait(browser, seconds).until(lambda driver: driver.execute_script("return " + condition))


def test_it_sorts_filters_and_plays_in_a_browser(page, browser):
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.select import Select

    browser.get(page.as_uri())
    wait(browser, "document.querySelectorAll('#rows tr').length > 5")
    assert browser.title == "aum predict"                                     # the evil name has not run
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
    assert {Path(name).name for name in column(browser, 0)} == {"long.wav"} and {label.split()[0] for label in column(browser, 3)} == {"high"}
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

    rows[0].click()                                                           # a row plays from its event
    playing = "[...document.querySelectorAll('audio')].find(each => !each.paused && each.currentTime > 0)"
    assert wait(browser, f"(player => player && player.closest('h2, article').innerText.includes('long.wav'))({playing})")
    start = float(column(browser, 1)[0])
    assert wait(browser, f"{playing}?.currentTime > {start + 0.05}")
    head = browser.execute_script(f"return parseFloat({playing}.closest('article').querySelector('.head').style.left)")
    assert head > 0

    view = browser.find_element(By.XPATH, "//article[h2[contains(., 'long.wav')]]").find_element(By.CSS_SELECTOR, ".view")
    browser.execute_script("document.querySelectorAll('audio').forEach(each => each.pause())")
    view.click()                                                              # its middle
    place = browser.execute_script("return arguments[0].closest('article').querySelector('audio').currentTime", view)
    assert place == pytest.approx(2, abs=0.1)
    assert browser.execute_script("return [...document.querySelectorAll('.event')].length") > 1

    large = "[...document.querySelectorAll('article')].find(each => each.innerText.includes('large')).querySelector('audio')"
    assert wait(browser, f"{large}.duration") == pytest.approx(24, abs=0.1)   # played from beside the page
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []
    asked = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [each["params"]["request"]["url"] for each in asked if each["method"] == "Network.requestWillBeSent"
            and each["params"]["documentURL"] == page.as_uri()]
    assert urls and all(url.startswith(("file:", "data:")) for url in urls)    # nothing else was asked for


@pytest.mark.parametrize("width", [375, 1280])
def test_it_fits_phones_and_desktops(page, browser, width):
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": width < 500})
    browser.get(page.as_uri())
    wait(browser, "document.querySelectorAll('#rows tr').length > 5")
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    table, box = (browser.execute_script(f"return document.querySelector('{name}').getBoundingClientRect().width") for name in ("table", ".scroll"))
    assert table <= box                                                       # no column is hidden behind an edge
    reason = browser.execute_script("return document.querySelector('tr[data-kind=failed] .bad').getBoundingClientRect().width")
    assert reason > table / 2                                                 # not squeezed into the labels' column
    outside = browser.execute_script("return [...document.querySelectorAll('audio, .strip, .chip, .legend, input')]"
                                     ".filter(each => each.getBoundingClientRect().right > innerWidth).length")
    assert outside == 0
