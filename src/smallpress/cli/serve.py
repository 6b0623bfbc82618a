"""smallpress serve"""

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from smallpress.cli.foresight import announce, foresee_serving, print_engine_beside, rehearse_serving, together
from smallpress.cli.run import sampling, worked_example_of
from smallpress.run.errors import UserError, disk_error

if TYPE_CHECKING:
    from smallpress.cli.open_engine import Auto, NumberFormat
    from smallpress.engine.native_runner import CacheFormat
    from smallpress.engine.prefix_disk import PrefixDisk, Shelf
    from smallpress.planner.serving import Serving
    from smallpress.server.gate import Keys
    from smallpress.server.hosted import Hosted
    from smallpress.server.meter import Accounts
    from smallpress.weights.load import ModelFiles

USUAL_PROMPT, USUAL_ANSWER = 512, 256
"""Tokens that the plan's speeds are of."""
KEY_VARIABLE = "SMALLPRESS_API_KEY"
OF_ALL = {"currency", "watts"}
"""Rates that are the machine's and not a model's."""
MIN_KEY_CHARS = 16


def serve(
    models: Annotated[list[str], Parameter(help="Models as for `run`; NAME=MODEL serves one under another name.")],
    /,
    *,
    adapter: Annotated[
        list[str] | None,
        Parameter(help="NAME=FOLDER or NAME=org/name, asked by that name; of several models, MODEL:NAME=FOLDER."),
    ] = None,
    host: Annotated[str, Parameter(help="The address; any but this machine's own needs a key.")] = "127.0.0.1",
    port: Annotated[int, Parameter(help="0 takes a free one.")] = 8000,
    api_keys: Annotated[Path | None, Parameter(help="A file of keys, a line each: NAME KEY [PRIORITY].")] = None,
    allow_host: Annotated[list[str] | None, Parameter(help="Another name this server is asked by.")] = None,
    template: Annotated[
        Literal["chat", "r1_zero", "r1_zero_example"], Parameter(help="How to ask; only chat remembers.")
    ] = "chat",
    dtype: Annotated[Literal["auto", "int4", "int8", "bfloat16", "float32"], Parameter(help="As for `run`.")] = "auto",
    kv_cache_dtype: Annotated[Literal["bfloat16", "int8"], Parameter(help="As for `run`.")] = "bfloat16",
    parallel: Annotated[int, Parameter(help="Requests in one batch; more wait.")] = 32,
    context: Annotated[int | None, Parameter(help="Tokens of prompt and answer; less takes less memory.")] = None,
    max_tokens: Annotated[int | None, Parameter(help="The longest answer anybody gets.")] = None,
    cache: Annotated[Path | None, Parameter(help="A folder that keeps prefixes, also over a restart.")] = None,
    cache_size: Annotated[float, Parameter(help="Gigabytes it may take.")] = 8.0,
    rates: Annotated[
        list[str] | None,
        Parameter(
            help="Prices: machine_hour=0.5, or hit=, miss=, out= a million tokens; currency=EUR; watts=65; MODEL:out=1."
        ),
    ] = None,
    state: Annotated[Path | None, Parameter(help="A folder in which what was used outlives the server.")] = None,
    drain: Annotated[int, Parameter(help="Seconds that answers have to end in after Ctrl-C.")] = 10,
    dry_run: Annotated[bool, Parameter(negative="", help="Say what it takes, answer one request of our own.")] = False,
    offline: Annotated[bool, Parameter(negative="", help="Open no socket but the server's own.")] = False,
) -> None:
    """Answer over HTTP as OpenAI's API does, with a chat page for the browser.

    Without keys only this machine is answered. A key is given in SMALLPRESS_API_KEY, or several in a file.
    """
    for name, value, least in (("parallel", parallel, 1), ("drain", drain, 0), ("max_tokens", max_tokens, 1)):
        if value is not None and value < least:
            raise UserError(f"{name} is {value}", f"give at least {least}")
    if context is not None and context < 16:
        raise UserError(f"context is {context}", "give at least 16")
    from smallpress.server.hosted import Models
    from smallpress.server.limits import Limits
    from smallpress.server.listen import allowed_hosts, bound_socket
    from smallpress.server.listen import serve as answer

    keys = read_keys(api_keys)
    limits = Limits() if max_tokens is None else Limits(max_tokens=max_tokens)
    with open_cache(cache, cache_size) as disk, bound_socket(host, port, keys) as sock:
        opened = [
            open_hosted(model, template, dtype, parallel, context, offline, disk, kv_cache_dtype) for model in models
        ]
        bases = [base for base, _ in opened]
        hosted = Models([*bases, *open_adapters(adapter or [], opened)])
        accounts = read_accounts(rates or [], [model.name for model in hosted], state, watts_here())
        hour = accounts.rates.machine_hour
        plans = [
            foresee_serving(one.name, files, dtype, asked_of(one, parallel, kv_cache_dtype), hour)
            for one, files in opened
        ]
        announce(together(plans))
        if dry_run:
            for plan, model in zip(plans, bases, strict=True):
                rehearse_serving(plan, model.open(), asked_of(model, parallel, kv_cache_dtype).n_prompt)
            return
        answer(hosted, keys, limits, sock, allowed_hosts(host, keys, tuple(allow_host or ())), drain, accounts)
        for plan, model in zip(plans, bases, strict=True):
            if model.engine is not None:
                print_engine_beside(plan, model.engine)


def asked_of(model: "Hosted", parallel: int, cache: "CacheFormat") -> "Serving":
    """What a server is planned for: requests as they usually are, and room for the longest."""
    from smallpress.planner.lengths import all_of
    from smallpress.planner.serving import Serving

    n = model.max_seq_len
    answers = all_of(min(USUAL_ANSWER, n // 2))
    return Serving("int8", parallel, min(USUAL_PROMPT, n // 2), answers, parallel, "serve", n, cache=cache)


@contextmanager
def open_cache(folder: Path | None, gigabytes: float) -> "Iterator[PrefixDisk | None]":
    """The prefixes on disk; what goes wrong with them later is a line on stderr."""
    if folder is None:
        yield None
        return
    from smallpress.engine.prefix_disk import PrefixDisk, max_bytes

    disk = PrefixDisk(folder, max_bytes(gigabytes), lambda line: print(line, file=sys.stderr, flush=True))
    try:
        yield disk
    finally:
        disk.close()


def open_hosted(
    word: str,
    form: str,
    dtype: "NumberFormat | Auto",
    parallel: int,
    context: int | None,
    offline: bool,
    disk: "PrefixDisk | None" = None,
    cache: "CacheFormat" = "bfloat16",
) -> "tuple[Hosted, ModelFiles]":
    """What `word` says: NAME=MODEL or MODEL. Its tokenizer is read here, its weights when the server runs."""
    from smallpress.cli.open_engine import open_engine
    from smallpress.engine.engine import Engine
    from smallpress.server.hosted import Hosted
    from smallpress.weights.fingerprint import weights_hash
    from smallpress.weights.load import open_model
    from smallpress.weights.reference import resolve

    name, equals, reference = word.partition("=")
    if not equals or "/" in name:
        name, reference = "", word
    path = resolve(reference, offline)
    files = open_model(path)
    tokens_each = min(context or files.config.max_seq_len, files.config.max_seq_len)

    def shelf_of(page_form: str) -> "Shelf":
        assert disk is not None
        return disk.of(weights_hash(path), page_form)

    def load() -> Engine:
        shelf = shelf_of if disk else None
        return open_engine(files, dtype, parallel, tokens_each, drafts="auto", shelf_of=shelf, cache=cache)

    name = name or (Path(reference).stem if Path(reference).exists() else reference)
    sizes = [file.stat().st_size for file in ([path] if path.is_file() else path.glob("*.safetensors"))]
    format = "gguf" if path.is_file() else "safetensors"
    about: dict[str, str | int] = {"family": files.config.family, "format": format, "bytes": sum(sizes)}
    tokenizer, params = files.tokenizer(), sampling(files, {})
    if form == "chat" and tokenizer.chat_template is None:
        raise UserError(f"{reference} has no chat template", "serve it with --template r1_zero")
    example = worked_example_of(form)
    return Hosted(name, tokenizer, params, tokens_each, load, about, form, example, root=reference), files


def open_adapters(words: list[str], models: "Sequence[tuple[Hosted, ModelFiles]]") -> "list[Hosted]":
    """Each NAME=FOLDER as a model over the only one, each MODEL:NAME=FOLDER over that one."""
    from smallpress.run.settings import nearest
    from smallpress.weights.adapter import open_adapter
    from smallpress.weights.reference import resolve_adapter

    bases = {base.name: (base, files.config) for base, files in models}
    found = []
    for word in words:
        full_name, equals, reference = word.partition("=")
        model, _, name = full_name.rpartition(":")
        if not (equals and name and reference):
            raise UserError(f"the adapter {word!r} has no name or no folder", "write NAME=FOLDER")
        if not model and len(bases) > 1:
            raise UserError(f"the adapter {name} is of one of several models", f"write {next(iter(bases))}:{word}")
        if model and model not in bases:
            raise UserError(f"the adapter {name} is of {model}, which is not served", nearest(model, list(bases)))
        base, config = bases[model or next(iter(bases))]
        found.append(base.adapted(name, reference, open_adapter(resolve_adapter(reference), config)))
    return found


def watts_here() -> float:
    """What this machine draws while it computes, as the planner takes it."""
    from smallpress.planner.probe import known_place

    return known_place().machine.watts


def read_accounts(words: list[str], models: list[str], state: Path | None, watts: float = 0.0) -> "Accounts":
    """The rates of all models, and of each that is named: `MODEL:out=1`. `watts`: where the words say nothing."""
    from smallpress.run.settings import load_settings, nearest
    from smallpress.server.meter import Accounts, Rates

    given: dict[str, list[str]] = {"": [f"watts={watts}"]}
    for word in words:
        key, equals, value = word.partition("=")
        model, _, field = key.rpartition(":")
        if model and model not in models:
            raise UserError(f"the rates name {model}, which is not served", nearest(model, models))
        if model and field.strip() in OF_ALL:
            remedy = f"give it for all models: --rates {field.strip()}={value}"
            raise UserError(f"the rates of {model} name {field.strip()}", remedy)
        given.setdefault(model, []).append(f"{field}{equals}{value}")
    card = {model: load_settings(Rates, None, overrides) for model, overrides in given.items()}
    shared = card.pop("")
    own = {model: rates.model_copy(update=shared.model_dump(include=OF_ALL)) for model, rates in card.items()}
    return Accounts(shared, own, state)


def read_keys(path: Path | None) -> "Keys":
    """The keys of the file and of the environment; UserError for one that could be guessed."""
    from smallpress.server.gate import Keys

    named = [("env", os.environ[KEY_VARIABLE])] if os.environ.get(KEY_VARIABLE) else []
    foremost: dict[str, int] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines() if path is not None else []
    except OSError as error:
        raise disk_error(error, f"reading {path}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: byte {error.start} is not UTF-8", "save the keys as UTF-8") from error
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if len(words) not in (2, 3):
            raise UserError(f"{path}, line {number} has {len(words)} words", "write a name and a key on each line")
        named.append((words[0], words[1]))
        if len(words) == 3:
            foremost[words[0]] = _foremost(words[2], f"{path}, line {number}")
    for name, key in named:
        if len(key) < MIN_KEY_CHARS:
            raise UserError(f"the key {name} has {len(key)} characters", f"use at least {MIN_KEY_CHARS}")
    if path is not None and not named:
        raise UserError(f"{path} holds no key", "write a name and a key on each line")
    return Keys(named, foremost)


def _foremost(word: str, where: str) -> int:
    if not (word.removeprefix("-").isdecimal() and word.isascii() and abs(int(word)) <= 100):
        raise UserError(f"{where}: the priority is {word}", "write a number from -100 to 100; lower goes first")
    return int(word)
