"""`smallpress watch`: run folders as a page that keeps up with them."""

import json
import os
import threading
import urllib.request
from dataclasses import dataclass

import pytest

from smallpress.cli.main import run
from smallpress.cli.watch import alarms_of
from smallpress.run.watched import find_runs, overview
from smallpress.server.gate import LOOPBACK, Keys
from smallpress.server.limits import Limits
from smallpress.server.listen import bound_socket, http_server
from smallpress.server.watch import Watched, make_watch_app

EVIL = "<img src=x onerror=window.hit=1>"
NOW = 1_000_000.0


def write_run(folder, rows, settings=None, changed=None):
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps({"settings": settings or {}, "keep": 2}))
    if rows:
        (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if changed is not None:
        for file in folder.glob("*.*"):
            os.utime(file, (changed, changed))


def row(step, **more):
    return {"step": step, "reward": 0.5, "completions/mean_length": 9.0, "seconds/rollout": 3.0, **more}


@dataclass
class Watching:
    url: str
    folder: object


@pytest.fixture
def watching(tmp_path):
    """A server that watches `tmp_path / runs`."""
    folder = tmp_path / "runs"
    folder.mkdir()
    sock = bound_socket("127.0.0.1", 0, Keys([]))
    server = http_server(make_watch_app(Watched(folder, alarms_of), Keys([]), Limits(), LOOPBACK), Limits(), 1)
    thread = threading.Thread(target=server.run, args=([sock],))
    thread.start()
    yield Watching(f"http://127.0.0.1:{sock.getsockname()[1]}", folder)
    server.should_exit = True
    thread.join(20)
    sock.close()
    assert not thread.is_alive()


def fetch(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60) as answer:
        return answer.read()


def test_runs_are_found_two_folders_deep_the_newest_first(tmp_path):
    write_run(tmp_path / "old", [row(1)], changed=NOW)
    write_run(tmp_path / "deep" / "new", [row(1)], changed=NOW + 9)
    write_run(tmp_path / "a" / "b" / "too_deep", [row(1)])
    assert list(find_runs(tmp_path)) == ["deep/new", "old"]
    assert list(find_runs(tmp_path / "old")) == ["old"]


def test_an_overview_says_how_far_a_run_is_and_how_long_it_will_take(tmp_path):
    rows = [row(step, minutes=step / 20) for step in range(1, 6)]
    write_run(tmp_path, rows, {"steps": 20, "minutes": 0.75}, changed=NOW)
    found = overview(tmp_path, rows, NOW + 4)
    assert (found.state, found.step, found.steps, found.seconds_since) == ("running", 5, 20, 4.0)
    assert found.share == pytest.approx(0.25 / 0.75) and found.seconds_left == pytest.approx(30.0)
    assert overview(tmp_path, rows[:1], NOW).seconds_left == pytest.approx(60 * (0.75 - 0.05))
    assert overview(tmp_path, rows, NOW + 121).state == "quiet"
    assert overview(tmp_path, [*rows, row(20)], NOW).state == "finished"
    assert overview(tmp_path, [], NOW).state == "waiting"


def test_what_cannot_be_watched_is_said_in_a_line(tmp_path, capsys):
    assert run(["watch", str(tmp_path / "none")]) == 2
    assert "is not a folder" in capsys.readouterr().err
    assert run(["watch", str(tmp_path), "--host", "0.0.0.0"]) == 2
    assert "can be reached by others" in capsys.readouterr().err


def test_only_this_machine_and_only_the_runs_are_shown(watching):
    write_run(watching.folder / "a", [row(1)])
    (watching.folder.parent / "run.json").write_text('{"settings": {"secret": 1}}')
    assert [run["name"] for run in json.loads(fetch(watching.url + "/watch/runs"))] == ["a"]
    bad = [("/watch/run/..", {}), ("/watch/run/%2e%2e", {}), ("/watch/run/a/../..", {}), ("/watch/run/b", {})]
    foreign = [("/watch/runs", {"Host": "evil.example"}), ("/watch/runs", {"Origin": "http://evil.example"})]
    for path, headers in bad + foreign:
        with pytest.raises(urllib.error.HTTPError) as caught:
            fetch(watching.url + path, **headers)
        with caught.value as error:
            assert error.code in (403, 404) and b"secret" not in error.read()


def test_the_page_draws_a_run_and_keeps_up_with_it(watching, visit, accessible):
    expect = pytest.importorskip("playwright.sync_api").expect
    folder = watching.folder / EVIL
    rows = [row(step, **{EVIL: step}) for step in range(1, 12)]
    write_run(folder, rows, {"steps": 20, "model": EVIL})
    sample = {"step": 1, "prompt": EVIL, "completion": f"<think>{EVIL}</think>", "reward": 1, "rewards": {EVIL: 1}}
    (folder / "samples" / "step-000001.jsonl").write_text(json.dumps(sample) + "\n")
    with visit(watching.url, color_scheme="dark") as page:
        expect(page.locator("#state")).to_contain_text("running · step 11 / 20 · 55 %")
        expect(page.locator("#state")).to_contain_text("27 s left")
        expect(page.locator("#report .thought")).to_contain_text(EVIL)
        assert page.locator("#report svg").count() >= 3 and not page.locator("#alarms").is_visible()
        page.locator("#report details").first.click()
        accessible(page)
        rows.append(row(12, **{"completions/repeated_share": 0.9}))
        write_run(folder, rows, {"steps": 20})
        expect(page.locator("#alarms")).to_contain_text("step 12: more than half of the text repeats itself")
        expect(page.locator("#report .tile b").first).to_have_text("12")
        assert page.locator("#report details").first.get_attribute("open") is not None
        (folder / "metrics.jsonl").write_text("damaged\n{}\n")
        expect(page.locator("#status")).to_contain_text("line 1 is not a row of metrics")
        assert page.locator("img").count() == 0 and EVIL in page.locator("#name").inner_text()
