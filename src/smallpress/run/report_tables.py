"""The tables of a report: gains with their intervals, sample thoughts, settings. Everything read is escaped."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from smallpress.run.figure import number, range_row, range_scale, text
from smallpress.run.report_source import Row, is_number

MAX_SHOWN_STEPS = 6
MAX_SHOWN_CHARACTERS = 4000

_TAGS = re.compile(r"&lt;/?(?:think|answer)&gt;|\\boxed")
_REFLECTION = re.compile(r"\b(?:wait|mistake|however|retry|error|verify|evaluate|check)\b", re.IGNORECASE)
"""Words of reflection whose rise the R1 paper counts; its "but" and "wrong" are too common to mark."""


def gains_table(result: Row) -> str:
    """Before, after and the paired difference, overall and by family, each with its 95 % interval."""
    if not is_gain(result):
        return ""
    families = result.get("by_family")
    if isinstance(families, Mapping) and len(families) < 2:
        families = result.get("by_level", families)
    rows = [_gain_row("all", result, ' class="all"')]
    if isinstance(families, Mapping):
        rows += [
            _gain_row(name.replace("_", " "), row)
            for name, row in families.items()
            if isinstance(row, Mapping) and is_gain(row)
        ]
    labels = [f"{end}: {result[f'{end}_label']}" for end in ("before", "after") if result.get(f"{end}_label")]
    caption = f'<p class="soft">{"<br>".join(map(text, labels))}</p>' if labels else ""
    head = (
        f'<tr><th>held out</th><th class="num">n</th><th class="range">{range_scale()}</th>'
        '<th class="num s7"><span class="dot"></span>before</th><th class="num s0"><span class="dot"></span>after</th>'
        '<th class="num">gain on the same problems</th></tr>'
    )
    return f'<h2>What it gained</h2>{caption}<div class="card scroll"><table>{head}{"".join(rows)}</table></div>'


def _gain_row(name: str, row: Row, attributes: str = "") -> str:
    before, after, difference = row["before"], row["after"], row["difference"]
    n = number(before["n"]) if is_number(before.get("n")) else ""
    picture = range_row([(float(one["value"]), float(one["low"]), float(one["high"])) for one in (before, after)])
    sure = "gain" if difference["low"] > 0 else "loss" if difference["high"] < 0 else ""
    return (
        f'<tr{attributes}><td>{text(name)}</td><td class="num">{n}</td><td class="range">{picture}</td>'
        f'<td class="num">{share(before)}</td><td class="num">{share(after)}</td>'
        f'<td class="num {sure}">{share(difference, signed=True)}</td></tr>'
    )


def share(estimate: Row, signed: bool = False) -> str:
    """An estimate as HTML: 62.0 % with its interval behind; a difference with its sign, in points."""
    sign = "+" if signed else ""
    value, low, high = (f"{100 * float(estimate[key]):{sign}.1f}" for key in ("value", "low", "high"))
    return f'{value}{"" if signed else " %"} <span class="interval">{low} to {high}</span>'


def is_gain(row: Row) -> bool:
    """Whether before, after and difference are there, each with value, low and high."""
    estimates = [row.get(key) for key in ("before", "after", "difference")]
    return all(
        isinstance(one, Mapping) and all(is_number(one.get(key)) for key in ("value", "low", "high"))
        for one in estimates
    )


def thoughts(samples: Sequence[Row]) -> str:
    """Completions at up to six steps: of each step's samples the best, the middle and the worst by reward."""
    by_step: dict[float, list[Row]] = {}
    for sample in samples:
        if is_number(sample.get("step")) and isinstance(sample.get("completion"), str):
            by_step.setdefault(float(sample["step"]), []).append(sample)
    if not by_step:
        return ""
    steps = sorted(by_step)
    last = len(steps) - 1
    shown = sorted({steps[round(i * last / (MAX_SHOWN_STEPS - 1))] for i in range(MAX_SHOWN_STEPS)})
    sections = []
    for step in shown:
        ranked = sorted(by_step[step], key=_reward, reverse=True)
        picked = {0: "best", len(ranked) - 1: "worst", len(ranked) // 2: "middle"} if len(ranked) > 2 else {}
        cards = [
            _thought(ranked[i], f"{picked[i]} of {len(ranked)}" if picked else "")
            for i in sorted(picked or range(len(ranked)))
        ]
        sections.append(
            f'<div class="step"><h3>Step {text(number(step))}</h3><div class="thoughts">{"".join(cards)}</div></div>'
        )
    return f'<h2>What it wrote</h2><p class="soft">As sampled in training, not chosen by hand.</p>{"".join(sections)}'


def _thought(sample: Row, rank: str) -> str:
    reward, prompt = _reward(sample), str(sample.get("prompt", ""))
    question = str(sample.get("question", "")) or _last_turn(prompt)
    chips = [_chip("reward", number(reward), "right" if reward >= 1 else "wrong" if reward <= 0 else "")]
    parts = sample.get("rewards")
    if isinstance(parts, Mapping):
        chips += [_chip(str(name), number(float(value))) for name, value in parts.items() if is_number(value)]
    if sample.get("reference") is not None:
        chips.append(_chip("reference", str(sample["reference"])[:80]))
    if rank:
        chips.append(f'<span class="chip">{rank}</span>')
    whole = (
        f"<details><summary>whole prompt</summary><pre>{_clipped(prompt)}</pre></details>" if prompt != question else ""
    )
    return (
        f'<div class="card thought"><pre class="question">{_clipped(question)}</pre>'
        f'<pre>{marked(sample["completion"])}</pre><div class="chips">{"".join(chips)}</div>{whole}</div>'
    )


def marked(completion: str) -> str:
    """A completion escaped, its thinking and answer tags and its words of reflection marked.

    >>> marked("<think>wait & see")
    '<span class="tag">&lt;think&gt;</span><span class="word">wait</span> &amp; see'
    """
    pieces = re.split(f"({_TAGS.pattern})", _clipped(completion))
    for i, piece in enumerate(pieces):
        if i % 2:
            pieces[i] = f'<span class="tag">{piece}</span>'
        else:
            pieces[i] = _REFLECTION.sub(r'<span class="word">\g<0></span>', piece)
    return "".join(pieces)


def settings_lists(run: Row) -> str:
    """Each part of run.json (settings, machine, versions, ...) as a list of dotted names and values."""
    lists: dict[str, list[tuple[str, str]]] = {}
    for key, value in run.items():
        if isinstance(value, Mapping):
            lists.setdefault(key, []).extend(_flat(value))
        else:
            lists.setdefault("run", []).extend(_flat({key: value}))
    if not lists:
        return ""
    blocks = [
        f"<section><h3>{text(name)}</h3><dl>"
        + "".join(f'<div><dt>{text(key)}</dt><dd class="mono">{text(value)}</dd></div>' for key, value in rows)
        + "</dl></section>"
        for name, rows in lists.items()
    ]
    return f'<h2>Settings and machine</h2><div class="card settings">{"".join(blocks)}</div>'


def _flat(value: Mapping[str, Any], prefix: str = "", depth: int = 0) -> list[tuple[str, str]]:
    rows = []
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, Mapping) and item and depth < 4:
            rows += _flat(item, f"{name}.", depth + 1)
        elif isinstance(item, list | tuple):
            rows.append((name, ", ".join(map(str, item))[:400] or "none"))
        else:
            rows.append((name, "none" if item is None else str(item)[:400]))
    return rows


def _reward(sample: Row) -> float:
    reward = sample.get("reward")
    return float(reward) if is_number(reward) and reward is not None else 0.0


def _last_turn(prompt: str) -> str:
    """What stands behind the prompt's last turn of the user, for prompts that carry a template or an example."""
    for opening, closing in (("User:", "Assistant:"), ("<|im_start|>user", "<|im_end|>")):
        if opening in prompt:
            return prompt.rsplit(opening, 1)[1].split(closing)[0].strip() or prompt
    return prompt


def _clipped(words: str) -> str:
    if len(words) > MAX_SHOWN_CHARACTERS:
        words = f"{words[:MAX_SHOWN_CHARACTERS]} … ({len(words) - MAX_SHOWN_CHARACTERS} characters more)"
    return text(words)


def _chip(name: str, value: str, kind: str = "") -> str:
    return f'<span class="chip {kind}">{text(name)} <b>{text(value)}</b></span>'
