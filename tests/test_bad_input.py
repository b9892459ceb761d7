"""Bad input: each kind gets one clear error that names file, place, value and what would be right."""

import os
import random
import pytest
from turnover_nb.data.codebook import parse_codebook
from turnover_nb.core.errors import DataError
from turnover_nb.data.describe import describe
from turnover_nb.data.survey import read_survey

PEOPLE = """no,age,fit,dept,boss,firm,seen,left,chance,offer_1,offer_2,tools
e1,31,agree,ops,,f1,2023-01-05,no,10,first,second,R;Excel
e2,44,disagree,ops,e1,f1,2023-02-05,yes,80,second,first,R
e3,52,agree,law,e1,f2,2023-03-05,no,0,first,first,
e4,29,,law,e2,f2,2023-04-05,no,20,,second,Excel
e5,38,agree,ops,e2,f2,2023-05-05,yes,95,second,,R
"""
POSTS = """task,alt,pay,dept
1,A,+10%,ops
1,B,0%,law
2,A,-10%,sales
2,B,20%,
"""
BOOK = """
name: five
table: {file: people.csv}
id: "no"
features:
  age: {type: numeric, unit: years, range: [16, 80]}
  fit: {type: ordinal, levels: [disagree, neither, agree]}
  tools: {type: multi, columns: tools, split: ";"}
relations: {department: dept, manager: boss}
turnover: {column: left, positive: "yes", negative: "no"}
likelihood: chance_section
group: firm
time: seen
preference:
  form: pairs
  tasks: {offer_1: 1, offer_2: 2}
  answers: {first: A, second: B}
  design:
    {file: posts.csv, task: task, alternative: alt,
     attributes: {pay: {type: numeric, strip: "%"}, dept: {type: categorical, relation: department}}}
""".replace("chance_section", "{column: chance}")
LONG = """who,task,alt,pay,ok,y
p,1,A,10,1,1
p,1,B,20,1,0
q,1,A,10,1,0
q,1,B,20,1,1
q,1,C,30,0,0
"""
LONG_BOOK = """
name: long
preference: {form: long, file: long.csv,
  employee: who, task: task, alternative: alt, chosen: y, available: ok, attributes: {pay: numeric}}
"""
TOOK, JOBS = "who,job\np,j1\nq,j2\n", "job,pay\nj1,10\nj2,20\n"
TOOK_BOOK = """
name: took
preference: {form: interactions, file: took.csv,
  employee: who, post: job, posts: {file: jobs.csv, id: job, attributes: {pay: numeric}}}
"""


def swap(text, *pairs):
    "`text` with each (old, new) replaced once; the old part must be there"
    for old, new in pairs:
        assert old in text, old
        text = text.replace(old, new, 1)
    return text


@pytest.fixture
def read(tmp_path):
    "Write the small world with some parts changed, and read it"

    def f(people=(), book=(), posts=(), encoding="utf-8", raw=None):
        (tmp_path / "people.csv").write_bytes(swap(PEOPLE, *people).encode(encoding) if raw is None else raw)
        (tmp_path / "posts.csv").write_text(swap(POSTS, *posts), "utf-8")
        return read_survey(tmp_path, parse_codebook(swap(BOOK, *book)))

    return f


@pytest.fixture
def read_other(tmp_path):
    "The same for the long and the interactions form"

    def f(long=(), book=(), took=(), jobs=(), form="long"):
        for name, text in (("long", swap(LONG, *long)), ("took", swap(TOOK, *took)), ("jobs", swap(JOBS, *jobs))):
            (tmp_path / f"{name}.csv").write_text(text, "utf-8")
        return read_survey(tmp_path, parse_codebook(swap(LONG_BOOK if form == "long" else TOOK_BOOK, *book)))

    return f


def refused(call, *parts, **attributes):
    "The call raises a `DataError` whose message holds each part, and which carries the attributes"
    with pytest.raises(DataError) as e:
        call()
    for p in parts:
        assert p in str(e.value), str(e.value)
    for k, v in attributes.items():
        assert getattr(e.value, k) == v, (k, getattr(e.value, k))
    assert not any(row in str(e.value) for row in PEOPLE.splitlines()[1:])  # never a whole row
    return e.value


def test_the_unchanged_worlds_are_good(read, read_other):
    s = read()
    assert s.n == 5 and s.choices.n == 8 and s.turnover.sum() == 2
    assert list(s.relations["department"].labels) == ["law", "ops", "sales"]
    assert s.relations["manager"].edges.tolist() == [[1, 2, 3, 4], [0, 0, 1, 1]] and s.likelihood[1] == 0.8
    s = read_other()
    assert s.n == 2 and s.choices.n == 2 and (~s.choices.table.available).sum() == 1
    assert read_other(form="interactions").choices.n == 2


# files
def test_missing_file(read, tmp_path):
    read()
    refused(
        lambda: read_survey(tmp_path, parse_codebook(BOOK.replace("people.csv", "poeple.csv"))),
        "poeple.csv: no such file",
        "did you mean 'people.csv'?",
    )


def test_missing_folder(tmp_path):
    refused(lambda: read_survey(tmp_path / "nowhere", parse_codebook(BOOK)), "nowhere: no such file or folder")


def test_missing_design(read):
    refused(
        lambda: read(book=[("posts.csv", "design.csv")]),
        "design.csv: no such file",
        "expected one of people.csv, posts.csv",
    )


def test_empty_file(read):
    refused(lambda: read(raw=b""), "people.csv: is empty")


def test_blank_file(read):
    refused(lambda: read(raw=b"\n \n"), "people.csv: is empty")


def test_header_only(read):
    refused(lambda: read(raw=PEOPLE.splitlines()[0].encode()), "people.csv: has a header but no data")


def test_blank_rows_only(read):
    refused(lambda: read(raw=PEOPLE.splitlines()[0].encode() + b"\n,,,,,,,,,,,\n"), "has a header but no data")


def test_excel(read):
    refused(lambda: read(raw=b"PK\x03\x04abc"), "people.csv: is an Excel or zip file; expected CSV text")


def test_parquet_by_another_name(read):
    refused(lambda: read(raw=b"PAR1abc"), "is Parquet; expected a file name that ends in .parquet")


def test_csv_called_parquet(read, tmp_path):
    read()
    (tmp_path / "people.parquet").write_text(PEOPLE, "utf-8")
    refused(lambda: read_survey(tmp_path / "people.parquet", parse_codebook(BOOK)), "people.parquet: is not Parquet")


# encodings
def test_wrong_encoding_names_line_byte_and_the_right_one(read):
    refused(
        lambda: read(people=[("law,e2", "法务,e2")], encoding="gb18030"),
        "people.csv, row 5: byte",
        "does not fit the encoding utf-8; expected encoding: gb18030",
        row=5,
    )


def test_utf8_declared_as_something_else(read):
    for wrong in ("gb18030", "latin-1", "cp1252"):
        book = [("people.csv", f"people.csv, encoding: {wrong}")]
        refused(
            lambda book=book: read(people=[("law,e2", "法务,e2")], book=book),
            "is UTF-8 text",
            "expected encoding: utf-8",
        )


def test_unknown_encoding(read):
    refused(
        lambda: read(book=[("people.csv", "people.csv, encoding: gb1803")]),
        "key encoding: 'gb1803' is not a text encoding (did you mean 'gb18030'?)",
    )


def test_bom(read):
    assert read(encoding="utf-8-sig").n == 5  # a UTF-8 mark is harmless
    refused(lambda: read(encoding="utf-16"), "begins with the byte-order mark of utf-16, but the codebook says utf-8")
    refused(
        lambda: read(encoding="utf-8-sig", book=[("people.csv", "people.csv, encoding: gb18030")]),
        "byte-order mark of utf-8",
    )
    assert read(encoding="utf-16", book=[("people.csv", "people.csv, encoding: utf-16")]).n == 5
    refused(lambda: read(encoding="utf-16-le"), "holds NUL bytes")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
def test_auto(read, encoding):
    s = read(
        people=[("law,e2", "法务,e2"), ("law,e1", "法务部,e1")],
        encoding=encoding,
        book=[("people.csv", "people.csv, encoding: auto")],
    )
    assert "法务" in s.relations["department"].labels


# rows and columns
def test_ragged_row(read):
    refused(
        lambda: read(people=[("law,e2,f2", "law,e2,f2,more")]),
        "people.csv, row 5: 13 fields; expected 12 fields",
        row=5,
    )


def test_short_row(read):
    refused(lambda: read(people=[("\ne5,", "\ne5\ne6,")]), "row 6: 1 field; expected 12 fields")


def test_open_quote(read):
    refused(lambda: read(people=[("29,,law", '29,,"law')]), "row 5", "a quotation mark may be open")


def test_wrong_separator(read):
    refused(
        lambda: read(book=[("people.csv", 'people.csv, separator: ";"')]),
        "one column only with the separator ';'; expected separator: ','",
    )


def test_bad_separator(read):
    refused(
        lambda: read(book=[("people.csv", 'people.csv, separator: "::"')]), "key separator: '::' is not a separator"
    )


def test_row_numbers_survive_blank_lines(read):
    refused(lambda: read(people=[("\ne4,29", "\n\n,,,,,,,,,,,\ne4,old")]), "column age, row 7: 'old'", row=[7])


def test_missing_column(read):
    refused(
        lambda: read(people=[("no,age", "no,Aeg")]),
        "people.csv, key features.age, column age: no such column (did you mean 'Aeg'?)",
    )


def test_missing_wildcard(read):
    refused(lambda: read(book=[("  fit:", "  fit_*:")]), "column fit_*: no such column")


def test_repeated_column(read):
    refused(
        lambda: read(people=[("chance", "age")]),
        "column age: the name occurs more than once; expected each name once, or repeated: number",
    )


def test_unlisted_column(read):
    refused(
        lambda: read(
            people=[("tools\n", "extra\n")], book=[('  tools: {type: multi, columns: tools, split: ";"}\n', "")]
        ),
        "1 column that the codebook does not name: 'extra'",
    )


def test_task_column_missing(read):
    refused(
        lambda: read(book=[("offer_2: 2", "offer_3: 2")]),
        "key preference.tasks, column offer_3: no such column (did you mean",
    )


def test_too_few_header_rows(read):
    refused(
        lambda: read(raw=b"a,b\n", book=[("people.csv", "people.csv, header_rows: 2")]),
        "has 1 rows; expected 2 header rows",
    )


def test_no_row_left(read):
    refused(lambda: read(book=[("people.csv", "people.csv, where: {firm: f9}")]), "key where: 'firm: f9' leaves no row")


# values
def test_text_in_a_numeric_column(read):
    refused(
        lambda: read(people=[("44", "old")]),
        "people.csv, column age, row 3: 'old' is not a number",
        column="age",
        row=[3],
        value=["old"],
    )


def test_out_of_range(read):
    refused(
        lambda: read(people=[("44", "440"), ("52", "7")]),
        "column age, rows 3, 4: '440', '7' are out of range; expected 16 to 80",
    )


def test_likelihood_out_of_range(read):
    refused(lambda: read(people=[("95", "101")]), "column chance, row 6: '101' is out of range; expected 0 to 100")


@pytest.mark.parametrize("word", ["NaN", "inf", "-inf", "NA", "null", "#N/A", "1e999"])
def test_nan_and_inf(read, word):
    refused(
        lambda: read(people=[("44", word)]),
        f"row 3: '{word}' is not a finite number; expected a number, or the word under missing",
    )
    assert (
        read(people=[("44", word)], book=[("name: five", f'name: five\nmissing: ["{word}"]')]).features.age.isna().sum()
        == 1
    )


def test_unknown_label(read):
    refused(
        lambda: read(people=[("44,disagree", "44,disagre")]),
        "column fit, row 3: 'disagre' is not a label of fit (did you mean 'disagree'?); "
        "expected one of disagree, neither, agree",
    )


def test_unknown_turnover_label(read):
    refused(
        lambda: read(people=[("no,20", "maybe,20")]),
        "column left, row 5: 'maybe' is not a label of turnover; expected one of yes, no",
    )


def test_at_most_five_examples(read, tmp_path):
    read()
    text = "\n".join(
        [
            PEOPLE.splitlines()[0],
            *(f"e{i},x{i},,ops,,f1,2023-01-05,{'yes' if i % 2 else 'no'},5,first,first," for i in range(1, 41)),
        ]
    )
    (tmp_path / "people.csv").write_text(text, "utf-8")
    e = refused(lambda: read_survey(tmp_path, parse_codebook(BOOK)), "rows 2, 3, 4, 5, 6 and 35 more")
    assert str(e).count("'x") == 5


def test_flag(read):
    refused(
        lambda: read(book=[('columns: tools, split: ";"', "columns: tools")]),
        "column tools, rows 2, 3, 5, 6",
        "are neither chosen nor not chosen",
    )


def test_time_blank(read):
    refused(lambda: read(people=[("2023-03-05", "")]), "column seen, row 4: is blank; expected a time in each row")


def test_time_unreadable(read):
    refused(
        lambda: read(people=[("2023-03-05", "5 March")]),
        "column seen, row 4: '5 March' is not a date; expected dates such as 2024-01-31",
    )


# ids, managers, labels
def test_duplicate_id(read):
    refused(
        lambda: read(people=[("\ne4,", "\ne2,")]),
        "people.csv, column no, rows 3, 5: the same employee id; expected each id once",
    )


def test_blank_id(read):
    refused(lambda: read(people=[("\ne4,", "\n ,")]), "column no, row 5: is blank")


def test_manager_who_is_nobody(read):
    refused(
        lambda: read(people=[("law,e2", "law,e9")]),
        "people.csv, column boss, row 5: the manager is nobody in the employee table",
        "unknown: ignore",
    )
    assert read(
        people=[("law,e2", "law,e9")], book=[("manager: boss", "manager: {column: boss, unknown: ignore}")]
    ).relations["manager"].edges.shape == (2, 3)


def test_own_manager(read):
    refused(lambda: read(people=[("law,e2", "law,e4")]), "column boss, row 5: is their own manager")


def test_label_with_one_class(read):
    refused(
        lambda: read(people=[("yes", "no"), ("yes", "no")]),
        "column left: 'yes' never occurs, so that the label has one class; expected one of no",
    )
    refused(
        lambda: read(people=[("no,10", "yes,10"), ("no,0", "yes,0"), ("no,20", ",20")]),
        "no row is negative, so that the label has one class",
    )


def test_label_without_values(read):
    refused(
        lambda: read(
            people=[(f"{v},{c}", f",{c}") for v, c in zip(("no", "yes", "no", "no", "yes"), (10, 80, 0, 20, 95))]
        ),
        "'yes' never occurs",
    )


def test_third_value_needs_a_word(read):
    refused(
        lambda: read(people=[("no,20", "retired,20")], book=[(', negative: "no"', "")]),
        "'no', 'retired' are several values besides the positive one",
        "under negative",
    )


# roles
@pytest.mark.parametrize(
    "change, message",
    [
        (
            ("  age:", "  left: categorical\n  age:"),
            "column left: stands under features.left, turnover; expected only turnover: what is predicted is no input",
        ),
        (("  age:", "  chance: numeric\n  age:"), "column chance: stands under features.chance, likelihood"),
        (
            ("  age:", "  offer_1: categorical\n  age:"),
            "column offer_1: stands under features.offer_1, preference.tasks",
        ),
        (("relations: {", "relations: {leaving: left, "), "column left: stands under relations.leaving, turnover"),
        (
            ("group: firm", "group: firm\nprotected: age"),
            "column age: stands under protected, features.age; "
            "expected one of them: a protected column is never an input",
        ),
        (
            ("group: firm", "group: firm\ndrop: age"),
            "column age: stands under drop, features.age; expected one of them",
        ),
        (("  age:", '  "a*": numeric\n  "ag*": numeric\n  fit2:'), "column fit2: no such column"),
        (
            ("  age: {type", '  "a*": numeric\n  "ag*": {type'),
            "column age: stands under features.a*, features.ag*; expected one feature per column",
        ),
        (("  age:", '  "no": categorical\n  age:'), "column no: stands under features.no, id"),
        (
            ("group: firm", "group: firm\nhash: {columns: age, salt: long enough}"),
            "column age: stands under hash, features.age",
        ),
    ],
)
def test_contradicting_roles(read, change, message):
    refused(lambda: read(book=[change]), message)


# identifying columns
@pytest.mark.parametrize(
    "name",
    "name e-mail Phone ip latitude home_address openid 姓名 电话 身份证号 staff_id".split(),
)
@pytest.mark.parametrize("unlisted", ["refuse", "ignore"])
def test_identifying_name(read, name, unlisted):
    people = [("tools\n", f"{name}\n")]
    book = [
        ('  tools: {type: multi, columns: tools, split: ";"}\n', ""),
        ("group: firm", f"group: firm\nunlisted: {unlisted}"),
    ]
    refused(
        lambda: read(people, book),
        f"column {name}: identifies people",
        "expected the column under drop (not read) or hash",
        column=name,
    )
    assert read(people, [*book, ("group: firm", f'group: firm\ndrop: ["{name}"]')]).n == 5
    assert (
        read(people, [*book, ("group: firm", f'group: firm\nhash: {{columns: ["{name}"], salt: long enough}}')]).n == 5
    )
    assert (
        read(people, [book[0], ("group: firm", f'group: firm\nunlisted: ignore\nnot_identifying: ["{name}"]')]).n == 5
    )


@pytest.mark.parametrize(
    "values, what",
    [
        (["a@b.org", "", "", "", ""], "e-mail addresses"),
        (["10.0.0.1"] * 5, "IP addresses"),
        (["13812345678"] * 5, "phone numbers"),
        (["+49 171 1234567"] * 5, "phone numbers"),
        (["11010519491231002X"] * 5, "identity numbers"),
    ],
)
def test_identifying_values(read, values, what):
    lines = PEOPLE.splitlines()
    people = "\n".join([lines[0] + ",note", *(f"{l},{v}" for l, v in zip(lines[1:], values))])
    for role in (
        "unlisted: ignore",
        "not_identifying: note\nunlisted: ignore",
    ):  # the form of the values cannot be excused
        book = [("group: firm", f"group: firm\n{role}")]
        e = refused(
            lambda book=book: read(raw=people.encode(), book=book), f"column note: identifies people: it holds {what}"
        )
        assert not any(v and v in str(e) for v in values)


def test_nearly_unique_text(tmp_path):
    rows = "".join(f"{i},text {i},{'yes' if i % 3 else 'no'}\n" for i in range(40))
    (tmp_path / "p.csv").write_text("nr,why,left\n" + rows, "utf-8")
    book = (
        "name: x\ntable: {file: p.csv}\nid: nr\nfeatures: {why: categorical}\nturnover: {column: left, positive: 'yes'}"
    )
    refused(
        lambda: read_survey(tmp_path, parse_codebook(book)),
        "column why: identifies people: nearly every person has a different text",
    )
    assert read_survey(tmp_path, parse_codebook(book + "\nnot_identifying: why")).n == 40


def test_hashed_ids_stay_consistent(read, monkeypatch):
    book = [("group: firm", "group: firm\nhash: {columns: [\"no\", boss, firm], salt: env:SALT_OF_THIS_TEST}")]
    refused(lambda: read(book=book), "environment variable SALT_OF_THIS_TEST is not set")
    monkeypatch.setenv("SALT_OF_THIS_TEST", "a secret of the test")
    s = read(book=book)
    plain = read()
    assert not set(s.ids) & set(plain.ids) and len(set(s.ids)) == 5 and all(len(i) == 16 for i in s.ids)
    assert (s.relations["manager"].edges == plain.relations["manager"].edges).all() and s.choices.table.equals(
        plain.choices.table
    )
    assert s.groups.firm.nunique() == 2 and "f1" not in set(s.groups.firm)
    refused(
        lambda: read(people=[("law,e2", "law,e9")], book=book), "the manager is nobody"
    )  # and the message shows no id
    assert "e9" not in str(refused(lambda: read(people=[("law,e2", "law,e9")], book=book)))


# choices in pairs
def test_choice_of_an_absent_post(read):
    refused(
        lambda: read(people=[("10,first", "10,third")]),
        "people.csv, column offer_1, row 2: 'third' is not a label of the alternatives of task 1; "
        "expected one of A, B, first, second",
    )


def test_task_with_one_alternative(read):
    refused(
        lambda: read(posts=[("2,B,20%,\n", "")]),
        "posts.csv, column task, row 4: '2' is a task with one alternative; expected two rows or more per task",
    )


def test_missing_design_task(read):
    refused(
        lambda: read(posts=[("2,A", "3,A"), ("2,B", "3,B")]),
        "posts.csv, column task: '2' is a task of the codebook that the design lacks",
    )


def test_design_row_twice(read):
    refused(lambda: read(posts=[("1,B", "1,A")]), "posts.csv, rows 2, 3: the same task and alternative")


def test_design_attribute_missing(read):
    refused(lambda: read(posts=[("pay", "wage")]), "posts.csv: 1 column that the codebook does not name: 'wage'")


def test_design_value(read):
    refused(lambda: read(posts=[("+10%", "more")]), "posts.csv, column pay, row 2: 'more' is not a number")


def test_no_answers(read):
    refused(
        lambda: read(
            people=[
                (a, b)
                for a, b in (
                    ("10,first,second", "10,,"),
                    ("80,second,first", "80,,"),
                    ("0,first,first", "0,,"),
                    ("20,,second", "20,,"),
                    ("95,second,", "95,,"),
                )
            ]
        ),
        "no task is answered",
    )


def test_relation_unknown(read):
    refused(
        lambda: read(book=[("relation: department", "relation: departments")]),
        "'departments' is not a relation that posts can share (did you mean 'department'?)",
    )


def test_posts_cannot_share_managers(read):
    refused(
        lambda: read(book=[("relation: department", "relation: manager")]),
        "'manager' is not a relation that posts can share",
    )


# long and interactions
@pytest.mark.parametrize(
    "change, message",
    [
        (
            ("q,1,A,10,1,0", "q,1,A,10,1,1"),
            "long.csv, row 4: more than one alternative is chosen in the task that begins here; expected exactly one",
        ),
        (("p,1,A,10,1,1", "p,1,A,10,1,0"), "long.csv, row 2: no alternative is chosen in the task that begins here"),
        (("p,1,B", "p,2,B"), "long.csv, rows 2, 3: there is one alternative in the task that begins here"),
        (("p,1,B", "p,1,A"), "long.csv, rows 2, 3: the same employee, task and alternative"),
        (("q,1,B,20,1,1", "q,1,B,20,0,1"), "long.csv, row 4: an alternative is chosen that is not available"),
        (("p,1,B,20,1", "p,1,B,20,0"), "long.csv, row 2: fewer than two alternatives are available"),
        (
            ("p,1,A,10,1,1", "p,1,A,10,1,2"),
            "long.csv, column y, rows 2, 3, 4, 6: '2', '0' are several values besides '1'",
        ),
        (("q,1,A", ",1,A"), "long.csv, column who, row 4: is blank"),
        (("who", "user"), "long.csv: 1 column that the codebook does not name: 'user'"),
    ],
)
def test_long(read_other, change, message):
    refused(lambda: read_other(long=[change]), message)


def test_long_chosen_value_never_occurs(read_other):
    refused(
        lambda: read_other(book=[("chosen: y", "chosen: y, chosen_value: yes")]),
        "key preference.chosen_value, column y: 'yes' never occurs; expected one of 1, 0",
    )


def test_long_post_with_two_profiles(read_other):
    refused(
        lambda: read_other(long=[("q,1,B,20", "q,1,B,25")], book=[("alternative: alt", "alternative: alt, post: alt")]),
        "long.csv, column alt, row 5: the post has other attributes here",
    )


def test_long_of_people_who_are_not_in_the_table(tmp_path):
    (tmp_path / "long.csv").write_text(LONG, "utf-8")
    (tmp_path / "p.csv").write_text("nr,left\np,yes\nr,no\n", "utf-8")
    book = LONG_BOOK + "table: {file: p.csv}\nid: nr\nturnover: {column: left, positive: 'yes'}\n"
    refused(
        lambda: read_survey(tmp_path, parse_codebook(book)),
        "long.csv, column who, rows 4, 5, 6: 'q' is nobody in the employee table",
    )


def test_interaction_with_an_absent_post(read_other):
    refused(
        lambda: read_other(took=[("q,j2", "q,j9")], form="interactions"),
        "took.csv, column job, row 3: 'j9' is not a post of jobs.csv",
    )


def test_post_twice(read_other):
    refused(
        lambda: read_other(jobs=[("j2,20", "j1,20")], form="interactions"),
        "jobs.csv, column job, rows 2, 3: the same post id; expected one row per post",
    )


def test_nothing_is_written(read, tmp_path):
    read()
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(DataError):
        read(people=[("44", "old")])
    assert sorted(os.listdir(tmp_path)) == before


def test_description_of_the_small_world(read):
    text = describe(read(), parse_codebook(BOOK))
    for part in (
        "employees: 5",
        "turnover: 2 of 5 leave (40.0%)",
        "manager (manager): 2 managers",
        "8 situations of 5 employees",
        "group firm: 2 groups",
        "missing: fit 20.0%",
    ):
        assert part in text, text


def test_a_file_without_a_header_shows_no_row(read):
    e = refused(
        lambda: read(raw=PEOPLE.split("\n", 1)[1].encode()),
        "column age: no such column",
        "expected a header row with names: this one looks like data",
    )
    assert not any(v in str(e) for v in ("e1", "2023-01-05", "R;Excel"))


def mutated(data, rng):
    "`data` with one or two random insertions, deletions or copies"
    data = bytearray(data)
    for _ in range(rng.choice([1, 1, 2])):
        i, j = sorted(rng.randrange(len(data) + 1) for _ in range(2))
        piece = rng.choice(
            [
                b"",
                b"",
                b",",
                b'"',
                b"\n",
                b"\0",
                b"\xff",
                b" ",
                b"1",
                b"inf",
                b"*",
                b":",
                b"{",
                "中".encode(),
                bytes(data[i:j][:20]),
            ]
        )
        data[i : min(j, i + rng.choice([0, 0, 1, 4]))] = piece
    return bytes(data)


def test_whatever_is_wrong_the_error_is_a_data_error(tmp_path):
    "Random damage to files and codebooks: each is read, or refused in our words"
    rng = random.Random(0)
    outcomes = {True: 0, False: 0}
    worlds = [
        (BOOK, {"people.csv": PEOPLE, "posts.csv": POSTS}),
        (LONG_BOOK, {"long.csv": LONG}),
        (TOOK_BOOK, {"took.csv": TOOK, "jobs.csv": JOBS}),
    ]
    for _ in range(150):
        book, files = rng.choice(worlds)
        target = rng.choice(["book", *files])
        for name, text in files.items():
            (tmp_path / name).write_bytes(mutated(text.encode(), rng) if name == target else text.encode())
        if target == "book":
            book = mutated(book.encode(), rng).decode("utf-8", "replace")
        try:
            describe(read_survey(tmp_path, parse_codebook(book)))
            outcomes[True] += 1
        except DataError:
            outcomes[False] += 1
    assert min(outcomes.values()) > 10
