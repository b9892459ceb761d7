"Graphs against an independent recomputation from the survey's tables, and what a model needs of them"

from dataclasses import replace
import numpy as np
import pandas as pd
import pytest
import torch
from torch_geometric.nn import HGTConv
from turnover_nb.core.tables import Relation
from turnover_nb.data.features import model_features
from turnover_nb.data.split import PHASES, make_split
from turnover_nb.graph.audit import differences, fitted, tensors
from turnover_nb.graph.graph import build_graph
from turnover_nb.graph.phases import colleague_edges, phase_people
from worlds import world

FORMS = ('pairs', 'long', 'interactions')


def made(form='pairs', preference='warm', colleagues=('employer', 'position', 'manager'), **kw):
    w = world(80, form=form, missing=0.1, **kw)
    return w, build_graph(w, make_split(w, preference=preference, n_known=2), colleagues=colleagues)


def numbered(data, t):
    "Edges of a type as pairs of the survey's numbers, sorted"
    a, b = (data[t[0]].index[data[t].edge_index[0]], data[t[2]].index[data[t].edge_index[1]])
    return sorted(zip(a.tolist(), b.tolist()))


def expected(edges, left, right=None):
    return sorted((a, b) for a, b in edges.T.tolist() if a in left and (right is None or b in right))


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('phase', PHASES)
def test_relation_edges_are_those_of_the_phases_people(form, phase):
    w, g = made(form)
    d, people = g.at(phase), set(phase_people(g.split, phase).tolist())
    t = w.choices.table
    shown = set(range(len(w.posts))) if form == 'interactions' else set(t.post[t.employee.isin(people)])
    assert d['employee'].index.tolist() == sorted(people) and d['post'].index.tolist() == sorted(shown)
    for k in ('employer', 'company_type', 'position'):
        assert numbered(d, ('employee', f'has_{k}', k)) == expected(w.relations[k].edges, people)
        assert numbered(d, (k, f'rev_has_{k}', 'employee')) == sorted(
            (b, a) for a, b in expected(w.relations[k].edges, people)
        )
        touched = torch.cat([d[e].edge_index[1] for e in d.edge_types if e[2] == k])
        assert len(touched.unique()) == d[k].num_nodes  # no node without an edge
    assert numbered(d, ('post', 'has_company_type', 'company_type')) == expected(
        w.relations['company_type'].posts, shown
    )
    assert numbered(d, ('employee', 'managed_by', 'employee')) == expected(w.relations['manager'].edges, people, people)


@pytest.mark.parametrize('phase', PHASES)
@pytest.mark.parametrize('k', ['employer', 'position', 'manager'])
def test_colleagues_by_brute_force(phase, k):
    w, g = made()
    people = phase_people(g.split, phase).tolist()
    nodes = pd.DataFrame(w.relations[k].edges.T).groupby(0)[1].apply(set)
    pairs = sorted((a, b) for a in people for b in people if a != b and nodes.get(a, set()) & nodes.get(b, set()))
    assert numbered(g.at(phase), ('employee', f'colleague_{k}', 'employee')) == pairs and len(pairs)


def test_large_groups_are_counted_among_the_phases_people_and_left_out():
    rng = np.random.default_rng(0)
    for _ in range(20):
        e = np.unique(np.stack([rng.integers(0, 12, 20), rng.integers(0, 4, 20)]), axis=1)
        most = int(rng.integers(1, 8))
        held = [set(e[0][e[1] == k]) for k in range(4)]
        want = sorted({(a, b) for h in held if len(h) <= most for a in h for b in h if a != b})
        assert sorted(zip(*colleague_edges(e, most).tolist())) == want


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('phase', PHASES)
def test_answer_edges_are_the_message_set_in_both_directions(form, phase):
    w, g = made(form)
    t, e = w.choices.table, w.choices.employee
    drawn = g.draw_messages(np.random.default_rng(1)) if phase == 'train' else None
    m = np.isin(e, g.split.train) | g.split.known & np.isin(e, g.split.people(phase)) if drawn is None else drawn
    d = g.at(phase, drawn)
    mine = t[m[t.situation]]
    for name, rows in (('prefer', mine[mine.chosen]), ('disprefer', mine[~mine.chosen & mine.available])):
        pairs = list(zip(rows.employee, rows.post))
        assert (name == 'disprefer') == (form == 'interactions' and not pairs) or pairs
        assert numbered(d, ('employee', name, 'post')) == sorted(pairs)
        assert numbered(d, ('post', f'rev_{name}', 'employee')) == sorted((b, a) for a, b in pairs)


@pytest.mark.parametrize('form', FORMS)
@pytest.mark.parametrize('preference', ['cold', 'warm'])
@pytest.mark.parametrize('phase', PHASES)
def test_supervision_maps_back_to_the_table(form, preference, phase):
    w, g = made(form, preference)
    t, e = w.choices.table, w.choices.employee
    m = g.draw_messages(np.random.default_rng(1)) if phase == 'train' else None
    s, d = g.supervision(phase, m), g.at(phase, m)
    known = m if m is not None else g.split.known
    assert s.situations.tolist() == np.flatnonzero(np.isin(e, g.split.people(phase)) & ~known).tolist()
    rows = t.iloc[s.rows.numpy()]
    assert (
        d['employee'].index[s.employee].tolist() == rows.employee.tolist()
        and d['post'].index[s.post].tolist() == rows.post.tolist()
    )
    assert s.chosen.tolist() == rows.chosen.tolist() and s.available.tolist() == rows.available.tolist()
    assert s.situations[s.situation].tolist() == rows.situation.tolist()
    assert all(s.situation[a:b].unique().tolist() == [i] for i, (a, b) in enumerate(zip(s.ptr[:-1], s.ptr[1:])))
    assert s.ptr[-1] == len(s.rows)
    who = d['employee'].index[s.turnover_index].numpy()
    assert who.tolist() == g.split.people(phase).tolist() and np.array_equal(s.turnover.numpy(), w.turnover[who])
    assert np.allclose(s.likelihood.numpy(), w.likelihood[who])


def test_unlabelled_people_are_in_the_graph_but_not_among_the_targets():
    w = world(80)
    y = w.turnover.copy()
    y[np.flatnonzero(y == 0)[::2]] = np.nan
    w = replace(w, turnover=y)
    g = build_graph(w, make_split(w))
    for p in PHASES:
        assert len(g.supervision(p).turnover) == np.isfinite(y[g.split.people(p)]).sum() < len(g.split.people(p))
        assert not g.supervision(p).turnover.isnan().any()


def test_draws_are_uniform_over_none_to_all_but_one_and_reproducible():
    w, g = made(colleagues=())
    e, rng = w.choices.employee, np.random.default_rng(0)
    n = np.concatenate([np.bincount(e[g.draw_messages(rng)], minlength=80)[g.split.train] for _ in range(200)])
    share = np.bincount(n, minlength=5) / len(n)
    assert share[4] == 0 and abs(share[:4] - 0.25).max() < 4 * (0.1875 / len(n)) ** 0.5
    a, b = (g.draw_messages(np.random.default_rng(3)) for _ in range(2))
    assert np.array_equal(a, b)
    assert not made(preference='cold')[1].draw_messages(rng).any()


def test_one_epochs_answers_do_not_stay_in_the_next():
    _, g = made()
    m = g.draw_messages(np.random.default_rng(0))
    a, b = g.at('train', m), g.at('train')
    assert (
        a['employee', 'prefer', 'post'].edge_index.size(1)
        == m.sum()
        > 0
        == b['employee', 'prefer', 'post'].edge_index.size(1)
    )
    assert b['post', 'rev_disprefer', 'employee'].edge_index.size(1) == 0


@pytest.mark.parametrize('form', FORMS)
def test_one_set_of_parameters_serves_every_phase(form):
    _, g = made(form)
    d = g.at('train')
    torch.manual_seed(0)
    conv = HGTConv(8, 8, g.metadata, heads=2)
    for p in PHASES:
        d = g.at(p)
        assert d.metadata() == g.metadata and d.validate()
        x = {k: torch.ones(d[k].num_nodes, 8) for k in d.node_types}
        assert conv(x, d.edge_index_dict)['employee'].shape == (len(phase_people(g.split, p)), 8)
        assert all(t.dtype == torch.int64 for t in d.edge_index_dict.values())
        assert d['employee'].x.dtype == d['post'].x.dtype == torch.float32
        assert not d['employee'].x.isnan().any()


def test_vocabulary_is_that_of_training_and_the_rest_is_unseen():
    w = world(80)
    g = build_graph(w, make_split(w, 'group', group='employer'))
    seen = np.unique(g.split.train // 5)
    assert g.vocab['employer'].tolist() == seen.tolist() and g.vocab_sizes['employer'] == len(seen)
    assert g.at('train')['employer'].vocab.tolist() == list(range(len(seen)))
    d = g.at('test')['employer']
    assert all(
        (v < 0) == (i not in seen) and (v < 0 or seen[v] == i) for i, v in zip(d.index.tolist(), d.vocab.tolist())
    )
    assert (d.vocab < 0).any()


def test_features_are_scaled_by_training_people_and_never_protected():
    w, g = made()
    x = g.at('train')['employee'].x.double()
    j = g.encoder.names.index('age')
    age = w.features.age.to_numpy()[g.split.train]
    z = (age - np.nanmean(age)) / np.nanstd(age)
    assert np.allclose(x[:, j], np.nan_to_num(z), atol=1e-6)
    assert 'sex' not in model_features(w) and not any(n.startswith('sex') for n in g.encoder.names)


def test_a_protected_relation_is_no_relation_and_two_managers_have_two_names():
    w = world(80)
    r = w.relations
    mentor = Relation('mentor', 'manager', None, r['manager'].edges[::-1])
    w = replace(w, protected=w.protected.assign(position='x'), relations=r | dict(mentor=mentor))
    g = build_graph(w, make_split(w))
    assert 'position' not in g.metadata[0]
    between = {t[1] for t in g.metadata[1] if t[0] == t[2]}
    assert between == {f'{a}managed_by_{b}' for a in ('', 'rev_') for b in ('manager', 'mentor')}


def test_reserved_names_and_small_caps_are_refused():
    w = world(80)
    s = make_split(w)
    for name in ('post', 'employee', 'a.b', 'type', 'keys'):
        with pytest.raises(ValueError, match='node type'):
            build_graph(replace(w, relations={name: w.relations['employer']}), s)
    with pytest.raises(ValueError, match='max_group=1'):
        build_graph(w, s, max_group=1)
    with pytest.raises(ValueError, match='beyond the 40'):
        build_graph(replace(world(40, tasks=8)), s)


def everything(g):
    "All tensors of all phases, and what the graph learned"
    inputs = {f'{p} {k}': v for p in PHASES for k, v in tensors(g.at(p)).items()}
    targets = {f'{p} target {k}': v for p in PHASES for k, v in tensors(g.supervision(p)).items()}
    return inputs | targets | fitted(g)


def test_with_colleagues_is_the_graph_built_so():
    w = world(80, missing=0.1)
    s = make_split(w, preference='warm', n_known=2)
    ties = [k for k, r in w.relations.items() if r.labels is not None]
    for most in (3, 50):
        g = build_graph(w, s).with_colleagues(most)
        assert not differences(everything(g), everything(build_graph(w, s, colleagues=ties, max_group=most)))
        assert g.with_colleagues(most).colleagues == g.colleagues and g.max_group == most
    with pytest.raises(ValueError, match='max_group=1'):
        build_graph(w, s).with_colleagues(1)


def test_knowing_is_the_graph_built_with_those_answers_known():
    w = world(80, missing=0.1)
    s = make_split(w, preference='warm', n_known=2)
    g = build_graph(w, s)
    before = everything(g)
    for known in (np.zeros(w.choices.n, bool), s.known & (np.arange(w.choices.n) % 3 == 0)):
        built = build_graph(w, replace(s, known=known))
        assert not differences(everything(g.knowing(known)), everything(built))
        assert differences(before, everything(built))
    assert not differences(before, everything(g))  # the graph itself stays as it was
    for bad in (np.zeros(3, bool), np.zeros(w.choices.n)):
        with pytest.raises(ValueError, match='expected bool, one per situation'):
            g.knowing(bad)
