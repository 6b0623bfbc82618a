import json
import subprocess
import sys

import pytest

import smallpress
from smallpress.run.atomic import atomic_folder, verify_folder
from smallpress.run.errors import UserError
from smallpress.run.folder import RunFolder


@pytest.fixture
def run(tmp_path):
    return RunFolder.create(tmp_path / "runs" / "一 run", {"lr": 1e-5, "model": "小"}, keep=2)


def save(run, step, text="x"):
    with run.checkpoints.write(step) as folder:
        (folder / "weights").write_text(f"{text}{step}")


def test_a_new_run_records_settings_versions_machine_and_commit(run):
    record = json.loads((run.path / "run.json").read_text(encoding="utf-8"))
    assert record["settings"] == run.settings == {"lr": 1e-5, "model": "小"}
    assert record["versions"]["smallpress"] == smallpress.__version__
    assert record["versions"]["python"].startswith("3.") and "numpy" in record["versions"]
    assert record["machine"]["cores"] >= 1 and record["machine"]["memory"] > 0
    assert record["commit"] is None or len(record["commit"].removesuffix("+changes")) == 40


def test_a_run_never_starts_in_a_folder_that_holds_something(run):
    with pytest.raises(UserError, match="is not empty; choose a new name"):
        RunFolder.create(run.path, {})


def test_a_folder_that_is_no_run_is_named(tmp_path):
    with pytest.raises(UserError, match=r"is not a run: it has no run\.json"):
        RunFolder.open(tmp_path)
    with pytest.raises(UserError, match="is not a run"):
        RunFolder.open(tmp_path / "none")


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"settings": 3, "keep": 2}', '{"settings": {}, "keep": 0}', "[" * 9999]
)
def test_a_damaged_run_json_is_named(run, text):
    (run.path / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run\.json is damaged"):
        RunFolder.open(run.path)


def test_the_last_two_checkpoints_are_kept_and_the_newest_is_found(run):
    assert run.checkpoints.newest() is None
    for step in (20, 40, 60):
        save(run, step)
    assert [checkpoint.path.name for checkpoint in run.checkpoints.all()] == ["step-000040", "step-000060"]
    newest = RunFolder.open(run.path).checkpoints.newest()
    assert newest.step == 60 and (newest.path / "weights").read_text() == "x60"


def test_a_resumed_run_replaces_the_damaged_checkpoint_and_drops_the_future_it_gave_up(run):
    save(run, 20)
    save(run, 40)
    (run.checkpoints.path_of(40) / "weights").write_text("y40")
    assert run.checkpoints.newest().step == 20
    save(run, 30)
    assert [checkpoint.step for checkpoint in run.checkpoints.all()] == [20, 30]
    save(run, 30, "again")
    assert (run.checkpoints.newest().path / "weights").read_text() == "again30"


def test_old_checkpoints_stay_when_the_new_one_cannot_be_read_back(run, monkeypatch):
    save(run, 1)
    save(run, 2)
    with atomic_folder(run.checkpoints.path_of(3)) as folder:
        (folder / "weights").write_text("x3")
    (run.checkpoints.path_of(3) / "weights").write_text("z3")
    with pytest.raises(UserError, match="step-000003/weights is damaged"):
        run.checkpoints.settle(3)
    assert [checkpoint.step for checkpoint in run.checkpoints.all()] == [1, 2, 3]


def test_foreign_folders_beside_checkpoints_are_left_alone(run):
    save(run, 1)
    (run.checkpoints.path / "step-best").mkdir()
    (run.checkpoints.path / "step-000009").write_text("a file")
    for step in (2, 3, 4):
        save(run, step)
    assert (run.checkpoints.path / "step-best").is_dir() and (run.checkpoints.path / "step-000009").is_file()


def test_a_second_process_may_not_write_the_same_run(run):
    program = (
        "import sys; from smallpress.run.folder import RunFolder\nwith RunFolder.open(sys.argv[1]).writing(): pass"
    )
    with run.writing():
        assert run.samples.is_dir()
        second = subprocess.run([sys.executable, "-c", program, str(run.path)], capture_output=True, text=True)
    assert "is being written by process" in second.stderr
    with run.writing():
        pass


def test_what_a_killed_run_left_is_cleared_by_the_next_writer(run):
    (run.path / ".run.json.tmp-0123456789ab").write_text("half")
    (run.path / "checkpoints").mkdir()
    (run.path / "checkpoints" / ".step-000001.tmp-0123456789ab" / "optim").mkdir(parents=True)
    with run.writing():
        assert [item.name for item in run.path.rglob("*tmp*")] == []


def test_an_existing_folder_is_not_overwritten(tmp_path):
    with pytest.raises(UserError, match="already exists; remove it, or choose another name"), atomic_folder(tmp_path):
        pass


def test_an_interrupted_block_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), atomic_folder(tmp_path / "model") as folder:
        (folder / "half").write_text("x")
        raise KeyboardInterrupt
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b", "", "..", "a\\b", "a\0b"])
def test_a_manifest_that_points_outside_its_folder_is_refused(tmp_path, name):
    files = {name: {"size": 1, "sha256": "0"}}
    (tmp_path / "manifest.json").write_text(json.dumps({"version": 1, "files": files}))
    with pytest.raises(UserError, match="bad entry"):
        verify_folder(tmp_path)


@pytest.mark.parametrize(
    "text", ["", "3", "{}", '{"version": 1}', '{"version": 1, "files": {"a": 3}}', "[" * 9999, "\xff"]
)
def test_a_manifest_that_is_none_is_named(tmp_path, text):
    (tmp_path / "manifest.json").write_bytes(text.encode("latin-1"))
    with pytest.raises(UserError, match=r"manifest\.json is damaged; use an older copy"):
        verify_folder(tmp_path)


def test_a_folder_without_a_manifest_is_incomplete(tmp_path):
    with pytest.raises(UserError, match=r"is incomplete: it has no manifest\.json"):
        verify_folder(tmp_path)
