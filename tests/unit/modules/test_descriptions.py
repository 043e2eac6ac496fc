"""Descriptions of classes: where they come from, what is refused, and how the backbone sees them."""

import pytest
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException

from lightning_transfer.backbones import load_backbone
from lightning_transfer.errors import DataError
from lightning_transfer.modules.descriptions import complete_descriptions, embed_texts, read_descriptions
from tests.unit.modules.text_toys import QUEUES, make_encoder, schema_of

transformers = pytest.importorskip("transformers")


def test_a_file_is_read_as_the_mapping_it_holds(tmp_path):
    file = tmp_path / "queues.yaml"
    file.write_text("card_lost: The card is gone — näkemiin\n7: [seventh, queue]\n", encoding="utf-8")
    assert read_descriptions(str(file)) == {"card_lost": ["The card is gone — näkemiin"], "7": ["seventh", "queue"]}
    assert read_descriptions(None) == {}


def test_what_is_no_description_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"none, or empty: `card_lost`, `b`"):
        read_descriptions({"card_lost": "  ", "a": "text", "b": 3})
    with pytest.raises(DataError, match=r"none, or empty: `a`, `b`, `c`\."):
        read_descriptions({"a": [], "b": ["one", " "], "c": ["one", 2], "d": ["one"]})
    file = tmp_path / "list.yaml"
    file.write_text("- card_lost\n")
    with pytest.raises(DataError, match=r"list.yaml` holds a list"):
        read_descriptions(str(file))
    with pytest.raises(DataError, match=r"Cannot read the descriptions `.*missing.yaml`"):
        read_descriptions(str(tmp_path / "missing.yaml"))
    file.write_text("a: [1,\n")
    with pytest.raises(DataError, match="Cannot read"):
        read_descriptions(str(file))


def test_names_stand_in_for_what_is_not_described():
    found = complete_descriptions({"money/back": ["Refunds", "Money"]}, QUEUES)
    assert found == {"card_lost": ["card lost"], "money/back": ["Refunds", "Money"], "late-parcel": ["late parcel"]}
    assert list(found) == list(QUEUES)
    assert complete_descriptions({}, ["a__b/ c"]) == {"a__b/ c": ["a b c"]}


def test_a_description_of_no_class_is_refused():
    with pytest.raises(DataError, match=r"`card_lots`, which is no class.*Did you mean `card_lost`\?"):
        complete_descriptions({"card_lots": ["gone"]}, QUEUES)


def test_directions_are_transformers_own_means(tmp_path):
    folder = make_encoder(tmp_path / "bert")
    backbone, card = load_backbone(str(folder))
    backbone.train()
    texts = ["card lost", "money back please help"] * 20  # more than one batch
    found = embed_texts(backbone, card, schema_of(), texts)
    assert all(part.training for part in backbone.modules())
    model = transformers.BertModel.from_pretrained(folder, add_pooling_layer=False).eval()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))
    for place in (0, 39):
        with torch.no_grad():
            hidden = model(**tokenizer(texts[place], return_tensors="pt")).last_hidden_state[0]
        wanted = torch.nn.functional.normalize(hidden.mean(0), dim=0)
        torch.testing.assert_close(found[place], wanted, rtol=1e-4, atol=1e-5)


def test_backbones_of_images_are_refused():
    backbone, card = load_backbone("timm/test_resnet", weights="random")
    with pytest.raises(MisconfigurationException, match="`timm/test_resnet` reads image"):
        embed_texts(backbone, card, schema_of(), ["card"])
