"""A model folder from the Hugging Face hub: config, tokenizer and safetensors of one commit, nothing else."""

import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

from smallpress.run.errors import UserError
from smallpress.weights.https import Fetcher
from smallpress.weights.json_files import read_json_object
from smallpress.weights.load import open_model
from smallpress.weights.names_hf import config_from_hf
from smallpress.weights.shards import INDEX, SINGLE, shard_of_each_tensor
from smallpress.weights.wheel import OnBytes

HUB = "https://huggingface.co"
SMALL_FILES = (
    "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
    "chat_template.jinja", "LICENSE", "LICENSE.txt", "LICENSE.md", "README.md",
)  # fmt: skip
MAX_SMALL_BYTES = 1 << 26
MAX_LISTING_BYTES = 1 << 24
MAX_MODEL_BYTES = 1 << 40
COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")


class HubModel:
    """One commit of one repository: what it holds, and the way to fetch it."""

    def __init__(self, name: str, base_url: str):
        self.name, self._fetcher = name, Fetcher(base_url)
        pieces = self._fetcher.chunks(f"/api/models/{name}/revision/main?blobs=true", MAX_LISTING_BYTES)
        listing = _parse(b"".join(pieces), name)
        self.commit = listing["sha"]
        self.files = {entry["rfilename"]: entry for entry in listing["siblings"]}
        card = listing.get("cardData")
        licence = card.get("license") if isinstance(card, dict) else None
        self.licence = licence if isinstance(licence, str) else None

    def fetch(self, folder: Path, on_bytes: OnBytes) -> None:
        """Fill `folder`; the whole is opened at the end, so that what is kept can be loaded. Raises UserError."""
        self._fetch_file("config.json", folder)
        config_from_hf(read_json_object(folder / "config.json"), (), f"{self.name}/config.json")
        weights = self._weights(folder)
        total = sum(self._size(name) for name in weights)
        free = shutil.disk_usage(folder).free
        if total > min(free, MAX_MODEL_BYTES):
            what = f"{self.name} has {total // 10**6} MB of weights; {folder.parent} has {free // 10**6} MB free"
            raise UserError(what, "free some space, or set SMALLPRESS_HOME to another disk")
        for name in SMALL_FILES:
            if name in self.files:
                self._fetch_file(name, folder)
        done = 0
        for name in weights:
            self._fetch_file(name, folder, on_bytes, done, total)
            done += self._size(name)
        open_model(folder)

    def _weights(self, folder: Path) -> list[str]:
        """The names of the weight files; the index, if it is that, is fetched for it."""
        if SINGLE in self.files:
            return [SINGLE]
        if INDEX not in self.files:
            what = f"{self.name} has no safetensors weights"
            raise UserError(what, "of a GGUF repository, fetch the .gguf file itself and give its path")
        self._fetch_file(INDEX, folder)
        shards = sorted(set(shard_of_each_tensor(folder / INDEX).values()))
        for shard in shards:
            if shard not in self.files:
                raise UserError(f"{self.name} lacks {shard}, which its index names", "choose another model")
        return shards

    def _size(self, name: str) -> int:
        size = self.files[name].get("size")
        if type(size) is not int or not 0 <= size <= MAX_MODEL_BYTES:
            raise UserError(f"{self.name}: the hub gives {name} the size {size!r}", "try again later")
        return size

    def _fetch_file(
        self, name: str, folder: Path, on_bytes: OnBytes = lambda done, total: None, done: int = 0, total: int = 0
    ) -> None:
        """One file, held against the size and, where the hub has one, the SHA-256 of its listing."""
        if name not in self.files:
            raise UserError(f"{self.name} has no {name}", "choose a model in Hugging Face's format")
        size, digest = self._size(name), hashlib.sha256()
        if not total and size > MAX_SMALL_BYTES:
            what = f"{self.name}: {name} has {size} bytes, more than {MAX_SMALL_BYTES}"
            raise UserError(what, "choose another model")
        got = 0
        with open(folder / name, "xb") as out:
            for chunk in self._fetcher.chunks(f"/{self.name}/resolve/{self.commit}/{name}", size):
                out.write(chunk)
                digest.update(chunk)
                got += len(chunk)
                on_bytes(done + got, total)
        if got != size:
            raise UserError(f"{self.name}: {name} broke off after {got} of {size} bytes", "pull it again")
        lfs = self.files[name].get("lfs")
        pinned = lfs.get("sha256") if isinstance(lfs, dict) else None
        if pinned is not None and pinned != digest.hexdigest():
            raise UserError(f"{self.name}: {name} is not the hub's file (its SHA-256 differs)", "pull it again")


def _parse(text: bytes, name: str) -> dict[str, Any]:
    """The hub's answer about a model, with what is used of it checked."""
    try:
        listing = json.loads(text)
        names = [entry["rfilename"] for entry in listing["siblings"]]
        sound = COMMIT.fullmatch(listing["sha"]) is not None and all(isinstance(name, str) for name in names)
    except (ValueError, KeyError, TypeError, RecursionError):
        sound = False
    if not sound:
        raise UserError(f"the hub's answer about {name} makes no sense", "try again later")
    return dict(listing)
