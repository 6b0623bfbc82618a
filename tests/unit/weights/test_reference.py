"""What a reference means, and that none leads out of the store."""

import itertools
import json
import random

import pytest

from smallpress.run.errors import UserError
from smallpress.weights.reference import _existing, hf_cache, resolve
from smallpress.weights.store import check_name, model_folder, read_source


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty current folder, store and Hugging Face cache."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("SMALLPRESS_HOME", str(tmp_path / "store"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    return tmp_path / "here"


def test_folders_and_files_are_themselves(here):
    (here / "a.gguf").write_bytes(b"")
    (here / "run").mkdir()
    for reference in ("a.gguf", "./a.gguf", "run", "./run", str(here / "run")):
        assert resolve(reference).samefile(here / reference)


def test_a_catalogue_name_is_not_taken_for_a_folder(here):
    (here / "smollm2-135m").mkdir()
    with pytest.raises(UserError, match="smallpress pull smollm2-135m"):
        resolve("smollm2-135m")
    assert resolve("./smollm2-135m").samefile(here / "smollm2-135m")


@pytest.mark.parametrize(
    ("reference", "words"),
    [
        ("absent.gguf", "does not exist"),
        ("./absent", "does not exist"),
        ("../absent", "does not exist"),
        ("a/b/c", "does not exist"),
        ("", "does not exist"),
        ("smollm2-135", "did you mean smollm2-135m?"),
        ("org/name", "smallpress pull org/name"),
    ],
)
def test_what_is_not_there_says_what_would_help(reference, words):
    with pytest.raises(UserError) as caught:
        resolve(reference)
    assert words in str(caught.value)


def test_offline_the_remedy_is_another_machine():
    with pytest.raises(UserError, match="on a machine with a network"):
        resolve("org/name", offline=True)


def snapshot(name, commit, config=True):
    folder = hf_cache() / f"models--{name.replace('/', '--')}" / "snapshots" / commit
    folder.mkdir(parents=True)
    if config:
        (folder / "config.json").write_text("{}")
    return folder


def test_a_hub_name_is_found_in_hugging_faces_cache():
    old, new = "a" * 40, "b" * 40
    first = snapshot("org/name", old)
    assert resolve("org/name") == first
    snapshot("org/name", new)
    refs = first.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text(old + "\n")
    assert resolve("org/name") == first


def test_a_reference_in_the_cache_cannot_lead_out_of_it():
    folder = snapshot("org/name", "a" * 40)
    refs = folder.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("../../../../here")
    assert resolve("org/name") == folder
    (refs / "main").write_bytes(b"\xff")
    with pytest.raises(UserError, match="smallpress pull"):
        resolve("org/name")


def test_a_half_fetched_snapshot_is_not_taken():
    snapshot("org/name", "a" * 40, config=False)
    with pytest.raises(UserError, match="smallpress pull"):
        resolve("org/name")


def traversal_forms():
    """1,000 ways to write a path that leads elsewhere, the known ones first."""
    yield from ("..", ".", "../..", "a/..", "../a", "/etc", "//a", "a//b", "a/", "/a", "a/b/c", "~", "~/a", "a/~")
    yield from ("a\\b", "..\\a", "C:\\a", "C:a", "\\\\host\\share", "a\0b", "a\n", "a/b\n", "\n", " ", "a b", "")
    yield from ("%2e%2e/a", "a/%2e%2e", "..%2fa", "a?b", "a#b", "a@b", "a:b", "file:a", "https://a/b", "$HOME", "`id`")
    yield from ("．．/a", "a/．．", "a\u2215b", "a\u202eb", "-rf", "a/-rf", "--help", "a--b", "a/b--c", "....", "a/...")
    yield from ("a" * 97, "a/" + "b" * 200, "a..b", "..a", "a/..b", "a/b..")
    pieces = ("..", ".", "a", "/", "//", "\\", "\0", "%2e", "%2f", "~", " ", "-", "--", "\n", ":", "...", "é", "*")
    rng = random.Random(0)
    for length in itertools.cycle((2, 3, 4, 5, 6)):
        form = "".join(rng.choice(pieces) for _ in range(length))
        strange = set(form) - set("a.-/") or form.count("/") > 1 or form[0] in "/-" or form[-1] == "/"
        if strange or ".." in form or "--" in form:
            yield form


def test_a_thousand_traversal_forms_are_no_names(tmp_path):
    for form in itertools.islice(traversal_forms(), 1000):
        with pytest.raises(UserError, match="no model name"):
            check_name(form)
        if _existing(form) is None:  # a path a person typed may lead anywhere
            with pytest.raises(UserError):
                resolve(form)


@pytest.mark.parametrize("name", ["smollm2-135m", "org/name", "HuggingFaceTB/SmolLM2-135M-Instruct", "a_b/c.d-e", "a"])
def test_names_are_names_and_lie_in_the_store(tmp_path, name):
    assert model_folder(tmp_path, check_name(name)).parent == tmp_path / "models"


@pytest.mark.parametrize("model", ["../x.gguf", "/etc/passwd", "..", "a\\b", 7, None])
def test_a_note_cannot_point_out_of_its_folder(tmp_path, model):
    (tmp_path / "source.json").write_text(json.dumps({"name": "a", "source": "b", "model": model}))
    with pytest.raises(UserError, match=r"source\.json"):
        read_source(tmp_path)
