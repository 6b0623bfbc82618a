"""smallpress run"""

import gc
import json as json_format
import os
import stat
import sys
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from smallpress.run.errors import UserError, one_line

if TYPE_CHECKING:
    from smallpress.cli.open_engine import Auto, Drafts, NumberFormat
    from smallpress.cli.talk import Reply, Talk
    from smallpress.engine.native_runner import CacheFormat
    from smallpress.engine.request import SamplingParams
    from smallpress.weights.load import ModelFiles

TEMPERATURE, TOP_P, MAX_TOKENS = 0.6, 0.95, 1024
"""Where neither the command line nor the model says; the first two are those of DeepSeek-R1's model card."""
MAX_PIPED_BYTES = 4 << 20
OBJECTS_BEFORE_COLLECTING = 50_000
"""Python's own 700 has the collector run through each new import and vocabulary again and again: 30 ms of a start. Not
for training, where what waits to be collected may hold tensors."""


def run(
    model: Annotated[str, Parameter(help="A folder, a .gguf file, a name of the catalogue, or org/name.")],
    question: Annotated[str | None, Parameter(help="Ask this and leave; without it, talk.")] = None,
    /,
    *,
    temperature: Annotated[float | None, Parameter(help="0 is greedy; by default the model's, else 0.6.")] = None,
    top_p: Annotated[float | None, Parameter(help="Draw from the likeliest tokens that make up this much.")] = None,
    top_k: Annotated[int | None, Parameter(help="Draw from so many likeliest tokens; 0 is all.")] = None,
    min_p: Annotated[float | None, Parameter(help="Only tokens this much as likely as the likeliest.")] = None,
    max_tokens: Annotated[int, Parameter(help="The longest answer, thinking included.")] = MAX_TOKENS,
    seed: Annotated[int | None, Parameter(help="The same seed gives the same answers.")] = None,
    system: Annotated[str | None, Parameter(help="What the model is told first.")] = None,
    template: Annotated[
        Literal["chat", "r1_zero", "r1_zero_example"], Parameter(help="How to ask; only chat remembers.")
    ] = "chat",
    dtype: Annotated[
        Literal["auto", "int4", "int8", "bfloat16", "float32"],
        Parameter(help="auto: int8, or the file's own 4 bits where few run; float32 needs torch."),
    ] = "auto",
    kv_cache_dtype: Annotated[
        Literal["bfloat16", "int8"],
        Parameter(help="Of keys and values; int8 takes half the memory, for a little of the quality."),
    ] = "bfloat16",
    adapter: Annotated[
        Path | None, Parameter(help="Low-rank adapters (a PEFT folder) to merge into the model.")
    ] = None,
    draft: Annotated[
        Literal["auto", "mtp", "ngram", "off"],
        Parameter(
            help="Guess ahead, by the model's own modules or where text repeats; the answer is the same, sooner."
        ),
    ] = "auto",
    json: Annotated[
        bool, Parameter(negative="", help="Print one JSON object with the answer and what it took.")
    ] = False,
    offline: Annotated[bool, Parameter(negative="", help="Open no socket.")] = False,
) -> None:
    """Talk with a model in the terminal, or ask it one question.

    What is piped in belongs to the question: `smallpress run MODEL "Summarise:" < notes.txt`. An answer goes to stdout,
    the thinking before it, where stdout is no terminal, to stderr.
    """
    if system is not None and template != "chat":
        raise UserError(f"the prompt form {template} has no system text", "leave --system out, or use --template chat")
    text = _whole_question(question)
    if text is None and json:
        raise UserError("--json is for one question", "give it after the model, or pipe it in")
    given = {"temperature": temperature, "top_p": top_p, "top_k": top_k, "min_p": min_p}
    given |= {"max_tokens": max_tokens, "seed": seed}
    settings = {key: value for key, value in given.items() if value is not None}
    gc.set_threshold(OBJECTS_BEFORE_COLLECTING)
    with _loading(model):
        talk = open_talk(model, settings, template, dtype, offline, drafts=draft, adapter=adapter, cache=kv_cache_dtype)
    talk.system, talk.seed = system, seed
    if text is None:
        from smallpress.cli.repl import talk_in_terminal

        talk_in_terminal(talk, model)
    else:
        _ask_once(talk, model, text, json)


def _loading(model: str) -> AbstractContextManager[object]:
    """A sign of life on a terminal."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.console import Console

    return Console(stderr=True).status(f"loading {one_line(model)}")


def _whole_question(question: str | None) -> str | None:
    """The question and what is piped in, None where there is neither: then a person talks."""
    piped = _piped_text()
    if question is None and piped is None:
        return None
    text = "\n\n".join(part for part in (question, piped) if part and part.strip())
    if not text:
        raise UserError("the question is empty", "write it after the model, or pipe it in")
    return text


def _piped_text() -> str | None:
    """What a pipe or a file gives on stdin; None where stdin is a terminal, /dev/null or closed."""
    if sys.stdin is None or sys.stdin.isatty():
        return None
    mode = os.fstat(sys.stdin.fileno()).st_mode
    if not (stat.S_ISFIFO(mode) or stat.S_ISREG(mode) or stat.S_ISSOCK(mode)):
        return None
    data = sys.stdin.buffer.read(MAX_PIPED_BYTES + 1)
    if len(data) > MAX_PIPED_BYTES:
        raise UserError(f"more than {MAX_PIPED_BYTES >> 20} MB are piped in", "no model here reads that much; cut it")
    return data.decode(errors="replace")


def open_talk(
    model: str,
    given: dict[str, Any],
    template: str,
    dtype: "NumberFormat | Auto",
    offline: bool,
    drafts: "Drafts",
    adapter: Path | None = None,
    cache: "CacheFormat" = "bfloat16",
) -> "Talk":
    """A conversation with `model`; `given` are the sampling settings named on the command line."""
    from smallpress.cli.open_engine import open_engine
    from smallpress.cli.talk import Talk
    from smallpress.weights.adapter import with_adapter
    from smallpress.weights.identity import misnamed
    from smallpress.weights.load import open_model
    from smallpress.weights.reference import resolve

    files = with_adapter(open_model(resolve(model, offline)), adapter)
    if note := misnamed(model, files):
        print(f"smallpress: {note}", file=sys.stderr)
    params = sampling(files, given)
    tokenizer = files.tokenizer()
    if template == "chat" and tokenizer.chat_template is None:
        raise UserError(f"{model} has no chat template", "ask with --template r1_zero")
    engine = open_engine(files, dtype, 1, files.config.max_seq_len, drafts=drafts, cache=cache)
    return Talk(engine, tokenizer, params, template, example=worked_example_of(template))


def sampling(files: "ModelFiles", given: dict[str, Any]) -> "SamplingParams":
    """The command line's settings, else those the model's files recommend, else ours. Checked: UserError."""
    from smallpress.engine.request import SamplingParams

    names = ("temperature", "top_p", "top_k", "min_p")
    recommended = {name: files.generation[name] for name in names if _is_number(files.generation.get(name))}
    if isinstance(recommended.get("top_k"), float):
        recommended["top_k"] = int(recommended["top_k"])
    return SamplingParams(**({"temperature": TEMPERATURE, "top_p": TOP_P} | recommended | given))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def worked_example_of(template: str) -> tuple[str, str] | None:
    """What the form r1_zero_example shows the model; None for the others."""
    if template != "r1_zero_example":
        return None
    from smallpress.tasks.worked import worked_example

    return worked_example()


def _ask_once(talk: "Talk", model: str, question: str, json: bool) -> None:
    from smallpress.cli.display import AnswerDisplay
    from smallpress.cli.repl import interruptions

    with interruptions() as stopped:
        if json:
            list(talk.ask(question, stopped))
        else:
            with AnswerDisplay() as display:
                for kind, text in talk.ask(question, stopped):
                    display.show(kind, text)
    assert talk.last is not None
    if json:
        print(json_format.dumps(as_json(model, talk.last), ensure_ascii=False))
    if talk.last.finish_reason == "cancelled":
        raise KeyboardInterrupt


def as_json(model: str, reply: "Reply") -> dict[str, Any]:
    """What --json prints; token counts under the names of the OpenAI and DeepSeek interfaces."""
    return {
        "model": model,
        "answer": reply.answer,
        "thinking": reply.thinking,
        "finish_reason": reply.finish_reason,
        "usage": {
            "prompt_tokens": reply.n_prompt,
            "completion_tokens": reply.n_tokens,
            "reasoning_tokens": reply.n_thinking,
        },
        "seconds": round(reply.seconds, 3),
        "tokens_per_second": round(reply.tokens_per_second, 2),
        "drafted_tokens": reply.n_drafted,
        "accepted_tokens": reply.n_accepted,
    }
