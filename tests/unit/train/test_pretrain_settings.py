"""What a recipe of pretraining may say, and how a batch grows."""

import pytest

from smallpress.run.errors import UserError
from smallpress.run.settings import settings_from
from smallpress.train.pretrain_settings import PretrainSettings
from smallpress.train.ramp import Ramp

SHAPE = {
    "dim": 8, "n_layers": 1, "max_seq_len": 64, "ffn": {"kind": "dense", "inter_dim": 8},
    "attention": {"kind": "gqa", "n_heads": 2, "n_kv_heads": 1, "head_dim": 4},
}  # fmt: skip


def settings(**given) -> PretrainSettings:
    tree = {"shape": SHAPE, "corpus": "there", "tokens": 1000, "seq_len": 10, "batch_tokens": 40} | given
    return settings_from(PretrainSettings, tree, "here")


def test_a_batch_grows_from_the_first_size_to_the_last_in_whole_rows():
    ramp = Ramp(settings(first_batch_tokens=10, ramp_tokens=60))
    # 0 tokens: 10; 10: 15 is one row; 20: 20; 40: 30; 70: past the ramp
    assert [len(ramp.rows(step)) for step in range(5)] == [1, 1, 2, 3, 4]
    assert [ramp.rows(step).start for step in range(5)] == [0, 1, 2, 4, 7]
    assert ramp.n_tokens >= 1000 > ramp.n_tokens - 40 and ramp.share(0) == 0.0
    assert Ramp(settings(steps=3)).n_tokens == 120


def test_v3s_weights_of_further_tokens_and_of_the_bias_change_where_its_did():
    given = settings()
    assert [given.mtp.at(trillions / 14.8) for trillions in (0, 9.9, 10.1)] == [0.3, 0.3, 0.1]
    assert [given.balance.gamma_at(trillions / 14.8) for trillions in (0, 14.2, 14.4)] == [0.001, 0.001, 0.0]


def test_a_shape_need_not_say_what_the_corpus_or_the_family_does():
    assert settings().shape.family == "deepseek_v3" and settings().shape.vocab_size == 1
    latent = {
        "kind": "mla",
        "n_heads": 1,
        "kv_lora_rank": 4,
        "qk_nope_head_dim": 4,
        "qk_rope_head_dim": 4,
        "v_head_dim": 4,
    }
    assert settings(shape=SHAPE | {"attention": latent}).shape.rope_interleaved
    assert not settings().shape.rope_interleaved


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"tokens": None}, "say how long: tokens or steps"),
        ({"export": "ema"}, "needs the decay"),
        ({"seq_len": 100}, "seq_len=100 is above shape.max_seq_len=64"),
        ({"batch_tokens": 9}, "a batch of 9 tokens does not hold a row of seq_len=10"),
        ({"shape": SHAPE | {"n_layer": 3}}, "did you mean shape.n_layers"),
        ({"lr_shape": "multistep"}, "lr_shape"),
        ({"fim_rate": 1.5}, "fim_rate = 1.5"),
        ({"balance": {"gama": 1}}, "did you mean balance.gamma"),
    ],
)
def test_nonsense_is_refused_by_name(given, said):
    with pytest.raises(UserError, match=said):
        settings(**given)
