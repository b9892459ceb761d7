"""A checkpoint is loaded for the graph it belongs to, or refused with the reason."""

import dataclasses
import io
import os
import pickle
import numpy as np, pytest, torch
from turnover_nb.models.checkpoint import checkpoint, load_model, predict
from turnover_nb.models.gnn.config import make_config
from turnover_nb.graph.graph import build_graph
from turnover_nb.data.split import make_split
from turnover_nb.synthetic.world import make_synthetic
from turnover_nb.models.trainer import Trainer, fit, progress_bar

TINY = dict(hidden=16, heads=2, epochs=3, stage2_epochs=2)


@pytest.fixture(scope="module")
def survey():
    return make_synthetic(n_employees=80, seed=2).survey


@pytest.fixture(scope="module")
def graph(survey):
    return build_graph(survey, make_split(survey, seed=0))


@pytest.fixture(scope="module", params=["v6_twostage", "best"])
def trained(graph, request):
    return fit(graph, make_config(request.param, **TINY), 0)


@pytest.fixture
def file(trained, graph, tmp_path):
    torch.save(checkpoint(trained, graph), tmp_path / "stage2_best.pt")
    return tmp_path / "stage2_best.pt"


def test_a_loaded_model_scores_as_the_trained_one(file, trained, survey):
    again = build_graph(survey, make_split(survey, seed=0))
    for phase in ("valid", "test"):
        a, b = predict(trained.model, again, phase), predict(load_model(file, again), again, phase)
        assert all(np.array_equal(a[k], b[k]) for k in a)


def test_both_stages_are_kept(trained, graph, tmp_path):
    torch.save(checkpoint(trained, graph, "stage1"), tmp_path / "one.pt")
    a, b = load_model(tmp_path / "one.pt", graph), trained.model
    assert any(not torch.equal(x, y) for x, y in zip(a.parameters(), b.parameters()))


@pytest.mark.parametrize("keep", [0, 10, 1000, 0.5, 0.99])
def test_truncated(file, graph, keep):
    data = file.read_bytes()
    file.write_bytes(data[: int(keep * len(data)) if keep < 1 else keep])
    with pytest.raises(ValueError, match="stage2_best.pt: not a readable checkpoint"):
        load_model(file, graph)


def test_a_pickle_with_code_is_not_run(graph, tmp_path):
    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path / 'ran'}",)

    for write in (lambda f: f.write_bytes(pickle.dumps(Evil())), lambda f: torch.save(dict(format=2, model=Evil()), f)):
        write(tmp_path / "evil.pt")
        with pytest.raises(ValueError, match="evil.pt: not a readable checkpoint"):
            load_model(tmp_path / "evil.pt", graph)
        assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [[1, 2], dict(format=1), dict(weights=3)])
def test_something_else(graph, tmp_path, content):
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(ValueError, match="x.pt: not a checkpoint of this version"):
        load_model(tmp_path / "x.pt", graph)


def test_of_other_edges(file, survey):
    with pytest.raises(ValueError, match="another graph: the edges differ"):
        load_model(file, build_graph(survey, make_split(survey, seed=0), colleagues=("employer",)))


def test_of_other_training_people(file, survey):
    with pytest.raises(ValueError, match="belongs to another graph"):
        load_model(file, build_graph(survey, make_split(survey, seed=1)))


def changed(survey, **fields):
    s = dataclasses.replace(survey, **fields)
    return build_graph(s, make_split(s, seed=0))


def test_of_another_codebook_columns(file, survey):
    name = survey.features.columns[0]
    s = dict(
        features=survey.features.rename(columns={name: "other"}),
        types={("other" if k == name else k): v for k, v in survey.types.items()},
    )
    with pytest.raises(ValueError, match="the features differ"):
        load_model(file, changed(survey, **s))


def test_of_another_codebook_with_as_many_relation_values(file, survey):
    "Equal sizes are not enough: the third firm must be the same firm"
    r = survey.relations["employer"]
    other = {**survey.relations, "employer": dataclasses.replace(r, labels=r.labels[::-1].copy())}
    with pytest.raises(ValueError, match="relation values and posts of the training people differ"):
        load_model(file, changed(survey, relations=other))


def test_a_state_of_training_that_is_no_state(graph, tmp_path):
    c = make_config("v6_twostage", **TINY)
    for content in (b"", b"PK", pickle.dumps(3)):
        (tmp_path / "resume.pt").write_bytes(content)
        with pytest.raises(ValueError, match="resume.pt: not a readable state"):
            fit(graph, c, 0, resume=tmp_path / "resume.pt")
    with pytest.raises(ValueError, match="'cuda:99' is not available|not available"):
        Trainer(graph, c, 0, "mps" if not torch.backends.mps.is_available() else "cuda:99")


def test_the_progress_bar_shows_losses_scores_and_margin(graph):
    c, out = make_config("v6_twostage", **TINY), io.StringIO()
    fit(graph, c, 0, progress_bar(c, out))
    text = out.getvalue()
    for word in ("stage1", "stage2", "train_turnover_loss=", "valid_pref_accuracy=", "margin=", "5/5"):
        assert word in text, word
