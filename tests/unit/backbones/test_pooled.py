"""Pooling of transformers' tokens, against means and first tokens by hand."""

import pytest
import torch

from lightning_transfer.backbones import transformers_models

transformers = pytest.importorskip("transformers")

TINY = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
BERT = {**TINY, "vocab_size": 40}
IDS = torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]])
MASK = torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]])


def built(model_type, values, pooling):
    made = transformers_models.build(model_type, values, pooling)
    return made._replace(module=made.module.eval())


def test_mean_pooling_counts_only_what_the_mask_shows():
    backbone = built("bert", BERT, "mean")
    with torch.no_grad():
        hidden = backbone.module.model(input_ids=IDS, attention_mask=MASK).last_hidden_state
        features = backbone.module({"input_ids": IDS, "attention_mask": MASK})
    torch.testing.assert_close(features[0], hidden[0].mean(0))
    torch.testing.assert_close(features[1], hidden[1, :2].mean(0))
    assert features.shape == (2, backbone.num_features)


def test_padding_does_not_change_the_features():
    backbone = built("bert", BERT, "mean").module
    with torch.no_grad():
        padded = backbone({"input_ids": IDS, "attention_mask": MASK})[1]
        alone = backbone({"input_ids": IDS[1:, :2], "attention_mask": MASK[1:, :2]})[0]
    torch.testing.assert_close(padded, alone)


def test_a_dict_keywords_and_a_bare_tensor_are_the_same():
    backbone = built("bert", BERT, "cls").module
    with torch.no_grad():
        expected = backbone.model(input_ids=IDS).last_hidden_state[:, 0]
        for features in (backbone(IDS), backbone({"input_ids": IDS}), backbone(input_ids=IDS)):
            torch.testing.assert_close(features, expected)
