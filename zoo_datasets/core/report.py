"""What a check found, in the words that a command prints."""

from __future__ import annotations

import dataclasses

MOST_LISTED = 5  # problems of one kind; a torn disk would otherwise print thousands


@dataclasses.dataclass
class Report:
    """What a check found. `problems` empty means the zoo is what was sealed."""

    lines: list[str] = dataclasses.field(default_factory=list)
    warnings: list[str] = dataclasses.field(default_factory=list)
    problems: list[str] = dataclasses.field(default_factory=list)

    def extend(self, problems: list[str]) -> None:
        """Add problems of one kind, the first few by name."""
        self.problems += problems[:MOST_LISTED]
        if len(problems) > MOST_LISTED:
            self.problems.append(f"… and {len(problems) - MOST_LISTED} more like the last")
