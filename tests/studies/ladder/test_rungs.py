"""Each rung against its definition."""

import math

import pytest
import torch
from torch.nn import functional as F

from minigpt.config import Config, ModelConfig
from minigpt.model import count_parameters
from minigpt.model.lecture import BigramLanguageModel, GPTLanguageModel, Head, MultiHeadAttention
from minigpt.studies.ladder.rungs import (
    FULL,
    RUNGS,
    CausalAverage,
    PlainBlock,
    ResidualBlock,
    fit_bigram_counts,
    fit_frequencies,
    fit_uniform,
)

SMALL = ModelConfig(vocab_size=11, block_size=8, n_embd=12, n_head=3, n_layer=2)
NETWORKS = [rung for rung in (*RUNGS, FULL) if rung.network]


def ids() -> torch.Tensor:
    return torch.randint(11, (500,), generator=torch.Generator().manual_seed(0)) // 2  # 6 to 10 never occur


def test_the_counted_rungs_have_the_textbooks_probabilities() -> None:
    text = ids()
    windows = text[None, :8]
    assert fit_uniform(text, SMALL)(windows)[0].exp().allclose(torch.full((1, 8, 11), 1 / 11))
    counts = [(text == i).sum().item() for i in range(11)]
    expected = torch.tensor([(1 + count) / 511 for count in counts])
    assert fit_frequencies(text, SMALL)(windows)[0].exp().allclose(expected.expand(1, 8, 11))
    rows = fit_bigram_counts(text, SMALL)(windows)[0].exp()
    for t, token in enumerate(text[:8].tolist()):
        after = [int(b) for a, b in zip(text[:-1].tolist(), text[1:].tolist(), strict=True) if a == token]
        assert rows[0, t].tolist() == pytest.approx([(1 + after.count(i)) / (11 + len(after)) for i in range(11)])
    for make in (fit_uniform, fit_frequencies, fit_bigram_counts):  # every token has a probability, counted or not
        logits, loss = make(text, SMALL)(windows, windows)
        assert logits.exp().sum(dim=-1).tolist() == [pytest.approx([1.0] * 8)]
        assert loss == pytest.approx(F.cross_entropy(logits[0], windows[0]).item())


def test_the_average_is_attention_with_equal_weights() -> None:
    x = torch.randn(2, 8, 12)
    averaged = CausalAverage()(x)
    for t in range(8):
        assert averaged[:, t].allclose(x[:, : t + 1].mean(dim=1), atol=1e-6)
    head = Head(SMALL)
    for linear in (head.key, head.query):
        torch.nn.init.zeros_(linear.weight)  # every position as relevant as any other
    assert head(x).allclose(CausalAverage()(head.value(x)), atol=1e-6)


def test_a_residual_block_is_a_plain_block_with_two_sums() -> None:
    plain, residual = PlainBlock(SMALL), ResidualBlock(SMALL)
    residual.load_state_dict(plain.state_dict())
    x = torch.randn(2, 8, 12)
    assert plain(x).allclose(plain.ffwd(plain.sa(x)))
    between = x + plain.sa(x)
    assert residual(x).allclose(between + plain.ffwd(between))


@pytest.mark.parametrize("rung", NETWORKS, ids=lambda rung: rung.name)
def test_no_network_sees_the_tokens_that_it_predicts(rung) -> None:
    torch.manual_seed(0)
    model = rung.network(SMALL).eval()
    idx = torch.randint(11, (1, 8))
    logits, loss = model(idx, idx)
    assert loss.item() == pytest.approx(F.cross_entropy(logits[0], idx[0]).item())
    for t in range(8):
        changed = idx.clone()
        changed[:, t] = (changed[:, t] + 1) % 11
        after, _ = model(changed)
        assert torch.equal(after[:, :t], logits[:, :t])
        assert not torch.equal(after[:, t], logits[:, t])


def test_each_rung_has_the_modules_of_its_name() -> None:
    models = {rung.name: rung.network(SMALL) for rung in NETWORKS}
    heads = {name: sum(isinstance(m, Head) for m in model.modules()) for name, model in models.items()}
    assert heads == {
        "bigram, learned": 0,
        "average of the past": 0,
        "one head": 1,
        "multi-head": 3,
        "+ feed-forward": 3,
        "several blocks": 6,
        "+ residual": 6,
        "+ layer norm": 6,
        "+ dropout and scale": 6,
    }
    (one,) = (m for m in models["one head"].modules() if isinstance(m, Head))
    assert one.key.weight.shape == (12, 12)  # as wide as all heads together
    assert isinstance(models["multi-head"].body, MultiHeadAttention)
    assert type(models["bigram, learned"]) is BigramLanguageModel
    assert type(models["+ layer norm"]) is GPTLanguageModel
    counts = [count_parameters(model) for model in models.values()]
    assert counts[1:] == sorted(counts[1:])


def test_the_loss_of_a_uniform_guess_is_the_logarithm_of_the_vocabulary() -> None:
    from minigpt.model.loss import compute_exact_loss

    assert compute_exact_loss(fit_uniform(ids(), SMALL), ids()) == pytest.approx(math.log(11))
    assert Config.from_preset(FULL.preset).model.dropout > 0
