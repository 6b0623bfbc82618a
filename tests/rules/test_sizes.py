import ast

FILE_LINES, FUNCTION_LINES = 400, 100


def test_files_stay_below_400_lines(all_sources):
    long = {source.name: n for source in all_sources if (n := len(source.text.splitlines())) >= FILE_LINES}
    assert not long, long


def test_functions_stay_within_100_lines(all_sources):
    lengths = {
        f"{source.name}:{node.lineno} {node.name}": node.end_lineno - node.lineno + 1
        for source in all_sources
        for node in ast.walk(source.tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    longest = max(lengths, key=lengths.get)
    print(f"the longest function has {lengths[longest]} lines: {longest}")
    assert lengths[longest] <= FUNCTION_LINES, longest


def test_nothing_is_named_for_being_left_over(all_sources):
    vague = {"utils", "util", "helpers", "helper", "common", "misc"}
    found = [source.name for source in all_sources if vague & set(source.path.with_suffix("").parts)]
    assert not found, found
