"""Adapters that change nothing at first, sit where they should, and merge. Oracles: the closed form, transformers."""

import sys
from copy import deepcopy

import pytest
import torch
from torch import nn

from lightning_transfer.backbones import LoraOptions, add_lora, load_backbone, merged
from lightning_transfer.backbones.lora import linear_layers
from lightning_transfer.backbones.transformers_models import PooledTransformer
from lightning_transfer.errors import BackboneError

peft = pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")

IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])
BERT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32, "vocab_size": 40}

# The linear layers of one block by hand, as the model's own source names them.
LAYERS = {
    "bert": {"query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"},
    "distilbert": {"q_lin", "k_lin", "v_lin", "out_lin", "lin1", "lin2"},
    "modernbert": {"Wqkv", "Wo", "Wi"},
    "gpt2": {"c_attn", "c_proj", "c_fc"},
}


def make(family: str) -> PooledTransformer:
    torch.manual_seed(0)
    if family == "bert":
        model = transformers.BertModel(transformers.BertConfig(**BERT))  # with its pooler
    elif family == "xlm-roberta":
        model = transformers.XLMRobertaModel(transformers.XLMRobertaConfig(**BERT), add_pooling_layer=False)
    elif family == "distilbert":
        config = transformers.DistilBertConfig(dim=16, n_layers=2, n_heads=2, hidden_dim=32, vocab_size=40)
        model = transformers.DistilBertModel(config)
    elif family == "modernbert":
        # A vocabulary that holds its special tokens.
        tokens = {f"{name}_token_id": 1 for name in ("pad", "eos", "bos", "cls", "sep")}
        model = transformers.ModernBertModel(transformers.ModernBertConfig(**BERT, **tokens))
    else:
        model = transformers.GPT2Model(transformers.GPT2Config(n_embd=16, n_layer=2, n_head=2, vocab_size=40))
    return PooledTransformer(model, "mean")


def features(backbone: nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return backbone.eval()({"input_ids": IDS, "attention_mask": MASK})


def move(backbone: nn.Module) -> None:
    """Give B values, as training would."""
    with torch.no_grad():
        for name, value in backbone.named_parameters():
            if "lora_B" in name:
                value.normal_(0, 0.5, generator=torch.Generator().manual_seed(len(name)))


@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "distilbert", "modernbert", "gpt2"])
def test_every_family_gets_adapters_changes_nothing_at_first_and_merges(family):
    backbone = make(family)
    plain, before = deepcopy(backbone), features(backbone)
    add_lora(backbone, LoraOptions(rank=2, alpha=6))
    assert torch.equal(features(backbone), before)
    trains = {name for name, value in backbone.named_parameters() if value.requires_grad}
    assert trains
    assert all(".lora_" in name for name in trains)
    named = LAYERS["bert" if family == "xlm-roberta" else family]
    adapted = {name.split(".lora_A")[0] for name in trains if ".lora_A" in name}
    for end in named:
        assert any(name.endswith(f".{end}") for name in adapted), end
    assert all(name.endswith(tuple(f".{end}" for end in named)) for name in adapted)
    move(backbone)
    changed = features(backbone)
    assert (changed - before).abs().max() > 1e-3
    whole = merged(backbone)
    torch.testing.assert_close(features(whole), changed, rtol=1e-4, atol=1e-5)
    assert [name for name, _ in whole.named_parameters()] == [name for name, _ in plain.named_parameters()]
    # The network that was merged is not the one that was passed.
    assert any("lora" in name for name, _ in backbone.named_parameters())
    assert torch.equal(features(backbone), changed)


def test_a_merged_layer_is_the_closed_form():
    backbone = make("bert")
    weight = backbone.model.encoder.layer[1].attention.self.query.weight.detach().clone()
    add_lora(backbone, LoraOptions(rank=2, alpha=6, target_modules=["query"]))
    move(backbone)
    state = backbone.state_dict()
    path = "model.base_model.model.encoder.layer.1.attention.self.query"
    low = state[f"{path}.lora_B.default.weight"] @ state[f"{path}.lora_A.default.weight"]
    found = merged(backbone).model.encoder.layer[1].attention.self.query.weight
    torch.testing.assert_close(found, weight + 3.0 * low)


def test_poolers_and_embeddings_are_left_alone():
    assert not any("pooler" in name or "embeddings" in name for name in linear_layers(make("bert").model))


def test_a_layer_whose_weights_are_used_without_a_call_is_left_alone():
    """An adapter there would have no effect: `MultiheadAttention` reads the weights of its `out_proj`."""
    model = nn.Module()
    model.blocks = nn.ModuleList([nn.TransformerEncoderLayer(8, 2, 16)])
    assert list(linear_layers(model)) == ["blocks.0.linear1", "blocks.0.linear2"]


def test_named_layers_alone_are_adapted():
    backbone = make("bert")
    add_lora(backbone, LoraOptions(target_modules=["query", "layer.1.output.dense"]))
    adapted = {name.split(".lora_A")[0] for name, _ in backbone.named_parameters() if ".lora_A" in name}
    start = "model.base_model.model.encoder"
    assert adapted == {f"{start}.layer.{block}.attention.self.query" for block in (0, 1)} | {
        f"{start}.layer.1.output.dense"
    }


def test_dropout_is_that_of_the_adapters_and_acts_in_training_alone():
    backbone = make("bert")
    add_lora(backbone, LoraOptions(dropout=0.5, target_modules=["query"]))
    layer = backbone.model.base_model.model.encoder.layer[0].attention.self.query
    move(layer)
    value = torch.ones(1, 16)
    with torch.no_grad():
        assert torch.equal(layer.eval()(value), layer(value))
        layer.train()
        assert not torch.equal(layer(value), layer(value))


def test_without_adapters_merging_gives_the_backbone_itself():
    backbone = make("bert")
    assert merged(backbone) is backbone
    assert merged(nn.Identity()).__class__ is nn.Identity


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"rank": 0}, "`lora.rank` of at least 1, got 0"),
        ({"alpha": 0.0}, "`lora.alpha` above 0, got 0.0"),
        ({"dropout": 1.0}, r"`lora.dropout` in \[0, 1\), got 1.0"),
        ({"target_modules": []}, "`lora.target_modules`, got an empty list"),
    ],
)
def test_wrong_numbers_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        LoraOptions(**options)


def test_a_name_that_matches_nothing_is_refused_with_what_exists():
    with pytest.raises(BackboneError, match=r"named `qery`\. Did you mean `query`\?.*`attention.self.query`.*`output"):
        add_lora(make("bert"), LoraOptions(target_modules=["value", "qery"]))


def test_a_part_of_a_name_is_no_name():
    with pytest.raises(BackboneError, match="named `uery`"):
        add_lora(make("bert"), LoraOptions(target_modules=["uery"]))


def test_other_backbones_are_refused():
    backbone, _ = load_backbone("timm/test_resnet", weights="random")
    with pytest.raises(BackboneError, match="this backbone is a `ResNet`"):
        add_lora(backbone, LoraOptions())


def test_a_network_without_blocks_is_refused():
    with pytest.raises(BackboneError, match="no linear layer within repeated blocks of `Linear`"):
        linear_layers(nn.Linear(2, 2))


def test_adapters_twice_are_refused():
    backbone = make("bert")
    add_lora(backbone, LoraOptions())
    with pytest.raises(BackboneError, match="has adapters already"):
        add_lora(backbone, LoraOptions())


def test_a_missing_peft_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(BackboneError, match=r"`peft` is not installed, and `lora` needs it.*\[nlp\]"):
        add_lora(make("bert"), LoraOptions())
