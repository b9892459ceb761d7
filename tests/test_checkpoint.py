"""A saved model is loaded for the graph it belongs to, or refused with the reason."""

import dataclasses
import io
import os
import pickle

import numpy as np
import pytest
import torch

from turnover_nb.data.split import make_split
from turnover_nb.graph.graph import build_graph
from turnover_nb.models.checkpoint import read_checkpoint
from turnover_nb.models.registry import make_model
from turnover_nb.models.trainer import progress_bar
from turnover_nb.synthetic.world import make_synthetic

TINY = dict(
    v6_twostage=dict(hidden=16, heads=2, epochs=3, stage2_epochs=2),
    relational=dict(epochs=3, stage2_epochs=2, draws=4),
)


@pytest.fixture(scope="module")
def survey():
    return make_synthetic(n_employees=60, seed=2).survey


@pytest.fixture(scope="module")
def graph(survey):
    return build_graph(survey, make_split(survey, seed=0))


@pytest.fixture(scope="module", params=[*TINY])
def trained(graph, request):
    return make_model(request.param, **TINY[request.param]).fit(graph)


@pytest.fixture
def folder(trained, tmp_path):
    return trained.save(tmp_path / "saved")


def load(trained, folder):
    return type(trained).load(folder)


def test_a_loaded_model_scores_as_the_trained_one(folder, trained, survey):
    again = load(trained, folder)
    other = build_graph(survey, make_split(survey, seed=0))
    for phase in ("valid", "test"):
        a, b = trained.predict(other, phase), again.predict(other, phase)
        assert all(np.array_equal(getattr(a, k), getattr(b, k)) for k in ("people", "turnover", "rows", "utility"))
    assert again.history == trained.history and again.best_epochs == trained.best_epochs


def test_both_stages_are_kept(folder):
    one, two = (read_checkpoint(folder / f"stage{i}_best.pt")["model"] for i in (1, 2))
    assert one.keys() == two.keys() and any(not torch.equal(one[k], two[k]) for k in one)


@pytest.mark.parametrize("keep", [0, 10, 1000, 0.5, 0.99])
def test_truncated(folder, trained, keep):
    file = folder / "stage2_best.pt"
    data = file.read_bytes()
    file.write_bytes(data[: int(keep * len(data)) if keep < 1 else keep])
    with pytest.raises(ValueError, match="stage2_best.pt: not a readable checkpoint"):
        load(trained, folder)


def test_a_pickle_with_code_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    for write in (lambda f: f.write_bytes(pickle.dumps(Evil())), lambda f: torch.save(dict(format=2, model=Evil()), f)):
        write(tmp_path / "evil.pt")
        with pytest.raises(ValueError, match="evil.pt: not a readable checkpoint"):
            read_checkpoint(tmp_path / "evil.pt")
        assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [[1, 2], dict(format=1), dict(weights=3)])
def test_something_else(tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="x.pt: not a checkpoint of this version"):
        read_checkpoint(tmp_path / "x.pt")


def test_a_checkpoint_of_other_settings(folder, trained):
    text = (folder / "model.yaml").read_text("utf-8")
    (folder / "model.yaml").write_text(text.replace("epochs: 3", "epochs: 4", 1), "utf-8")
    with pytest.raises(ValueError, match="belongs to other settings"):
        load(trained, folder)


def changed(survey, **fields):
    s = dataclasses.replace(survey, **fields)
    return build_graph(s, make_split(s, seed=0))


def other_columns(survey):
    name = survey.features.columns[0]
    types = {("other" if k == name else k): v for k, v in survey.types.items()}
    return changed(survey, features=survey.features.rename(columns={name: "other"}), types=types)


def other_firms(survey):
    "Equal sizes are not enough: the third firm must be the same firm"
    r = survey.relations["employer"]
    other = {**survey.relations, "employer": dataclasses.replace(r, labels=r.labels[::-1].copy())}
    return changed(survey, relations=other)


OTHERS = {
    "the edges differ": lambda s: build_graph(s, make_split(s, seed=0), colleagues=("employer",)),
    "belongs to another graph": lambda s: build_graph(s, make_split(s, seed=1)),
    "the features differ": other_columns,
    "relation values and posts of the training people differ": other_firms,
}


@pytest.mark.parametrize("said", OTHERS)
def test_another_graph(folder, trained, survey, said):
    with pytest.raises(ValueError, match=said):
        load(trained, folder).predict(OTHERS[said](survey))


def test_a_model_that_was_never_fitted(graph):
    with pytest.raises(ValueError, match="v6_twostage is not fitted"):
        make_model("v6_twostage").predict(graph)


def test_a_state_of_training_that_is_no_state(graph, tmp_path):
    model = make_model("v6_twostage", **TINY["v6_twostage"])
    for content in (b"", b"PK", pickle.dumps(3)):
        (tmp_path / "resume.pt").write_bytes(content)
        with pytest.raises(ValueError, match="resume.pt: not a readable state"):
            model.fit(graph, resume=tmp_path / "resume.pt")
    missing = "cuda:99" if torch.backends.mps.is_available() else "mps"
    with pytest.raises(ValueError, match="not available"):
        model.fit(graph, device=missing)


def test_the_progress_bar_shows_losses_scores_and_margin(graph):
    out = io.StringIO()
    model = make_model("v6_twostage", **TINY["v6_twostage"])
    model.fit(graph, progress=progress_bar(model.most_epochs, model.watched, out))
    for word in ("stage1", "stage2", "train_turnover_loss=", "valid_pref_accuracy=", "margin=", "5/5"):
        assert word in out.getvalue(), word
