"""Requests by the ten thousand to a server of its own: `python bench/fuzz_api.py` (needs schemathesis).

First each value that makes no sense in each place of each body (tests/unit/server/extremes.py), then schemathesis,
which makes up requests from /openapi.json and holds the answers against it. No answer may be a 5xx (but 501 for
embeddings), none may take over 30 seconds, and the process must live and answer a plain question at the end. Exit code
1 otherwise.
"""

import argparse
import http.client
import importlib.util
import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
SECONDS_AN_ANSWER = 30.0
CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
NOT_MADE = ("/v1/embeddings", "/api/embed", "/api/embeddings")


def load_extremes():
    spec = importlib.util.spec_from_file_location("extremes", ROOT / "tests/unit/server/extremes.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def start(model: str) -> tuple[subprocess.Popen[str], str]:
    """(the server, its HOST:PORT), once it answers; answers are two tokens long."""
    words = ["serve", f"m={model}", "--port", "0", "--max-tokens", "2", "--context", "512", "--parallel", "8"]
    command = [sys.executable, "-m", "smallpress.cli.main", *words]
    environment = os.environ | {"SMALLPRESS_API_KEY": ""}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None and process.stderr is not None
    found = re.search(r"at http://(\S+)", process.stdout.readline())
    if found is None or "ready\n" not in iter(process.stderr.readline, ""):
        raise SystemExit(f"the server does not start: {process.stderr.read()}")
    return process, found[1]


def ask(address: str, method: str, path: str, body: bytes | None = None) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection(address, timeout=SECONDS_AN_ANSWER)
    try:
        connection.request(method, path, body, {"Content-Type": "application/json"})
        with connection.getresponse() as answer:
            return answer.status, answer.read()
    finally:
        connection.close()


def try_extremes(address: str, every: int) -> list[str]:
    """What went wrong, a line each."""
    extremes, faults = load_extremes(), []
    document = json.loads(ask(address, "GET", "/openapi.json")[1])
    statuses: Counter[int] = Counter()
    slowest = 0.0
    for path, body in list(extremes.cases(document, "m"))[::every]:
        began = time.perf_counter()
        try:
            status, answer = ask(address, "POST", path, body)
        except (OSError, http.client.HTTPException) as error:
            faults.append(f"{path} {body[:200]!r}: {type(error).__name__} {error}")
            continue
        slowest = max(slowest, time.perf_counter() - began)
        statuses[status] += 1
        if status >= 500:
            faults.append(f"{path} {body[:200]!r}: {status} {answer[:200]!r}")
    print(
        f"extremes: {statuses.total()} answers, {dict(sorted(statuses.items()))}, slowest {slowest:.2f} s", flush=True
    )
    return faults


def run_schemathesis(address: str, n_examples: int) -> list[str]:
    words = [
        "run",
        f"http://{address}/openapi.json",
        "--max-examples",
        str(n_examples),
        "--seed",
        "0",
        "--checks",
        CHECKS,
    ]
    words += [word for path in NOT_MADE for word in ("--exclude-path", path)]
    words += ["--request-timeout", str(SECONDS_AN_ANSWER), "--phases", "coverage,fuzzing"]
    words += ["--continue-on-failure", "--no-color", "--suppress-health-check", "all"]
    done = subprocess.run([sys.executable, "-m", "schemathesis.cli", *words], capture_output=True, text=True)
    print(done.stdout[-6000:], done.stderr[-2000:], flush=True)
    return [f"schemathesis: exit code {done.returncode}"] * (done.returncode != 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--every", type=int, default=1, help="take each so many of the extreme values")
    parser.add_argument("--examples", type=int, default=400, help="of schemathesis, for each path")
    given = parser.parse_args()
    process, address = start(given.model)
    try:
        faults = try_extremes(address, given.every)
        if given.examples:
            faults += run_schemathesis(address, given.examples)
        if process.poll() is not None:
            faults.append(f"the server ended with exit code {process.returncode}")
        else:
            body = json.dumps({"messages": [{"role": "user", "content": "Hello"}]}).encode()
            status, answer = ask(address, "POST", "/v1/chat/completions", body)
            faults += [f"at the end: {status} {answer!r}"] * (status != 200)
    finally:
        process.terminate()
        log = process.communicate(timeout=60)[1]
    faults += [f"the server's log: {line}" for line in log.splitlines() if "Error" in line or "Traceback" in line]
    for fault in faults[:50]:
        print(fault)
    print(f"{len(faults)} faults")
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
