"""The command line as a person meets it: exit codes, one line for every trouble, no traceback."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest

from smallpress.cli import main

NO_TORCH = "import sys; sys.modules['torch'] = None; "
CALL = "from smallpress.cli.main import main; main()"


def smallpress(*words, program=CALL, **environment):
    command = [sys.executable, "-c", program, *words]
    return subprocess.run(command, capture_output=True, text=True, timeout=200, env=os.environ | environment)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty store, whose path has a space and Chinese characters."""
    monkeypatch.setenv("SMALLPRESS_HOME", str(tmp_path / "my 模型"))
    return tmp_path / "my 模型"


@pytest.fixture
def verb(monkeypatch):
    """Make `smallpress ls` do something else in this process."""

    def becomes(action):
        monkeypatch.setattr("smallpress.cli.ls.ls", action)

    return becomes


def raises(error):
    def action():
        raise error

    return action


def test_help_and_version_need_no_torch():
    for words in ([], ["--help"], ["-h"]):
        done = smallpress(*words, program=NO_TORCH + CALL)
        assert done.returncode == 0 and "Usage: smallpress COMMAND" in done.stdout and done.stderr == ""
        assert all(f" {name} " in done.stdout for name in main.VERBS)
    assert smallpress("--version").stdout == "0.1.0\n"


def test_every_verb_has_help_without_torch():
    program = "from smallpress.cli.main import VERBS, run; print([run([name, '--help']) for name in VERBS])"
    done = smallpress(program=NO_TORCH + program)
    assert done.stdout.splitlines()[-1] == str([0] * len(main.VERBS)), done.stderr
    assert all(f"Usage: smallpress {name} " in done.stdout for name in main.VERBS)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["pul"], 'Unknown command "pul". Did you mean "pull"?'),
        (["ls", "--jsn"], "Unknown option: --jsn. Did you mean --json?"),
        (["pull"], 'Command "pull" parameter NAME requires an argument.'),
        (["pull", "smolm2-135m"], "the catalogue has no 'smolm2-135m'; did you mean smollm2-135m?"),
        (["pull", "../../etc"], "'../../etc' is no model name"),
        (["pull", "a\n\x1b[2Jb"], r"'a\n\x1b[2Jb' is no model name"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_line_with_the_nearest_name(words, told, home, capsys):
    assert main.run(words) == 2
    done = capsys.readouterr()
    assert done.out == "" and done.err.startswith("smallpress: ") and done.err.count("\n") == 1
    assert told in done.err.replace("\\\\", "\\")


def test_ls_shows_what_can_be_pulled_into_an_empty_store(home):
    done = smallpress("ls", program=NO_TORCH + CALL)
    assert done.stdout.splitlines()[1].split()[0] == "smollm2-135m" and done.returncode == 0
    assert json.loads(smallpress("ls", "--json").stdout)[0]["path"] is None
    assert not home.exists()


def test_doctor_says_what_is_missing_and_how_to_get_it(home):
    done = smallpress("doctor", program=NO_TORCH + CALL)
    assert done.returncode == 0 and "-> to train: pip install 'smallpress[train]'" in done.stdout
    subjects = {finding["subject"] for finding in json.loads(smallpress("doctor", "--json").stdout)}
    assert {"python", "torch", "processor", "memory", "store", "models"} <= subjects


def test_doctor_fails_when_the_store_cannot_be(tmp_path):
    (tmp_path / "file").write_text("")
    done = smallpress("doctor", program=NO_TORCH + CALL, SMALLPRESS_HOME=str(tmp_path / "file" / "store"))
    assert done.returncode == 2 and "is a file; choose another: SMALLPRESS_HOME" in done.stderr


def test_a_store_that_cannot_be_written_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    done = smallpress("pull", "smollm2-135m", SMALLPRESS_HOME=str(tmp_path / "file"))
    assert done.returncode == 2 and "not a directory" in done.stderr and done.stderr.count("\n") == 1


def test_a_terminal_without_unicode_still_shows_the_list(home):
    (home / "models" / "小").mkdir(parents=True)
    done = smallpress("ls", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING="ascii")
    assert done.returncode == 0 and done.stderr == "" and done.stdout.splitlines()[1].startswith("\\ud")


def test_ctrl_c_ends_with_130_and_no_traceback():
    program = (
        "import time, smallpress.cli.ls as verb\ndef ls(): print('on', flush=True); time.sleep(30)\nverb.ls = ls\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program + CALL, "ls"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "on\n"
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=100)
    assert process.returncode == 130 and told == "smallpress: interrupted\n"


def test_a_reader_that_leaves_early_is_no_error():
    program = "import smallpress.cli.ls as verb\ndef ls(): print('x' * 10**6)\nverb.ls = ls\n"
    process = subprocess.Popen(
        [sys.executable, "-c", program + CALL, "ls"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()
    told = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=100) == 1 and told == ""


@pytest.mark.skipif(sys.platform == "win32", reason="a shell's redirections")
@pytest.mark.parametrize(
    ("redirection", "code", "told"), [(">&-", 0, ""), (">/dev/full", 2, "no space left on device")]
)
def test_an_output_that_takes_nothing_is_no_traceback(redirection, code, told, home):
    command = ["sh", "-c", f'exec "$0" -c "$1" ls {redirection}', sys.executable, CALL]
    done = subprocess.run(command, capture_output=True, text=True, timeout=200)
    assert done.returncode == code and told in done.stderr and done.stderr.count("\n") == (1 if told else 0)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "a.bin"), "no space left on device (a.bin); free some space"),
        (MemoryError(), "out of memory; choose a smaller model, batch or length"),
        (
            ModuleNotFoundError("No module named 'torch'", name="torch"),
            "ls needs torch; pip install 'smallpress[train]'",
        ),
        (ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn"), "pip install 'smallpress[train]'"),
    ],
)
def test_what_a_person_can_mend_is_one_line(error, told, verb, capsys):
    verb(raises(error))
    assert main.run(["ls"]) == 2
    line = capsys.readouterr().err
    assert told in line and line.count("\n") == 1


@pytest.mark.parametrize(
    "error", [KeyError("x"), ModuleNotFoundError("No module named 'y'", name="y"), AssertionError()]
)
def test_a_fault_of_ours_shows_where_and_asks_for_a_report(error, verb, capsys):
    verb(raises(error))
    assert main.run(["ls"]) == 1
    told = capsys.readouterr().err
    assert told.startswith("Traceback") and told.endswith("please report the lines above\n")


def test_the_real_model_is_listed_and_checked_without_a_network(smollm2):
    pulled = smallpress("pull", "smollm2-135m", "--offline")
    assert pulled.returncode == 0 and str(smollm2) in pulled.stdout, pulled.stderr
    listed = {model["name"]: model for model in json.loads(smallpress("ls", "--json").stdout)}
    assert listed["smollm2-135m"]["path"] == str(smollm2)


@pytest.mark.skipif(sys.platform != "linux", reason="torch's OpenMP is another one there")
def test_torch_is_told_not_to_spin_for_long_unless_somebody_says_otherwise(home):
    """What its OpenMP understood, by its own word."""
    told = smallpress("doctor", OMP_DISPLAY_ENV="verbose").stderr
    assert f"GOMP_SPINCOUNT = '{main.SPINS}'" in told
    for named in ({"GOMP_SPINCOUNT": "77"}, {"OMP_WAIT_POLICY": "ACTIVE"}):
        told = smallpress("doctor", OMP_DISPLAY_ENV="verbose", **named).stderr
        assert f"GOMP_SPINCOUNT = '{main.SPINS}'" not in told and "GOMP_SPINCOUNT" in told
