"""A packed tree is each of its sequences alone: outputs, gradients, positions; by either form of attention."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from smallpress.model import attention
from smallpress.model.attention import Group, PackedCausal, TokenTree
from smallpress.model.config import Window

FP64_REASSOCIATION = 1e-12
FP32_REASSOCIATION = 1e-5
N_HEADS, N_KV_HEADS, HEAD_DIM = 4, 2, 6

TREES = {
    "one sequence": TokenTree((Group(7),)),
    "one token": TokenTree((Group(1),)),
    "a prompt of one, answers of one": TokenTree((Group(1, (1, 1)),)),
    "no answer has a token": TokenTree((Group(3, (0, 0)),)),
    "some answers have none": TokenTree((Group(2, (0, 3, 0, 1)),)),
    "prefix, three groups, odd lengths": TokenTree((Group(2, (5, 1, 3)), Group(1, (0, 7)), Group(4, ())), 3),
    "all of the first prompt is prefix": TokenTree((Group(0, (2, 3)), Group(2, (1,))), 4),
    "only a prefix": TokenTree((), 5),
}


@pytest.fixture(params=["explicit scores", "fused"])
def either_form(request, monkeypatch):
    """Every test that takes this runs once with the scores held and once with the fused kernel."""
    monkeypatch.setattr(attention, "EXPLICIT_KEYS", 1024 if request.param == "explicit scores" else 0)


def sequences(tree: TokenTree) -> list[list[int]]:
    """The rows of the tree that make up each whole sequence: prefix, prompt, and one completion or none."""
    prefix, at, found = list(range(tree.prefix_len)), tree.prefix_len, [list(range(tree.prefix_len))]
    for group in tree.groups:
        prompt = [*prefix, *range(at, at + group.prompt_len)]
        found.append(prompt)
        at += group.prompt_len
        for n in group.completion_lens:
            found.append([*prompt, *range(at, at + n)])
            at += n
    assert at == tree.n_tokens
    return [rows for rows in found if rows]


def alone(q_NHD, k_NKD, v_NKD):
    """Causal attention over one sequence, as plain as torch has it."""
    q, k, v = (x.transpose(0, 1)[None] for x in (q_NHD, k_NKD, v_NKD))
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)[0].transpose(0, 1)


def one_by_one(tree, q_NHD, k_NKD, v_NKD):
    """[N, H, D]: each row from the sequences that hold it, which must agree on it."""
    rows_of = {}
    for rows in sequences(tree):
        for row, out_HD in zip(rows, alone(q_NHD[rows], k_NKD[rows], v_NKD[rows]), strict=True):
            torch.testing.assert_close(out_HD, rows_of.setdefault(row, out_HD), rtol=0, atol=FP64_REASSOCIATION)
    return torch.stack([rows_of[row] for row in range(tree.n_tokens)])


def random_qkv(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [
        torch.randn(n, heads, HEAD_DIM, generator=generator, dtype=torch.float64, requires_grad=True)
        for heads in (N_HEADS, N_KV_HEADS, N_KV_HEADS)
    ]


def assert_packed_is_alone(tree):
    qkv = random_qkv(tree.n_tokens)
    packed, plain = PackedCausal(tree, torch.float64)(0, *qkv), one_by_one(tree, *qkv)
    torch.testing.assert_close(packed, plain, rtol=0, atol=FP64_REASSOCIATION)
    cotangent = torch.randn_like(plain)
    for ours, theirs in zip(
        torch.autograd.grad(packed, qkv, cotangent), torch.autograd.grad(plain, qkv, cotangent), strict=True
    ):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=FP64_REASSOCIATION)


@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_a_packed_tree_is_each_sequence_alone_in_value_and_gradient(tree, either_form):
    assert_packed_is_alone(tree)


some_group = st.builds(Group, st.integers(1, 4), st.lists(st.integers(0, 5), max_size=3).map(tuple))


@settings(max_examples=20)
@given(st.builds(TokenTree, st.lists(some_group, min_size=1, max_size=3).map(tuple), st.integers(0, 4)))
def test_any_tree_is_each_sequence_alone(tree):
    assert_packed_is_alone(tree)


def test_the_gradient_is_that_of_finite_differences(either_form):
    tree = TokenTree((Group(1, (2, 1)),), prefix_len=1)
    attend = PackedCausal(tree, torch.float64)
    assert torch.autograd.gradcheck(lambda q, k, v: attend(0, q, k, v), random_qkv(tree.n_tokens))


def test_both_forms_agree_also_in_fp32(monkeypatch):
    tree = TREES["prefix, three groups, odd lengths"]
    qkv = [x.detach().float() for x in random_qkv(tree.n_tokens)]
    explicit = PackedCausal(tree)(0, *qkv)
    monkeypatch.setattr(attention, "EXPLICIT_KEYS", 0)
    torch.testing.assert_close(PackedCausal(tree)(0, *qkv), explicit, rtol=0, atol=FP32_REASSOCIATION)


@pytest.mark.parametrize("length", [1, 2, 3, 100])
@pytest.mark.parametrize("tree", TREES.values(), ids=TREES)
def test_with_a_window_each_sequence_sees_its_own_last_tokens_only(tree, length, either_form):
    qkv = random_qkv(tree.n_tokens)
    attend = PackedCausal(tree, torch.float64, window=Window(length=length, layers=(1,)))
    out_NHD = attend(1, *qkv)
    for rows in sequences(tree):
        q_TKJD = qkv[0][rows].unflatten(1, (N_KV_HEADS, -1))
        scores_KJTS = torch.einsum("tkjd,skd->kjts", q_TKJD, qkv[1][rows]) * HEAD_DIM**-0.5
        ago_TS = torch.arange(len(rows))[:, None] - torch.arange(len(rows))
        probs_KJTS = scores_KJTS.masked_fill((ago_TS < 0) | (ago_TS >= length), -torch.inf).softmax(-1)
        alone = torch.einsum("kjts,skd->tkjd", probs_KJTS, qkv[2][rows]).flatten(1, 2)
        torch.testing.assert_close(out_NHD[rows], alone, rtol=0, atol=FP64_REASSOCIATION)
    assert torch.equal(attend(0, *qkv), PackedCausal(tree, torch.float64)(0, *qkv))


def test_values_may_be_narrower_than_keys(either_form):
    q, k, v = random_qkv(5)
    attend = PackedCausal(TokenTree((Group(5),)), torch.float64)
    torch.testing.assert_close(attend(0, q, k, v[..., :2]), attend(0, q, k, v)[..., :2])


def test_a_token_alone_attends_to_itself():
    q, k, v = random_qkv(1)
    out_HD = PackedCausal(TokenTree((Group(1),)), torch.float64)(0, q, k, v)[0]
    torch.testing.assert_close(out_HD, v[0].repeat_interleave(2, 0))  # 2 query heads share each kv head


def test_equal_keys_average_what_is_seen():
    """With scores all equal, a query's output is the mean of the values of its prefix, prompt and own completion."""
    tree = TokenTree((Group(1, (1, 1)),), prefix_len=1)  # prefix, prompt, answer a, answer b
    q, k = torch.zeros(4, 1, 2), torch.zeros(4, 1, 2)
    v = torch.tensor([6.0, 12.0, 30.0, 300.0])[:, None, None].expand(4, 1, 2)
    out = PackedCausal(tree)(0, q, k, v)[:, 0, 0]
    torch.testing.assert_close(out, torch.tensor([6.0, 9.0, 16.0, 106.0]))


def test_the_scale_is_one_over_the_root_of_the_head_dim():
    """Head dim 4, scores 2 ln 3 and 0 before scaling: ln 3 and 0 after it, weights 3/4 and 1/4."""
    q = torch.tensor([[0.0] * 4, [1.0, 0, 0, 0]])[:, None]
    k = torch.tensor([[2 * torch.log(torch.tensor(3.0)), 0, 0, 0], [0.0] * 4])[:, None]
    v = torch.tensor([[8.0] * 4, [0.0] * 4])[:, None]
    out = PackedCausal(TokenTree((Group(2),)))(0, q, k, v)
    torch.testing.assert_close(out[1, 0], torch.full((4,), 6.0))


def test_positions_go_on_where_the_prompt_ends():
    tree = TokenTree((Group(2, (1, 3)), Group(1, (2,))), prefix_len=2)
    assert tree.n_tokens == 2 + 6 + 3
    assert tree.positions().tolist() == [0, 1, 2, 3, 4, 4, 5, 6, 2, 3, 4]


def test_a_tree_of_another_size_is_refused():
    with pytest.raises(AssertionError, match="tree holds 3 tokens"):
        PackedCausal(TokenTree((Group(3),)))(0, *random_qkv(4))


@pytest.mark.parametrize("queries", [1, 3, 5])
def test_blocks_of_queries_attend_as_the_whole_does(monkeypatch, queries):
    """A prompt of 7 under a prefix of 2, completions of 6 and 4; in blocks and in one."""
    tree = TokenTree((Group(7, (6, 4)), Group(0, (5,))), prefix_len=2)
    q, k, v = (torch.randn(tree.n_tokens, heads, 4, generator=torch.Generator().manual_seed(0)) for heads in (4, 2, 2))
    whole = PackedCausal(tree)(0, q, k, v)
    monkeypatch.setattr(attention, "QUERIES", queries)
    torch.testing.assert_close(PackedCausal(tree)(0, q, k, v), whole, atol=1e-6, rtol=1e-5)
