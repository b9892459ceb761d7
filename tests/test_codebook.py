"""The codebook: published schema and reference are current, keys are described, mistakes are answered."""

import json
from pathlib import Path
import jsonschema
import pytest
import yaml
from pydantic import BaseModel
from turnover_nb.core.errors import DataError
from turnover_nb.data import sections
from turnover_nb.data.codebook import (
    Codebook,
    codebook_path,
    codebook_schema,
    codebooks,
    load_codebook,
    parse_codebook,
    reference,
)

nbs = Path(__file__).resolve().parent.parent / "nbs"
BASE = dict(name="x", table=dict(file="x.csv"), turnover=dict(column="y", positive="1"))


def book(**sections):
    return parse_codebook(yaml.safe_dump(BASE | sections, allow_unicode=True), "book.yaml")


def test_published_schema_is_current():
    assert json.loads((nbs / "codebooks" / "codebook.schema.json").read_text("utf-8")) == codebook_schema()


def test_reference_in_the_notebook_is_current():
    notebook = json.loads((nbs / "01_data" / "01_codebook.ipynb").read_text("utf-8"))
    cells = ["".join(c["source"]) for c in notebook["cells"]]
    assert [c for c in cells if c.startswith("<!-- reference -->")] == ["<!-- reference -->\n" + reference()]


def models(model=Codebook):
    return {m for m in vars(sections).values() if isinstance(m, type) and issubclass(m, BaseModel)} | {model}


def test_every_key_has_a_description():
    lost = [
        f"{m.__name__}.{k}"
        for m in models()
        for k, f in m.model_fields.items()
        if not f.description and k not in ("type", "form")
    ]
    assert not lost


@pytest.mark.parametrize("name", codebooks())
def test_shipped_codebooks_load_and_fit_the_schema_as_an_editor_reads_them(name):
    text = codebook_path(name).read_text("utf-8")
    assert text.startswith("# yaml-language-server: $schema=codebook.schema.json\n")
    load_codebook(name)
    jsonschema.validate(yaml.safe_load(text), codebook_schema())


@pytest.mark.parametrize(
    "wrong",
    [
        dict(fetures={}),
        dict(features={"a": {"type": "text"}}),
        dict(features={"a": {"type": "numeric", "rang": [0, 1]}}),
        dict(unlisted="maybe"),
        dict(preference={"form": "pair"}),
    ],
)
def test_schema_and_models_refuse_the_same(wrong):
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(BASE | wrong, codebook_schema())
    with pytest.raises(DataError):
        book(**wrong)


def test_a_codebook_is_frozen_and_labels_stay_text():
    b = parse_codebook(
        "name: x\ntable: {file: x.csv}\nturnover: {column: y, positive: No, negative: 007}\n"
        "features: {d: {type: ordinal, levels: [1-2, 2024-01-01]}}"
    )
    assert (
        b.turnover.positive == ("No",)
        and b.turnover.negative == ("007",)
        and b.features["d"].levels == ("1-2", "2024-01-01")
    )
    with pytest.raises(ValueError, match="frozen"):
        b.name = "y"


def test_short_forms():
    b = book(features={"a": "numeric"}, relations={"city": "c"}, time="t", group="g", protected="p")
    assert (
        b.features["a"].type == "numeric"
        and b.relations["city"].column == "c"
        and b.time.column == "t"
        and b.group == ("g",)
        and b.protected == {"p": ()}
    )


ERRORS = {
    "unknown key": (dict(feature={}), "key feature: unknown key (did you mean 'features'?)"),
    "unknown nested key": (
        dict(features={"Age": {"type": "numeric", "rnage": [0, 1]}}),
        "key features.Age.rnage: unknown key (did you mean 'range'?)",
    ),
    "text": (dict(features={"why": {"type": "text"}}), "key features.why: free text is refused"),
    "synonym": (dict(features={"a": "likert"}), "key features.a: type 'likert' is unknown (did you mean 'ordinal'?)"),
    "no type": (dict(features={"a": {}}), "key features.a: no type"),
    "not a range": (dict(features={"a": {"type": "numeric", "range": 5}}), "key features.a.range: is not a range"),
    "empty range": (
        dict(features={"a": {"type": "numeric", "range": [5, 1]}}),
        "key features.a.range: '[5.0, 1.0]' the lowest value is not below the highest",
    ),
    "no levels": (
        dict(features={"a": {"type": "ordinal"}}),
        "key features.a: an ordinal column has one source; expected either levels or range",
    ),
    "unknown scale": (
        dict(scales={"agree": ["a", "b"]}, features={"a": {"type": "ordinal", "levels": "agre"}}),
        "'agre' is not a scale (did you mean 'agree'?)",
    ),
    "level twice": (
        dict(features={"a": {"type": "ordinal", "levels": ["x", "y", "x"]}}),
        "key features.a.levels: 'x' occurs twice",
    ),
    "label to no level": (
        dict(features={"a": {"type": "ordinal", "levels": ["x", "y"], "labels": {"q": "z"}}}),
        "key features.a.labels: 'z' is not a level",
    ),
    "kind": (dict(relations={"r": {"column": "c", "kind": "firm"}}), "key relations.r.kind: 'firm' is not allowed"),
    "two sources": (
        dict(relations={"r": {"column": "c", "columns": ["d"]}}),
        "key relations.r: a relation has one source",
    ),
    "manager without id": (dict(relations={"manager": "boss"}), "key id: relation 'manager' holds employee ids"),
    "missing key": (dict(turnover={"column": "y"}), "key turnover.positive: is missing"),
    "both": (
        dict(turnover={"column": "y", "positive": "1", "negative": ["0", "1"]}),
        "key turnover: '1' is both positive and negative",
    ),
    "salt": (dict(hash={"columns": "a", "salt": "x"}), "key hash.salt: 'x' is not allowed"),
    "no form": (
        dict(preference={"tasks": {}}),
        "key preference: no form; expected form: one of pairs, long, interactions",
    ),
    "version": (dict(version=2), "key version"),
    "unlisted": (dict(unlisted="no"), "key unlisted: 'no' is not allowed; expected 'refuse' or 'ignore'"),
    "date without until": (dict(features={"a": {"type": "numeric", "date": "iso"}}), "date and until belong together"),
    "no header, no names": (
        dict(table={"file": "x.csv", "header_rows": 0}),
        "key table: header_rows is 0; expected the column names",
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_mistakes_are_answered(case):
    sections, message = ERRORS[case]
    with pytest.raises(DataError) as e:
        book(**sections)
    assert (
        message in str(e.value) and str(e.value).startswith("book.yaml") and e.value.file == "book.yaml" and e.value.key
    )


@pytest.mark.parametrize(
    "text, message",
    [
        ("", "holds nothing"),
        ("- a\n- b", "holds no sections"),
        ("name: [a", "is not YAML"),
        ("name: x\nname: y", "key name, row 2: occurs twice"),
        ("name: x", "key turnover: there is nothing to predict"),
        ("name: x\nturnover: {column: y, positive: 1}", "key table: there is no employee table"),
    ],
)
def test_texts_that_are_no_codebook(text, message):
    with pytest.raises(DataError) as e:
        parse_codebook(text)
    assert message in str(e.value)


def test_a_codebook_file_must_be_there_and_be_utf8(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        load_codebook(tmp_path / "none.yaml")
    with pytest.raises(DataError, match="did you mean 'ibm_hr_attrition'"):
        load_codebook("ibm_hr_atrition")
    (tmp_path / "a.yaml").write_bytes("name: 调查".encode("gb18030"))
    with pytest.raises(DataError, match="is not UTF-8"):
        load_codebook(tmp_path / "a.yaml")
