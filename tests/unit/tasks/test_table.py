from pathlib import Path

from smallpress.tasks.files import READERS
from smallpress.tasks.table import markdown_tables
from smallpress.tasks.task import TASKS

PAGE = Path(__file__).resolve().parents[3] / "docs" / "tasks.md"


def test_the_tables_in_the_docs_are_the_generated_ones():
    assert markdown_tables() in PAGE.read_text(), "run `python -m smallpress.tasks.table` and paste what it prints"


def test_the_page_names_every_family_and_reader():
    page = PAGE.read_text()
    for name in (*TASKS, *READERS):
        assert f"`{name}`" in page
