import json
import math

import numpy as np
import pytest

from smallpress.run.errors import UserError
from smallpress.run.metrics import MetricsLog, console_line, read_metrics


def test_what_was_written_is_read_and_every_line_is_json(tmp_path):
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log.write(1, {"reward": 0.25, "tokens": 12, "loss": np.float32(0.5)})
        log.write(2, {"reward": math.nan, "loss": math.inf, "kl": -math.inf})
        first, second = log.read()
    assert first == {"step": 1, "reward": 0.25, "tokens": 12, "loss": 0.5}
    assert math.isnan(second["reward"]) and second["loss"] == math.inf and second["kl"] == -math.inf

    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    for line in (tmp_path / "metrics.jsonl").read_text().splitlines():
        json.loads(line, parse_constant=refuse)


def test_a_torn_last_line_is_dropped_and_the_log_goes_on_after_it(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1, "reward": 0.5}\n{"step": 2, "rew')
    assert read_metrics(path) == [{"step": 1, "reward": 0.5}]
    with MetricsLog(path) as log:
        log.write(2, {"reward": 1.0})
    assert path.read_bytes() == b'{"step": 1, "reward": 0.5}\n{"step": 2, "reward": 1.0}\n'


def test_zeros_that_a_power_cut_left_at_the_end_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_bytes(b'{"step": 1}\n' + bytes(100))
    assert read_metrics(path) == [{"step": 1}]


@pytest.mark.parametrize(
    "line", ["", "3", "{", '{"loss": 1}', '{"step": "1"}', '{"step": 1, "loss": [1]}', '{"step": true}']
)
def test_a_broken_line_in_the_middle_is_named(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    path.write_text(f'{{"step": 0}}\n{line}\n{{"step": 2}}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl: line 2 is not a row of metrics"):
        MetricsLog(path)


def test_steps_only_grow(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with MetricsLog(path) as log:
        log.write(3, {})
    with MetricsLog(path) as log, pytest.raises(AssertionError, match="step 3 after step 3"):
        log.write(3, {})


def test_forgetting_everything_leaves_an_empty_log(tmp_path):
    with MetricsLog(tmp_path / "metrics.jsonl") as log:
        log.write(3, {})
        log.truncate_after(0)
        assert log.read() == []
        log.write(1, {})


def test_a_log_that_cannot_be_opened_is_one_line(tmp_path):
    with pytest.raises(UserError, match=r"opening .*metrics\.jsonl: no such file or directory"):
        MetricsLog(tmp_path / "none" / "metrics.jsonl")


def test_a_step_is_one_console_line():
    values = {"reward": 0.123456, "grad_norm": math.nan, "tokens": 3}
    assert console_line(7, values, n_steps=100) == "step   7/100  reward 0.1235  grad_norm nan  tokens 3"
    assert console_line(7, {"loss": math.inf}) == "step      7  loss inf"
