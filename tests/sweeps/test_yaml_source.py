"""YAML as plain data with lines."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweeps.yaml_source import YamlSource, read_yaml
from wmcore.errors import InputError


def read(tmp_path: Path, text: str | bytes, *overrides: str) -> YamlSource:
    path = tmp_path / "spec.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return read_yaml(path, overrides, dotted_keys=("search.space",))


@pytest.mark.parametrize(
    ("written", "value"),
    [
        ("1e-3", 0.001),
        ("3e5", 300000.0),
        ("-1.5E+2", -150.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("12", 12),
        ("-7", -7),
        ("010", 10),
        ("0o10", 8),
        ("0x1F", 31),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("yes", "yes"),
        ("on", "on"),
        ("2026-01-31", "2026-01-31"),
        ("12:30:00", "12:30:00"),
        ("1_000", "1_000"),
        ("'12'", "12"),
        ('"true"', "true"),
        ("e5", "e5"),
        ("1.2.3", "1.2.3"),
    ],
)
def test_scalars_follow_yaml_1_2(tmp_path, written, value):
    found = read(tmp_path, f"a: {written}\n").data["a"]
    assert found == value
    assert type(found) is type(value)


def test_not_a_number_is_read(tmp_path):
    assert math.isnan(read(tmp_path, "a: .nan\n").data["a"])


# JSON writes what lies beyond as two escapes, which YAML does not join; and a key of YAML has at most 1024 characters.
words = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=100)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(words, plain, min_size=1, max_size=4))
def test_json_is_read_as_itself(tmp_path_factory, data):
    assert read(tmp_path_factory.getbasetemp(), json.dumps(data)).data == data


def test_every_path_has_its_line(tmp_path):
    source = read(tmp_path, "a: 1\n\nb:\n  c: 2\n  d:\n    - 3\n    - {e: 4,\n       f: 5}\nsearch.x: 6\n")
    places = {path: source.place(path).rpartition(":")[2] for path in source.lines}
    assert places == {
        "a": "1",
        "b": "3",
        "b.c": "4",
        "b.d": "5",
        "b.d.0": "6",
        "b.d.1": "7",
        "b.d.1.e": "7",
        "b.d.1.f": "8",
        "search.x": "9",
    }
    assert source.place("b.d.1.missing").endswith("spec.yaml:7")
    assert source.place("nowhere").endswith("spec.yaml:1")


def test_aliases_are_plain_data_again(tmp_path):
    source = read(tmp_path, "a: &x {k: [1]}\nb: *x\n")
    assert source.data == {"a": {"k": [1]}, "b": {"k": [1]}}
    source.override("a.k.0=2")
    assert source.data["b"] == {"k": [1]}


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", 3, "a stands twice in the same mapping, on lines 1 and 3"),
        ("x: {a: 1, a: 2}\n", 1, "x.a stands twice"),
        ("a: [1, 2\nb: 3\n", 2, "is not readable YAML"),
        ("a: 1\n\tb: 2\n", 2, "use spaces"),
        ("a: *nothing\n", 1, "undefined alias"),
        ("a: !!python/object:os.system {}\n", 1, "must be plain data, and the tag"),
        ("a: 1\nb: !mine 2\n", 2, "'!mine'"),
        ("a: 1\n---\nb: 2\n", 2, "is not readable YAML"),
        ("- 1\n- 2\n", 1, "must hold a mapping (key: value), and it holds a list"),
        ("just words\n", 1, "a single value"),
        ("a: 1\n3: 2\n", 2, "is a key that is 3 and must be text"),
        ("a: 1\n? [b, c]\n: 2\n", 2, "must be text"),
        ("a: &x [*x]\n", 1, "contains itself"),
        ("a: 1\nb: \x00\n", 2, "is not readable YAML"),
        ('a: "\\ud800"\n', 1, "half of a character"),
        (b"a: 1\nb: \xff\n", 2, "must be UTF-8 text, and byte 0xff is not"),
        ("a: 1\n".encode("utf-16"), 1, "must be UTF-8 text"),
    ],
)
def test_bad_files_name_the_line(tmp_path, text, line, words):
    with pytest.raises(InputError) as caught:
        read(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'spec.yaml'}:{line}: ")
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "# only a comment\n", "\n\n"])
def test_an_empty_file_is_named(tmp_path, text):
    with pytest.raises(InputError, match="is empty"):
        read(tmp_path, text)


def test_an_alias_bomb_and_a_deep_nest_are_refused(tmp_path):
    bomb = "a0: &a0 [1, 1, 1, 1, 1, 1, 1, 1, 1, 1]\n"
    for level in range(1, 9):
        bomb += f"a{level}: &a{level} [{', '.join([f'*a{level - 1}'] * 10)}]\n"
    with pytest.raises(InputError, match="holds more than"):
        read(tmp_path, bomb)
    with pytest.raises(InputError, match="nested too deeply"):
        read(tmp_path, "a: " + "[" * 5000 + "]" * 5000)


def test_missing_files_and_folders(tmp_path):
    (tmp_path / "sweep.yaml").write_text("a: 1")
    with pytest.raises(InputError, match=r"does not exist.*Did you mean sweep.yaml"):
        read_yaml(tmp_path / "swep.yaml")
    with pytest.raises(InputError, match="must be a file, and it is a folder"):
        read_yaml(tmp_path)


class TestOverrides:
    text = (
        "trial:\n  seed: 0\n  model: {kind: rnn}\nsearch:\n  space:\n    model.cell: {choice: [a, b]}\nlist:\n- k: 1\n"
    )

    @pytest.mark.parametrize(
        ("override", "path", "value"),
        [
            ("trial.seed=7", ["trial", "seed"], 7),
            ("trial.seed=1e-3", ["trial", "seed"], 0.001),
            ("trial.model={kind: ei, size: 3}", ["trial", "model"], {"kind": "ei", "size": 3}),
            ("trial.new.deep=x=y", ["trial", "new", "deep"], "x=y"),
            ("search.space.model.cell={choice: [c]}", ["search", "space", "model.cell"], {"choice": ["c"]}),
            ("search.space.model.cell.choice.1=z", ["search", "space", "model.cell", "choice"], ["a", "z"]),
            ("search.space.model.other={int: [1, 2]}", ["search", "space", "model.other"], {"int": [1, 2]}),
            ("list.0.k=2", ["list", 0, "k"], 2),
            ("trial.seed=", ["trial", "seed"], None),
        ],
    )
    def test_sets_one_value_and_is_named(self, tmp_path, override, path, value):
        source = read(tmp_path, self.text, override)
        found = source.data
        for part in path:
            found = found[part]
        assert found == value
        assert source.place(override.partition("=")[0]) == "--set"
        assert source.place("trial").endswith(":1")

    def test_what_an_override_replaces_loses_its_lines(self, tmp_path):
        source = read(tmp_path, self.text, "trial.model={size: 1}")
        assert source.place("trial.model.kind") == "--set"
        assert source.order("trial.model.kind") > source.order("list.0.k")

    @pytest.mark.parametrize(
        ("override", "words"),
        [
            ("trial.seed", "must have the form path=value"),
            ("=3", "must have the form path=value"),
            ("trial..seed=3", "must have the form path=value"),
            ("trial.seed.x=3", "goes through trial.seed, which is 0 and not a mapping"),
            ("list.4.k=3", "must name an entry of a list by its number"),
            ("list.first=3", "must name an entry of a list by its number"),
            ("trial.seed=[1", "is not readable YAML"),
            ("trial.model={a: 1, a: 2}", "stands twice"),
        ],
    )
    def test_bad_overrides(self, tmp_path, override, words):
        with pytest.raises(InputError) as caught:
            read(tmp_path, self.text, override)
        assert "--set" in str(caught.value)
        assert words in str(caught.value)
