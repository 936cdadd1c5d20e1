"""Numbers and foreign strings as text."""

import math

import pytest

from audit.report import formats

THIN = "\u202f"


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.952, 2, "95.20 %"),
        (0.952, 1, "95.2 %"),
        (1.0, 1, "100.0 %"),
        (0.0, 1, "0.0 %"),
        (0.9999, 1, "> 99.9 %"),
        (0.99949, 1, "99.9 %"),
        (0.0001, 1, "< 0.1 %"),
        (0.5, 0, "50 %"),
        (None, 1, "–"),
        (math.nan, 1, "–"),
    ],
)
def test_percent_is_honest_at_both_ends(value, digits, text):
    assert formats.percent(value, digits) == text.replace(" ", THIN)


def test_percent_range_is_written_once_with_its_unit():
    assert formats.percent_range(0.9417, 0.961) == f"94.2–96.1{THIN}%"
    assert formats.percent_range(None, 0.5) == ""
    assert formats.percent_range(0.2, math.nan) == ""


def test_percent_bounds_are_as_honest_as_the_percent_before_them():
    assert formats.percent_bounds(0.9417, 0.961) == "[94.2, 96.1]"
    assert formats.percent_bounds(0.9, 0.9999) == f"[90.0, >{THIN}99.9]"
    assert formats.percent_bounds(None, 0.5) == ""
    assert formats.percent_bounds(0.2, math.nan) == ""


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.12345, 3, "0.123"),
        (1234.5, 1, "1,234.5"),
        (-0.5, 2, "−0.50"),
        (0.0, 3, "0.000"),
        (0.00001, 3, f"<{THIN}0.001"),
        (-0.00001, 3, f">{THIN}−0.001"),
        (None, 3, "–"),
        (math.inf, 3, "–"),
    ],
)
def test_number_never_shows_a_tiny_value_as_zero(value, digits, text):
    assert formats.number(value, digits) == text


def test_counts_below_a_half_are_not_nothing():
    assert formats.count(0.3) == f"<{THIN}1"
    assert formats.count(0) == "0"
    assert formats.count_range(6.2, 1200.4) == "6–1,200"
    assert formats.count_range(None, 3) == ""


def test_an_interval_across_zero_is_not_written_with_two_dashes():
    assert formats.number_range(1.87, 2.75, 2) == "1.87–2.75"
    assert formats.number_range(-0.3, 0.34, 2) == "−0.30 to 0.34"


@pytest.mark.parametrize(
    ("value", "name", "text"),
    [
        (0.0002, "q", "q < 0.001"),
        (0.012, "p", "p = 0.012"),
        (0.0499, "q", "q < 0.05"),
        (0.4, "", "0.400"),
        (0.0002, "", "< 0.001"),
        (math.nan, "q", "–"),
        (None, "q", "–"),
    ],
)
def test_a_probability_below_the_level_is_never_shown_as_the_level(value, name, text):
    assert formats.probability(value, name) == text.replace(" ", THIN)


def test_lines_stay_lines_and_only_they():
    assert formats.legible_lines("a\n\tb\u202ec\r\n") == "a\n\\x09b\\u202ec\\x0d\n"


def test_counts_have_thousands_apart():
    assert formats.count(2000) == "2,000"
    assert formats.count(0) == "0"
    assert formats.count(None) == "–"


def test_ratios_keep_about_two_figures():
    assert formats.ratio(0.312) == "0.31×"
    assert formats.ratio(2.44) == "2.4×"
    assert formats.ratio(12.3) == "12×"
    assert formats.ratio(math.nan) == "–"
    assert formats.ratio_range(0.5, 2.0) == "0.50×–2.0×"
    assert formats.ratio_range(0.5, None) == ""


def test_legible_spells_out_what_cannot_be_seen():
    assert formats.legible("cat\u202egpj.exe") == "cat\\u202egpj.exe"
    assert formats.legible("two\nlines\x1b[0m") == "two\\x0alines\\x1b[0m"
    assert formats.legible("lone \udc80 surrogate") == "lone \\udc80 surrogate"
    assert formats.legible("<b> & ünïcode 猫") == "<b> & ünïcode 猫"


def test_legible_keeps_joiners_that_scripts_need():
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
    assert formats.legible(family) == family


def test_shorten_keeps_beginning_and_end():
    text = formats.shorten("a" * 100 + "z" * 100, 30)
    assert len(text) == 30
    assert text.startswith("aaaa") and text.endswith("zzzz") and "…" in text
    assert formats.shorten("short") == "short"


def test_compact_shows_any_kind_of_value():
    assert formats.compact(None) == formats.compact(math.nan) == "–"
    assert formats.compact(True) == "yes"
    assert formats.compact(0.5) == "0.5"
    assert formats.compact(("cats", "dogs")) == "cats, dogs"
    assert formats.compact({"accuracy": 0.9, "ece": 0.05}) == "accuracy=0.9, ece=0.05"
    assert formats.compact({}) == "–"
    assert formats.compact("a\u202eb") == "a\\u202eb"


def test_plural():
    assert formats.plural(1, "image") == "image"
    assert formats.plural(2, "image") == "images"
    assert formats.plural(0, "is", "are") == "are"


def test_a_difference_has_its_sign():
    assert formats.signed(0.0115, 2) == "+0.01"
    assert formats.signed(-0.0256) == "−0.026"
    assert formats.signed(0.0) == "0.000"
    assert formats.signed(0.0001) == "+<\u202f0.001"
    assert formats.signed(-0.0001) == "−<\u202f0.001"
    assert formats.signed(None) == formats.signed(math.nan) == "–"
    assert formats.signed_range(-0.0383, 0.0006, 4) == "−0.0383 to +0.0006"
    assert formats.signed_range(None, 1.0) == ""


def test_a_difference_of_shares_is_in_points():
    assert formats.points(0.0115, 2) == "+1.15"
    assert formats.points(-0.5) == "−50.0"
    assert formats.points(None) == "–"
    assert formats.points_range(0.004, 0.019, 2) == "+0.40 to +1.90"
    assert formats.points_range(-1, 0.5, 0) == "−100 to +50"
    assert formats.points_range(None, 0.1) == ""
