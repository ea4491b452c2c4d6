"""The Hub: a folder with its card, and the push, through huggingface_hub to a server of our own."""

import base64
import http.server
import json
import threading

import huggingface_hub
import pytest
import torch
import yaml
from torch.testing import assert_close

import normattn
from normattn.errors import ArtifactError, ConfigError, Fault, RunError
from normattn.model._artifact_card import escape
from normattn.model._hub import push_to_hub
from normattn.model.artifact import INFO, WEIGHTS, load, read_info, save

NAMES = ["cat", "dog", "<script>alert(1)</script>", "a|b", "[x](http://evil)", "*", "`", "q\n# r"]
SAID = {"input_size": [3, 32, 32], "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.2]}
SLIMMING = {
    "target": {"channels": 0.5},
    "criterion": "bn-scale",
    "before": {"parameters": 272_000, "macs": 41_000_000, "latency_ms": {"1": 2.0}},
    "after": {"parameters": 68_000, "macs": 20_500_000, "latency_ms": {"1": 1.6}},
}


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return normattn.graft(normattn.host("resnet20", 8), "ean", groups=8).eval()


def saved(model, path, **more):
    metrics = {"top1_error": 31.25, "loss": 1.0}
    said = {"classes": NAMES, "preprocessing": SAID, "metrics": metrics, "slimming": SLIMMING}
    return save(model, path, **{**said, **more})


@pytest.fixture(params=["folder", "x.safetensors"])
def artifact(request, tmp_path, model):
    return saved(model, tmp_path / request.param)


def card_of(folder):
    head, _, body = (folder / "README.md").read_text().removeprefix("---\n").partition("\n---\n")
    return yaml.safe_load(head), body


def test_a_hub_folder_holds_three_files_and_loads(tmp_path, artifact, model):
    place = push_to_hub(artifact, "me/cats", folder=tmp_path / "hub", license="mit")
    folder = tmp_path / "hub"
    assert place == str(folder)
    assert sorted(p.name for p in folder.iterdir()) == ["README.md", "config.json", WEIGHTS]
    again = load(folder)
    assert_close(dict(again.state_dict()), dict(model.state_dict()), rtol=0, atol=0)
    assert normattn.grafts(again) == normattn.grafts(model)
    image = torch.zeros(3, 32, 32, dtype=torch.uint8)
    assert again.predict(image).label == load(artifact).predict(image).label
    one, two = read_info(artifact).to_json(), read_info(folder).to_json()
    one.pop("sha256"), two.pop("sha256")
    assert one == two


def test_the_configuration_is_what_the_hub_looks_for(tmp_path, artifact):
    push_to_hub(artifact, "me/cats", folder=tmp_path / "hub")
    config = json.loads((tmp_path / "hub" / "config.json").read_text())
    assert config["library_name"] == "normattn"
    assert config["architecture"] == "resnet20"
    assert config["num_classes"] == 8
    assert config["label_names"] == NAMES


def test_damage_on_the_way_is_found(tmp_path, artifact):
    push_to_hub(artifact, "me/cats", folder=tmp_path / "hub")
    weights = tmp_path / "hub" / WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x77")
    with pytest.raises(ArtifactError, match="another checksum"):
        load(tmp_path / "hub")


def test_a_configuration_of_another_library_is_no_artifact(tmp_path):
    for text in ('{"architecture": "resnet18"}', "[]", "<html>"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ArtifactError, match=r"config\.json"):
            load(tmp_path)


def test_the_head_of_the_card_is_yaml_with_what_the_hub_sorts_by(tmp_path, artifact):
    push_to_hub(artifact, "me/cats", folder=tmp_path / "hub", license="apache-2.0")
    head, _ = card_of(tmp_path / "hub")
    assert head == {
        "library_name": "normattn",
        "license": "apache-2.0",
        "pipeline_tag": "image-classification",
        "tags": ["normattn", "image-classification", "resnet20", "ean", "slimmed"],
    }


def test_the_card_shows_what_was_measured(tmp_path, artifact):
    push_to_hub(artifact, "me/cats", folder=tmp_path / "hub", license="mit")
    _, body = card_of(tmp_path / "hub")
    size = (tmp_path / "hub" / WEIGHTS).stat().st_size
    for row in (
        "| Top\\-1 error (%) | 31.25 |".replace("(", "\\(").replace(")", "\\)"),
        "| Loss | 1 |",
        f"| Weights \\(bytes\\) | {size:,} |",
        "| Parameters | 272,000 | 68,000 | 4.00× |",
        "| Multiply\\-adds | 41,000,000 | 20,500,000 | 2.00× |",
        "| latency\\_ms 1 | 2 | 1.6 | 1.25× |",
    ):
        assert row in body
    assert "resnet20, with ean\\(groups=8\\) at 9 sites, slimmed" in body
    assert "Weights: mit." in body
    assert 'snapshot_download("me/cats")'.replace('"', "'") in body
    assert 'model.predict("image.jpg")' in body


def test_no_name_in_an_artifact_becomes_markup(tmp_path, artifact):
    push_to_hub(artifact, "me/cats", folder=tmp_path / "hub")
    _, body = card_of(tmp_path / "hub")
    assert "<script>" not in body
    assert "&lt;script&gt;" in body
    assert "](http" not in body
    assert "\n# r" not in body
    assert "a\\|b" in body
    assert escape("a|b\n# *c* `d` <e> [f](g) ~~h~~ &amp;") == (
        r"a\|b \# \*c\* \`d\` &lt;e&gt; \[f\]\(g\) \~\~h\~\~ &amp;amp;"
    )


def test_a_card_says_what_is_not_known(tmp_path, model):
    path = saved(model, tmp_path / "x", metrics=None, classes=None, slimming=None)
    push_to_hub(path, "me/cats", folder=tmp_path / "hub")
    head, body = card_of(tmp_path / "hub")
    assert "license" not in head
    assert "None was given. Ask the author" in body
    assert "Nothing was recorded with the model" in body
    assert "## Slimmed" not in body
    assert "predict(" not in body


def test_the_card_of_a_users_own_class_says_that_it_needs_a_builder(tmp_path):
    net = torch.nn.Sequential(torch.nn.Linear(2, 2))
    path = save(net, tmp_path / "x", builder=True)
    push_to_hub(path, "me/own", folder=tmp_path / "hub")
    assert "a function that returns a new Sequential" in (tmp_path / "hub/README.md").read_text()


def test_thousands_of_classes_do_not_hide_the_card(tmp_path):
    names = [f"n{i}" for i in range(1000)]
    path = save(normattn.host("resnet20", 1000), tmp_path / "x", classes=names)
    push_to_hub(path, "me/many", folder=tmp_path / "hub")
    _, body = card_of(tmp_path / "hub")
    assert "n199, and 800 more" in body
    assert "n200" not in body


def test_an_earlier_push_is_replaced_and_other_files_are_not(tmp_path, artifact):
    hub = tmp_path / "hub"
    for name in ("me/first", "me/second"):
        push_to_hub(artifact, name, folder=hub)
    assert "# second" in (hub / "README.md").read_text()
    other = tmp_path / "other"
    other.mkdir()
    (other / "README.md").write_text("mine")
    with pytest.raises(ArtifactError, match=r"got one with README\.md"):
        push_to_hub(artifact, "me/x", folder=other)
    assert (other / "README.md").read_text() == "mine"
    assert len(list(other.iterdir())) == 1


def test_an_artifact_is_not_turned_into_its_own_hub_folder(tmp_path, model):
    path = saved(model, tmp_path / "x")
    with pytest.raises(ArtifactError, match=r"model\.safetensors, model\.json"):
        push_to_hub(path, "me/x", folder=path)
    hub = push_to_hub(path, "me/x", folder=tmp_path / "hub")
    with pytest.raises(ArtifactError, match="choose another folder"):
        push_to_hub(hub, "me/x", folder=hub)
    with pytest.raises(ArtifactError, match=r"one with a config\.json"):
        save(model, hub)


def test_a_folder_that_cannot_be_written_is_refused(tmp_path, artifact):
    (tmp_path / "file").write_text("")
    with pytest.raises(RunError, match="can be written"):
        push_to_hub(artifact, "me/x", folder=tmp_path / "file" / "hub")


@pytest.mark.parametrize("name", ["cats", "me/cats/2", "me/ca ts", "", "me/..", "https://x/y"])
def test_a_name_that_is_none_is_refused_before_anything_is_sent(artifact, name):
    with pytest.raises(ConfigError, match="a repository as user/name"):
        push_to_hub(artifact, name)


def test_a_damaged_model_is_not_pushed(tmp_path, model):
    path = saved(model, tmp_path / "x")
    (path / WEIGHTS).write_bytes((path / WEIGHTS).read_bytes()[:-4])
    with pytest.raises(ArtifactError, match="another checksum"):
        push_to_hub(path, "me/x", folder=tmp_path / "hub")
    (path / WEIGHTS).unlink()
    with pytest.raises(ArtifactError, match=r"without model\.safetensors"):
        push_to_hub(path, "me/x", folder=tmp_path / "hub")
    assert not (tmp_path / "hub").exists()


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the Hub as a commit of small files needs; what is committed goes to a folder."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        hub = self.server
        hub.asked.append((self.path, self.headers.get("Authorization")))
        if hub.status != 200:
            return self.answer({"error": "no"}, hub.status)
        if self.path == "/api/repos/create":
            hub.repo = json.loads(body)
            return self.answer({"url": f"{hub.address}/me/cats"})
        if "/preupload/" in self.path:
            files = [
                {"path": f["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None}
                for f in json.loads(body)["files"]
            ]
            return self.answer({"files": files})
        if "/commit/" not in self.path:  # the card's head is shown to it first
            return self.answer({"errors": [], "warnings": []})
        for line in body.decode().splitlines():
            entry = json.loads(line)
            if entry["key"] == "file":
                content = base64.b64decode(entry["value"]["content"])
                (hub.folder / entry["value"]["path"]).write_bytes(content)
        done = {"commitUrl": f"{hub.address}/me/cats/commit/1", "commitOid": "1"}
        return self.answer({**done, "success": True})

    def do_GET(self):
        self.server.asked.append((self.path, None))
        self.answer({"sha": "0", "siblings": [], "id": "me/cats"}, 404)

    def answer(self, content, status=200):
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A server on this machine; huggingface_hub is the real one."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.address = f"http://127.0.0.1:{server.server_port}"
    server.asked, server.status, server.folder = [], 200, tmp_path / "remote"
    server.folder.mkdir()
    real = huggingface_hub.HfApi

    def api(**options):
        return real(**{"endpoint": server.address, **options})

    monkeypatch.setattr(huggingface_hub, "HfApi", api)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def test_a_push_brings_the_model_and_its_card_and_nothing_else(hub, artifact, model):
    if artifact.is_dir():
        (artifact / "state.pt").write_bytes(b"a training's own")
    place = push_to_hub(artifact, "me/cats", private=True, token="secret", license="mit")
    assert place == f"{hub.address}/me/cats"
    assert hub.repo["name"] == "cats"
    assert hub.repo["organization"] == "me"
    assert hub.repo.get("private") or hub.repo.get("visibility") == "private"
    assert "Bearer secret" in {token for _, token in hub.asked}
    assert sorted(p.name for p in hub.folder.iterdir()) == ["README.md", "config.json", WEIGHTS]
    again = load(hub.folder)
    assert_close(dict(again.state_dict()), dict(model.state_dict()), rtol=0, atol=0)
    assert not (hub.folder / INFO).exists()


@pytest.mark.parametrize("status", [401, 403])
def test_an_account_that_may_not_write_hears_how_to_log_in(hub, artifact, status):
    hub.status = status
    with pytest.raises(ConfigError, match="hf auth login"):
        push_to_hub(artifact, "me/cats", token="wrong")
    assert list(hub.folder.iterdir()) == []


def test_a_hub_that_cannot_be_reached_is_a_fault(hub, artifact):
    hub.shutdown()
    hub.server_close()
    with pytest.raises(Fault, match="expected the Hub to take me/cats"):
        push_to_hub(artifact, "me/cats", token="x")
