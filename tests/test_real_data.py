"""The four shipped codebooks read the real data, and the counts are those of the data's own description."""

import csv
import io
import numpy as np
import pandas as pd
import pytest
from turnover_nb.data.codebook import codebooks
from turnover_nb.data.describe import describe
from turnover_nb.data.survey import read_survey

EMPLOYEES = dict(job_choice_survey=400, ibm_hr_attrition=1470, job_change_ds=19158, mba_job_conjoint=56)
LEAVERS = dict(job_choice_survey=45, ibm_hr_attrition=237, job_change_ds=4777, mba_job_conjoint=None)


@pytest.fixture(scope="module")
def read(shared_data):
    done = {}

    def f(name):
        if name not in done:
            done[name] = read_survey(shared_data / ("survey" if name == "job_choice_survey" else name), name)
        return done[name]

    return f


def test_each_shipped_codebook_has_its_data():
    assert set(codebooks()) >= set(EMPLOYEES)


@pytest.mark.parametrize("name", EMPLOYEES)
def test_sizes_and_positives(read, name):
    s = read(name)
    assert s.n == EMPLOYEES[name] == len(set(s.ids)) == len(s.features)
    assert set(s.features) == set(s.types)
    if LEAVERS[name] is None:
        assert s.turnover is None
    else:
        assert int(np.nansum(s.turnover)) == LEAVERS[name] and not np.isnan(s.turnover).any()
    for r in s.relations.values():
        assert r.edges[0].max() < s.n and r.edges[1].max() < r.size(s.n)


@pytest.mark.parametrize("name", EMPLOYEES)
def test_description_names_no_small_group_and_no_id(read, name):
    s = read(name)
    words = set(describe(s, name).split())
    assert len(words & {i for i in s.ids if len(i) > 5}) == 0
    assert str(s.n) in describe(s).replace(",", "")


def test_survey_choices_are_those_of_the_file(read, shared_data):
    "Counted again from the raw bytes, without this package"
    rows = list(csv.reader(io.StringIO((shared_data / "survey" / "responses.csv").read_bytes().decode("gb18030"))))
    codes = rows[1]
    s = read("job_choice_survey")
    t = s.choices.table
    for task, code in enumerate(["Q18", "Q20", "Q22", "Q23", "Q25", "Q27", "Q29"]):
        first = sum(r[codes.index(code)] == "岗位A" for r in rows[2:])  # `index` finds the first Q22
        assert int(t.chosen[(t.task == task) & (t.alternative == 0)].sum()) == first
    assert (
        s.choices.n == 2800
        and len(s.posts) == 14
        and s.posts.shape[1] == 9
        and list(s.choices.alternatives) == ["A", "B"]
    )
    assert np.allclose(s.likelihood, [float(r[codes.index("Q31_1")]) / 100 for r in rows[2:]])
    agree = ["非常不同意", "不同意", "略不同意", "一般", "略同意", "同意", "非常同意"]
    assert s.features["Q12_1"].tolist() == [agree.index(r[codes.index("Q12_1")]) + 1.0 for r in rows[2:]]


def test_survey_posts_share_nodes_with_employees(read):
    s = read("job_choice_survey")
    for name in ("city", "company_type", "company_size"):
        r = s.relations[name]
        assert r.posts.shape == (2, 14) and set(r.posts[1]) <= set(r.edges[1]), name
    assert s.relations["position"].posts is None and s.relations["position"].edges.shape[1] == 512
    pay = s.posts["薪酬（相对当前）"]
    assert (pay.min(), pay.max()) == (-10, 20)
    assert s.features.isna().sum().sum() == 2  # two answers that are no number


def test_protected_columns_are_no_features(read):
    for name in EMPLOYEES:
        s = read(name)
        if s.protected is not None:
            assert not set(s.protected) & set(s.features)
    assert read("ibm_hr_attrition").protected.Gender.value_counts().to_dict() == {"Male": 882, "Female": 588}


def test_job_change_missing_shares(read):
    s = read("job_change_ds")
    missing = s.features.isna().sum()
    assert missing.company_type == 6140 and missing.company_size == 5938 and missing.major_discipline == 2813
    assert len(s.relations["company_size"].labels) == 8 and "10-49" in s.relations["company_size"].labels
    assert s.features.experience.max() == 21


def test_mba_is_long(read):
    s = read("mba_job_conjoint")
    c = s.choices
    assert (
        c.form == "long"
        and c.n == 560
        and len(c.tasks) == 10
        and (np.diff(c.ptr) == 2).all()
        and c.table.chosen.sum() == 560
    )
    assert set(s.posts.Salary) == {8.0, 10.0, 12.0} and s.features.shape == (56, 0)


def test_a_file_instead_of_its_folder_and_parquet_give_the_same(read, shared_data, tmp_path):
    a = read("ibm_hr_attrition")
    b = read_survey(shared_data / "ibm_hr_attrition" / "ibm.csv", "ibm_hr_attrition")
    pd.read_csv(shared_data / "ibm_hr_attrition" / "ibm.csv").to_parquet(tmp_path / "ibm.parquet")
    c = read_survey(tmp_path / "ibm.parquet", "ibm_hr_attrition")
    for other in (b, c):
        pd.testing.assert_frame_equal(a.features, other.features)
        assert (a.ids == other.ids).all() and (a.turnover == other.turnover).all()
        for k, r in a.relations.items():
            assert (r.edges == other.relations[k].edges).all() and (r.labels == other.relations[k].labels).all()
