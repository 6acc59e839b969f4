"""Files in the encodings and forms that people have: read as meant, or refused with file, line and cure."""

from __future__ import annotations

import gzip
import json

import pytest

from caft_utils.text_files import half_pair, json_rows, read_json, read_text, read_yaml

TEXT = "café, 你好\nzweite Zeile"


def written(tmp_path, content, name="file.txt"):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_every_encoding_with_a_mark_is_read(tmp_path, encoding):
    assert read_text(written(tmp_path, TEXT.encode(encoding))) == TEXT


def test_big_endian_files_with_a_mark_are_read(tmp_path):
    assert read_text(written(tmp_path, b"\xfe\xff" + TEXT.encode("utf-16-be"))) == TEXT


@pytest.mark.parametrize(
    "content, cure",
    [
        (TEXT.replace("你好", "").encode("cp1252"), "line 1.*iconv"),
        ("first\r\nsecond caf\xe9".encode("latin-1"), "line 2.*iconv"),
        (b"\xff\xfea", "utf-16.*damaged"),
        ("ascii\n".encode("utf-16-le"), "line 1.*UTF-16"),
        (b"binary\n\n\0\0", "line 3.*NUL"),
        (gzip.compress(b"text", mtime=0), "gunzip"),
        (b"PK\x03\x04rest", "CSV UTF-8"),
    ],
)
def test_other_bytes_are_refused_with_line_and_cure(tmp_path, content, cure):
    with pytest.raises(ValueError, match=f"(?s)file.txt.*{cure}") as caught:
        read_text(written(tmp_path, content))
    assert not isinstance(caught.value, UnicodeError)


def test_a_folder_is_refused_and_a_missing_file_keeps_its_error(tmp_path):
    with pytest.raises(ValueError, match="is a folder"):
        read_text(tmp_path)
    with pytest.raises(FileNotFoundError, match="gone"):
        read_text(tmp_path / "gone")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r", "\n\n  \n"])
def test_rows_are_read_whichever_system_ended_the_lines(tmp_path, end):
    rows = [{"a": 1}, {"a": "two\u2028lines"}]
    path = written(tmp_path, end.join(json.dumps(row, ensure_ascii=False) for row in rows) + end)
    assert [row for _, row in json_rows(path)] == rows


def test_one_list_holds_rows_as_well(tmp_path):
    path = written(tmp_path, json.dumps([{"a": 1}, {"a": 2}], indent=1))
    assert [(where[-5:], row) for where, row in json_rows(path)] == [("row 0", {"a": 1}), ("row 1", {"a": 2})]


def test_lines_after_the_rows_that_are_wanted_are_not_read(tmp_path):
    assert next(json_rows(written(tmp_path, '{"a": 1}\n{broken')))[1] == {"a": 1}


@pytest.mark.parametrize(
    "line, problem",
    [
        ('{"a": 1,}', "not a line of JSON"),
        ('{"a": 1, "a": 2}', "'a' is given twice"),
        ("[" * 100_000, "not .*JSON"),
        ('{"a": ' + "1" * 5000 + "}", "not usable"),
    ],
)
def test_a_broken_line_is_named(tmp_path, line, problem):
    with pytest.raises(ValueError, match=f"file.txt:2: .*{problem}"):
        list(json_rows(written(tmp_path, '{"a": 1}\n' + line)))


def test_json_files(tmp_path):
    assert read_json(written(tmp_path, b"\xef\xbb\xbf[1]")) == [1]
    with pytest.raises(ValueError, match="file.txt: not JSON"):
        read_json(written(tmp_path, ""))


def test_yaml_reads_exponents_as_numbers_and_merged_keys_as_before(tmp_path):
    text = "base: &base {lr: 1e-4, r: 2}\nother: {<<: *base, r: 3, name: '1e-4'}\n"
    assert read_yaml(written(tmp_path, text)) == {
        "base": {"lr": 1e-4, "r": 2},
        "other": {"lr": 1e-4, "r": 3, "name": "1e-4"},
    }


@pytest.mark.parametrize(
    "text, problem",
    [
        ("a: 1\nb: 2\na: 3\n", "line 3.*'a' is given twice"),
        ("a:\n\t- 1\n", "line 2"),
        ("a: [1, 2\n", "line 2"),
        ("a: 2024-13-45\n", "month"),
        ("a: !!python/object:os.system {}\n", "line 1.*not usable"),
    ],
)
def test_a_broken_yaml_file_is_named(tmp_path, text, problem):
    with pytest.raises(ValueError, match=f"(?s)file.txt.*{problem}"):
        read_yaml(written(tmp_path, text))


def test_half_of_a_character_is_found_wherever_it_is():
    assert half_pair({"a": ["x", {"b": "hi \ud83d"}]}) == r"\ud83d"
    assert half_pair({"\udc00": 1}) == r"\udc00"
    assert half_pair(["whole \U0001f600", 5, None]) is None
