"""What an answer is held to, from a request's fields: one grammar of the answer and of the calls it may be instead."""

from collections.abc import Sequence

from smallpress.server.errors import ApiError
from smallpress.server.fields import ChatBody, CompletionBody, NamedTool, Tool
from smallpress.server.grammar import ANY_OBJECT, Grammar, choice_rule, json_rule, regex_rule
from smallpress.server.hosted import Hosted
from smallpress.server.tools import call_rules, form_of


def offered_tools(body: ChatBody) -> Sequence[Tool]:
    """The functions the model is told of; ApiError where the choice among them makes no sense."""
    tools, choice = body.tools or [], body.tool_choice
    names = [tool.function.name for tool in tools]
    for i, name in enumerate(names):
        if name in names[:i]:
            raise ApiError(400, f"two functions are called {name}", f"tools[{i}].function.name", "invalid_value")
    if isinstance(choice, NamedTool) and choice.function.name not in names:
        text = f"tool_choice names {choice.function.name[:64]!r}, which is not among tools"
        raise ApiError(400, text, "tool_choice", "invalid_value")
    if choice == "required" and not tools:
        raise ApiError(400, "tool_choice is required without tools", "tool_choice", "invalid_value")
    return [] if choice == "none" else tools


def answer_grammar(model: Hosted, body: ChatBody | CompletionBody, tools: Sequence[Tool] = ()) -> Grammar | None:
    """The grammar that the completion follows, compiled; None where anything may be said."""
    answer = _answer_rule(body)
    param = "response_format" if body.structured_outputs is None else "structured_outputs"
    choice = body.tool_choice if isinstance(body, ChatBody) else None
    forced = choice == "required" or isinstance(choice, NamedTool)
    if answer is None and not forced:
        return None
    if isinstance(body, ChatBody) and model.form != "chat":
        text = f"{model.name} is asked in the form {model.form}, whose answers are held to no other"
        raise ApiError(400, text, param, "unsupported_parameter")
    rules = {}
    if answer is not None and not forced:
        rules["answer"] = f"answer: {answer}"
    if tools:
        named = [tool for tool in tools if isinstance(choice, NamedTool) and tool.function.name == choice.function.name]
        several = not named and isinstance(body, ChatBody) and body.parallel_tool_calls is not False
        rules["calls"] = call_rules(form_of(model.tokenizer.chat_template or ""), named or tools, several)
    grammar = "\n".join([f"start: {' | '.join(rules)}", *rules.values()])
    return model.vocabulary.compile(grammar, "tools" if forced else param)


def _answer_rule(body: ChatBody | CompletionBody) -> str | None:
    format, outputs = body.response_format, body.structured_outputs
    if format is not None and format.type != "text" and outputs is not None:
        raise ApiError(400, "response_format and structured_outputs are both given", "structured_outputs")
    if outputs is not None:
        if outputs.regex is not None:
            return regex_rule(outputs.regex)
        if outputs.choice is not None:
            return choice_rule(outputs.choice)
        return json_rule(outputs.json_ or {}, "structured_outputs.json")
    if format is None or format.type == "text":
        return None
    schema = format.json_schema.schema_ if format.json_schema is not None else None
    return json_rule(ANY_OBJECT if schema is None else schema, "response_format.json_schema.schema")
