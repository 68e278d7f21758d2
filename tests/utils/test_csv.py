"""How somebody's table is laid out."""

import pytest

from aumcli.data.sources.column_names import known_columns
from aumcli.errors import AumError
from aumcli.utils.csv import Dialect, csv_reader, sniff


@pytest.mark.parametrize(
    "text, delimiter, skip",
    [
        ("path,label\na.wav,dog\n", ",", 0),
        ("path;label\na.wav;dog, cat\n", ";", 0),
        ("path\tlabel\na.wav\tdog; cat, cow\n", "\t", 0),
        ("path|label\na.wav|dog\n", "|", 0),
        ("path;label;start\na.wav;dog;0,5\nb.wav;cat;1,5\n", ";", 0),
        ("\ufeffpath;label\na;b\n", ";", 0),
        ("path,label\na.wav,dog;cat\nb.wav,cow;cat\n", ",", 0),
        ("sep=;\npath;label\na;b\n", ";", 1),
        ("# by hand\npath,label\na,b\n", ",", 1),
        ("# by hand\n# path, label\na, b\n", ",", 1),
        ("0.5\t1.5\tdog, cat\n", "\t", 0),
        ("path\n", ",", 0),
        ("", ",", 0),
        ('path,label\n"a;b;c.wav",dog\n', ",", 0),
        ("Begin Time (s)\tEnd Time (s)\tSpecies\n1\t2\tA; b, c\n", "\t", 0),
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_layouts(tmp_path, text, delimiter, skip, encoding, newline):
    path = tmp_path / "t.csv"
    path.write_bytes(
        text.removeprefix("\ufeff" if encoding == "utf-16" else "").replace("\n", newline).encode(encoding)
    )
    dialect = sniff(path, known_columns)
    assert (dialect.delimiter, dialect.skip) == (delimiter, skip)
    with csv_reader(path, None, dialect=dialect, spaces=True) as (reader, _):
        rows = list(reader)
    assert not rows or "\ufeff" not in rows[0][0] and len({len(row) for row in rows}) == 1


@pytest.mark.parametrize(
    "content, words",
    [
        (b"PK\x03\x04rest", "is a workbook, not a text\n.*as CSV"),
        (b"\xd0\xcf\x11\xe0rest", "is a workbook"),
        (b"path,label\nol\xe9,dog\n", "not a CSV file in UTF-8.*\n.*iconv -f WINDOWS-1252 -t UTF-8 "),
        (b"\xff\xfea", "not a CSV file in UTF-8"),
    ],
)
def test_what_is_no_table(tmp_path, content, words):
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    with (
        pytest.raises(AumError, match=words),
        csv_reader(path, None, dialect=sniff(path, known_columns)) as (reader, _),
    ):
        list(reader)


def test_a_missing_table(tmp_path):
    with pytest.raises(AumError, match="doesn't exist"):
        sniff(tmp_path / "no.csv", known_columns)
    assert Dialect() == Dialect("utf-8-sig", ",", 0)
