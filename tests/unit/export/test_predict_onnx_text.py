"""The script beside a model of texts, without anything of this package, against the package."""

import csv
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from lightning_transfer.evaluation import load
from lightning_transfer.export.predict_onnx_text import Model, main, read_rows
from tests.unit.export.text_toys import QUEUES, TEXTS, router, save

REFUSED = (
    "torch",
    "lightning_transfer",
    "lightning",
    "transformers",
    "sklearn",
    "scipy",
    "onnx",
    "PIL",
    "phonenumbers",
)

# Runs a script as `python script words...`, in which no word of torch or of this package can be imported.
WITHOUT = """
import os, runpy, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in os.environ["REFUSED"].split():
            raise ImportError(f"{name} must not be imported")

sys.meta_path.insert(0, Refuse())
sys.argv = sys.argv[1:]
sys.path.insert(0, os.path.dirname(sys.argv[0]))
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def alone(*words, code=0, refused=REFUSED, stdin=b"") -> tuple[str, str]:
    """Run the script in a process of its own, without this package."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    command = [sys.executable, "-I", "-c", WITHOUT, *map(str, words)]
    environment["REFUSED"] = " ".join(refused)
    done = subprocess.run(command, capture_output=True, env=environment, timeout=120, input=stdin)
    assert done.returncode == code, done.stderr.decode()
    return done.stdout.decode(), done.stderr.decode()


def lines(text: str) -> list[dict]:
    return [json.loads(line) for line in text.splitlines()]


def same(found: list[dict], expected, classes=QUEUES) -> None:
    for line, wanted in zip(found, expected, strict=True):
        if wanted.decision == "unreadable":
            assert (line["decision"], line["reason"]) == ("unreadable", wanted.reason)
            continue
        assert line["queue"] == wanted.decision
        assert [row["queue"] for row in line["queues"]] == sorted(classes, key=lambda name: -wanted.probabilities[name])
        for row in line["queues"]:
            assert row["probability"] == pytest.approx(wanted.probabilities[row["queue"]], abs=1e-4)
        assert line["confidence"] == pytest.approx(max(wanted.probabilities.values()), abs=1e-4)


def test_in_a_process_without_torch_it_decides_as_the_checkpoint(exported_texts, tmp_path):
    texts = [*TEXTS, "", "\u200b", *TEXTS[::-1]] * 9
    with (tmp_path / "t.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows([("id", "body"), *((f"T-{place}", text) for place, text in enumerate(texts))])
    printed, error = alone(exported_texts.folder / "predict_onnx_text.py", tmp_path / "t.csv", code=1)
    found = lines(printed)
    assert [line["id"] for line in found] == [f"T-{place}" for place in range(len(texts))]
    same(found, load(exported_texts.folder).predict(texts))
    assert "18 of 162 texts could not be read" in error
    assert len({line["queue"] for line in found}) > 2


def test_the_same_at_every_batch_size_and_in_any_company(exported_texts):
    model, texts = Model(exported_texts.onnx), [*TEXTS] * 6
    expected = load(exported_texts.folder).predict(texts)
    for size in (1, 3, 32):
        same(model.predict(texts, batch_size=size), expected)
    assert [line["id"] for line in model.predict(["my card"], ids=["x"])] == ["x"]
    assert model.predict([]) == []


def test_subject_and_body_are_cleaned_as_by_the_package(exported_texts):
    items = [{"subject": "Re: [Ticket#12] my card", "body": "<p>lamp dark</p><p>LG Ann</p>"}]
    [line] = Model(exported_texts.onnx).predict(items)
    same([line], load(exported_texts.folder).predict(items))


def test_tables_in_every_form_give_a_line_for_each_row(exported_texts, tmp_path):
    (tmp_path / "a.csv").write_bytes("subject;body;id\nmy;card;7\nlamp;dark schön;8\n".encode("cp1252"))
    (tmp_path / "b.jsonl").write_text('{"body": "my card"}\nnot json\n{"body": null}\n[1]\n{"body": "lamp"}\n')
    (tmp_path / "c.txt").write_text("\ufeffmy card\n\nlamp dark\n")
    (tmp_path / "d.csv").write_text("id,body\n1,my card\n2\n1,again\n")
    model = Model(exported_texts.onnx)

    def read(name, code):
        output = tmp_path / f"{name}.out.jsonl"
        assert main([str(tmp_path / name), "--model", str(exported_texts.onnx), "--output", str(output)]) == code
        return lines(output.read_text())

    first = read("a.csv", 0)
    assert [line["id"] for line in first] == ["7", "8"]
    assert first[0]["queues"] == model.predict([{"subject": "my", "body": "card"}])[0]["queues"]
    second = read("b.jsonl", 1)
    assert [line["id"] for line in second] == ["row 1", "row 2", "row 3", "row 4", "row 5"]
    assert [line["decision"] for line in second] == ["route", "unreadable", "unreadable", "unreadable", "route"]
    assert "not JSON" in second[1]["reason"]
    third = read("c.txt", 1)
    assert [(line["id"], line["decision"]) for line in third] == [
        ("line 1", "route"), ("line 2", "unreadable"), ("line 3", "route"),
    ]  # fmt: skip
    assert third[0]["queues"] == model.predict(["my card"])[0]["queues"]
    fourth = read("d.csv", 1)
    assert [(line["id"], line["decision"]) for line in fourth] == [
        ("1", "route"), ("2", "unreadable"), ("1", "route"),
    ]  # fmt: skip


def test_lines_from_standard_input_and_columns_by_name(exported_texts, tmp_path):
    script = exported_texts.folder / "predict_onnx_text.py"
    printed, _ = alone(script, "-", "--top", 1, stdin=b"my card\nlamp dark\n")
    assert [len(line["queues"]) for line in lines(printed)] == [1, 1]
    (tmp_path / "t.csv").write_text("no,what\n3,my card\n")
    printed, _ = alone(script, tmp_path / "t.csv", "--body_column", "what", "--id_column", "no")
    assert lines(printed)[0]["id"] == "3"
    _, error = alone(script, tmp_path / "t.csv", "--body_column", "wat", code=2)
    assert "No column `wat`" in error
    assert "Did you mean `what`?" in error


def test_columns_are_those_of_the_training_unless_others_are_named(exported_texts, tmp_path, monkeypatch):
    (tmp_path / "t.csv").write_text("text,body\nmy card,lamp\n")
    from lightning_transfer.export import predict_onnx_text

    opened = predict_onnx_text.open_model

    def with_columns(*given):
        session, facts = opened(*given)
        return session, {**facts, "columns": {"body_column": "text"}}

    monkeypatch.setattr(predict_onnx_text, "open_model", with_columns)
    for words, text in (([], "my card"), (["--body_column", "body"], "lamp")):
        output = tmp_path / f"{text}.jsonl"
        words = [str(tmp_path / "t.csv"), "--model", str(exported_texts.onnx), "--output", str(output), *words]
        assert main(words) == 0
        assert lines(output.read_text())[0]["queues"] == Model(exported_texts.onnx).predict([text])[0]["queues"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["none.csv"], "Cannot read the table"),
        (["t.csv", "--model", "none.onnx"], "cannot use the model `none.onnx`"),
        (["t.csv", "--output", "there.jsonl"], "`there.jsonl` exists and is not written over"),
        (["t.xlsx.csv"], "a spreadsheet or zip archive"),
    ],
)
def test_what_cannot_be_done_is_said_with_code_2(exported_texts, tmp_path, monkeypatch, capsys, words, reason):
    monkeypatch.chdir(tmp_path)
    Path("t.csv").write_text("body\nmy card\n")
    Path("there.jsonl").write_text("mine")
    Path("t.xlsx.csv").write_bytes(b"PK\x03\x04 and more")
    with pytest.raises(SystemExit) as caught:
        main([*words, *([] if "--model" in words else ["--model", str(exported_texts.onnx)])])
    assert caught.value.code == 2
    assert reason in capsys.readouterr().err
    assert Path("there.jsonl").read_text() == "mine"


def test_a_table_that_breaks_off_leaves_no_half_of_the_output(exported_texts, tmp_path, monkeypatch, capsys):
    from lightning_transfer.export import predict_onnx_text

    monkeypatch.setattr(predict_onnx_text, "_ROWS", 2)
    (tmp_path / "t.csv").write_text('body\nmy card\nlamp\ndark\n"never closed\n')
    words = [str(tmp_path / "t.csv"), "--model", str(exported_texts.onnx), "--output", str(tmp_path / "o.jsonl")]
    with pytest.raises(SystemExit):
        main(words)
    assert "is not a CSV file that can be read" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]


def test_another_tokenizer_is_refused(exported_texts, tmp_path):
    for name in ("model.onnx", "tokenizer.json"):
        shutil.copy(exported_texts.folder / name, tmp_path / name)
    text = (tmp_path / "tokenizer.json").read_text()
    (tmp_path / "tokenizer.json").write_text(text.replace('"invoice"', '"voucher"'))
    with pytest.raises(ValueError, match="the model was trained with"):
        Model(tmp_path / "model.onnx")
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"tokenizer\.json"):
        Model(tmp_path / "model.onnx")


def test_a_model_of_images_is_refused(exported):
    with pytest.raises(ValueError, match="is no model of texts, but of kind `image`"):
        Model(exported.onnx)


def test_masked_telephone_numbers_need_phonenumbers_and_say_so(exported_texts, backbone, tmp_path):
    from lightning_transfer.export import exported_facts, exported_network, trace_texts, write_onnx

    module = router(backbone, phones=True)
    save(tmp_path, module)
    for name in ("predict_onnx_text.py", "tokenizer.json", "text_parts"):
        source = exported_texts.folder / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, tmp_path / name)
    program = trace_texts(exported_network(module), 24)
    write_onnx(program, tmp_path / "model.onnx", exported_facts(module.card, module.schema, module.calibration))
    script, text = tmp_path / "predict_onnx_text.py", "my card, Tel.: 0221 4710 12345 or +49 30 901820 please help"
    _, error = alone(script, "-", stdin=text.encode(), code=2)
    assert "pip install phonenumbers" in error
    printed, _ = alone(script, "-", stdin=text.encode(), refused=[name for name in REFUSED if name != "phonenumbers"])
    same(lines(printed), load(tmp_path).predict([text]))


def test_features_of_training_texts_name_the_nearest_one(exported_texts, tmp_path):
    for name in ("model.onnx", "tokenizer.json"):
        shutil.copy(exported_texts.folder / name, tmp_path / name)
    features = load(exported_texts.folder).outputs(TEXTS)[1].numpy()
    np.savez(
        tmp_path / "examples.npz", features=features.astype(np.float16),
        ids=np.array([f"T-{place}" for place in range(len(TEXTS))]), labels=np.array(["billing"] * len(TEXTS)),
    )  # fmt: skip
    found = Model(tmp_path / "model.onnx").predict(TEXTS[::-1])
    assert [line["nearest"]["id"] for line in found] == [f"T-{place}" for place in range(len(TEXTS))][::-1]
    assert max(line["nearest"]["distance"] for line in found) < 1e-2
    assert Model(exported_texts.onnx).predict(["my card"])[0]["nearest"] is None


def test_a_large_table_is_read_in_parts(tmp_path):
    (tmp_path / "t.txt").write_text("a\nb\n")
    rows = read_rows(str(tmp_path / "t.txt"), "body")
    assert next(rows) == ("line 1", "", "a", "")
