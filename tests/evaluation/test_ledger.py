"""Results of earlier runs, however they ended."""

from __future__ import annotations

from simvq_audio.evaluation.ledger import Ledger, content_digest


def test_findings_last_and_depend_on_the_whole_key(tmp_path):
    path = tmp_path / "scores.jsonl"
    with Ledger(path) as ledger:
        ledger.note({"metric": "m", "versions": {"a": "1", "b": "2"}}, {"score": 0.1 + 0.2})
    with Ledger(path) as ledger:
        # The order of a key's fields says nothing.
        assert ledger.find({"versions": {"b": "2", "a": "1"}, "metric": "m"}) == {
            "score": 0.1 + 0.2
        }
        assert ledger.find({"metric": "m", "versions": {"a": "1", "b": "3"}}) is None
        ledger.note({"metric": "m", "versions": {"a": "1", "b": "2"}}, {"score": 7.0})
    with Ledger(path) as ledger:
        assert ledger.find({"metric": "m", "versions": {"a": "1", "b": "2"}}) == {"score": 7.0}


def test_a_line_cut_short_at_any_byte_loses_itself_only(tmp_path):
    path = tmp_path / "scores.jsonl"
    with Ledger(path) as ledger:
        ledger.note({"file": 1}, "first")
        ledger.note({"file": 2}, "second", name="grüße")
    whole = path.read_bytes()
    start = whole.index(b"\n") + 1
    for end in range(start, len(whole)):
        path.write_bytes(whole[:end])
        with Ledger(path) as ledger:
            assert ledger.find({"file": 1}) == "first"
            # Without its line break the line may be whole all the same.
            assert ledger.find({"file": 2}) in (
                (None, "second") if end == len(whole) - 1 else (None,)
            )
            ledger.note({"file": 3}, "third")
        with Ledger(path) as ledger:
            assert (ledger.find({"file": 1}), ledger.find({"file": 3})) == ("first", "third")


def test_other_lines_are_passed_over(tmp_path):
    path = tmp_path / "scores.jsonl"
    path.write_text('[1]\n{"key": "x"}\nnull\n\n\xff\n')
    with Ledger(path) as ledger:
        assert ledger.find({"file": 1}) is None
        ledger.note({"file": 1}, 5)
    with Ledger(path) as ledger:
        assert ledger.find({"file": 1}) == 5


def test_in_memory():
    with Ledger(None) as ledger:
        ledger.note({"file": 1}, 5)
        assert ledger.find({"file": 1}) == 5


def test_content_digest(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    # FIPS 180-2, appendix B.1.
    assert content_digest(tmp_path / "a").startswith("ba7816bf8f01cfea414140de5dae2223")
