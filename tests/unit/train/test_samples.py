"""Which tokens are learned: the answers with the token that ends them, whatever the template does."""

import pytest

from smallpress.corpus.conversations import Conversation
from smallpress.run.errors import UserError
from smallpress.train.samples import Sampler

CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
DROPS_EARLIER_THINKING = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + (m['content'] if loop.last else "
    "m['content'].split('</think>')[-1]) + '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n<think>\\n' }}{% endif %}"
)


def chat(*texts):
    return Conversation(
        tuple({"role": "user" if i % 2 == 0 else "assistant", "content": t} for i, t in enumerate(texts))
    )


@pytest.fixture(scope="module")
def sampler(byte_tokenizer):
    def make(template=CHATML, form="auto", train_on="answers", max_tokens=500, too_long="drop"):
        return Sampler(byte_tokenizer(template), form, train_on, max_tokens, too_long)

    return make


def trained(sampler, conversation):
    """The text trained on, of each sample; pieces apart by a bar."""
    found = []
    for sample in sampler.all_of(conversation):
        runs, before = [], False
        for id, learned in zip(sample.ids, sample.loss_mask, strict=True):
            if learned:
                runs = [*runs, []] if not before else runs
                runs[-1].append(id)
            before = learned
        found.append("|".join(sampler.tokenizer.decode(run, skip_special=False) for run in runs))
    return found


def test_the_answer_and_its_end_are_learned_and_nothing_of_the_prompt(sampler):
    assert trained(sampler(), chat("2 + 2?", "4")) == ["4<|im_end|>"]


def test_every_answer_of_a_conversation_or_its_last_or_everything(sampler):
    talk = chat("a?", "b", "c?", "d", "left open?")
    assert trained(sampler(), talk) == ["b<|im_end|>|d<|im_end|>"]
    assert trained(sampler(train_on="last_answer"), talk) == ["d<|im_end|>"]
    assert trained(sampler(train_on="everything"), chat("a?", "b")) == [
        "<|im_start|>user\na?<|im_end|>\n<|im_start|>assistant\nb<|im_end|>\n"
    ]


def test_what_a_text_says_never_ends_its_turn(sampler):
    (sample,) = sampler().all_of(chat("say <|im_end|>", "<|im_end|> is said"))
    assert sample.ids.count(1) == 2 and sum(sample.loss_mask) == len("<|im_end|> is said") + 1


def test_a_template_that_rewrites_earlier_turns_gives_a_sample_for_each(sampler):
    """The tag that the prompt opens is not said again."""
    talk = chat("a?", "<think>\nhm</think>b", "c?", "<think>\nso</think>d")
    assert trained(sampler(DROPS_EARLIER_THINKING), talk) == ["hm</think>b<|im_end|>", "so</think>d<|im_end|>"]


def test_without_a_template_texts_stand_as_they_are(sampler, byte_tokenizer):
    plain = sampler(form="plain")
    bare = Conversation(chat("2 + 2 =", " 4").messages, plain=True)
    (sample,) = plain.all_of(bare)
    assert plain.tokenizer.decode(sample.ids, skip_special=False) == "2 + 2 = 4<|im_end|>"
    assert trained(plain, bare) == [" 4<|im_end|>"]
    assert trained(plain, chat("2 + 2?", "4")) == ["4<|im_end|>"]


def test_r1_zero_asks_in_its_form_and_takes_single_questions(sampler):
    zero = sampler(form="r1_zero")
    assert trained(zero, chat("2 + 2?", "<think> x </think>")) == [" <think> x </think><|im_end|>"]
    assert zero.all_of(chat("a", "b", "c", "d")) == [] and zero.census.dropped.total() == 1


def test_what_is_dropped_or_cut_is_counted_with_its_reason(sampler):
    rows = [chat("a?", "b"), chat("a?", ""), chat("a?"), chat("a?", "b" * 100), chat("a" * 100, "b")]
    drops = sampler(max_tokens=60)
    assert len(drops.samples(rows)) == 1
    assert drops.census.dropped == {"no answer": 2, "over 60 tokens": 2}
    cuts = sampler(max_tokens=60, too_long="cut")
    assert [len(sample.ids) for sample in cuts.samples(rows)] == [24, 60] and cuts.census.n_cut == 1
    assert cuts.census.dropped == {"no answer": 2, "nothing to train on within its length": 1}


def test_a_tokenizer_without_an_end_is_refused(sampler):
    plain = sampler(form="plain")
    plain.end_id = None
    with pytest.raises(UserError, match="names no token that ends a text"):
        plain.all_of(chat("a", "b"))
