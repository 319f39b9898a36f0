"""The file of judgements: durable, mended after a kill, and read whatever a hand did to it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from speech_mining.listening.judgements import Journal, Judgement, JudgementError, strictest

SAID = Judgement("s2s", "deu-eng", "1", "2", 1.1, "right", "ada", "2026-01-31T12:00:00+00:00", "c", "p")


def test_what_is_said_is_read_again(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "new" / "deu-eng.jsonl")
    assert journal.read().lines == ()
    for verdict in ("right", "skipped", "wrong"):
        journal.append(replace(SAID, verdict=verdict, judge="ada <Ж>"))
    assert [said.verdict for said in journal.read().lines] == ["right", "skipped", "wrong"]
    assert journal.read().lines[0].judge == "ada <Ж>"


def test_a_judges_last_word_counts_and_of_several_judges_the_strictest(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    for judge, verdict in (("ada", "wrong"), ("bob", "partly"), ("ada", "right"), ("eve", "skipped")):
        journal.append(replace(SAID, judge=judge, verdict=verdict))
    said = journal.read().last["1", "2"]
    assert {judge: one.verdict for judge, one in said.items()} == {"ada": "right", "bob": "partly", "eve": "skipped"}
    assert strictest(said) == "partly"
    assert strictest({"eve": said["eve"]}) is None


def test_a_withdrawn_judgement_is_as_if_never_made(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    journal.append(SAID)
    journal.append(replace(SAID, verdict="withdrawn"))
    assert journal.read().last == {}
    assert len(journal.read().lines) == 2


def test_lines_that_a_hand_spoiled_are_told_by_number_and_stay(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    journal.append(SAID)
    whole = journal.path.read_bytes()
    spoiled = [
        b"hello",
        b"[1]",
        b"\xff\xfe",
        b"",
        whole.strip().replace(b'"right"', b'"great"'),
        whole.strip().replace(b'"1"', b"1"),
        whole.strip().replace(b"1.1", b"NaN"),
        whole.strip().replace(b"2026-01-31T12:00:00+00:00", b"yesterday"),
        b"[" * 100_000,
    ]
    journal.path.write_bytes(whole + b"\n".join(spoiled) + b"\n" + whole)
    found = journal.read()
    assert len(found.lines) == 2
    assert [bad.line for bad in found.bad] == [2, 3, 4, 6, 7, 8, 9, 10]
    assert [bad.why for bad in found.bad[:3]] == ["it is not JSON", "it is not an object", "it is not UTF-8"]
    assert "verdict is 'great'" in found.bad[3].why
    before = journal.path.read_bytes()
    journal.append(SAID)
    assert journal.path.read_bytes() == before + whole


def test_a_torn_last_line_is_set_aside_and_the_next_stands_on_its_own(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    journal.append(SAID)
    line = journal.path.read_bytes()
    for cut in (1, len(line) // 2, len(line) - 2):
        journal.path.write_bytes(line + line[:cut])
        assert [bad.line for bad in journal.read().bad] == [2]
        journal.append(replace(SAID, verdict="wrong"))
        assert [said.verdict for said in journal.read().lines] == ["right", "wrong"]
        assert journal.read().bad == ()
    assert journal.torn.read_bytes().splitlines() == [line[:1], line[: len(line) // 2], line[:-2]]


def test_a_last_line_that_lacks_its_end_alone_counts(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    journal.append(SAID)
    journal.path.write_bytes(journal.path.read_bytes().rstrip(b"\n"))  # as editors leave it
    assert len(journal.read().lines) == 1
    journal.append(replace(SAID, verdict="wrong"))
    assert [said.verdict for said in journal.read().lines] == ["right", "wrong"]
    assert not journal.torn.exists()


@pytest.mark.parametrize(
    "wrong", [{"verdict": "great"}, {"judge": ""}, {"source": "../x"}, {"score": float("nan")}, {"at": "2026-01-31"}]
)
def test_what_is_no_judgement_is_not_written(tmp_path: Path, wrong: dict[str, object]) -> None:
    journal = Journal(tmp_path / "j.jsonl")
    with pytest.raises(JudgementError, match=next(iter(wrong))):
        journal.append(replace(SAID, **wrong))  # type: ignore[arg-type]
    assert not journal.path.exists()


def test_a_disk_that_ends_in_the_middle_of_a_line_is_told_and_leaves_the_lines_before(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    Journal(path).append(SAID)
    whole = path.read_bytes()
    _run(
        f"""
        import resource, signal
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, ({len(whole) + 10}, {len(whole) + 10}))
        try:
            Journal(Path({str(path)!r})).append(SAID)
        except JudgementError as problem:
            print("refused", problem)
        """,
        expected="refused The judgement was not kept: File too large",
    )
    assert path.read_bytes() == whole


def test_what_was_acknowledged_before_a_kill_is_there(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    program = f"""
        journal = Journal(Path({str(path)!r}))
        while True:
            journal.append(SAID)
            print("kept", flush=True)
    """
    for _ in range(3):
        process = subprocess.Popen([sys.executable, "-c", _program(program)], stdout=subprocess.PIPE)
        assert process.stdout is not None
        before = len(Journal(path).read().lines)
        acknowledged = sum(process.stdout.readline() == b"kept\n" for _ in range(20))
        os.kill(process.pid, signal.SIGKILL)
        process.communicate()
        assert len(Journal(path).read().lines) >= before + acknowledged == before + 20


def test_two_processes_write_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "j.jsonl"
    program = _program(f"for _ in range(50): Journal(Path({str(path)!r})).append(SAID)")
    both = [subprocess.Popen([sys.executable, "-c", program]) for _ in range(2)]
    assert [process.wait() for process in both] == [0, 0]
    assert (len(Journal(path).read().lines), Journal(path).read().bad) == (100, ())


def _program(body: str) -> str:
    import textwrap

    imports = "from pathlib import Path\nfrom speech_mining.listening.judgements import Journal, JudgementError\n"
    return f"{imports}from tests.test_listening_journal import SAID\n{textwrap.dedent(body)}"


def _run(body: str, expected: str) -> None:
    ran = subprocess.run([sys.executable, "-c", _program(body)], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith(expected)
