"""What watches the pages sees what it is there for: each of its tests could fail."""

import asyncio
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
from browsing import INSTALL, NoBrowser, launch
from playwright.sync_api import Error

BAD = """<!doctype html><html lang="en"><head><title>t</title>
<meta http-equiv="Content-Security-Policy"
content="default-src 'none'; style-src 'unsafe-inline'; script-src {scripts}">
</head><body><h1>Bad</h1><p style="color:#ccc;background:#fff">hardly readable</p>
<button></button><div style="width:900px">wide</div>
<script>console.error("said"); alert("ran"); window.ran = 1; fetch("http://a.example/x")</script>
<img alt="" src="http://b.example/y"></body></html>"""


@pytest.fixture
def bad(tmp_path):
    def write(scripts):
        path = tmp_path / "bad.html"
        path.write_text(BAD.format(scripts=scripts))
        return path

    return write


def test_errors_dialogs_and_blocked_requests_are_noticed(open_page, bad):
    with open_page(bad("'unsafe-inline'")) as found:
        assert "said" in found.errors
        assert found.dialogs == ["ran"]
        assert sum("b.example" in error for error in found.errors) == 1
        assert found.page.evaluate("window.ran") == 1


def test_a_request_is_noticed_where_no_policy_blocks_it(open_page, bad):
    with open_page(bad("'none'"), policy=False) as found:
        assert sorted(found.requests) == ["http://a.example/x", "http://b.example/y"]


def test_a_script_that_a_policy_blocks_does_not_run_and_is_an_error(open_page, bad):
    with open_page(bad("'none'")) as found:
        assert found.page.evaluate("window.ran") is None
        assert any("script" in error for error in found.errors)


def test_a_page_too_wide_and_hard_to_read_is_noticed(open_page, bad):
    with open_page(bad("'none'"), width=390) as found:
        assert found.sideways() > 300
        rules = {finding.split()[0] for finding in found.findings()}
        assert {"color-contrast", "button-name"} <= rules
        assert {line.split()[0] for line in found.findings("color-contrast")} == {"color-contrast"}


class Nothing:
    """A playwright that has no browser installed."""

    def __init__(self):
        self.tried = []
        self.chromium = self

    def launch(self, executable_path):
        self.tried.append(executable_path)
        raise Error("Executable doesn't exist\nand a long story")


def test_playwrights_own_chromium_is_tried_first_then_those_on_path(monkeypatch):
    monkeypatch.setattr(
        "browsing.shutil.which", lambda name: f"/bin/{name}" if name != "chromium" else None
    )
    playwright = Nothing()
    with pytest.raises(NoBrowser, match=INSTALL) as caught:
        launch(playwright)
    assert playwright.tried == [None, "/bin/chromium-browser", "/bin/google-chrome"]
    assert "its own: Executable doesn't exist; /bin/chromium-browser:" in str(caught.value)


def test_a_loop_of_playwright_runs_only_in_this_folder(browser):
    assert asyncio.get_running_loop().is_running()  # why the browser is closed with the folder


def test_where_no_chromium_can_be_installed_there_is_one_line_and_no_error(monkeypatch, capsys):
    asked = []

    def run(command, **options):
        asked.append(command[1:])
        return SimpleNamespace(stderr="Downloading\nError: no network\n")

    place = Path(__file__).with_name("setup.py")
    setup = runpy.run_path(str(place))["main"].__globals__
    monkeypatch.setitem(setup, "_reason", lambda: "No Chromium starts here.")
    monkeypatch.setitem(setup, "subprocess", SimpleNamespace(run=run))
    setup["main"]()
    assert asked == [["-m", *INSTALL.split()]]
    said = "The pages' tests will be skipped. No Chromium starts here. Error: no network\n"
    assert capsys.readouterr().out == said
