"""smallpress bench as a person calls it, on a small model."""

import json
import sys

import pytest

from smallpress.cli.main import run

pytest.importorskip("smallpress._native")

FAKE_PEER = """
import json, sys
print(json.dumps({"version": "0.0"}), flush=True)
for line in sys.stdin:
    print(json.dumps({"rate": 0.5}), flush=True)
print(json.dumps({"memory": 12345}), flush=True)
"""


def bench(capsys, *words: str) -> str:
    code = run(["bench", *words])
    said = capsys.readouterr()
    assert code == 0, said.err
    return said.out


def test_rates_and_shares_of_the_floor(tiny_model, capsys):
    words = ("--batch", "1", "3", "--prompt", "20", "--context", "9", "--tokens", "4", "--repeats", "2", "--json")
    found = json.loads(bench(capsys, str(tiny_model), *words))
    names = {"decode_1", "decode_3", "decode_1_at_9", "prefill_20"}
    assert set(found["tokens_per_second"]) == set(found["share_of_floor"]) == names
    assert all(rate > 0 for rate in found["tokens_per_second"].values())
    assert all(0 < share < 1 for share in found["share_of_floor"].values())
    assert [len(runs) for runs in found["runs"].values()] == [2, 2, 2, 2] and "ratios" not in found


@pytest.mark.parametrize(("words", "fault"), ((("--batch", "0"), "--batch is 0"), (("--prompt", "4000"), "context of"),
                                             (("--peer", "llama.cpp"), "is no GGUF file")))  # fmt: skip
def test_what_cannot_be_measured_is_said_in_a_line(tiny_model, capsys, words, fault):
    assert run(["bench", str(tiny_model), *words]) == 2
    assert fault in capsys.readouterr().err


def test_a_peer_that_fails_is_said_in_a_line(smollm2, capsys):
    assert run(["bench", str(smollm2), "--peer", "llama.cpp", "--peer-python", "/no/such/python"]) == 2
    assert "/no/such/python cannot be started" in capsys.readouterr().err


def test_ratios_are_ours_over_the_peers(tmp_path, monkeypatch, smollm2, capsys):
    side = tmp_path / "side.py"
    side.write_text(FAKE_PEER)
    monkeypatch.setattr("smallpress.evaluate.peer.SIDE", side)
    words = ("--batch", "1", "--prompt", "8", "--tokens", "2", "--repeats", "1", "--peer", "llama.cpp", "--json")
    found = json.loads(bench(capsys, str(smollm2), *words, "--peer-python", sys.executable))
    assert found["peer"] == "llama-cpp-python 0.0" and found["peer_memory"] == 12345
    assert found["ratios"]["decode_1"] == pytest.approx(found["tokens_per_second"]["decode_1"] / 0.5, rel=0.01)
