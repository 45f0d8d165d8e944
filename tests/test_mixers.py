from functools import partial

import pytest
import torch
from torch import nn

from kaf.mixers import BLOCKS, Attention, GraphBlock, MaskedBatchNorm, Mixer, max_relative


@pytest.mark.parametrize("train", [True, False])
def test_masked_batch_norm_equals_batch_norm_of_the_valid_tokens(train):
    torch.manual_seed(0)
    ours, oracle = MaskedBatchNorm(6), nn.BatchNorm1d(6)
    nn.init.uniform_(ours.weight)
    oracle.load_state_dict(ours.state_dict())
    tokens, valid = torch.randn(3, 8, 6) * 4 + 2, torch.rand(3, 8) > 0.4
    for _ in range(2):
        ours.train(train), oracle.train(train)
        torch.testing.assert_close(ours(tokens, valid)[valid], oracle(tokens[valid]), atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(ours.running_var, oracle.running_var)
        torch.testing.assert_close(ours.running_mean, oracle.running_mean)


def test_gradients_of_masked_batch_norm_equal_those_of_batch_norm_of_the_valid_tokens():
    torch.manual_seed(0)
    ours, oracle = MaskedBatchNorm(6).double(), nn.BatchNorm1d(6).double()
    nn.init.uniform_(ours.weight)
    oracle.load_state_dict(ours.state_dict())
    tokens = torch.randn(3, 8, 6, dtype=torch.float64, requires_grad=True)
    valid, pull = torch.rand(3, 8) > 0.4, torch.randn(3, 8, 6, dtype=torch.float64)
    found = torch.autograd.grad((ours(tokens, valid) * pull).sum(), [tokens, ours.weight, ours.bias])
    expected = torch.autograd.grad((oracle(tokens[valid]) * pull[valid]).sum(), [tokens, oracle.weight, oracle.bias])
    for mine, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(mine, theirs)
    assert ours(tokens, valid)[~valid].abs().max() == 0


def test_attention_equals_torch_multihead_attention():
    torch.manual_seed(0)
    ours, oracle = Attention(16, 4), nn.MultiheadAttention(16, 4, batch_first=True)
    with torch.no_grad():
        oracle.in_proj_weight.copy_(torch.cat([m.weight for m in (ours.query, ours.key, ours.value)]))
        oracle.in_proj_bias.copy_(torch.cat([m.bias for m in (ours.query, ours.key, ours.value)]))
    oracle.out_proj.load_state_dict(ours.merge.state_dict())
    x, source, valid = torch.randn(2, 5, 16), torch.randn(2, 7, 16), torch.rand(2, 7) > 0.3
    expected, weights = oracle(x, source, source, key_padding_mask=~valid, average_attn_weights=False)
    torch.testing.assert_close(ours(x, source, valid), expected)
    torch.testing.assert_close(ours.weights(x, source, valid), weights)


def test_attention_on_a_processor_is_32_bit_under_autocast_too():
    ours, tokens = Attention(16, 4), torch.randn(2, 5, 16)
    ours.merge = nn.Identity()
    with torch.autocast("cpu", torch.bfloat16):
        assert ours.query(tokens).dtype == torch.bfloat16
        assert ours(tokens, tokens, torch.ones(2, 5, dtype=torch.bool)).dtype == torch.float32


def test_attention_to_nothing_is_a_zero_message():
    attention = Attention(8, 2)
    nothing = torch.tensor([[False, False], [True, True]])
    message = attention(torch.randn(2, 3, 8), torch.randn(2, 2, 8), nothing)
    assert message[0].abs().max() == 0 and message[1].abs().max() > 0


@pytest.mark.parametrize("name", ["transformer", "paper"])
def test_attention_maps_are_those_of_the_forward_pass(name):
    torch.manual_seed(0)
    mixer = Mixer(name, 8, depth=3, heads=2).eval()
    x, valid = torch.randn(2, 5, 8), torch.tensor([[True] * 5, [True, True, False, False, False]])
    maps = mixer.attention_maps(x, valid)
    assert len(maps) == 3
    for weights in maps:
        torch.testing.assert_close(weights.sum(-1), torch.ones(2, 2, 5))
        assert weights[1, :, :, 2:].max() == 0
    block = mixer.blocks[0]
    value = block.attention._split(block.attention.value(block.normed(x)))
    message = block.attention.merge((maps[0] @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(block.attention(block.normed(x), block.normed(x), valid), message)


def test_no_mixer_returns_the_valid_tokens():
    x, valid = torch.randn(1, 3, 8), torch.tensor([[True, False, True]])
    assert torch.equal(Mixer("none", 8, depth=6)(x, valid), x * valid[..., None])


def test_padding_stays_small_where_no_token_is_valid():
    torch.manual_seed(0)
    mixer, nothing = Mixer("paper", 8, depth=16, heads=2), torch.zeros(2, 3, dtype=torch.bool)
    tokens = torch.randn(2, 3, 8, requires_grad=True)
    mixed = mixer(tokens, nothing)
    assert mixed.abs().max() == 0
    mixed.sum().backward()
    assert tokens.grad.isfinite().all() and all(p.grad is None or p.grad.isfinite().all() for p in mixer.parameters())


def test_max_relative_is_the_largest_difference_to_the_nearest_valid_tokens():
    torch.manual_seed(0)
    tokens, valid = torch.randn(2, 7, 4), torch.tensor([[True] * 7, [True, True, False, True, True, False, False]])
    found = max_relative(tokens, valid, neighbours=3)
    for b in range(2):
        others = torch.where(valid[b])[0].tolist()
        for i in others:
            nearest = sorted(others, key=lambda j: (tokens[b, j] - tokens[b, i]).norm().item())[:3]
            expected = torch.stack([tokens[b, j] - tokens[b, i] for j in nearest]).amax(0)
            torch.testing.assert_close(found[b, i], expected)


@pytest.mark.parametrize("count", [1, 4, 12])
def test_a_graph_does_not_see_padding(count):
    torch.manual_seed(0)
    mixer = Mixer("graph", 8, depth=2)
    tokens = torch.randn(1, 15, 8)
    valid = torch.arange(15)[None] < count
    padded = mixer(torch.where(valid[..., None], tokens, 1e3), valid)
    torch.testing.assert_close(padded[:, :count], mixer(tokens[:, :count], valid[:, :count]))
    assert padded[:, count:].abs().max() == 0
    assert mixer.attention_maps(tokens, valid) == []


def test_a_graph_block_learns_from_its_neighbours():
    torch.manual_seed(0)
    block, tokens = GraphBlock(4), torch.randn(1, 3, 4, requires_grad=True)
    block(tokens, torch.ones(1, 3, dtype=torch.bool))[0, 0].sum().backward()
    assert tokens.grad[0, 1:].abs().sum() > 0 and all(p.grad is not None for p in block.parameters())


class Doubled(nn.Module):
    """A block of one's own, with attention among the tokens as they are or without any."""

    def __init__(self, dim, heads, looks=False):
        super().__init__()
        if looks:
            self.attention, self.normed = Attention(dim, heads), lambda x: x

    def forward(self, x, valid):
        return 2 * x


@pytest.mark.parametrize("looks", [False, True])
def test_a_block_of_ones_own_mixes_and_shows_the_attention_that_it_has(monkeypatch, looks):
    monkeypatch.setitem(BLOCKS, "mine", partial(Doubled, looks=looks))
    mixer, tokens, valid = Mixer("mine", 8, depth=2, heads=2), torch.randn(1, 3, 8), torch.ones(1, 3, dtype=torch.bool)
    assert torch.equal(mixer(tokens, valid), 4 * tokens)
    maps = mixer.attention_maps(tokens, valid)
    assert len(maps) == 2 * looks
    for block, weights, factor in zip(mixer.blocks, maps, (1, 2), strict=False):
        torch.testing.assert_close(weights, block.attention.weights(factor * tokens, factor * tokens, valid))


class Wider(Doubled):
    """A block that returns tokens of another width."""

    def forward(self, x, valid):
        return torch.cat([x, x], -1)


def test_a_block_that_keeps_no_contract_is_told(monkeypatch):
    tokens, valid = torch.randn(1, 3, 8), torch.ones(1, 3, dtype=torch.bool)
    monkeypatch.setitem(BLOCKS, "mine", Wider)
    with pytest.raises(ValueError, match=r"a block of mixer 'mine' made tokens \(1, 3, 16\) of \(1, 3, 8\)"):
        Mixer("mine", 8, depth=1)(tokens, valid)
    monkeypatch.setitem(BLOCKS, "other", lambda dim: nn.Identity())
    with pytest.raises(TypeError, match="mixer 'other' cannot be made as a block is, from dim and heads: .*2 were"):
        Mixer("other", 8, depth=1)
