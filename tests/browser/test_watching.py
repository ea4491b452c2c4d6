"""`normattn watch` in a browser: the report stands in its frame and follows the records."""

import threading

import pytest

from normattn.comparison import _watched
from normattn.comparison.watching import Watcher

TALL = """<!doctype html><html lang="en"><head><title>t</title>
<meta http-equiv="Content-Security-Policy" content="default-src 'none'"></head>
<body><p>The record says {}.</p>{}</body></html>"""


@pytest.fixture
def watcher(tmp_path, monkeypatch):
    """A watcher of a folder whose page is its record, on many lines."""

    def page(folder):
        return TALL.format((folder / "protocol.json").read_text(), "<p>line</p>" * 300)

    monkeypatch.setattr(_watched, "PAGES", {"protocol.json": page})
    (tmp_path / "protocol.json").write_text("one")
    with Watcher(tmp_path) as watcher:
        thread = threading.Thread(target=watcher.serve_forever, args=(0.01,))
        thread.start()
        yield watcher
        watcher.shutdown()
        thread.join()


@pytest.fixture
def page(browser, watcher):
    """The page of the watcher, and what went wrong on it."""
    context = browser.new_context(viewport={"width": 390, "height": 600})
    page = context.new_page()
    page.set_default_timeout(60_000)
    errors, requests = [], []
    page.on("console", lambda m: errors.append(m.text) if m.type == "error" else None)
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on("request", lambda asked: requests.append(asked.url))
    page.goto(watcher.url)
    yield page, errors, requests
    context.close()


def test_the_report_follows_the_records_and_stays_where_the_reader_is(page, watcher):
    shown, errors, requests = page
    report = shown.frame_locator("#report")
    report.get_by_text("The record says one.").wait_for()
    assert "The records as of" in shown.inner_text("#line")
    frame = shown.frame(url="**/report")
    frame.evaluate("scrollTo(0, 1500)")
    (watcher.watched.folder / "protocol.json").write_text("another")
    report.get_by_text("The record says another.").wait_for(state="attached")
    for _ in range(200):  # a policy without eval keeps wait_for_function out
        if shown.evaluate("frames[0].scrollY") == 1500:
            break
        shown.wait_for_timeout(50)
    assert shown.evaluate("frames[0].scrollY") == 1500
    assert errors == []
    assert {url.removeprefix(watcher.url) for url in requests} <= {"", "state", "report"}
    assert sum(url.endswith("report") for url in requests) == 2


def test_a_run_that_is_gone_is_said_in_the_frame(page, watcher):
    shown, _, _ = page
    report = shown.frame_locator("#report")
    report.get_by_text("The record says one.").wait_for()
    (watcher.watched.folder / "protocol.json").unlink()
    report.get_by_text("expected a folder with protocol.json").wait_for()


def test_an_end_of_the_server_is_said_and_the_last_report_stays(page, watcher):
    shown, _, _ = page
    shown.frame_locator("#report").get_by_text("The record says one.").wait_for()
    shown.route("**/state", lambda route: route.abort())
    shown.get_by_text("normattn watch has ended").wait_for()
    assert shown.frame_locator("#report").get_by_text("The record says one.").is_visible()
