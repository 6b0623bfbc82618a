"""Text <-> ids: tokenizers, chat templates, streamed decoding, thinking."""
