"""Labels in a user's table: several in one value, joined by a separator; and warnings about likely mistakes."""

import ast
import re
import shlex
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable

from aumcli.utils.csv import listed
from aumcli.utils.text import counted

FORBIDDEN = ";"  # stands between labels in a manifest, so that no label can contain it
MARKS = ("|", ",", "/", "+", "&", "and")
LIST = re.compile(r"[^\s\d],[^\s\d]")  # lamp,river; not "speech, man speaking", nor "1,5 kHz"


def split_labels(text: str, separator: str) -> tuple[str, ...]:
    """Split a table's value into labels.

    Args:
        text: one label, several joined by the separator, or a list in brackets as Python and JSON write it.
        separator: what joins them, a word where it is one; "" for nothing.

    Returns:
        The labels, each once, with accents composed.
    """
    parts = _parse_list(text)
    if parts is None:
        if not separator:
            parts = [text]
        elif separator == " ":
            parts = text.split()
        else:
            pattern = rf"\s{re.escape(separator)}\s" if separator.isalnum() else re.escape(separator)
            parts = re.split(pattern, text)
    labels = (unicodedata.normalize("NFC", " ".join(part.split())) for part in parts)
    return tuple(dict.fromkeys(filter(None, labels)))


def _parse_list(text: str) -> list[str] | None:
    """The items of a list in brackets; None for any other text, such as the label [noise]."""
    if not (text.startswith("[") and text.endswith("]")):
        return None
    try:
        items = ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return None
    return [str(item) for item in items]


def separator_setting(separator: str) -> str:
    """The setting that names a separator, as it is typed into a shell."""
    return f"--set {shlex.quote(f'separator={separator}')}"


def label_warnings(labels: Iterable[str], separator: str) -> list[str]:
    """Say what looks like several labels in one, and which labels look like the same one.

    Args:
        labels: all classes.
        separator: the one that was used.
    """
    labels = sorted(set(labels))
    warnings = []
    for mark in MARKS:
        joined = (
            {}
            if mark == separator
            else {label: parts for label in labels if len(parts := split_labels(label, mark)) > 1}
        )
        seen = set(labels) | {
            part for part, count in Counter(part for parts in joined.values() for part in parts).items() if count > 1
        }
        shown = [
            label
            for label, parts in joined.items()
            if mark == "|" or mark == "," and (LIST.search(label) or seen & set(parts)) or seen >= set(parts)
        ]
        if shown:
            apart = ", ".join(joined[shown[0]])
            warnings.append(
                f"{_classes(shown)} like several labels in one, such as {shown[0]!r}: {separator_setting(mark)} takes "
                f"them apart ({apart})"
            )
    alike = defaultdict(list)
    for label in labels:
        alike[label.casefold()].append(label)
    same = [" = ".join(group) for group in alike.values() if len(group) > 1]
    if same:
        warnings.append(f"classes that differ in upper and lower case only stay apart: {listed(same)}")
    return warnings


def _classes(shown: list[str]) -> str:
    return counted(len(shown), "class looks", "classes look")
