"""A model behind an OpenAI-shaped API as judge.

The judged text cannot give itself a score. It stands between marks that are a hash of it, which it therefore cannot
hold; and of the judge's reply nothing is read but a whole number that is all of it. What a judge may be talked into is
another matter: the prompt, a file of its own, says that nothing in the text is addressed to it.
"""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from statistics import fmean
from typing import Any

from smallpress.rl.judge import Asked
from smallpress.rl.judge_settings import JudgeSettings
from smallpress.run.atomic import write_file
from smallpress.run.bill import Bill
from smallpress.run.endpoint import Reply
from smallpress.run.errors import UserError, disk_error
from smallpress.run.report_source import read_lines
from smallpress.run.seeds import derive_seed
from smallpress.tokenizer.thinking import split_thinking

LEAST, MOST = 1, 10
PLACES = ("{mark}", "{question}", "{answer}")
_PLACE = re.compile("|".join(map(re.escape, PLACES)))
SHOWN_REPLY = 2000  # characters of it that are kept


class EndpointJudge:
    """Every judgment is asked for once: the same prompt is answered from what is kept, in a file where a run has one,
    so that a resumed run gets the scores it got."""

    bounded = True

    def __init__(self, name: str, settings: JudgeSettings, seed: int):
        self.name, self.settings, self.seed = name, settings, seed
        self.client, self.bill = settings.endpoint.client(settings.by), Bill(settings.endpoint)
        self.template = template_of(name, settings.prompt)
        self.known: dict[str, float | None] = {}  # None: the reply was no score
        self.path: Path | None = None

    def keep_in(self, path: Path) -> None:
        """Take up the judgments that the file holds, and write new ones there."""
        rows = read_lines(path)
        if rows:
            write_file(path, "".join(json.dumps(row) + "\n" for row in rows).encode())  # a kill may have torn the last
        for number, row in enumerate(rows, start=1):
            try:
                self.known[row["key"]] = row["score"]
                self.bill.prompt_tokens += row["prompt_tokens"]
                self.bill.completion_tokens += row["completion_tokens"]
            except (KeyError, TypeError):
                raise UserError(f"{path}, line {number}: no judgment", "remove the line") from None
        self.path = path

    def scores(self, asked: Sequence[Asked]) -> list[float]:
        """From 0 to 1; the mean of the judgments that could be read."""
        prompts = [self.prompt(messages, answer) for messages, answer in asked]
        wanted = [[self._key(prompt, n) for n in range(self.settings.judgments)] for prompt in prompts]
        missing: dict[str, str] = {}
        for prompt, keys in zip(prompts, wanted, strict=True):
            missing |= {key: prompt for key in keys if key not in self.known}
        if missing:
            self._ask(missing)
        found = []
        for keys in wanted:
            read = [score for key in keys if (score := self.known[key]) is not None]
            found.append(fmean(read) if read else math.nan)
        return found

    def prompt(self, messages: Sequence[Mapping[str, Any]], answer: str) -> str:
        """What the judge is asked, each place filled once: what is filled in is not looked through again."""
        question = "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)
        mark = f"{derive_seed(self.seed, 'judge', self.name, question, answer):016x}"
        filled = {"{mark}": mark, "{question}": question, "{answer}": answer}
        return _PLACE.sub(lambda place: filled[place[0]], self.template)

    def _key(self, prompt: str, n: int) -> str:
        how = [self.settings.by, self.settings.endpoint.model, self.settings.temperature, n, prompt]
        return blake2b(json.dumps(how).encode(), digest_size=16).hexdigest()

    def _ask(self, missing: Mapping[str, str]) -> None:
        """Raises UserError where the endpoint refuses or gives no answer; what has come by then is kept."""
        settings, keys = self.settings, list(missing)
        how = {"model": settings.endpoint.model, "max_tokens": settings.max_tokens, "temperature": settings.temperature}
        bodies = ({**how, "messages": [{"role": "user", "content": missing[key]}]} for key in keys)
        rows = []
        try:
            for place, reply in self.bill.paid_for(self.client, bodies):
                self.known[keys[place]] = score = read_score(reply)
                rows.append(
                    {
                        "key": keys[place],
                        "score": score,
                        "reply": reply.text[:SHOWN_REPLY],
                        "prompt_tokens": reply.prompt_tokens,
                        "completion_tokens": reply.completion_tokens,
                    }
                )
        finally:
            self._write(rows)

    def _write(self, rows: Sequence[Mapping[str, Any]]) -> None:
        if self.path is None or not rows:
            return
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.writelines(json.dumps(row) + "\n" for row in rows)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise disk_error(error, f"writing {self.path}") from error


def read_score(reply: Reply) -> float | None:
    """A whole number from 1 to 10, after any thinking and with nothing beside it, as 0 to 1; None for anything else.

    >>> [read_score(Reply(text, None, True, 1, 1, 0)) for text in ("10", "<think>Only 3?</think> 1", "Score: 10", "11")]
    [1.0, 0.0, None, None]
    """
    _, said = split_thinking(reply.text)
    if not reply.finished or not re.fullmatch(r"[0-9]{1,2}", said.strip()):
        return None
    number = int(said)
    return (number - LEAST) / (MOST - LEAST) if LEAST <= number <= MOST else None


def template_of(name: str, path: str | None) -> str:
    """The prompt's text. Raises UserError where the file cannot be read or lacks a place."""
    file = Path(path) if path is not None else Path(__file__).with_name(f"judge_{name}.txt")
    try:
        text = file.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise disk_error(error, f"reading {file}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{file}: byte {error.start} is not UTF-8", "save the prompt as UTF-8") from error
    if lacking := [place for place in PLACES if place not in text]:
        raise UserError(f"{file} has no {lacking[0]}", f"a judge's prompt has {', '.join(PLACES)}")
    return text
