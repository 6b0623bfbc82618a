"""README.md of an exported model: a YAML head the hub reads, then words for people."""

import json
import re
from collections.abc import Mapping
from typing import Any

from smallpress.weights.load import ModelFiles

HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9][A-Za-z0-9._-]*")


def model_card(name: str, files: ModelFiles, card: Mapping[str, Any]) -> str:
    """`card` may have `title`, `summary`, `datasets` and `body`."""
    unknown = set(card) - {"title", "summary", "datasets", "body"}
    assert not unknown, f"unknown parts of a card: {unknown}"
    base = files.origin if files.origin and HUB_NAME.fullmatch(files.origin) else None
    head: dict[str, Any] = {"license": files.licence or "unknown"}
    if base:
        head["base_model"] = base
    head |= {"library_name": "transformers", "pipeline_tag": "text-generation", "tags": ["smallpress"]}
    if card.get("datasets"):
        head["datasets"] = list(card["datasets"])
    # A JSON value is a YAML value, quoted whatever it holds.
    lines = ["---", *(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in head.items()), "---", ""]
    lines += [f"# {card.get('title', name)}", "", card.get("summary", "A model made with smallpress."), ""]
    if base:
        lines += [f"It was made from [{base}](https://huggingface.co/{base}) and stays under its licence.", ""]
    if card.get("body"):
        lines += [card["body"].strip(), ""]
    return "\n".join(lines)
