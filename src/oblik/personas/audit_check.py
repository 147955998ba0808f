"""Was the audit log tampered with? Which line, and how.

In: an `AuditLog`. Out: a `Verdict`: problems, each with its line, and notes on crashes that harmed nothing.
A line that a crash tore is a note; a line that was changed, removed, inserted or moved is a problem, and so
is a tail that was cut off. Knows nothing of what the lines say.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from oblik.personas.audit import GENESIS, HEAD_LOST, TORN, AuditLog, Head, Line


@dataclass
class Verdict:
    """What was found. ``last`` is the hash of the last line, to be noted elsewhere."""

    lines: int = 0
    last: str = GENESIS
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def intact(self) -> bool:
        return not self.problems


def verify(log: AuditLog, noted: str | None = None) -> Verdict:
    """Follow the chain from the first line to the head.

    ``noted`` is the last hash of an earlier verdict, kept elsewhere: its line must still be there.
    """
    verdict = Verdict()
    count = 0
    unread: list[int] = []
    lines = log.lines()
    for place, line in lines:
        if line is None:
            unread.append(place)
            continue
        wrong = _wrong(line, count, verdict.last, unread)
        if wrong:
            verdict.problems.append(f"line {place}: {wrong}")
        elif line.what == TORN:
            verdict.notes.append(f"line {unread[0]} was torn by a crash; the chain goes on after it")
        count, verdict.last, unread = line.n, line.hash, []
        verdict.lines += 1
    _check_end(log.head(), count, unread, verdict)
    if noted is not None and noted not in {GENESIS, *(line.hash for _, line in lines if line is not None)}:
        verdict.problems.append(f"the line that was noted, {noted}, is gone: the log was cut or written anew")
    return verdict


def _wrong(line: Line, count: int, last: str, unread: list[int]) -> str:
    """What is wrong with a line that stands after number ``count`` with hash ``last``; else empty."""
    if line.computed() != line.hash:
        return "it was changed"
    if line.what == HEAD_LOST:
        return "audit.head was missing when it was written; lines before it may have been cut off"
    if unread and not (line.what == TORN and line.details.get("lines") == len(unread)):
        return f"line {unread[0]} before it cannot be read: it was changed or inserted"
    if line.n > count + 1:
        return f"number {count + 1} should stand here and {line.n} does; lines before it were removed"
    if line.n <= count:
        return f"number {line.n} stands after number {count}; it was inserted, repeated or moved"
    if line.previous != last:
        return "it does not follow the line before it, which was changed or inserted"
    return ""


def _check_end(head: Head | None, count: int, unread: list[int], verdict: Verdict) -> None:
    if head is None:
        if count or unread:
            verdict.problems.append("audit.head is missing or damaged: a cut-off tail could not be seen")
        return
    arrived = head.coming is not None and verdict.last == head.coming and count == head.count + 1
    expected = Head(count=head.count + 1, hash=head.coming or "") if arrived else head
    if count < expected.count:
        verdict.problems.append(f"after line {verdict.lines}: lines {count + 1} to {expected.count} are gone")
    elif count > expected.count:
        verdict.problems.append(f"number {expected.count + 1} and what follows is not in audit.head")
    elif verdict.last != expected.hash and verdict.intact:
        verdict.problems.append(f"number {count} is not the line that audit.head remembers")
    if unread and verdict.intact:
        if head.coming is not None:
            verdict.notes.append(f"line {unread[-1]} was torn by a crash; what it was to say did not begin")
        else:
            verdict.problems.append(f"line {unread[-1]}: it was changed or inserted; it cannot be read")
