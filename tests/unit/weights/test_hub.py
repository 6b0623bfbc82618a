"""Pulling from the hub: a server on this machine that plays it, well and badly."""

import hashlib
import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from smallpress.run.errors import UserError
from smallpress.weights import https
from smallpress.weights.https import Fetcher, public_address
from smallpress.weights.load import open_model
from smallpress.weights.pull import pull
from smallpress.weights.reference import resolve
from smallpress.weights.safetensors import open_safetensors
from smallpress.weights.safetensors_writer import write_safetensors

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """Serves `files` as commit COMMIT of org/tiny; `answers` overrides paths with (status, headers, body)."""

    def __init__(self, files):
        self.files, self.answers, self.listing, self.asked = dict(files), {}, {}, []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                hub.asked.append(self.path)
                status, headers, body = hub.answer(self.path)
                self.send_response(status)
                for key, value in ({"Content-Length": str(len(body))} | headers).items():
                    self.send_header(key, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def siblings(self):
        return [
            {"rfilename": name, "size": len(data)}
            | ({"lfs": {"sha256": hashlib.sha256(data).hexdigest()}} if name.endswith(".safetensors") else {})
            for name, data in self.files.items()
        ]

    def answer(self, path):
        if path in self.answers:
            return self.answers[path]
        if path.startswith("/api/models/org/tiny/revision/main"):
            listing = {"sha": COMMIT, "siblings": self.siblings(), "cardData": {"license": "mit"}} | self.listing
            return 200, {}, json.dumps(listing).encode()
        name = path.removeprefix(f"/org/tiny/resolve/{COMMIT}/")
        return (200, {}, self.files[name]) if name in self.files else (404, {}, b"no")


@pytest.fixture
def hub(hf_folder, monkeypatch):
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    folder = hf_folder()
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    files |= {"LICENSE": b"Free.", "README.md": b"---\nlicense: mit\n---\n", "run.py": b"evil", "w.bin": b"pickle"}
    fake = FakeHub(files)
    yield fake
    fake.server.shutdown()
    fake.server.server_close()


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def refusal(hub, store, words):
    with pytest.raises(UserError) as caught:
        pull("org/tiny", store, base_url=hub.url)
    assert words in str(caught.value)
    assert not list((store / "models").iterdir())


def test_a_model_is_pulled_whole_and_nothing_else_with_it(hub, store):
    seen = []
    pulled = pull("org/tiny", store, on_bytes=lambda done, total: seen.append((done, total)), base_url=hub.url)
    assert pulled.path == store / "models/org--tiny" and not pulled.was_there
    names = {path.name for path in pulled.path.iterdir()}
    wanted = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "LICENSE", "README.md"}
    assert names == wanted | {"source.json", "manifest.json"}
    size = len(hub.files["model.safetensors"])
    assert seen[-1] == (size, size)
    files = open_model(resolve("org/tiny", store=store))
    assert (files.licence, files.origin, files.licence_text) == ("mit", "org/tiny", "Free.")
    assert COMMIT in json.loads((pulled.path / "source.json").read_text())["source"]


def test_pulling_again_asks_nobody(hub, store):
    pull("org/tiny", store, base_url=hub.url)
    hub.asked.clear()
    assert pull("org/tiny", store, base_url=hub.url).was_there and not hub.asked


def test_shards_are_pulled_by_their_index(hub, store, tmp_path):
    (tmp_path / "m").write_bytes(hub.files.pop("model.safetensors"))
    whole = open_safetensors(tmp_path / "m")
    places = {}
    for i, name in enumerate(sorted(whole.tensors)):
        places[name] = f"model-0000{i % 2 + 1}-of-00002.safetensors"
    for shard in set(places.values()):
        tensors = {name: whole.stored(name).copy() for name, place in places.items() if place == shard}
        write_safetensors(tmp_path / shard, tensors)
        hub.files[shard] = (tmp_path / shard).read_bytes()
    index = "model.safetensors.index.json"
    hub.files[index] = json.dumps({"weight_map": places}).encode()
    assert len(dict(open_model(pull("org/tiny", store, base_url=hub.url).path).tensors())) == len(places)
    hub.files[index] = json.dumps({"weight_map": places | {"x": "../../../x.safetensors"}}).encode()
    refusal(hub, store.with_name("other"), "no shard's name")
    hub.files[index] = json.dumps({"weight_map": places | {"x": "absent.safetensors"}}).encode()
    refusal(hub, store.with_name("other"), "lacks absent.safetensors")


def test_a_changed_byte_is_refused(hub, store):
    data = bytearray(hub.files["model.safetensors"])
    data[-1] ^= 1
    hub.answers[f"/org/tiny/resolve/{COMMIT}/model.safetensors"] = (200, {}, bytes(data))
    refusal(hub, store, "SHA-256")


def test_a_file_that_breaks_off_is_refused(hub, store):
    data = hub.files["model.safetensors"]
    path = f"/org/tiny/resolve/{COMMIT}/model.safetensors"
    hub.answers[path] = (200, {}, data[:-1])
    refusal(hub, store, "broke off")
    hub.answers[path] = (200, {"Content-Length": str(len(data))}, data[:-1])
    refusal(hub, store, "model.safetensors")


def test_a_file_longer_than_said_is_cut_off(hub, store):
    hub.answers[f"/org/tiny/resolve/{COMMIT}/config.json"] = (200, {}, hub.files["config.json"] + bytes(10))
    refusal(hub, store, "more than the")


def test_a_model_that_could_not_be_loaded_is_refused_before_its_weights_come(hub, store):
    settings = json.loads(hub.files["config.json"]) | {"model_type": "mamba"}
    hub.files["config.json"] = json.dumps(settings).encode()
    refusal(hub, store, "model_type 'mamba'")
    assert not any("safetensors" in path for path in hub.asked)


def test_weights_at_odds_with_the_config_are_not_kept(hub, store):
    settings = json.loads(hub.files["config.json"]) | {"num_hidden_layers": 3}
    hub.files["config.json"] = json.dumps(settings).encode()
    refusal(hub, store, "missing: ")


def test_pickled_weights_are_not_fetched(hub, store):
    del hub.files["model.safetensors"]
    refusal(hub, store, "no safetensors weights")


def test_ctrl_c_leaves_nothing(hub, store):
    def interrupt(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pull("org/tiny", store, on_bytes=interrupt, base_url=hub.url)
    assert not list((store / "models").iterdir())


@pytest.mark.parametrize(
    "listing",
    [
        {"sha": "../../x"},
        {"sha": None},
        {"siblings": None},
        {"siblings": [{}]},
        {"siblings": [{"rfilename": 3}]},
        {"siblings": {"a": "b"}},
    ],
)
def test_an_answer_that_makes_no_sense_is_refused(hub, store, listing):
    hub.listing = listing
    refusal(hub, store, "makes no sense")


@pytest.mark.parametrize("size", [None, -1, 1 << 60, "7", 1.5])
def test_sizes_that_make_no_sense_are_refused(hub, store, size):
    hub.listing = {"siblings": [entry | {"size": size} for entry in hub.siblings()]}
    refusal(hub, store, "the size")


def test_a_config_too_large_is_not_fetched(hub, store):
    hub.listing = {"siblings": [{"rfilename": "config.json", "size": 1 << 30}]}
    refusal(hub, store, "more than")
    assert len(hub.asked) == 1


def test_weights_too_large_for_the_disk_are_not_fetched(hub, store):
    hub.listing = {"siblings": [e | ({"size": 1 << 39} if "lfs" in e else {}) for e in hub.siblings()]}
    refusal(hub, store, "MB free")


@pytest.mark.parametrize(("status", "words"), [(401, "gated"), (403, "gated"), (404, "name"), (500, "later")])
def test_a_refusal_says_what_to_do(hub, store, status, words):
    hub.answers["/api/models/org/tiny/revision/main?blobs=true"] = (status, {}, b"")
    refusal(hub, store, words)


def test_a_hub_that_is_not_there_is_a_clear_error(hub, store):
    hub.server.shutdown()
    hub.server.server_close()
    refusal(hub, store, "check the network")


def redirect(hub, target, status=302):
    hub.answers["/a"] = (status, {"Location": target}, b"")


def fetch(hub, path="/a"):
    return b"".join(Fetcher(hub.url).chunks(path, 1000))


def test_redirects_on_the_same_server_are_followed(hub):
    hub.answers["/b"] = (200, {}, b"there")
    for target in ("/b", f"{hub.url}/b"):
        redirect(hub, target)
        assert fetch(hub) == b"there"


def test_redirects_in_a_circle_end(hub):
    redirect(hub, "/a")
    with pytest.raises(UserError, match="302"):
        fetch(hub)


@pytest.mark.parametrize(
    "target",
    [
        "http://example.org/x",
        "http://127.0.0.1:1/x",
        "https://127.0.0.1/x",
        "https://127.0.0.1:8443/x",
        "https://10.0.0.1/x",
        "https://192.168.1.1/x",
        "https://172.16.0.1/x",
        "https://169.254.169.254/latest/meta-data",
        "https://100.64.0.1/x",
        "https://0.0.0.0/x",
        "https://224.0.0.1/x",
        "https://[::1]/x",
        "https://[fe80::1]/x",
        "https://[fd00::1]/x",
        "https://[::ffff:127.0.0.1]/x",
        "https://[2002:7f00:1::]/x",
        "https://localhost/x",
        "https://127.1/x",
        "https://2130706433/x",
        "https://user:pw@example.org/x",
        "https:///x",
        "https://a:99999/x",
        "file:///etc/passwd",
        "ftp://example.org/x",
        "data:text/plain,x",
        "gopher://example.org/x",
    ],
)
def test_redirects_into_private_places_are_refused(hub, target):
    redirect(hub, target)
    with pytest.raises(UserError):
        fetch(hub)


def test_a_name_with_one_private_address_is_refused(monkeypatch):
    def addresses(*found):
        answer = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 443)) for address in found]
        monkeypatch.setattr(https.socket, "getaddrinfo", lambda *args, **kwargs: answer)

    addresses("93.184.216.34")
    assert public_address("cdn.example.org", 443) == ("93.184.216.34", 443)
    addresses("93.184.216.34", "10.0.0.1")
    with pytest.raises(UserError, match=r"cdn\.example\.org \(10\.0\.0\.1\), which is not public"):
        public_address("cdn.example.org", 443)


def test_the_connection_goes_to_the_address_that_was_checked(hub, monkeypatch):
    """A name that resolves to a public address first and to a private one later is connected to the first."""
    answers = iter(["93.184.216.34", "127.0.0.1"])
    tried = []

    def getaddrinfo(host, port, *args, **kwargs):
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), port))]

    def create_connection(address, *rest):
        if address[0] == "127.0.0.1":
            return plain(address, *rest)
        tried.append(address)
        raise OSError("not in a test")

    plain = socket.create_connection
    redirect(hub, "https://cdn.example.org/x")
    monkeypatch.setattr(https.http.client.socket, "create_connection", create_connection)
    fetcher = Fetcher(hub.url)
    real = socket.getaddrinfo
    lookup = lambda host, *rest, **named: (getaddrinfo if "example" in str(host) else real)(host, *rest, **named)  # noqa: E731
    monkeypatch.setattr(https.socket, "getaddrinfo", lookup)
    with pytest.raises(UserError, match="not in a test"):
        b"".join(fetcher.chunks("/a", 1000))
    assert tried == [("93.184.216.34", 443)]
