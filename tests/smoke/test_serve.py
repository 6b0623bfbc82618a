"""`smallpress serve` as a process: asked by OpenAI's client, stopped by signals."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from contextlib import contextmanager

import numpy as np
import pytest

from smallpress.cli.main import run
from smallpress.weights.adapter import save_adapter
from smallpress.weights.load import open_model

openai = pytest.importorskip("openai")
pytest.importorskip("fastapi")

COMMAND = [sys.executable, "-m", "smallpress.cli.main", "serve"]
HELLO = [{"role": "user", "content": "Hello"}]


@contextmanager
def served(*words, **environment):
    """The server's address and process, once it answers."""
    words = [*COMMAND, *map(str, words), "--port", "0"]
    environment = os.environ | {"SMALLPRESS_API_KEY": ""} | environment
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, preexec_fn=_hear_ctrl_c
    )
    try:
        url = re.search(r"at (http://\S+)", process.stdout.readline())[1]
        said = []
        while (line := process.stderr.readline()) not in ("ready\n", ""):
            said.append(line)
        assert line == "ready\n" and said[0].startswith("plan: "), said
        yield url, process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)


def _hear_ctrl_c() -> None:
    """A shell's background job, and so what it starts, ignores it otherwise."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="module")
def tiny(tiny_model, tmp_path_factory):
    """With an adapter over it, by the name of `turned`."""
    draw, folder = np.random.default_rng(0), tmp_path_factory.mktemp("adapters") / "turned"
    pairs = {
        f"layers.1.mlp.{part}": (draw.normal(size=(2, n_in)).astype("f4"), draw.normal(size=(n_out, 2)).astype("f4"))
        for part, n_in, n_out in (("up", 32, 48), ("down", 48, 32))
    }
    save_adapter(folder, pairs, open_model(tiny_model).config, "tiny", 4.0, True)
    with served(f"tiny={tiny_model}", "--adapter", f"turned={folder}", "--parallel", "4") as (url, _):
        yield url


@pytest.fixture
def client(tiny):
    with openai.OpenAI(base_url=f"{tiny}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def get(url):
    with urllib.request.urlopen(url, timeout=30) as answer:
        return answer.status, answer.read().decode()


def test_the_same_seed_gives_the_same_answer_whole_and_streamed(client):
    def ask(**more):
        return client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=20, seed=4, **more)

    whole = ask()
    assert whole.choices[0].message.content == ask().choices[0].message.content != ""
    chunks = list(ask(stream=True, stream_options={"include_usage": True}))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == whole.choices[0].message.content
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert chunks[-1].usage.prompt_tokens == whole.usage.prompt_tokens


def test_an_adapter_is_asked_by_its_name(tiny, client):
    listed = json.loads(get(f"{tiny}/v1/models")[1])["data"]
    assert [(model["id"], model["parent"]) for model in listed] == [("tiny", None), ("turned", "tiny")]

    def ask(model):
        done = client.chat.completions.create(model=model, messages=HELLO, max_tokens=12, temperature=0, logprobs=True)
        return [(entry.token, round(entry.logprob, 3)) for entry in done.choices[0].logprobs.content]

    assert ask("turned") == ask("turned") != ask("tiny") == ask("tiny")


def test_a_longer_prompt_asked_again_is_found_in_the_cache(client):
    messages = [{"role": "user", "content": "once upon a time " * 20}]
    first, second = (client.chat.completions.create(model="tiny", messages=messages, max_tokens=2) for _ in range(2))
    assert first.usage.prompt_cache_hit_tokens == 0
    hit = second.usage.prompt_cache_hit_tokens
    assert hit % 16 == 0 and second.usage.prompt_tokens - 17 <= hit < second.usage.prompt_tokens


def test_the_real_sampler_obeys_bias_and_gives_the_likeliest(client):
    done = client.chat.completions.create(
        model="tiny", messages=HELLO, max_tokens=3, temperature=0, logit_bias={"40": 100}, logprobs=True, top_logprobs=3
    )
    entries = done.choices[0].logprobs.content
    assert len({entry.token for entry in entries}) == 1
    assert all(entry.top_logprobs[0].token == entry.token and abs(entry.logprob) < 1e-3 for entry in entries)


def test_many_at_once_all_end_and_leave_nothing_behind(tiny, client):
    answers, threads = [], []
    for i in range(12):

        def ask(seed=i):
            stream = client.chat.completions.create(model="tiny", messages=HELLO, max_tokens=30, seed=seed, stream=True)
            if seed % 3 == 0:  # leaves in the middle
                next(iter(stream))
                stream.close()
            answers.append(seed if seed % 3 == 0 else sum(1 for _ in stream))

        threads.append(threading.Thread(target=ask))
        threads[-1].start()
    for thread in threads:
        thread.join(60)
    assert len(answers) == 12
    pause = threading.Event()
    for _ in range(500):
        text = get(f"{tiny}/metrics")[1]
        if re.search(r"num_requests_running\S* 0\n", text) and re.search(r"num_requests_waiting\S* 0\n", text):
            break
        pause.wait(0.01)
    assert re.search(r"kv_cache_usage_perc\S* 0.0\n", text)


def test_health_and_version(tiny):
    assert get(f"{tiny}/health") == (200, '{"status":"ok"}')
    assert set(json.loads(get(f"{tiny}/version")[1])) == {"version"}


def test_a_signal_lets_what_streams_end(tiny_model):
    with served(f"tiny={tiny_model}", "--parallel", "2", "--drain", "120") as (url, process):
        with openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=60) as client:
            stream = client.completions.create(
                model="tiny", prompt="Hello", max_tokens=900, logit_bias={"1": -100}, stream=True
            )
            first = next(iter(stream))
            process.send_signal(signal.SIGINT)
            reasons = [first.choices[0].finish_reason, *(chunk.choices[0].finish_reason for chunk in stream)]
        assert reasons[-1] == "length"
        assert process.wait(150) == 130
        assert process.stderr.read() == "smallpress: interrupted\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["./no-such-model"], "does not exist"),
        (["MODEL", "--host", "0.0.0.0"], "0.0.0.0 can be reached by others"),
        (["MODEL", "--port", "70000"], "the port is 70000"),
        (["MODEL", "--parallel", "0"], "parallel is 0"),
        (["MODEL", "--context", "3"], "context is 3"),
        (["MODEL", "--api-keys", "no-such-file"], "reading no-such-file"),
        (["a=MODEL", "a=MODEL"], "two models are called a"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exit_code_2(words, said, tiny_model, capfd, monkeypatch):
    monkeypatch.delenv("SMALLPRESS_API_KEY", raising=False)
    assert run(["serve", *(word.replace("MODEL", str(tiny_model)) for word in words)]) == 2
    out, err = capfd.readouterr()
    assert out == "" and said in err and err.count("\n") == 1


def test_a_port_that_is_taken_is_one_line(tiny, tiny_model, capfd):
    port = tiny.rpartition(":")[2]
    assert run(["serve", str(tiny_model), "--port", port]) == 2
    assert "choose another --port" in capfd.readouterr().err


def test_the_real_model_answers(smollm2):
    question = [{"role": "user", "content": "Name the largest ocean on Earth."}]
    with (
        served(f"smollm2={smollm2}", "--dtype", "int8", "--context", "1024") as (url, _),
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", timeout=120) as client,
    ):
        done = client.chat.completions.create(model="smollm2", messages=question, temperature=0, max_tokens=20)
    assert "Pacific" in done.choices[0].message.content and done.usage.prompt_tokens == 37


def test_a_dry_run_says_what_it_takes_answers_itself_and_ends(tiny_model, capsys):
    words = ["serve", str(tiny_model), "--port", "0", "--parallel", "2", "--rates", "machine_hour=0.5", "--dry-run"]
    assert run(words) == 0
    said = capsys.readouterr().err
    assert said.startswith("plan: ") and "price of a million tokens out" in said and "peak memory" in said
