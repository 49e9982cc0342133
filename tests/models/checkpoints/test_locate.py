import hashlib
import time
from pathlib import Path

import httpx2
import pytest
import torch
from huggingface_hub import constants

from ghn_pyg import CheckpointError, from_pretrained
from ghn_pyg.models.checkpoints import locate, read_checkpoint, resolve, write_folder
from ghn_pyg.models.checkpoints.locate import PUBLISHED_NAMES
from ghn_pyg.models.checkpoints.published_keys import from_published
from tests.models.checkpoints.checkpoint_files import TINY, published_state, same

COMMIT = "5a0f5a0f" * 5


class Hub:
    """Answers as the hub does, and keeps what it was asked."""

    def __init__(self, repositories):
        self.repositories = repositories
        self.asked = []
        self.tags = {}
        self.failure = None

    def __call__(self, request):
        repository, for_file, rest = request.url.path.strip("/").partition("/resolve/")
        if not for_file:  # the client also asks for things of its own
            return self.error(404, None)
        self.asked.append((request.method, request.url.path, request.headers.get("authorization")))
        if self.failure:
            raise self.failure
        revision, _, name = rest.partition("/")
        if repository not in self.repositories:
            return self.error(401, None)
        if revision not in ("main", COMMIT):
            return self.error(404, "RevisionNotFound")
        if name not in self.repositories[repository]:
            return self.error(404, "EntryNotFound")
        content = self.repositories[repository][name]
        tag = self.tags.get(name, name)
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{tag}"', "Content-Length": str(len(content))}
        return httpx2.Response(200, headers=headers, content=b"" if request.method == "HEAD" else content)

    @staticmethod
    def error(status, code):
        return httpx2.Response(status, headers={"X-Error-Code": code} if code else {}, content=b"")


@pytest.fixture
def hub(monkeypatch):
    """A hub with two repositories at the edge of the network."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    answers = Hub({
        "SamsungSAILMontreal/ghn3": {f"{name}.pt": name.encode() for name in PUBLISHED_NAMES},
        "someone/my-ghn": {"config.json": b"{}", "model.safetensors": b"weights", "README.md": b"text"},
    })  # fmt: skip
    monkeypatch.setattr(httpx2.HTTPTransport, "handle_request", lambda _, request: answers(request))
    monkeypatch.setattr(time, "sleep", lambda _: None)  # between attempts
    return answers


@pytest.fixture
def no_hub(hub):
    """A hub that nobody may ask."""
    hub.failure = AssertionError("the hub was asked")
    yield
    assert hub.asked == []


@pytest.mark.usefixtures("no_hub")
def test_files_on_disk_are_never_looked_up_on_the_hub(tmp_path, monkeypatch):
    torch.save(published_state(TINY), tmp_path / "ghn3tm8.pt")
    (tmp_path / "someone" / "my-ghn").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("ghn3tm8.pt", "someone/my-ghn", "someone", "."):
        assert resolve(name).samefile(tmp_path / name)
        assert resolve(tmp_path / name) == tmp_path / name
    assert resolve("~/ghn3tm8.pt") == tmp_path / "ghn3tm8.pt"
    assert same(read_checkpoint(resolve("ghn3tm8.pt"))[1], from_published(published_state(TINY)))


@pytest.mark.parametrize("name", PUBLISHED_NAMES)
@pytest.mark.parametrize("suffix", ["", ".pt"])
def test_published_names(name, suffix, hub, tmp_path):
    path = resolve(name + suffix, cache_dir=tmp_path, token=False)
    assert path.name == f"{name}.pt"
    assert path.read_text() == name
    assert {asked[1] for asked in hub.asked} == {f"/SamsungSAILMontreal/ghn3/resolve/main/{name}.pt"}
    assert resolve(cache_dir=tmp_path).name == "ghn3xlm16.pt"


def test_saved_models_are_downloaded_from_one_commit(hub, tmp_path):
    folder = resolve("someone/my-ghn", cache_dir=tmp_path)
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert [path for method, path, _ in hub.asked if method == "HEAD"] == [
        "/someone/my-ghn/resolve/main/config.json",
        f"/someone/my-ghn/resolve/{COMMIT}/model.safetensors",
    ]


def test_mirrors_revisions_and_tokens_are_passed_on(hub, tmp_path):
    hub.repositories["me/mirror"] = {"ghn2.pt": b"mirrored"}
    path = resolve("ghn2", repo_id="me/mirror", revision=COMMIT, cache_dir=tmp_path, token="hf_secret")
    assert path.read_text() == "mirrored"
    assert hub.asked[0] == ("HEAD", f"/me/mirror/resolve/{COMMIT}/ghn2.pt", "Bearer hf_secret")


def test_downloads_are_cached(hub, tmp_path, monkeypatch):
    paths = {name: resolve(name, cache_dir=tmp_path) for name in ("ghn2", "someone/my-ghn")}
    hub.failure = httpx2.ConnectError("no network")
    for name, path in paths.items():
        assert resolve(name, cache_dir=tmp_path) == path
        assert resolve(name, cache_dir=tmp_path, local_files_only=True) == path
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name, path in paths.items():
        assert resolve(name, cache_dir=tmp_path) == path


def git_hash(content):
    return hashlib.sha1(b"blob %d\0%b" % (len(content), content), usedforsecurity=False).hexdigest()


def test_content_is_compared_with_the_hash_of_the_hub(hub, tmp_path):
    hub.tags = {"ghn2.pt": hashlib.sha256(b"ghn2").hexdigest(), "config.json": git_hash(b"{}")}
    assert resolve("ghn2", cache_dir=tmp_path).read_text() == "ghn2"
    assert (resolve("someone/my-ghn", cache_dir=tmp_path) / "config.json").read_text() == "{}"
    hub.repositories["someone/my-ghn"]["config.json"] = b"[]"
    with pytest.raises(CheckpointError, match="the hub's file was changed"):
        resolve("someone/my-ghn", cache_dir=tmp_path / "new")


@pytest.mark.parametrize("options", [{}, {"local_files_only": True}, {"revision": COMMIT}])
def test_a_byte_of_the_cache_that_changed(options, hub, tmp_path):
    hub.tags["ghn2.pt"] = digest = hashlib.sha256(b"ghn2").hexdigest()
    path = resolve("ghn2", cache_dir=tmp_path, **({} if "local_files_only" in options else options))
    path.resolve().write_bytes(b"ghn3")
    with pytest.raises(CheckpointError, match=rf"was changed, or damaged .*blobs/{digest} .* remove it to download"):
        resolve("ghn2", cache_dir=tmp_path, **options)


def test_a_body_that_is_not_what_the_hub_announced(hub, tmp_path):
    hub.tags["ghn2.pt"] = hashlib.sha256(b"another").hexdigest()
    with pytest.raises(CheckpointError, match="the hub's file was changed, or damaged on its way"):
        resolve("ghn2", cache_dir=tmp_path)


OFFLINE = (
    r"^'ghn2' is not a file or folder, and ghn2\.pt of the hub's repository 'SamsungSAILMontreal/ghn3' at revision "
    r"'main' cannot be loaded: it is not in the local cache, and {}\. Pass the path .*`ghn-pyg init`$"
)


@pytest.mark.usefixtures("no_hub")
def test_offline_without_a_cache(tmp_path, monkeypatch):
    with pytest.raises(CheckpointError, match=OFFLINE.format("nothing is downloaded, as local_files_only is set")):
        resolve("ghn2", cache_dir=tmp_path, local_files_only=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match=OFFLINE.format("nothing is downloaded, as HF_HUB_OFFLINE is set")):
        resolve("ghn2", cache_dir=tmp_path)


@pytest.mark.parametrize("failure", [httpx2.ConnectError("no"), httpx2.ConnectTimeout("no"), httpx2.ReadTimeout("no")])
def test_without_a_network(failure, hub, tmp_path):
    hub.failure = failure
    with pytest.raises(CheckpointError, match=OFFLINE.format("the hub cannot be reached; check the network")):
        resolve("ghn2", cache_dir=tmp_path)


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("force", [False, True])
def test_a_hub_that_is_busy_or_broken(status, force, hub, tmp_path, monkeypatch):
    monkeypatch.setattr(Hub, "error", staticmethod(lambda *_: httpx2.Response(status)))
    hub.repositories.clear()
    with pytest.raises(CheckpointError, match=f"cannot be loaded: the hub answered with HTTP status {status}"):
        resolve("ghn2", cache_dir=tmp_path, force_download=force)


def test_damaged_files_are_downloaded_again(hub, tmp_path):
    hub.tags["ghn2.pt"] = hashlib.sha256(b"ghn2").hexdigest()
    resolve("ghn2", cache_dir=tmp_path).resolve().write_bytes(b"ghn3")
    assert resolve("ghn2", cache_dir=tmp_path, force_download=True).read_bytes() == b"ghn2"
    assert resolve("ghn2", cache_dir=tmp_path).read_bytes() == b"ghn2"
    hub.failure = httpx2.ConnectError("no network")
    with pytest.raises(CheckpointError, match="ConnectError: no network"):
        resolve("ghn2", cache_dir=tmp_path, force_download=True)


def test_other_failures_are_quoted(hub, tmp_path):
    hub.failure = httpx2.ProxyError("the proxy says no")
    with pytest.raises(CheckpointError, match=r"'main' cannot be loaded: ProxyError: the proxy says no"):
        resolve("ghn2", cache_dir=tmp_path)


@pytest.mark.usefixtures("hub")
@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("someone/none", {}, r"config\.json of the hub's repository 'someone/none' .*: the repository does not exist"),
        (
            "ghn2",
            {"repo_id": "me/none"},
            "'me/none' .*: the repository does not exist",
        ),
        ("ghn2", {"repo_id": "someone/my-ghn"}, r"the repository has no such file\. Check the name and the revision"),
        ("SamsungSAILMontreal/ghn3", {}, r"config\.json .*: the repository has no such file"),
        ("ghn2", {"revision": "nightly"}, r"at revision 'nightly' .*: the repository has no such revision\. Check"),
        ("ghn2", {"repo_id": "not a repository"}, r"'not a repository' .*: HFValidationError"),
        ("someone/a--b", {}, r"'someone/a--b' .*: HFValidationError"),
    ],
)
def test_repositories_files_and_revisions_that_do_not_exist(name, options, message, tmp_path):
    with pytest.raises(CheckpointError, match=message):
        resolve(name, cache_dir=tmp_path, **options)


def test_gated_repositories(hub, tmp_path, monkeypatch):
    gated = httpx2.Response(403, headers={"X-Error-Code": "GatedRepo"})
    monkeypatch.setattr(Hub, "error", staticmethod(lambda *_: gated))
    hub.repositories.clear()
    with pytest.raises(CheckpointError, match="access to the repository must be requested"):
        resolve("ghn2", cache_dir=tmp_path)


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("ghn3tm16", r"did you mean .*ghn3tm8.*\?$"),
        ("GHN3TM8", r"a saved model; did you mean ghn3tm8 or .*\?$"),
        ("checkpoints/ghn3tm8.pt", r"a saved model; did you mean ghn3tm8 or "),
        *((name, r"a saved model$") for name in ("resnet50", "", "runs/digits/ghn", "checkpoints/mine.safetensors",
          "./someone/my-ghn", "/nowhere/my-model", "~/nowhere", "a/b/c", "someone/my\x00ghn", "x" * 5000)),
    ],
)  # fmt: skip
def test_unknown_names(name, hint, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    expected = r"not the name of a checkpoint\. Expected a path, one of ghn3tm8, ghn3sm8, .*, digits, .*"
    with pytest.raises(CheckpointError, match=expected + hint):
        resolve(name, cache_dir=tmp_path)


@pytest.mark.usefixtures("no_hub")
def test_missing_paths_are_not_looked_up_on_the_hub(tmp_path):
    with pytest.raises(CheckpointError, match="not a file or folder"):
        resolve(tmp_path / "ghn3tm8.pt")


def test_bundled_ghns_need_no_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(locate, "hf_hub_download", None)
    assert resolve("digits") == Path(locate.__file__).parent / "bundled" / "digits"
    ghn = from_pretrained("digits")
    assert (ghn.config.num_classes, ghn.config.layers, ghn.config.max_kernel_size) == (10, 3, 7)
    assert {parameter.dtype for parameter in ghn.parameters()} == {torch.float32}
    assert sum(path.stat().st_size for path in resolve("digits").iterdir()) < 5e6
    (tmp_path / "digits").mkdir()
    assert resolve("digits") == Path("digits")  # what is on disk comes first, as for every name


def test_the_folder_of_a_run(tmp_path):
    write_folder(tmp_path / "run" / "ghn", TINY, {"norm.weight": torch.ones(3)})
    assert resolve(tmp_path / "run") == tmp_path / "run" / "ghn" == resolve(tmp_path / "run" / "ghn")
    write_folder(tmp_path / "run", TINY, {"norm.weight": torch.ones(3)})
    assert resolve(tmp_path / "run") == tmp_path / "run"


def test_a_path_in_an_existing_folder_is_not_looked_up_on_the_hub(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "someone").mkdir()
    with pytest.raises(CheckpointError, match="'someone/my-ghn' is not a file or folder"):
        resolve("someone/my-ghn")
    assert hub.asked == []
