"""Track by number which records of a journal were read; one that is missing at the run's end is damaged."""

from __future__ import annotations

import msgspec

from mlwrap._journal.records import RunEnded

_MAX_RANGES = 1000  # of missing numbers that are kept
_MAX_UNREADABLE = 1000
_MAX_NAMED = 20


def writer_of(number: int) -> int:
    """Return the writer that a record's number belongs to; 0 is the training process."""
    return number >> 32


class Numbers(msgspec.Struct):
    """The numbers of a journal's records up to an offset in the journal.

    Threads write a little out of order, so a missing number may still follow.

    Attributes:
        after: The number after the highest one so far, by writer.
        missing: Ranges of lower numbers that were not read: the first, and the one after the last.
        forgotten: Count of missing numbers whose ranges were dropped.
        unreadable: Unreadable pieces of the journal: the number (-1 if unknown) and the type.
        pieces: Count of all unreadable pieces.
    """

    after: dict[int, int] = {}
    missing: list[tuple[int, int]] = []
    forgotten: int = 0
    unreadable: list[tuple[int, str]] = []
    pieces: int = 0

    def __contains__(self, number: int) -> bool:
        """Return whether the record was read; records of format 1 have no numbers and are read once."""
        return 0 <= number < self.after.get(writer_of(number), 0) and not any(
            first <= number < end for first, end in self.missing
        )

    def add(self, number: int) -> None:
        """Note that a record was read for the first time."""
        if number < 0:
            return
        expected = self.expect(number)
        if number >= expected:
            self.after[writer_of(number)] = number + 1
            return
        for index, (first, end) in enumerate(self.missing):
            if first <= number < end:
                parts = [(first, number), (number + 1, end)]
                self.missing[index : index + 1] = [(start, stop) for start, stop in parts if start < stop]
                return

    def expect(self, number: int) -> int:
        """Mark this writer's unread numbers below ``number`` as missing; return the one that was next."""
        writer = writer_of(number)
        expected = self.after.get(writer, writer << 32)
        if number > expected:
            self.missing.append((expected, number))
            self.after[writer] = number
            if len(self.missing) > _MAX_RANGES:
                first, end = self.missing.pop(0)
                self.forgotten += end - first
        return expected

    def add_unreadable(self, number: int, kind: str) -> None:
        """Note an unreadable piece of the journal, with the number and the type that it names."""
        self.pieces += 1
        if len(self.unreadable) < _MAX_UNREADABLE:
            self.unreadable.append((number, kind))

    def lacks_training(self) -> bool:
        """Return whether a record of the training process is missing."""
        return any(writer_of(first) == 0 for first, _ in self.missing)

    def lacks(self, number: int) -> bool:
        """Return whether this number is missing and belongs to the training process."""
        return any(first <= number < end for first, end in self.missing) and writer_of(number) == 0

    def damage(self, last: RunEnded) -> tuple[int, str]:
        """Return how many records of an ended run are damaged, and the same as a text with their numbers."""
        # A piece of a record that was later rewritten in full is not damage.
        lost = {number: kind for number, kind in self.unreadable if number < 0 or number not in self}
        if not lost and last.unwritten is None:  # threads may have been killed between number and record
            return 0, ""
        ranges = [span for span in self.missing if writer_of(span[0]) == 0]
        ranges += [
            (number, number + 1)
            for number in lost
            if number >= 0
            and not any(first <= number < end for first, end in ranges)
            # If the training wrote the end itself, all its numbers are accounted for: this one was misread.
            and (last.unwritten is None or writer_of(number) != 0)
        ]
        unwritten = last.unwritten or 0
        count = sum(end - first for first, end in ranges) + self.forgotten - unwritten
        if not self.after:  # format 1 has no numbers
            count = self.pieces
        count = max(count, 1 if -1 in lost else 0)
        if not count or unwritten or not ranges:
            return count, str(count) if count else ""
        named = [_describe_gap(first, end, lost.get(first, "")) for first, end in sorted(ranges)[:_MAX_NAMED]]
        return count, f"{count}: {', '.join(named)}{', …' if len(ranges) > _MAX_NAMED else ''}"


def _describe_gap(first: int, end: int, kind: str) -> str:
    if end - first > 1:
        return f"numbers {first} to {end - 1}"
    return f"number {first} ({kind})" if kind else f"number {first}"
