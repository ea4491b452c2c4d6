"""A run in the browser: what is served, to whom, and that looking changes nothing."""

import http.client
import json
import os
import re
import signal
import subprocess
import sys
import threading
from base64 import b64encode
from hashlib import sha256

import pytest

from normattn.comparison import _watched
from normattn.comparison._watched import Watched, fingerprint
from normattn.comparison.protocol import Protocol, trial_folder, write_protocol
from normattn.comparison.watching import Watcher
from normattn.errors import ConfigError, RunError
from normattn.training import recipe


@pytest.fixture
def run(tmp_path):
    """A run of two trials, neither of them begun."""
    folder = tmp_path / "<i>run"
    folder.mkdir()
    fields = {"data": "digits", "host": "resnet20", "mechanisms": ("none", "nam"), "seeds": (0,)}
    write_protocol(Protocol(**fields, recipe=recipe("quick", epochs=2)), folder)
    return folder


def finish(run, mechanism="none", error=7.25):
    place = trial_folder(run, mechanism, 0)
    place.mkdir(parents=True)
    record = {"status": "done", "metrics": {"top1_error": error}}
    (place / "trial.json").write_text(json.dumps(record))


class Clock:
    """A clock that goes on when told to."""

    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def made(monkeypatch):
    """Replace the page by the names of the trials that are done; return how often it was made."""
    times = []

    def page(folder):
        times.append(folder)
        return "done: " + ", ".join(sorted(p.parent.parent.name for p in folder.rglob("trial.*")))

    monkeypatch.setattr(_watched, "PAGES", {"protocol.json": page})
    return times


@pytest.fixture
def serve():
    """Start watchers; they end with the test."""
    started = []

    def start(folder):
        watcher = Watcher(folder)
        thread = threading.Thread(target=watcher.serve_forever, args=(0.01,))
        thread.start()
        started.append((watcher, thread))
        return watcher

    yield start
    for watcher, thread in started:
        watcher.shutdown()
        thread.join()
        watcher.server_close()


def ask(watcher, path="/", method="GET", **headers):
    """Return a response and its text; the name of the host is the right one unless given."""
    connection = http.client.HTTPConnection("127.0.0.1", watcher.server_port, timeout=60)
    connection.putrequest(method, path, skip_host=True)
    for name, value in ({"Host": f"127.0.0.1:{watcher.server_port}"} | headers).items():
        connection.putheader(name, value)
    connection.endheaders()
    response = connection.getresponse()
    text = response.read().decode()
    connection.close()
    return response, text


def contents(folder):
    """Return everything that writing would change."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in [folder, *folder.rglob("*")]
    }


def test_the_page_is_the_report_and_nothing_is_written(run, serve):
    finish(run)
    before = contents(run)
    watcher = serve(run)
    response, page = ask(watcher, "/report")
    assert response.status == 200
    assert response.getheader("Content-Type") == "text/html; charset=utf-8"
    assert "Attention in resnet20 on digits" in page
    assert "7.25" in page
    assert "Content-Security-Policy" in page
    ask(watcher, "/")
    ask(watcher, "/state")
    assert contents(run) == before


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("slim.json", "This slimming is not finished."),
        ("salience.json", "No criterion is finished."),
    ],
)
def test_slimmings_and_salience_runs_have_their_pages(tmp_path, serve, name, words):
    (tmp_path / name).write_text('{"status": "running"}')
    before = contents(tmp_path)
    response, page = ask(serve(tmp_path), "/report")
    assert response.status == 200
    assert words in page
    assert contents(tmp_path) == before


def test_the_page_follows_the_records(run, serve, made):
    watcher = serve(run)
    _, first = ask(watcher, "/state")
    assert ask(watcher, "/report")[1] == "done: "
    assert ask(watcher, "/state")[1] == first
    finish(run)
    assert ask(watcher, "/state")[1] != first
    assert ask(watcher, "/report")[1] == "done: none"
    ask(watcher, "/report")
    assert len(made) == 2


def test_a_page_that_takes_long_is_not_made_all_the_time(run, monkeypatch):
    clock, made = Clock(), []

    def page(folder):
        made.append(folder)
        clock.now += 3
        return f"page {len(made)}"

    monkeypatch.setattr(_watched, "PAGES", {"protocol.json": page})
    watched = Watched(run, clock)
    assert watched.page() == "page 1"
    state = watched.state()
    finish(run)
    clock.now += 29
    assert watched.state() == state
    assert watched.page() == "page 1"
    clock.now += 1
    assert watched.state() != state
    assert watched.page() == "page 2"


def test_the_state_changes_with_every_record_and_with_nothing_else(run):
    states = [fingerprint(run)]
    finish(run)
    states.append(fingerprint(run))
    history = trial_folder(run, "none", 0) / "history.jsonl"
    for lines in (1, 2):
        history.write_text('{"epoch": 1}\n' * lines)
        states.append(fingerprint(run))
    os.utime(history, (1, 1))
    states.append(fingerprint(run))
    assert len(set(states)) == len(states)
    for name in ("state.pt", "report.html", ".trial.json.x1", "stderr.log"):
        (run / name).write_text("x")
    assert fingerprint(run) == states[-1]


def test_a_run_that_vanishes_is_said_on_the_page_and_one_that_comes_back_is_shown(run, serve, made):
    watcher = serve(run)
    assert ask(watcher, "/report")[0].status == 200
    _, state = ask(watcher, "/state")
    run.rename(run.with_name("away"))
    assert ask(watcher, "/state")[1] != state
    response, page = ask(watcher, "/report")
    assert response.status == 404
    assert "&lt;i&gt;run: expected a folder with protocol.json" in page
    run.with_name("away").rename(run)
    assert ask(watcher, "/report")[0].status == 200


def test_a_page_that_cannot_be_made_says_why_and_the_next_one_is_tried(
    run, serve, monkeypatch, capfd
):
    def fail(folder):
        raise KeyError("<b>width")

    monkeypatch.setattr(_watched, "PAGES", {"protocol.json": fail})
    watcher = serve(run)
    response, page = ask(watcher, "/report")
    assert response.status == 500
    assert "KeyError" in page
    assert "<b>" not in page
    assert ask(watcher, "/report")[0].status == 500
    assert "Traceback" in capfd.readouterr().err


@pytest.mark.parametrize(
    "path",
    [
        "/protocol.json",
        "/../protocol.json",
        "/report/../../etc/passwd",
        "/%2e%2e/protocol.json",
        "//etc/passwd",
        "/report.html",
        "/report/",
        "http://127.0.0.1/report",
        "*",
    ],
)
def test_no_other_address_leads_anywhere(run, serve, made, path):
    response, page = ask(serve(run), path)
    assert response.status == 404
    assert "nothing at this address" in page


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "localhost:1", "", "127.0.0.1.x:1"]
)
@pytest.mark.parametrize("path", ["/", "/report", "/state", "/nothing"])
def test_requests_under_another_name_are_refused(run, serve, made, host, path):
    watcher = serve(run)
    response, page = ask(watcher, path, Host=host.format(port=watcher.server_port))
    assert response.status == 403
    assert "none" not in page
    assert not made


def test_without_a_name_or_with_two_a_request_is_refused(run, serve, made):
    watcher = serve(run)
    connection = http.client.HTTPConnection("127.0.0.1", watcher.server_port, timeout=60)
    for hosts in ([], [f"127.0.0.1:{watcher.server_port}", "evil.example"]):
        connection.putrequest("GET", "/report", skip_host=True)
        for host in hosts:
            connection.putheader("Host", host)
        connection.endheaders()
        assert connection.getresponse().status == 403
        connection.close()
    assert ask(watcher, "/report", Host=f"localhost:{watcher.server_port}")[0].status == 200


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT"]
)
def test_nothing_but_reading_is_answered(run, serve, made, method):
    before = contents(run)
    watcher = serve(run)
    for path in ("/", "/report", "/state", "/protocol.json"):
        assert ask(watcher, path, method)[0].status == 501
    assert contents(run) == before
    assert not made


def test_head_gives_the_headers_alone(run, serve, made):
    watcher = serve(run)
    response, text = ask(watcher, "/report", "HEAD")
    assert (response.status, text) == (200, "")
    assert response.getheader("Content-Length") == str(len("done: "))


def test_every_answer_is_kept_from_other_sites(run, serve, made):
    watcher = serve(run)
    for path in ("/", "/report", "/state", "/nothing"):
        headers = ask(watcher, path)[0].headers
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "frame-ancestors" in headers["Content-Security-Policy"]
        assert headers["Cache-Control"] == "no-store"
        assert "Access-Control-Allow-Origin" not in headers


def test_the_frame_may_run_its_own_script_and_nothing_else(run, serve, made):
    response, page = ask(serve(run), "/")
    policy = response.getheader("Content-Security-Policy")
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    for kind in ("script", "style"):
        ((content),) = re.findall(f"<{kind}>(.*?)</{kind}>", page, re.DOTALL)
        digest = b64encode(sha256(content.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}';" in policy
    assert "<title>&lt;i&gt;run</title>" in page
    assert "<i>" not in page


def test_only_this_machine_can_connect(run, serve, made):
    watcher = serve(run)
    assert watcher.socket.getsockname()[0] == "127.0.0.1"
    assert watcher.url == f"http://127.0.0.1:{watcher.server_port}/"


def test_a_port_in_use_is_said_in_a_sentence(run, serve, made):
    taken = serve(run).server_port
    with pytest.raises(ConfigError, match=f"--port: expected a port that is free, got {taken}"):
        Watcher(run, taken)


@pytest.mark.parametrize("name", ["nothing", "empty", "file"])
def test_a_folder_without_records_is_refused(tmp_path, name):
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunError, match=r"expected a folder with protocol\.json"):
        Watcher(tmp_path / name)


PROGRAM = """
import typer
from normattn.cli import _common
from normattn.cli.watch import watch

program = typer.Typer(cls=_common.Commands, pretty_exceptions_enable=False)
program.callback()(lambda: None)
program.command()(watch)
program()
"""


def test_the_command_says_where_it_serves_and_ends_at_ctrl_c(run):
    command = [sys.executable, "-c", PROGRAM, "watch", str(run), "--port", "0", "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    told = json.loads(process.stdout.readline())
    assert told["run"] == str(run)
    port = int(told["url"].removesuffix("/").rpartition(":")[2])
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", "/state")
    assert connection.getresponse().read().decode() == fingerprint(run)
    process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert stderr.split() == ["Interrupted."]
