"""Our evaluation beside lm-eval's, of one model: `python bench/lm_eval.py --lm-eval VENV/bin/python`.

One `smallpress serve` answers the same prompts from both: from `smallpress eval --endpoint`, and from lm-eval's own
client. Each side extracts and compares by its own rules, strictly from the box and leniently the last number. Shown are
accuracies with 95 % intervals, and on how many questions the sides agree. With `--local` the engine is asked without a
server too.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import get_args

from smallpress.benchmarks.benchmark import Benchmark
from smallpress.benchmarks.table import open_benchmark
from smallpress.evaluate.intervals import wilson
from smallpress.evaluate.problems import from_benchmark
from smallpress.tasks.example import Example, Reading

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
LAST_NUMBER = r"(-?[$0-9.,]{2,})|(-?[0-9]+)"
"""lm-eval's own, of its GSM8K task."""
BOX = r"\\boxed\{([^{}]*)\}"


def task(questions: Path, max_tokens: int) -> dict[str, object]:
    """What lm-eval reads as YAML, of which JSON is a part."""

    def last(name: str, pattern: str) -> dict[str, object]:
        regex = {"function": "regex", "regex_pattern": pattern, "group_select": -1}
        return {"name": name, "filter": [regex, {"function": "take_first"}]}

    return {
        "task": "ours",
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(questions)}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": [], "do_sample": False, "temperature": 0.0, "max_gen_toks": max_tokens},
        "metric_list": [{"metric": "exact_match", "regexes_to_ignore": [",", r"\$", r"\.$"]}],
        "filter_list": [last("strict", BOX), last("lenient", LAST_NUMBER)],
    }


def smallpress(*words: object) -> None:
    subprocess.run([sys.executable, "-m", "smallpress.cli.main", *map(str, words)], check=True)


Found = dict[str, dict[str, bool]]
"""Reading -> prompt -> right."""


def ours(out: Path, benchmark: Benchmark, examples: list[Example], words: list[object]) -> Found:
    """What `smallpress eval` wrote, read both ways: the answers are the same."""
    if not out.exists():
        smallpress("eval", *words, "--out", out)
    written = json.loads(out.read_text())["problems"]
    texts = {one["prompt"]: one["answers"][0]["text"] for one in written}
    return {
        how: {one.prompt: benchmark.check(one, texts[one.prompt], how).correct for one in examples}
        for how in get_args(Reading)
    }


def theirs(python: Path, url: str, model: str, folder: Path, n_at_once: int) -> Found:
    """Out of the samples that lm-eval logs, unless they are there already."""
    if not (folder / "theirs").exists():
        _run_lm_eval(python, url, model, folder, n_at_once)
    found: Found = {}
    for line in next(folder.glob("theirs/**/samples_*.jsonl")).read_text().splitlines():
        sample = json.loads(line)
        found.setdefault(sample["filter"], {})[sample["doc"]["question"]] = bool(sample["exact_match"])
    return found


def _run_lm_eval(python: Path, url: str, model: str, folder: Path, n_at_once: int) -> None:
    settings = f"model={model},base_url={url}/chat/completions,num_concurrent={n_at_once},tokenized_requests=False"
    command = [python, "-m", "lm_eval", "--model", "local-chat-completions", "--model_args", settings]
    command += ["--tasks", "ours", "--include_path", folder, "--apply_chat_template"]
    command += ["--output_path", folder / "theirs", "--log_samples"]
    quiet = os.environ | {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "OPENAI_API_KEY": "none"}
    subprocess.run(list(map(str, command)), check=True, env=quiet, stdout=sys.stderr)


def started(model: str) -> tuple[subprocess.Popen[str], str]:
    """A server on a free port, and its address once it is ready."""
    command = [sys.executable, "-m", "smallpress.cli.main", "serve", f"tested={model}", "--port", "0", "--offline"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    for line in server.stdout:
        print(line, end="", file=sys.stderr)
        if (match := re.search(r"http://[\w.]+:\d+", line)) is not None:
            break
    else:
        raise SystemExit("the server did not start")
    while True:
        try:
            urllib.request.urlopen(f"{match[0]}/health").close()
            return server, f"{match[0]}/v1"
        except urllib.error.HTTPError:  # it is loading
            time.sleep(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lm-eval", type=Path, help="the Python of a venv with lm-eval[api]")
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--bench", default="gsm8k")
    parser.add_argument("--data", type=Path, default=DATA / "gsm8k" / "test.jsonl")
    parser.add_argument("--n", type=int, default=60)
    parser.add_argument("--max-tokens", type=int, default=200)
    parser.add_argument("--at-once", type=int, default=16)
    parser.add_argument("--folder", type=Path, help="keep answers here; those that are there are not asked again")
    parser.add_argument("--local", action="store_true")
    asked = parser.parse_args()
    if asked.lm_eval is None:
        return print("not measured: --lm-eval names the Python of a venv with lm-eval[api]")
    benchmark = open_benchmark(asked.bench)
    examples = list(from_benchmark(benchmark, asked.data, asked.n).examples)
    words: list[object] = ["--bench", asked.bench, "--data", asked.data, "--n", asked.n]
    words += ["--max-tokens", asked.max_tokens]
    folder = asked.folder or Path(tempfile.mkdtemp(prefix="lm_eval-"))
    folder.mkdir(exist_ok=True)
    print(f"everything is kept in {folder}", file=sys.stderr)
    lines = [json.dumps({"question": one.prompt, "answer": one.reference.replace(",", "")}) for one in examples]
    (folder / "questions.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "ours.yaml").write_text(json.dumps(task(folder / "questions.jsonl", asked.max_tokens)))
    server, url = started(asked.model)
    try:
        there = theirs(asked.lm_eval, url, "tested", folder, asked.at_once)
        client = ["tested", "--endpoint", url, "--at-once", asked.at_once, *words]
        here = ours(folder / "ours.json", benchmark, examples, client)
    finally:
        server.terminate()
        server.wait()
    show(here, there)
    if asked.local:
        here = ours(folder / "local.json", benchmark, examples, [asked.model, "--offline", *words])
        print("\nThe engine without a server:")
        show(here, there)


def show(here: Found, there: Found) -> None:
    print("\n| reading | ours | lm-eval | agree |\n|---|---|---|---|")
    for how, right in here.items():
        cells = []
        for side in (right, there[how]):
            found = wilson(sum(side.values()), len(side))
            cells.append(f"{found.value:.1%} ({found.low:.1%} to {found.high:.1%})")
        same = sum(there[how][prompt] == one for prompt, one in right.items())
        print(f"| {how} | {cells[0]} | {cells[1]} | {same} of {len(right)} |")


if __name__ == "__main__":
    main()
