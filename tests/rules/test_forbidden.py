"""What model files, templates and answers must never reach: code that runs them. And errors that must not be lost."""

import ast

import pytest

CALLS = {"eval", "exec", "compile", "__import__"}
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml"}
METHODS = {("torch", "load"), ("torch", "save"), ("os", "system"), ("os", "popen"), ("importlib", "import_module")}
INSIDE = "src/smallpress/tasks/sandbox_inside.py"
"""The one file that runs what a model wrote: it is imported by nothing but the program that confines it."""
BORDERS = {("src/smallpress/cli/main.py", "run"), (INSIDE, "serve")}
"""Where `except Exception` may stand: the border of the command line, and the sandbox's inside. None of them returns a
default."""


def forbidden(tree: ast.Module):
    """A line for each forbidden call, import or keyword in the file."""
    for node in ast.walk(tree):
        where = getattr(node, "lineno", 0)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in CALLS:
            yield f"line {where}: {node.func.id}()"
        if isinstance(node, ast.Attribute) and (getattr(node.value, "id", ""), node.attr) in METHODS:
            yield f"line {where}: {ast.unparse(node)}"
        if isinstance(node, ast.Import | ast.ImportFrom):
            module = node.module or "" if isinstance(node, ast.ImportFrom) else ""
            names = [module] if module else [alias.name for alias in node.names]
            yield from (f"line {where}: import {name}" for name in names if name.partition(".")[0] in MODULES)
        if isinstance(node, ast.keyword) and node.arg in ("trust_remote_code", "allow_pickle", "shell"):
            yield f"line {where}: {node.arg}="


def broad_handlers(tree: ast.Module):
    """(line, function) of each handler that catches everything, and does not end by raising it again."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Module):
            continue
        for node in _own_nodes(function):
            if isinstance(node, ast.ExceptHandler):
                kinds = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
                names = {kind.id for kind in kinds if isinstance(kind, ast.Name)}
                raises_again = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
                if (node.type is None or names & {"Exception", "BaseException"}) and not raises_again:
                    yield node.lineno, getattr(function, "name", "")


def _own_nodes(function: ast.AST):
    for child in ast.iter_child_nodes(function):
        yield child
        if not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from _own_nodes(child)


def test_nothing_runs_what_a_file_or_a_model_says(package):
    found = [
        f"{source.name} {fault}" for source in package if source.name != INSIDE for fault in forbidden(source.tree)
    ]
    assert not found, found


def test_what_runs_a_models_code_is_imported_by_the_confining_program_alone(package):
    importers = {
        source.name
        for source in package
        for node in ast.walk(source.tree)
        if isinstance(node, ast.alias | ast.ImportFrom)
        and "sandbox_inside" in (node.name if isinstance(node, ast.alias) else node.module or "")
    }
    assert importers == {"src/smallpress/tasks/sandbox_server.py"}


def test_everything_is_caught_only_at_the_named_borders(package):
    found = {(source.name, function) for source in package for _, function in broad_handlers(source.tree)}
    assert found <= BORDERS, found - BORDERS


@pytest.mark.parametrize(
    "code",
    [
        "eval('1')",
        "import pickle",
        "from marshal import loads",
        "import torch\ntorch.load('a')",
        "f(trust_remote_code=True)",
        "subprocess.run('ls', shell=True)",
    ],
)
def test_the_rule_sees_what_it_forbids(code):
    assert list(forbidden(ast.parse(code)))


def test_the_rule_sees_broad_handlers_and_who_holds_them():
    code = (
        "def f():\n  def g():\n    try: pass\n    except (ValueError, Exception): pass\n  try: pass\n  except: pass\n"
    )
    assert sorted(broad_handlers(ast.parse(code))) == [(4, "g"), (6, "f")]
    assert not list(broad_handlers(ast.parse("try: pass\nexcept ValueError: pass\n")))
    assert not list(broad_handlers(ast.parse("try: pass\nexcept BaseException:\n  undo()\n  raise\n")))
