import sys

import pytest

from smallpress.tasks import verifier
from smallpress.tasks.check import CheckerError
from smallpress.tasks.verifier import MathVerify

FAKE = """
import json, sys, time
print('{"ready": true}', flush=True)
for line in sys.stdin:
    asked = json.loads(line)["answer"]
    if asked == "hang":
        time.sleep(60)
    if asked == "die":
        sys.exit(1)
    told = {"error": "ValueError"} if asked == "fail" else {"same": asked == "1"}
    print(json.dumps(told), flush=True)
"""


@pytest.fixture
def fake(tmp_path, monkeypatch):
    worker = tmp_path / "worker.py"
    worker.write_text(FAKE)
    monkeypatch.setattr(verifier, "WORKER", worker)
    verify = MathVerify(seconds=30.0)
    yield verify
    verify.close()


def test_a_verdict_comes_from_the_process(fake):
    assert fake.same("1", "1") and not fake.same("2", "1")


@pytest.mark.parametrize(("answer", "why"), [("hang", "within 0.2 s"), ("die", "by itself"), ("fail", "ValueError")])
def test_where_there_is_no_verdict_the_checker_fails_and_the_next_question_is_answered(fake, answer, why):
    fake._seconds = 0.2 if answer == "hang" else 30.0
    with pytest.raises(CheckerError, match=why):
        fake.same(answer, "1")
    fake._seconds = 30.0
    assert fake.same("1", "1")


def test_only_the_signs_of_formulas_reach_the_process():
    for answer in ("__import__('os')", "a\nb", 'open("x")', "x" * 401, "\u202e4"):
        assert MathVerify().same(answer, "1") is False  # and no process was started


def test_the_real_one_decides_what_is_open():
    pytest.importorskip("math_verify")
    verify = MathVerify(seconds=30.0)
    try:
        assert verify.same(r"\sin(\pi/6)", r"\frac{1}{2}")
        assert not verify.same(r"\sin(\pi/3)", r"\frac{1}{2}")
    finally:
        verify.close()


def test_it_says_whether_it_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, "math_verify", None)
    monkeypatch.setattr(verifier, "find_spec", lambda _: None)
    assert MathVerify.installed() is None
