import re


def test_every_file_the_documents_name_exists(root):
    """Paths such as `tests/rules/test_sizes.py` in backticks, and the targets of links inside the repository."""
    missing = []
    for document in sorted(root.glob("*.md")):
        text = document.read_text(encoding="utf-8")
        named = re.findall(r"`((?:src|tests|bench|runs|recipes|docs)/[\w./-]+)`", text)
        linked = [target for target in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in target]
        missing += [f"{document.name}: {path}" for path in named + linked if not (root / path).exists()]
    assert not missing, missing
