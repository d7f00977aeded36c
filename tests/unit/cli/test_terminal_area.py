"""The area at the end of a terminal: drawn over, printed above, resized, and gone in the end."""

from __future__ import annotations

import io

import pyte
import pytest

from blobflow.cli.output.terminal_area import Line, Part, TerminalArea, shorten, shorten_start


class Terminal(io.StringIO):
    """A terminal on whose screen something is already."""

    def __init__(self, columns: int = 40, lines: int = 10) -> None:
        super().__init__()
        self.screen = pyte.Screen(columns, lines)
        self.screen.set_mode(pyte.modes.LNM)  # as a tty makes a new line of "\n"
        self._stream = pyte.Stream(self.screen)
        self.written = ""
        self.write("$ blobflow\n")

    def write(self, text: str) -> int:
        self.written += text
        self._stream.feed(text)
        return len(text)

    @property
    def shown(self) -> list[str]:
        lines = [line.rstrip() for line in self.screen.display]
        while lines and not lines[-1]:
            lines.pop()
        return lines


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    made = Terminal()
    monkeypatch.setattr(TerminalArea, "size", property(lambda area: (made.screen.columns, made.screen.lines)))
    return made


def rows(*texts: str) -> list[Line]:
    return [(Part(text),) for text in texts]


def test_what_is_drawn_takes_the_place_of_what_was(terminal: Terminal) -> None:
    area = TerminalArea(terminal, colors=False)
    area.draw(rows("first", "second", "third"))
    assert terminal.shown == ["$ blobflow", "", "first", "second", "third"]
    area.draw(rows("less"))
    assert terminal.shown == ["$ blobflow", "", "less"]
    area.draw(rows("first", "second", "third"))
    area.close()
    assert terminal.shown == ["$ blobflow"]
    assert not terminal.screen.cursor.hidden and terminal.screen.cursor.y == 1


def test_what_is_printed_stays_above(terminal: Terminal) -> None:
    area = TerminalArea(terminal, colors=False)
    area.print("before")
    area.draw(rows("a", "b"))
    area.print("warning: one", "warning: two")
    assert terminal.shown == ["$ blobflow", "before", "warning: one", "warning: two", "", "a", "b"]
    area.close()
    assert terminal.shown == ["$ blobflow", "before", "warning: one", "warning: two"]


def test_what_others_write_is_mixed_with_nothing_that_is_drawn(terminal: Terminal) -> None:
    area = TerminalArea(terminal, colors=False)
    area.draw(rows("a", "b"))
    terminal.write("a helper says this\n")
    area.draw(rows("a", "c"))
    assert terminal.shown == ["$ blobflow", "a helper says this", "", "a", "c"]
    terminal.write("^C")
    assert terminal.shown == ["$ blobflow", "a helper says this", "^C", "a", "c"]


@pytest.mark.parametrize("columns", [12, 20, 39, 41, 80])
def test_nothing_stays_of_what_was_drawn_for_another_width(terminal: Terminal, columns: int) -> None:
    area = TerminalArea(terminal, colors=False)
    area.draw(rows("x" * 100, "y" * 100, "z" * 100))
    assert terminal.shown[2:] == [f"{letter * 38}…" for letter in "xyz"]
    terminal.screen.resize(10, columns)
    area.draw(rows("x" * 100, "y" * 100, "z" * 100))
    assert terminal.shown[2:] == [f"{letter * (columns - 2)}…" for letter in "xyz"]
    area.close()
    assert len(terminal.shown) == 1


def test_on_a_low_terminal_it_has_as_many_lines_as_there_are(terminal: Terminal) -> None:
    area = TerminalArea(terminal, colors=False)
    area.draw(rows(*(f"row {number}" for number in range(50))))
    assert terminal.shown == ["$ blobflow", "", *(f"row {number}" for number in range(8))]
    area.draw(rows("less"))
    assert terminal.shown == ["$ blobflow", "", "less"]


def test_what_has_not_changed_is_not_drawn_again(terminal: Terminal) -> None:
    area = TerminalArea(terminal, colors=False)
    area.draw(rows("a"))
    before = len(terminal.written)
    area.draw(rows("a"))
    assert len(terminal.written) == before


def test_colours_are_written_only_where_they_are_wanted(terminal: Terminal) -> None:
    line = (Part("plain "), Part("good", "good"), Part(" mind", "warn"))
    TerminalArea(terminal, colors=False).draw([line])
    assert "\x1b[32m" not in terminal.written
    TerminalArea(terminal, colors=True).draw([line])
    assert "plain \x1b[32mgood\x1b[0m\x1b[33m mind\x1b[0m" in terminal.written


def test_letters_that_are_two_cells_wide_are_counted_as_such(terminal: Terminal) -> None:
    area = TerminalArea(terminal, colors=False)
    area.draw(rows("漢" * 30))
    assert "".join(terminal.shown[2].split()) == "漢" * 19 + "…"
    assert (shorten("abcdef", 4), shorten_start("abcdef", 4), shorten("abcd", 4)) == ("abc…", "…def", "abcd")


def test_a_terminal_that_went_away_ends_nothing() -> None:
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(5, "Input/output error")

    area = TerminalArea(Gone(), colors=False)
    area.draw(rows("a"))
    area.print("b")
    area.close()
