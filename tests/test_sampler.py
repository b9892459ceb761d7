"""Negatives: what may be drawn, with which probability, from which cache, and that a resumed run draws the same."""

import io
from dataclasses import replace
import numpy as np
import pytest
import torch
from turnover_nb.data.candidates import candidate_sets
from turnover_nb.graph.graph import build_graph
from turnover_nb.data.post_sets import PostSets, Positives
from turnover_nb.models.gnn.negatives import HardNegativeSampler, grid_shape, top_posts
from turnover_nb.data.split import make_split
from worlds import world

gen = lambda seed=0: torch.Generator().manual_seed(seed)


def pairs(n_people, n_posts, most, seed=0):
    "Random positives: 0 … `most` a person, and a dense bool matrix of them"
    rng = np.random.default_rng(seed)
    dense = np.zeros((n_people, n_posts), bool)
    for i, k in enumerate(rng.integers(0, most + 1, n_people)):
        dense[i, rng.permutation(n_posts)[:k]] = True
    return tuple(torch.from_numpy(x) for x in (*np.nonzero(dense), dense))


@pytest.fixture(scope="module")
def small():
    "40 people, 30 posts, up to 29 positives each (one person has a single possible negative)"
    person, post, dense = pairs(40, 30, 20)
    dense[7] = True
    dense[7, 13] = False
    person, post = dense.nonzero().T
    return Positives.of(person, post, 40, 30), dense


def test_membership_and_rank_agree_with_a_dense_matrix(small):
    sets, dense = small
    i, j = (x.flatten() for x in torch.meshgrid(torch.arange(40), torch.arange(30), indexing="ij"))
    assert torch.equal(sets.contains(i, j), dense[i, j])
    for p in range(40):
        free = (~dense[p]).nonzero().flatten()
        assert torch.equal(sets.absent(torch.full_like(free, p), torch.arange(len(free))), free)


def test_sets_without_entries():
    sets = PostSets.of(torch.zeros(0), torch.zeros(0), 3, 4)
    who = torch.tensor([0, 2])
    assert not sets.contains(who, who).any() and sets.absent(who, who).tolist() == [0, 2]


@pytest.mark.parametrize("n_posts,k", [(1, 1), (3, 5), (17, 4), (100, 1), (1000, 5), (4099, 10)])
def test_blocked_search_is_topk(n_posts, k):
    b, G = grid_shape(n_posts, k)
    assert b % 8 == 0 and b * G >= n_posts
    s = torch.full((50, b * G), -torch.inf)
    s[:, :n_posts] = torch.randn(50, n_posts, generator=gen()).round(decimals=1)
    value, post = top_posts(s.view(50, b, G), k)
    want = min(k, n_posts)
    assert torch.equal(value[:, :want], s.topk(want, 1).values) and torch.equal(s.gather(1, post), value)
    assert (value[:, want:] == -torch.inf).all() and all(len(set(r)) == len(r) for r in post.tolist())


@pytest.fixture(scope="module")
def utility():
    "Utilities of the 30 posts for some of the 40 people"
    z, q = torch.randn(40, 6, generator=gen(1)), torch.randn(30, 6, generator=gen(2))
    return lambda people: z[people] @ q.T


@pytest.mark.parametrize("k", [1, 5, 40])
def test_cache_is_the_brute_force_top_k(small, utility, k):
    positives, dense = small
    scores = utility(torch.arange(40)).masked_fill(dense, -torch.inf)
    sampler = HardNegativeSampler(positives, k=k)
    sampler.refresh(utility, 0)
    for p in range(40):
        n = min(k, int((~dense[p]).sum())) if dense[p].any() else 0
        assert (
            set(sampler.cache[p, :n].tolist()) == set(scores[p].topk(n).indices.tolist())
            and (sampler.cache[p, n:] == -1).all()
        )


def test_people_are_scored_in_bounded_chunks():
    n = 3000
    positives = Positives.of(torch.arange(n), torch.zeros(n), n, 5000)
    sizes = []

    def score(people):
        sizes.append(len(people))
        return torch.rand(len(people), 5000, generator=gen())

    HardNegativeSampler(positives).refresh(score, 0)
    assert max(sizes) * 5000 <= 2**22 and sum(sizes) == n


def test_people_without_positives_are_not_scored(small):
    positives, dense = small
    seen = []

    def score(people):
        seen.extend(people.tolist())
        return torch.zeros(len(people), 30)

    HardNegativeSampler(positives).refresh(score, 0)
    assert seen == dense.any(1).nonzero().flatten().tolist()


@pytest.mark.parametrize("ratio", [0.0, 0.7, 1.0])
def test_no_draw_is_a_positive_and_frequencies_are_exact(small, utility, ratio):
    "A hard draw is uniform over the cache, another uniform over all posts that are no positives"
    positives, dense = small
    people = dense.any(1).nonzero().flatten()
    sampler = HardNegativeSampler(positives, k=3, hard_ratio=ratio)
    sampler.refresh(utility, 0)
    n = 20000
    post, hard = sampler.sample(people, n, gen())
    cached = torch.zeros(40, 30)
    for p in people.tolist():
        cached[p, [c for c in sampler.cache[p].tolist() if c >= 0]] = 1
    free = (~dense).float()
    q = ratio * cached / cached.sum(1, keepdim=True) + (1 - ratio) * free / free.sum(1, keepdim=True)
    share = torch.stack([torch.bincount(r, minlength=30) for r in post]) / n
    assert not (share[dense[people]] > 0).any()
    q = q[people]
    assert ((share - q).abs() <= 5 * (q * (1 - q) / n).sqrt() + 1e-9).all()  # five standard errors, 1,200 cells
    assert abs(hard.float().mean().item() - ratio) < 0.01


def test_a_person_whose_every_post_is_positive_is_named():
    person, post = torch.tensor([0, 3, 3, 3]), torch.tensor([0, 0, 1, 2])
    with pytest.raises(ValueError, match=r"person 3 \(1 in all\): chose all of the 3 posts"):
        Positives.of(person, post, 5, 3)
    plain = PostSets.of(person, post, 5, 3)
    with pytest.raises(ValueError, match=r"person 3 \(1 in all\): no post is left"):
        HardNegativeSampler(plain)


def test_drawing_for_somebody_without_a_candidate_names_only_them():
    "A person without positives needs no negatives, but one with all posts has none"
    sampler = HardNegativeSampler(Positives.of(torch.tensor([0]), torch.tensor([0]), 3, 2), hard_ratio=0.0)
    sampler.possible[2] = 0
    assert sampler.sample(torch.tensor([0]), 2, gen())[0].tolist() == [[1, 1]]
    with pytest.raises(ValueError, match=r"person 2 \(1 in all\)"):
        sampler.sample(torch.tensor([0, 2]), 1, gen())


def test_fewer_posts_than_the_cache():
    sampler = HardNegativeSampler(Positives.of(torch.tensor([0]), torch.tensor([1]), 1, 3), k=5)
    sampler.refresh(lambda people: torch.tensor([[1.0, 2.0, 3.0]]), 0)
    assert sampler.cache.tolist() == [[2, 0, -1, -1, -1]] and sampler.epoch_statistics()["fill_rate"] == 2 / 5
    assert set(sampler.sample(torch.zeros(500, dtype=torch.long), 2, gen())[0].unique().tolist()) == {0, 2}


def test_a_resumed_run_draws_the_same(small, utility):
    "State goes through a file that is read without running code"
    people = small[1].any(1).nonzero().flatten()

    def epochs(sampler, generator, first, last):
        out = []
        for e in range(first, last):
            if sampler.needs_refresh(e):
                sampler.refresh(lambda people: utility(people) * (e + 1) - e * utility(people).flip(1), e)
            out += [
                *sampler.sample(people, 3, generator),
                torch.tensor(list(map(float, [x or 0 for x in sampler.epoch_statistics().values()]))),
            ]
        return out

    g = gen()
    whole = HardNegativeSampler(small[0], every=3)
    want = epochs(whole, g, 0, 8)
    g = gen()
    before = HardNegativeSampler(small[0], every=3)
    got = epochs(before, g, 0, 5)
    file = io.BytesIO()
    torch.save(dict(sampler=before.state_dict(), generator=g.get_state()), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    after = HardNegativeSampler(small[0], every=3)
    after.load_state_dict(state["sampler"])
    g = torch.Generator()
    g.set_state(state["generator"])
    got += epochs(after, g, 5, 8)
    assert len(got) == len(want) and all(torch.equal(a, b) for a, b in zip(got, want))


def test_a_state_of_another_catalogue_is_refused(small):
    sampler = HardNegativeSampler(small[0])
    state = sampler.state_dict()
    state["cache"][0, 0] = 30
    with pytest.raises(ValueError, match="cached posts -1 … 30, expected −1 … 29"):
        sampler.load_state_dict(state)


def test_a_state_of_other_people_is_refused(small):
    "Even so the rule holds that a post chosen in training is never a negative"
    sampler = HardNegativeSampler(small[0])
    state = sampler.state_dict()
    person = int(small[0].person[0])
    state["cache"][person, 0] = small[0].post[0]
    with pytest.raises(ValueError, match="was chosen in this training set"):
        sampler.load_state_dict(state)


def test_no_global_randomness(small, utility):
    before = torch.random.get_rng_state()
    sampler = HardNegativeSampler(small[0])
    sampler.refresh(utility, 0)
    sampler.sample(torch.tensor([7]), 9, gen())
    assert torch.equal(before, torch.random.get_rng_state())


def test_each_switch_changes_what_is_drawn(small, utility):
    people = small[1].any(1).nonzero().flatten().repeat(50)
    plain = Positives.of(*(small[1][:, :12].nonzero().T), 40, 30)

    def drawn(**settings):
        sampler = HardNegativeSampler(plain, **settings)
        post = []
        for e in range(8):
            if sampler.needs_refresh(e):
                sampler.refresh(lambda people, e=e: utility(people) * (-1) ** e, e)
            post.append(sampler.sample(people, 2, gen(e))[0])
        return torch.stack(post)

    base = drawn()
    assert torch.equal(base, drawn())
    for settings in (dict(k=10), dict(hard_ratio=0.85), dict(hard_ratio=0.0), dict(every=3)):
        assert not torch.equal(base, drawn(**settings)), settings


@pytest.mark.parametrize("preference", ["cold", "warm"])
def test_candidates_of_training_rows_do_not_know_held_out_choices(preference):
    "By intervention: every unknown choice of held-out people moved to another post leaves the training graph and its targets bit-identical"
    survey = world(n=80, form="interactions", seed=2)
    split = make_split(survey, seed=0, preference=preference, n_known=2 if preference == "warm" else 3)
    t = survey.choices.table.copy()
    unknown = ~np.isin(t.employee, split.train) & ~split.known
    t.loc[unknown, "post"] = (t.post[unknown] + 5) % 12
    changed = replace(survey, choices=replace(survey.choices, table=t))
    a, b = (candidate_sets(s, split, 3, seed=4) for s in (survey, changed))
    rows = lambda s, use: s.choices.table[use[s.choices.table.situation.to_numpy()]].values
    assert np.array_equal(rows(a, ~unknown), rows(b, ~unknown)) and not np.array_equal(
        rows(a, unknown), rows(b, unknown)
    )
    one, two = (build_graph(s, split).supervision("train") for s in (a, b))
    assert all(
        torch.equal(getattr(one, k), getattr(two, k)) for k in ("employee", "post", "chosen", "available", "ptr")
    )


def test_candidates_are_what_they_should_be():
    survey = world(n=80, form="interactions", seed=2)
    split = make_split(survey, seed=0, preference="warm", n_known=2)
    c = candidate_sets(survey, split, 5, seed=0).choices
    t = c.table
    chosen = survey.choices.table.groupby("employee").post.agg(set)
    post, e = t.post.to_numpy().reshape(-1, 6), c.employee
    assert (np.diff(post, axis=1) > 0).all() and (t.chosen.to_numpy().reshape(-1, 6).sum(1) == 1).all()
    assert np.array_equal(t.post[t.chosen].to_numpy(), survey.choices.table.post.to_numpy())
    known = {p: set(survey.choices.table.post[(survey.choices.employee == p) & split.known]) for p in np.unique(e)}
    for s in range(c.n):
        others = set(post[s]) - {survey.choices.table.post[s]}
        assert len(others) == 5 and not others & (known[e[s]] if split.known[s] else chosen[e[s]])
    place = t.groupby("alternative").chosen.mean()
    assert place.max() < 0.35 and len(np.unique(place)) > 1  # the answer has no fixed place
    assert candidate_sets(survey, split, 5, seed=0).choices.table.equals(t) and not candidate_sets(
        survey, split, 5, seed=1
    ).choices.table.equals(t)


def test_candidate_choice_is_uniform():
    "Seen from the chosen post, each of the 11 others is a candidate in 3 of 11 choice sets"
    survey = world(n=4000, form="interactions", tasks=1)
    c = candidate_sets(survey, make_split(survey, seed=0), 3, seed=0).choices
    away = (c.table.post.to_numpy().reshape(-1, 4) - survey.choices.table.post.to_numpy()[:, None]) % 12
    p, hits = 3 / 11, np.bincount(away.ravel(), minlength=12)[1:]
    assert (away == 0).sum() == 4000 and (abs(hits / 4000 - p) < 4 * (p * (1 - p) / 4000) ** 0.5).all()
