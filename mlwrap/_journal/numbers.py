"""Which records of a journal have come, by their numbers: what is missing at the run's end is damaged."""

from __future__ import annotations

import msgspec

from mlwrap._journal.records import RunEnded

_MAX_RANGES = 1000  # of missing numbers that are remembered
_MAX_UNREADABLE = 1000
_MAX_NAMED = 20


def writer_of(number: int) -> int:
    """Whose number it is; 0 is the training."""
    return number >> 32


class Numbers(msgspec.Struct):
    """The numbers of a journal's records up to some place in it.

    Threads write a little out of order, so a number that is missing may come yet.

    Attributes:
        after: The number after the highest one so far, by writer.
        missing: Ranges of numbers below that have not come: the first, and the one after the last.
        forgotten: How many more are missing.
        unreadable: Pieces of the journal that can't be read: number, -1 where that can't be told, and type.
        pieces: How many there are.
    """

    after: dict[int, int] = {}
    missing: list[tuple[int, int]] = []
    forgotten: int = 0
    unreadable: list[tuple[int, str]] = []
    pieces: int = 0

    def __contains__(self, number: int) -> bool:
        """Whether the record has come; those of format 1 have no numbers, and come once."""
        return 0 <= number < self.after.get(writer_of(number), 0) and not any(
            first <= number < end for first, end in self.missing
        )

    def add(self, number: int) -> None:
        """A record has come, for the first time."""
        if number < 0:
            return
        expected = self.expect(number)
        if number >= expected:
            self.after[writer_of(number)] = number + 1
            return
        for index, (first, end) in enumerate(self.missing):
            if first <= number < end:
                rest = [(first, number), (number + 1, end)]
                self.missing[index : index + 1] = [(start, stop) for start, stop in rest if start < stop]
                return

    def expect(self, number: int) -> int:
        """All numbers of its writer below this one should have come; gives the one that was next."""
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
        """A piece of the journal can't be read, which says that it is of this number and type."""
        self.pieces += 1
        if len(self.unreadable) < _MAX_UNREADABLE:
            self.unreadable.append((number, kind))

    def lacks_training(self) -> bool:
        """Whether a record of the training is missing."""
        return any(writer_of(first) == 0 for first, _ in self.missing)

    def lacks(self, number: int) -> bool:
        """Whether this one is."""
        return any(first <= number < end for first, end in self.missing) and writer_of(number) == 0

    def damage(self, last: RunEnded) -> tuple[int, str]:
        """How many records of a run that has ended are damaged; and that as a text, with their numbers."""
        # A piece of a record that was written again is no damage.
        lost = {number: kind for number, kind in self.unreadable if number < 0 or number not in self}
        if not lost and last.unwritten is None:  # threads may have been killed between number and record
            return 0, ""
        ranges = [each for each in self.missing if writer_of(each[0]) == 0]
        ranges += [
            (number, number + 1)
            for number in lost
            if number >= 0
            and not any(first <= number < end for first, end in ranges)
            # At the training's own end each of its numbers is accounted for: this one was misread.
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
