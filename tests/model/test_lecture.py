"""The lecture's models equal PyTorch's own transformer, and do what the lecture says."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from minigpt.config import ModelConfig
from minigpt.model import lecture
from minigpt.model.lecture import BigramLanguageModel, GPTLanguageModel, Head

SHAPES = [
    ModelConfig(vocab_size=65, block_size=32, n_embd=64, n_head=4, n_layer=4),
    ModelConfig(vocab_size=11, block_size=7, n_embd=12, n_head=3, n_layer=1),
    ModelConfig(vocab_size=2, block_size=1, n_embd=1, n_head=1, n_layer=2),
]


def randomize(model: nn.Module, seed: int = 0) -> nn.Module:
    """Draw every parameter anew, biases and layer norms included, far from its initial value."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model


def make_ids(config: ModelConfig, batch: int = 3, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(config.vocab_size, (batch, config.block_size), generator=generator)


def compute_pytorch_logits(weights: dict[str, Tensor], config: ModelConfig, idx: Tensor) -> Tensor:
    """Compute the logits with `nn.TransformerEncoderLayer` from the weights of a lecture model."""
    T = idx.shape[1]
    x = F.embedding(idx, weights["token_embedding_table.weight"]) + weights["position_embedding_table.weight"][:T]
    for i in range(config.n_layer):
        layer = nn.TransformerEncoderLayer(
            config.n_embd, config.n_head, 4 * config.n_embd, dropout=0.0, norm_first=True, batch_first=True
        ).to(x.dtype)
        block = {name.removeprefix(f"blocks.{i}."): w for name, w in weights.items() if name.startswith(f"blocks.{i}.")}
        by_kind = [
            block[f"sa.heads.{h}.{kind}.weight"] for kind in ("query", "key", "value") for h in range(config.n_head)
        ]
        theirs = {
            "self_attn.in_proj_weight": torch.cat(by_kind),
            "self_attn.in_proj_bias": torch.zeros(3 * config.n_embd, dtype=x.dtype),
            "self_attn.out_proj.weight": block["sa.proj.weight"],
            "self_attn.out_proj.bias": block["sa.proj.bias"],
        }
        for ours, name in (("ffwd.net.0", "linear1"), ("ffwd.net.2", "linear2"), ("ln1", "norm1"), ("ln2", "norm2")):
            theirs |= {f"{name}.{kind}": block[f"{ours}.{kind}"] for kind in ("weight", "bias")}
        x = torch.func.functional_call(
            layer, theirs, (x,), {"src_mask": nn.Transformer.generate_square_subsequent_mask(T, dtype=x.dtype)}
        )
    x = F.layer_norm(x, (config.n_embd,), weights["ln_f.weight"], weights["ln_f.bias"])
    return F.linear(x, weights["lm_head.weight"], weights["lm_head.bias"])


@pytest.mark.parametrize("config", SHAPES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-10)])
def test_logits_and_gradients_equal_pytorchs_transformer(
    config: ModelConfig, dtype: torch.dtype, tolerance: float
) -> None:
    model = randomize(GPTLanguageModel(config)).to(dtype)
    idx, targets = make_ids(config), make_ids(config, seed=1)
    logits, loss = model(idx, targets)
    loss.backward()
    weights = {name: tensor.detach().requires_grad_() for name, tensor in model.named_parameters()}
    theirs = compute_pytorch_logits(weights, config, idx)
    F.cross_entropy(theirs.flatten(0, 1), targets.flatten()).backward()
    torch.testing.assert_close(logits, theirs, atol=tolerance, rtol=tolerance)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, weights[name].grad, atol=tolerance, rtol=tolerance, msg=name)


def test_the_parameters_have_the_names_of_the_lecture() -> None:
    config = ModelConfig(vocab_size=5, block_size=8, n_embd=6, n_head=2, n_layer=2)
    block = ["ffwd.net.0.bias", "ffwd.net.0.weight", "ffwd.net.2.bias", "ffwd.net.2.weight"]
    block += [f"{norm}.{kind}" for norm in ("ln1", "ln2") for kind in ("bias", "weight")]
    block += [f"sa.heads.{h}.{part}" for h in (0, 1) for part in ("key.weight", "query.weight", "tril", "value.weight")]
    block += ["sa.proj.bias", "sa.proj.weight"]
    around = ["lm_head.bias", "lm_head.weight", "ln_f.bias", "ln_f.weight"]
    around += ["position_embedding_table.weight", "token_embedding_table.weight"]
    expected = {f"blocks.{i}.{name}" for i in (0, 1) for name in block} | set(around)
    assert GPTLanguageModel(config).state_dict().keys() == expected
    assert list(BigramLanguageModel(config).state_dict()) == ["token_embedding_table.weight"]
    assert lecture.FeedFoward is lecture.FeedForward


@pytest.mark.parametrize("config", SHAPES)
def test_logits_are_batch_time_vocabulary_with_and_without_targets(config: ModelConfig) -> None:
    for model in (GPTLanguageModel(config), BigramLanguageModel(config)):
        for T in {1, config.block_size}:
            idx = make_ids(config)[:, :T]
            logits, loss = model(idx)
            assert logits.shape == (3, T, config.vocab_size)
            assert loss is None
            again, loss = model(idx, idx)
            assert torch.equal(again, logits)
            assert loss.item() == pytest.approx(F.cross_entropy(logits.transpose(1, 2), idx).item(), rel=1e-6)


def test_no_position_sees_the_future() -> None:
    config = SHAPES[0]
    model = randomize(GPTLanguageModel(config)).double()
    idx = make_ids(config)
    for t in (1, 10, 31):
        changed = idx.clone()
        changed[:, t:] = (changed[:, t:] + 1) % config.vocab_size
        before, after = model(idx)[0], model(changed)[0]
        assert torch.equal(before[:, :t], after[:, :t])
        assert not torch.isclose(before[:, t:], after[:, t:]).all(dim=-1).any()


def test_attention_averages_the_past_when_all_queries_are_zero() -> None:
    config = ModelConfig(block_size=8, n_embd=4, n_head=1)
    head = Head(config).double()
    nn.init.zeros_(head.query.weight)
    nn.init.eye_(head.value.weight)
    x = torch.randn(2, 8, 4, dtype=torch.float64)
    averages = x.cumsum(dim=1) / torch.arange(1, 9)[:, None]
    torch.testing.assert_close(head(x), averages)


def test_weights_start_small_and_the_first_prediction_is_nearly_uniform() -> None:
    torch.manual_seed(0)
    config = ModelConfig(n_embd=128, block_size=64)
    model = GPTLanguageModel(config)
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any(), name
        elif "ln" in name:
            assert (parameter == 1).all(), name
        else:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.05), name
            assert abs(parameter.mean().item()) < 0.001, name
    assert model(make_ids(config), make_ids(config, seed=1))[1].item() == pytest.approx(math.log(65), abs=0.1)


def average_draws(function: Callable[[], Tensor], draws: int = 4000) -> Tensor:
    torch.manual_seed(0)
    return torch.stack([function() for _ in range(draws)]).mean(dim=0)


def test_dropout_acts_in_three_places_and_only_in_training() -> None:
    config = ModelConfig(vocab_size=11, block_size=4, n_embd=8, n_head=2, n_layer=1, dropout=0.5)
    model = randomize(GPTLanguageModel(config))
    dropouts = [name for name, module in model.named_modules() if isinstance(module, nn.Dropout)]
    places = ["sa.heads.0.dropout", "sa.heads.1.dropout", "sa.dropout", "ffwd.net.3"]
    assert dropouts == [f"blocks.0.{place}" for place in places]
    idx = make_ids(config)
    assert not torch.equal(model(idx)[0], model(idx)[0])
    model.eval()
    assert torch.equal(model(idx)[0], model(idx)[0])
    head, x = model.blocks[0].sa.heads[0], torch.randn(1, 4, 8)
    expected = head(x)
    head.train()  # in the heads it is the attention weights that are dropped, scaled to keep their mean
    torch.testing.assert_close(average_draws(lambda: head(x)), expected, atol=0.05, rtol=0.05)


def test_the_bigram_model_looks_up_a_row_of_its_table() -> None:
    config = SHAPES[1]
    model = randomize(BigramLanguageModel(config))
    idx = make_ids(config)
    assert torch.equal(model(idx)[0], model.token_embedding_table.weight[idx])


def test_generate_appends_the_most_likely_token_of_a_peaked_model() -> None:
    model = BigramLanguageModel(ModelConfig(vocab_size=5, block_size=8))
    model.token_embedding_table.weight.data = 1000.0 * torch.eye(5).roll(1, dims=1)  # after token i comes i + 1
    written = model.generate(torch.tensor([[0, 1], [4, 2]]), max_new_tokens=4)
    assert written.tolist() == [[0, 1, 2, 3, 4, 0], [4, 2, 3, 4, 0, 1]]


@pytest.mark.parametrize("model_class", [BigramLanguageModel, GPTLanguageModel])
@pytest.mark.parametrize("prompt_length", [1, 7, 12])
def test_generate_keeps_the_prompt_and_appends_the_new_tokens(
    model_class: type[BigramLanguageModel | GPTLanguageModel], prompt_length: int
) -> None:
    config = SHAPES[1]  # block_size 7: the longest prompt and the text itself go past it
    model, idx = model_class(config), torch.randint(config.vocab_size, (3, prompt_length))
    written = model.generate(idx, max_new_tokens=10)
    assert written.shape == (3, prompt_length + 10)
    assert written.dtype == torch.int64
    assert torch.equal(written[:, :prompt_length], idx)
    assert not written.requires_grad


def test_generate_sees_the_last_block_size_tokens_only() -> None:
    model = randomize(GPTLanguageModel(SHAPES[1]))
    idx = torch.randint(11, (3, 20))
    other = idx.clone()
    other[:, : 20 - 7] = 0
    texts = []
    for prompt in (idx, other):
        torch.manual_seed(0)
        texts.append(model.generate(prompt, max_new_tokens=15)[:, 20:])
    assert torch.equal(*texts)


def test_generate_draws_from_the_softmax_of_the_last_position() -> None:
    model = randomize(GPTLanguageModel(SHAPES[1]))
    idx = torch.randint(11, (1, 5))
    expected = F.softmax(model(idx)[0][0, -1], dim=-1)
    torch.manual_seed(0)
    drawn = model.generate(idx.expand(20_000, -1), max_new_tokens=1)[:, -1]
    torch.testing.assert_close(drawn.bincount(minlength=11) / 20_000, expected, atol=0.012, rtol=0)  # over 3 sigma
