"""Whisper as a whole against transformers' own forward, loss and generation."""

import pytest
import torch

from lightning_transfer.backbones import LoraOptions, Seq2SeqTransformer, add_lora, load_backbone, load_seq2seq, merged
from lightning_transfer.errors import BackboneError
from tests.unit.backbones.speech_toys import save_ctc, save_whisper, sound

transformers = pytest.importorskip("transformers")

TEXTS = ["call me back", "one two three", "seven seven seven"]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whisper")
    model = save_whisper(folder, TEXTS, init_std=0.5)  # else it says the prompt's last token for ever
    return folder, model


def prompt(model, count):
    settings = model.generation_config
    start = [settings.decoder_start_token_id, settings.lang_to_id["<|en|>"], settings.task_to_id["transcribe"]]
    return torch.tensor([[*start, settings.no_timestamps_token_id]] * count)


def test_the_whole_network_is_loaded_and_the_card_holds_its_processor(saved):
    folder, oracle = saved
    backbone, card = load_seq2seq(str(folder))
    assert isinstance(backbone, Seq2SeqTransformer)
    assert card.num_features == 16
    assert card.num_parameters == sum(value.numel() for value in oracle.parameters())
    assert set(card.processor) == {"feature_extractor", "generation", "tokenizer_json"}
    tokens = torch.tensor([[5, 6, 7], [8, 9, 10]])
    batch = sound("whisper", [100, 60])
    with torch.no_grad():
        logits = backbone.eval()({**batch, "decoder_input_ids": tokens})
        expected = oracle(input_features=batch["input_features"], decoder_input_ids=tokens).logits
    torch.testing.assert_close(logits, expected)
    assert backbone.max_positions == 24
    fixed = {name for name, value in backbone.named_parameters() if not value.requires_grad}
    assert fixed == {"model.model.encoder.embed_positions.weight"}


def test_the_card_alone_rebuilds_it(saved):
    folder, _ = saved
    backbone, card = load_seq2seq(str(folder))
    again, same = load_seq2seq(card.name, weights="random", card=card)
    again.load_state_dict(backbone.state_dict())
    assert same.num_parameters == card.num_parameters
    batch = {**sound("whisper", [100]), "decoder_input_ids": torch.tensor([[5, 6]])}
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(batch), backbone.eval()(batch))


def test_a_weights_file_of_its_own_fills_it_with_the_tied_output_named_once(saved, tmp_path):
    folder, oracle = saved
    backbone, _ = load_seq2seq(str(folder), weights=folder / "model.safetensors")
    torch.testing.assert_close(backbone.model.proj_out.weight, oracle.proj_out.weight)
    assert backbone.model.proj_out.weight is backbone.model.model.decoder.embed_tokens.weight


@pytest.mark.parametrize("beams", [1, 3])
def test_what_it_writes_is_what_transformers_writes(saved, beams):
    folder, oracle = saved
    backbone, card = load_seq2seq(str(folder))
    features = sound("whisper", [100, 80, 50])["input_features"]
    expected = oracle.generate(
        features, language="en", task="transcribe", num_beams=beams, max_new_tokens=12, return_timestamps=False
    )
    written = backbone.eval().generate(
        features, prompt(oracle, 3), settings=card.processor["generation"], max_new_tokens=12, num_beams=beams
    )
    end, start = oracle.generation_config.eos_token_id, prompt(oracle, 1)[0].tolist()
    said = set()
    for own, other in zip(written.tokens.tolist(), expected.tolist(), strict=True):
        # transformers returns the prompt too, or not, by version.
        other = other[len(start) :] if other[: len(start)] == start else other
        assert [token for token in own if token != end] == [token for token in other if token != end]
        said.update(own)
    assert len(said) > 5


def test_probabilities_are_those_of_the_forward(saved):
    folder, oracle = saved
    backbone, card = load_seq2seq(str(folder))
    backbone.eval()
    features = sound("whisper", [100, 70])["input_features"]
    start = prompt(oracle, 2)
    settings = {**card.processor["generation"], "suppress_tokens": None, "begin_suppress_tokens": None}
    written = backbone.generate(features, start, settings=settings, max_new_tokens=6)
    whole = torch.cat([start, written.tokens], dim=1)
    with torch.no_grad():
        logits = backbone({"input_features": features, "decoder_input_ids": whole[:, :-1]})
    chances = logits[:, start.shape[1] - 1 :].softmax(-1).gather(2, written.tokens[:, :, None])[:, :, 0]
    alive = (written.tokens == oracle.generation_config.eos_token_id).long().cumsum(1) <= 1
    torch.testing.assert_close(written.probabilities[alive], chances[alive], atol=1e-5, rtol=1e-4)


def test_behind_the_end_every_probability_is_one(saved):
    from lightning_transfer.backbones.seq2seq import _ended

    tokens = torch.tensor([[5, 2, 0, 0], [5, 6, 7, 2]])
    assert _ended(tokens, [2]).tolist() == [[False, False, True, True], [False, False, False, False]]


def test_suppressed_tokens_are_not_written(saved):
    folder, oracle = saved
    backbone, card = load_seq2seq(str(folder))
    features = sound("whisper", [100])["input_features"]
    settings = dict(card.processor["generation"])
    first = backbone.eval().generate(features, prompt(oracle, 1), settings=settings, max_new_tokens=1).tokens
    settings["suppress_tokens"] = [int(first)]
    other = backbone.generate(features, prompt(oracle, 1), settings=settings, max_new_tokens=1).tokens
    assert int(other) != int(first)


def test_adapters_on_both_sides_leave_the_start_as_it_was_and_merge(saved):
    folder, oracle = saved
    backbone, card = load_seq2seq(str(folder))
    batch = {**sound("whisper", [100]), "decoder_input_ids": torch.tensor([[5, 6]])}
    with torch.no_grad():
        before = backbone.eval()(batch)
        add_lora(backbone, LoraOptions(rank=2, target_modules=["q_proj", "v_proj"]))
        torch.testing.assert_close(backbone.eval()(batch), before, atol=0, rtol=0)
    trained = [name for name, value in backbone.named_parameters() if value.requires_grad]
    assert any(".encoder.layers." in name for name in trained)
    assert any(".decoder.layers." in name for name in trained)
    for value in backbone.parameters():
        if value.requires_grad:
            value.data.add_(0.1)
    features = batch["input_features"]
    settings = card.processor["generation"]
    adapted = backbone.generate(features, prompt(oracle, 1), settings=settings, max_new_tokens=5)
    plain = merged(backbone).generate(features, prompt(oracle, 1), settings=settings, max_new_tokens=5)
    assert adapted.tokens.tolist() == plain.tokens.tolist()


def test_other_networks_write_no_text(tmp_path):
    save_ctc(tmp_path, "hubert")
    with pytest.raises(BackboneError, match="`hf/hubert` writes no text by itself"):
        load_seq2seq(str(tmp_path))
    with pytest.raises(BackboneError, match="writes no text"):
        load_seq2seq("timm/test_resnet", weights="random")


def test_its_encoder_alone_gives_features(saved):
    folder, oracle = saved
    backbone, card = load_backbone(str(folder))
    batch = sound("whisper", [100, 60])
    with torch.no_grad():
        pooled = backbone.eval()(batch)
        hidden = oracle.get_encoder()(batch["input_features"]).last_hidden_state
    torch.testing.assert_close(pooled[1], hidden[1, :30].mean(0))
    assert not any("decoder" in name for name, _ in backbone.named_parameters())
    assert card.num_parameters < sum(value.numel() for value in oracle.parameters())
