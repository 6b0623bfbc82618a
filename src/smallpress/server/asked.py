"""From a request's fields to what the engine is asked: prompt ids, sampling, budget."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from smallpress.engine.request import SamplingParams
from smallpress.run.errors import UserError
from smallpress.server.errors import ApiError, from_user_error
from smallpress.server.fields import ChatBody, Message, Sampling, Tool
from smallpress.server.forms import answer_grammar, offered_tools
from smallpress.server.grammar import Grammar
from smallpress.server.hosted import Hosted
from smallpress.server.limits import MAX_TOOLS, Limits
from smallpress.server.reader import NO_BUDGET, Budget
from smallpress.server.tools import told_turns
from smallpress.tokenizer.chat import encode_chat
from smallpress.tokenizer.prompts import encode_prompt, prompt_form
from smallpress.tokenizer.thinking import CLOSING, opens_thinking

EFFORTS: dict[str, int | None] = {"none": 0, "minimal": 0, "low": 512, "medium": 2048, "high": None, "xhigh": None}
"""reasoning_effort -> tokens of thinking at most; from three quarters of them on it ends with its sentence."""
SOFT_SHARE = 0.75
TAIL = 16  # ids of the prompt's end in which an open tag is looked for


@dataclass(frozen=True, slots=True)
class Asked:
    """One prompt and how `n` completions of it are drawn. `splits`: thinking is told from answer.

    `functions` are the names a completion may call, `most_calls` at once; `grammar` is what it is held to.
    """

    prompt_ids: tuple[int, ...]
    params: SamplingParams
    n: int
    stops: tuple[str, ...]
    opened: bool = False
    splits: bool = True
    budget: Budget = NO_BUDGET
    tags_answer: bool = False
    grammar: Grammar | None = None
    functions: tuple[str, ...] = ()
    most_calls: int = MAX_TOOLS


def sampling_params(
    model: Hosted, body: Sampling, limits: Limits, max_tokens: int | None, n_top: int
) -> SamplingParams:
    """The body's settings over the model's; a seed of its own where none is asked."""
    if (body.n or 1) > limits.choices:
        raise ApiError(400, f"n is {body.n}: this server gives at most {limits.choices}", "n", "invalid_value")
    given: dict[str, Any] = {name: getattr(body, name) for name in ("temperature", "top_p", "top_k", "min_p")}
    given |= {"presence_penalty": body.presence_penalty, "frequency_penalty": body.frequency_penalty}
    if given["temperature"] and given["temperature"] < 1e-3:
        given["temperature"] = 0.0
    if given["top_k"] == -1:  # how others write it
        given["top_k"] = 0
    given["logit_bias"] = tuple((int(id), bias) for id, bias in (body.logit_bias or {}).items())
    given["seed"] = secrets.randbelow(2**63) if body.seed is None else body.seed % 2**63
    given["max_tokens"] = min(max_tokens or model.capacity, limits.max_tokens)
    given["n_top"] = n_top
    return replace(model.params, **{name: value for name, value in given.items() if value is not None})


def asked_chat(model: Hosted, body: ChatBody, limits: Limits) -> Asked:
    """Renders the template and tokenizes: some milliseconds, up to seconds for a foreign template."""
    if body.top_logprobs and not body.logprobs:
        raise ApiError(400, "top_logprobs is given without logprobs", "top_logprobs", "invalid_value")
    if body.max_tokens and body.max_completion_tokens and body.max_tokens != body.max_completion_tokens:
        raise ApiError(400, "max_tokens and max_completion_tokens differ", "max_tokens", "invalid_value")
    max_tokens = body.max_completion_tokens or body.max_tokens
    params = sampling_params(model, body, limits, max_tokens, (body.top_logprobs or 0) if body.logprobs else 0)
    budget = thinking_budget(body)
    tools = offered_tools(body)
    grammar = answer_grammar(model, body, tools)
    if model.form != "chat":
        return _asked_in_form(model, body, params, budget)
    prompt_ids = chat_prompt(model, body.messages, _variables(body, budget), tools)
    opened = opens_thinking(model.tokenizer.decode(prompt_ids[-TAIL:], skip_special=False))
    return Asked(
        prompt_ids, params, body.n or 1, tuple(body.stops), opened, True, budget,
        grammar=grammar,
        functions=tuple(tool.function.name for tool in tools),
        most_calls=1 if body.parallel_tool_calls is False else MAX_TOOLS,
    )  # fmt: skip


def _asked_in_form(model: Hosted, body: ChatBody, params: SamplingParams, budget: Budget) -> Asked:
    """The last question alone, as the model was trained to be asked: the plain forms remember nothing."""
    form, question = prompt_form(model.form), body.messages[-1]
    if body.tools:
        raise ApiError(400, f"{model.name} is asked in the form {form.name}, which has no functions", "tools")
    if question.role != "user":
        raise ApiError(400, "the last message is not the user's", f"messages[{len(body.messages) - 1}].role")
    if any(message.role in ("system", "developer") for message in body.messages):
        raise ApiError(400, f"{model.name} is asked in the form {form.name}, which has no system text", "messages")
    ids = tuple(encode_prompt(model.tokenizer, form.name, question.text, model.example))
    stops = (*body.stops, *form.stops)
    return Asked(
        checked_ids(model, ids, "messages"), params, body.n or 1, stops, form.opened, True, budget, form.tags_answer
    )


def thinking_budget(body: ChatBody) -> Budget:
    """What the fields say, the explicit one first; `enable_thinking` false is a budget of nothing."""
    closing = CLOSING if body.thinking_closing is None else body.thinking_closing
    hard = EFFORTS[body.reasoning_effort] if body.reasoning_effort else None
    soft = int(hard * SOFT_SHARE) if hard else None
    if body.thinking_budget is not None:
        hard, soft = (None if body.thinking_budget == -1 else body.thinking_budget), None
    if body.soft_thinking_budget is not None:
        soft = body.soft_thinking_budget
    if body.chat_template_kwargs is not None and body.chat_template_kwargs.enable_thinking is False:
        hard = 0
    return Budget(soft, hard, closing)


def _variables(body: ChatBody, budget: Budget) -> dict[str, Any]:
    chosen = body.chat_template_kwargs.enable_thinking if body.chat_template_kwargs else None
    if budget.hard == 0:
        chosen = False
    return {} if chosen is None else {"enable_thinking": chosen}


def chat_prompt(
    model: Hosted, messages: Sequence[Message], variables: dict[str, Any], tools: Sequence[Tool] = ()
) -> tuple[int, ...]:
    """The ids of a conversation in the model's own template, checked against the context."""
    turns, told = told_turns(model.tokenizer.chat_template or "", messages, tools)
    try:
        ids = tuple(encode_chat(model.tokenizer, turns, **variables, **({"tools": told} if told else {})))
    except UserError as error:
        raise from_user_error(error, "messages") from error
    return checked_ids(model, ids, "messages")


def checked_ids(model: Hosted, ids: tuple[int, ...], param: str) -> tuple[int, ...]:
    if not ids:
        raise ApiError(400, f"{param} gives an empty prompt", param, "invalid_value")
    if len(ids) >= model.capacity:
        raise ApiError(
            400, f"the prompt has {len(ids)} tokens; the context of {model.name} holds {model.capacity}", param,
            "context_length_exceeded",
        )  # fmt: skip
    if not 0 <= min(ids) <= max(ids) < model.tokenizer.vocab_size:
        raise ApiError(400, f"{param} holds ids from {min(ids)} to {max(ids)}", param, "invalid_value")
    return ids
