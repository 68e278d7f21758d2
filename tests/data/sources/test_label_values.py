"""Several labels in one value, and values that look like it."""

import shlex

import pytest

from aumcli.data.sources.label_values import label_warnings, split_labels


@pytest.mark.parametrize(
    "text, separator, labels",
    [
        ("dog;cat", ";", "dog cat"),
        ("dog; cat;;dog", ";", "dog cat"),
        ("dog|cat", "|", "dog cat"),
        ("dog,cat", "", "dog,cat"),
        ("sand and land", "and", "sand land"),
        ("sand", "and", "sand"),
        ("dog cat", " ", "dog cat"),
        ("dog\tcat", "\t", "dog cat"),
        ("", ";", ""),
        ("['dog', 'cat']", ";", "dog cat"),
        ('["dog", "cat"]', ";", "dog cat"),
        ("[1, 2]", ";", "1 2"),
        ("[noise]", ";", "[noise]"),
        ("[]", ";", ""),
        ("[", ";", "["),
        ("a.b", ".", "a b"),
        ("e\u0301", ";", "é"),
    ],
)
def test_a_value_is_taken_apart(text, separator, labels):
    assert split_labels(text, separator) == tuple(labels.split())


def test_spaces_within_a_label_are_one_space():
    assert split_labels("Tawny  Owl ; Barn Owl", ";") == ("Tawny Owl", "Barn Owl")


@pytest.mark.parametrize(
    "labels, separator, mark",
    [
        (["lamp,river", "lamp"], ";", ","),
        (["lamp, river", "lamp"], ";", ","),
        (["a,b", "c,d"], ";", ","),
        (["a|b"], ";", "|"),
        (["a/b", "a", "b"], ";", "/"),
        (["a + b", "a", "b"], ";", "+"),
        (["rock and pop", "rock", "pop"], ";", "and"),
        (["a, b", "a, c", "d"], ";", ","),
        (["a & b", "a & c", "b & c"], ";", "&"),
        (["Male speech, man speaking", "Speech", "Bark"], ";", None),
        (["1,5 kHz", "2 kHz"], ";", None),
        (["C++", "R/C car", "x"], ";", None),
        (["drum and bass", "drum"], ";", None),
        (["a,b"], ",", None),
        ([], ";", None),
    ],
)
def test_likely_separators(labels, separator, mark):
    warnings = label_warnings(labels, separator)
    assert len(warnings) == (mark is not None)
    if mark:
        (setting,) = [text for text in shlex.split(warnings[0]) if text.startswith("separator=")]
        assert setting == f"separator={mark}" and "like several labels in one" in warnings[0]


def test_classes_that_differ_in_case_only():
    assert label_warnings(["Dog", "dog", "cat"], ";") == [
        "classes that differ in upper and lower case only stay apart: Dog = dog"
    ]
