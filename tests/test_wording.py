"""Numbers and names in a sentence: never more than the value holds."""

import pytest

from audit.diagnose import wording


@pytest.mark.parametrize(
    ("share", "text"),
    [
        (0.0, "0 %"),
        (0.0004, "<1 %"),
        (0.006, "1 %"),
        (48 / 57, "84 %"),
        (0.994, "99 %"),
        (0.9996, ">99 %"),
        (1.0, "100 %"),
    ],
)
def test_a_share_is_0_or_100_percent_only_if_it_is(share: float, text: str):
    assert wording.percent(share) == text


def test_bounds_are_as_honest():
    assert wording.percent_interval(0.725, 0.914) == "[72, 91]"
    assert wording.percent_interval(0.0, 0.0001) == "[0, <1]"
    assert wording.percent_interval(0.9999, 1.0) == "[>99, 100]"
    assert wording.count_interval(0.2, 1234.4) == "[<1, 1,234]"
    assert wording.times_interval(0.46, 9.96) == "[0.46, 10]"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.4, "<1"), (0.6, "1"), (47.9, "48"), (12345.0, "12,345")],
)
def test_a_count_is_whole_and_not_0_unless_it_is(value: float, text: str):
    assert wording.count(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-9, "q < 0.001"),
        (0.0123, "q = 0.012"),
        (0.0497, "q < 0.05"),  # not "0.050"
        (0.05, "q = 0.050"),
    ],
)
def test_what_passed_its_test_looks_like_it(value: float, text: str):
    assert wording.probability(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.5, "0.5"), (0.62345, "0.623"), (0.99971, "0.9997"), (0.0, "0"), (1.0, "1")],
)
def test_a_threshold_never_becomes_1(value: float, text: str):
    assert wording.significant(value) == text


def test_nouns_go_with_what_is_shown():
    assert wording.plural(1, "error") == "1 error"
    assert wording.plural(1.2, "error") == "1 error"  # shown as 1
    assert wording.plural(0, "error") == "0 errors"
    assert wording.plural(2, "try", "tries") == "2 tries"
    assert wording.so_many_errors(0) == "none of them an error"
    assert wording.so_many_errors(1) == "1 of them an error"
    assert wording.so_many_errors(19) == "19 of them errors"


def test_lists_stop_where_they_get_long():
    assert wording.listed(["a"]) == "a"
    assert wording.listed(["a", "b"]) == "a and b"
    assert wording.listed(["a", "b", "c"]) == "a, b and c"
    assert wording.listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_foreign_names_are_tamed():
    assert wording.printable("a\nb\u202egnp\x1b[31m") == "a b gnp [31m"
    assert wording.printable("\u202e\n") == "?"
    assert wording.printable("x" * 60) == "x" * 39 + "…"
    assert len(wording.phrase("word " * 100)) == wording.LONGEST_PHRASE
    assert wording.one_line("a\r\nb\u2028c\x85d") == "a b c d"
    assert wording.capitalised("sharpness, low") == "Sharpness, low"


def test_what_is_no_number_is_told_apart():
    import pandas as pd

    assert wording.is_number(0.3)
    assert wording.is_number(3)
    assert not any(wording.is_number(value) for value in (None, float("nan"), pd.NA, "3"))
