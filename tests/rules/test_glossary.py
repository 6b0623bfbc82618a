"""One word for one thing: the words of other projects stand only in the one table of foreign names."""

import re

FOREIGN = (
    *("num_attention_heads", "num_key_value_heads", "num_hidden_layers", "hidden_size", "intermediate_size"),
    *("max_position_embeddings", "rms_norm_eps", "n_embd", "d_model", "num_experts_per_tok", "block_size"),
    *("max_new_tokens", "block_table", "log_probs", "log_prob", "old_log_probs", "action_mask", "attn_implementation"),
)
TABLE = "src/smallpress/weights/names"


def test_foreign_words_stand_only_in_the_table_of_foreign_names(package):
    pattern = re.compile(rf"\b({'|'.join(FOREIGN)})\b")
    found = [
        f"{source.name}:{number} {word}"
        for source in package
        if not source.name.startswith(TABLE)
        for number, line in enumerate(source.text.splitlines(), start=1)
        for word in pattern.findall(line)
    ]
    assert not found, found
