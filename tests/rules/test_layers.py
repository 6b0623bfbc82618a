import ast
import re

import smallpress

LAYERS = {
    "run": 0,
    "corpus": 1,
    "tokenizer": 1,
    "tasks": 1,
    "lowbit": 1,
    "benchmarks": 2,
    "model": 2,
    "optim": 3,
    "weights": 3,
    "engine": 4,
    "parallel": 4,
    "train": 5,
    "rl": 5,
    "evaluate": 5,
    "server": 5,
    "planner": 6,
    "ladder": 6,
    "cli": 7,
}


def imported_rooms(tree: ast.Module):
    """(line, room) of every import of ours anywhere in the file, those inside functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are written in full"
            modules = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for module in modules:
            parts = module.split(".")
            if parts[0] == "smallpress" and len(parts) > 1 and parts[1] in LAYERS:
                yield node.lineno, parts[1]


def test_imports_go_down_only(package):
    wrong = [
        f"{source.name}:{line} imports {room}"
        for source in package
        for line, room in imported_rooms(source.tree)
        if room != source.room and LAYERS[room] >= LAYERS.get(source.room, 0)
    ]
    assert not wrong, wrong


def test_the_rule_sees_imports_inside_functions():
    tree = ast.parse("def f():\n    from smallpress.cli.main import run\n    import smallpress.rl.grpo\n")
    assert list(imported_rooms(tree)) == [(2, "cli"), (3, "rl")]


def test_every_folder_is_a_room_with_content_and_holds_no_folder(root):
    for folder in (root / "src/smallpress").iterdir():
        if folder.is_dir() and folder.name != "__pycache__":
            assert folder.name in LAYERS, f"{folder.name} has no layer"
            assert len(list(folder.glob("*.py"))) > 1, f"{folder.name} is empty"
            inner = [item.name for item in folder.iterdir() if item.is_dir() and item.name != "__pycache__"]
            assert not inner, f"{folder.name} holds {inner}"


def map_of(text: str) -> list[tuple[int, str, str]]:
    """(layer, room, what it is) of each line of a map, as it stands in the package's docstring and in README."""
    return [(int(n), room, what) for n, room, what in re.findall(r"^ +(\d)  (\w+) +(\S.*)$", text, re.MULTILINE)]


def test_the_map_is_the_tree_and_stands_in_readme_too(root):
    mapped = map_of(smallpress.__doc__)
    tree = sorted(path.parent.name for path in (root / "src/smallpress").glob("*/__init__.py"))
    assert sorted(room for _, room, _ in mapped) == tree
    assert {room: layer for layer, room, _ in mapped} == {room: LAYERS[room] for room in tree}
    assert [layer for layer, _, _ in mapped] == sorted(layer for layer, _, _ in mapped)
    assert map_of((root / "README.md").read_text(encoding="utf-8")) == mapped


def test_every_room_says_in_one_to_three_lines_what_it_is(package):
    for source in package:
        if source.path.name == "__init__.py" and source.room:
            docstring = ast.get_docstring(source.tree)
            assert docstring and len(docstring.splitlines()) <= 3, source.name
