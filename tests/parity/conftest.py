"""What the tests beside other libraries share."""

import pytest


@pytest.fixture
def fake_tokenizer(monkeypatch):
    """Gives opened files a tokenizer that saves and says nothing: these models have none."""

    class Nothing:
        bos_id, eos_id, eos_ids = 1, 2, frozenset({2})

        def save(self, folder):
            pass

        def gguf_metadata(self, n_ids):
            return {}

    def give(files):
        monkeypatch.setattr(type(files), "tokenizer", lambda self: Nothing())
        return files

    return give
