"""CSV and TSV read as Python's own csv module and gzip read them, across any block boundary."""

from __future__ import annotations

import csv
import gzip
import io
from pathlib import Path

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tidegate.data import bytestream
from tidegate.data.source import open_source

TEXT = {"a": "category", "b": "category", "c": "category"}
FIELD = st.text(st.sampled_from('xyé,;"\n 7'), min_size=1, max_size=6).map(lambda t: f"w{t}w")


def read(path: Path, **options: object) -> pl.DataFrame:
    return pl.concat(open_source(path, **options).chunks())


@settings(max_examples=80)
@given(
    rows=st.lists(st.tuples(FIELD, FIELD, FIELD), min_size=1, max_size=12),
    size=st.integers(1, 40),
    delimiter=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n"]),
    zipped=st.booleans(),
)
def test_equals_the_csv_module(tmp_path_factory, rows, size, delimiter, end, zipped) -> None:
    text = io.StringIO()
    writer = csv.writer(text, delimiter=delimiter, lineterminator=end)
    writer.writerows([("a", "b", "c"), *rows])
    content = text.getvalue().encode()
    path = tmp_path_factory.mktemp("csv") / ("t.csv.gz" if zipped else "t.csv")
    path.write_bytes(gzip.compress(content) if zipped else content)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bytestream, "BLOCK_BYTES", size)
        assert read(path, kinds=TEXT).rows() == rows


@pytest.mark.parametrize(
    "content",
    [
        "a,b\n1,2\n\n3,4\n\n",
        "\n\na,b\n1,2\n3,4",
        "\ufeffa,b\r\n1,2\r\n\r\n3,4\r\n",
        "a , b\n 1,2\n3, 4 \n",
    ],
)
def test_blank_lines_marks_and_line_ends(content: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(content.encode())
    assert read(tmp_path / "t.csv").rows(named=True) == [{"a": 1, "b": 2}, {"a": 3, "b": 4}]


def test_long_fields_and_quoted_names(tmp_path: Path) -> None:
    long = "z" * 200_000
    (tmp_path / "t.csv").write_text(f'"a, ""b""",c\n{long},"x\r"\n')
    assert read(tmp_path / "t.csv").rows(named=True) == [{'a, "b"': long, "c": "x"}]


def test_a_blank_line_in_one_column_is_a_missing_value(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("x\n1\n\n3\n\n\n")
    assert read(tmp_path / "t.csv")["x"].to_list() == [1, None, 3]


def test_a_header_of_sensor_numbers_is_a_header(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("773869,767541\n64.3,67.6\n")
    assert list(open_source(tmp_path / "t.csv").columns) == ["773869", "767541"]


def test_only_the_columns_asked_for_are_read(tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text("a\tb\n1\tu\n2\tv\n")
    source = open_source(tmp_path / "t.tsv")
    assert source.rows == 2
    assert pl.concat(source.chunks(["b"])).to_dict(as_series=False) == {"b": ["u", "v"]}
