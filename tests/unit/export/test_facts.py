import json

import pytest

from lightning_transfer.export import ExportError
from lightning_transfer.export.facts import exported_facts, speech_facts, to_properties
from lightning_transfer.types import BackboneCard, Calibration, OperatingPoint, Schema
from tests.unit.export.export_toys import CALIBRATION, CLASSES, classifier, schema, spec

CARD = BackboneCard("timm/resnet18", "timm/resnet18", licence="apache-2.0", pretraining="drawings")


def test_everything_that_a_decision_needs_is_there():
    facts = exported_facts(CARD, schema(), CALIBRATION)
    assert facts["classes"] == list(CLASSES)
    assert (facts["task"], facts["negative_class"]) == ("multiclass", "free")
    assert (facts["temperature"], facts["threshold"], facts["threshold_rule"]) == (0.5, 0.62, "by hand")
    assert tuple(OperatingPoint.from_dict(point) for point in facts["threshold_points"]) == CALIBRATION.points
    assert facts["preprocessing"] == spec().to_dict()
    assert facts["backbone"] == {"name": "timm/resnet18", "licence": "apache-2.0", "pretraining": "drawings"}


@pytest.mark.parametrize(
    ("task", "classes", "given", "expected"),
    [
        ("binary", ("good", "bad"), None, "good"),
        ("binary", ("good", "bad"), "bad", "bad"),
        ("multiclass", CLASSES, None, None),
        ("multilabel", CLASSES, "free", None),
    ],
)
def test_the_negative_class_is_the_one_that_decides(task, classes, given, expected):
    facts = exported_facts(CARD, schema(task=task, classes=classes, negative_class=given), Calibration())
    assert facts["negative_class"] == expected


def test_properties_are_json_that_reads_back_the_same():
    facts = exported_facts(classifier().card, schema(classes=('"quote"', "ä\nö", "free")), CALIBRATION)
    properties = to_properties(facts)
    assert all(isinstance(value, str) for value in properties.values())
    assert {key.removeprefix("lightning_transfer."): json.loads(value) for key, value in properties.items()} == facts


def test_a_number_that_json_lacks_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        to_properties({"temperature": float("nan")})


def test_preprocessing_of_another_kind_is_refused():
    with pytest.raises(ExportError, match="kind `audio`"):
        exported_facts(CARD, schema(preprocessing={"kind": "audio"}), CALIBRATION)


def test_texts_bring_their_routing_policy_and_images_have_none():
    of = schema(preprocessing={"kind": "text", "long_texts": "head"}, negative_class=None)
    policy = {"threshold": 0.8, "out_of_scope_score": "energy"}
    assert exported_facts(CARD, of, CALIBRATION, policy)["routing"] == policy
    assert exported_facts(CARD, of, CALIBRATION)["routing"] is None
    assert "routing" not in exported_facts(CARD, schema(), CALIBRATION)


def test_chunks_are_refused_with_the_way_out():
    with pytest.raises(ExportError, match=r"long_texts: chunks.*--data\.long_texts head_tail"):
        exported_facts(CARD, schema(preprocessing={"kind": "text", "long_texts": "chunks"}), CALIBRATION)


def recogniser_schema(**spec):
    extractor = {"feature_extractor_type": "Wav2Vec2FeatureExtractor", "sampling_rate": 16000}
    spec = {"kind": "audio", "feature_extractor": extractor, "vocabulary": {"blank": "-"}, **spec}
    return Schema("transcription", ("-", "|", "a"), preprocessing=spec)


def test_a_recogniser_says_its_vocabulary_and_how_its_time_passes():
    network = {"sees_mask": False, "step_seconds": 1 / 16000, "frame_seconds": 0.02}
    found = speech_facts(CARD, recogniser_schema(chunk_seconds=30.0), network)
    assert found["classes"] == ["-", "|", "a"]
    assert found["preprocessing"]["chunk_seconds"] == 30.0
    assert {key: found[key] for key in network} == network
    assert found["backbone"]["licence"] == CARD.licence
    assert json.loads(json.dumps(found)) == found


def test_whisper_and_unknown_features_are_refused_with_what_to_do():
    whisper = {"feature_extractor_type": "WhisperFeatureExtractor"}
    with pytest.raises(ExportError, match=r"Whisper is not exported.*token by token.*optimum.*Or adapt a CTC model"):
        speech_facts(CARD, recogniser_schema(feature_extractor=whisper), {})
    other = {"feature_extractor_type": "MCTCTFeatureExtractor"}
    with pytest.raises(ExportError, match="cannot compute features of kind `MCTCTFeatureExtractor`"):
        speech_facts(CARD, recogniser_schema(feature_extractor=other), {})
