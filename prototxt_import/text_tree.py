"""A light reader of protobuf's text format that keeps where each field stands.

Protobuf's own parser checks the text and fills the messages; this one adds what that one
forgets: the line of each layer, and the settings of layer types that the schema does not know.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

MAX_DEPTH = 64
MAX_FIELDS = 500_000  # a network of 1,200 layers has some 30,000
#: Backslashes in a row within a string: protobuf's unescaping takes the square of their number.
MAX_BACKSLASHES = 64
# Runs of plain characters are matched whole: the expression keeps a mark for each repetition.
_TOKEN = re.compile(
    r"""\s+|\#[^\n]*"""
    r"""|(?P<string>"[^"\\\n]*(?:\\.[^"\\\n]*)*"|'[^'\\\n]*(?:\\.[^'\\\n]*)*')"""
    r"""|(?P<word>[^\s{}<>\[\]:;,"'\#]+)|(?P<mark>[{}<>\[\]:;,])|(?P<other>.)"""
)
_BACKSLASHES = re.compile(rf"\\{{{MAX_BACKSLASHES + 1}}}")
_CLOSING = {"{": "}", "<": ">"}


class TextTreeError(ValueError):
    """Text whose brackets or fields are not in order; `line` and `column` count from 1."""

    def __init__(self, message: str, line: int, column: int) -> None:
        super().__init__(message)
        self.line = line
        self.column = column


class Token(NamedTuple):
    """A word, string or mark, and where it stands."""

    text: str
    start: int
    end: int


@dataclass(slots=True)
class Node:
    """One field: its name, span in the text, line from 1, and its value or sub-fields."""

    name: str
    start: int
    line: int
    end: int = 0
    values: list[str] = field(default_factory=list)
    children: list[Node] | None = None  # None for a field with plain values

    def child_value(self, name: str) -> str | None:
        """Return the last plain value given to the sub-field `name`, without quotes."""
        found = [n.values for n in self.children or () if n.name == name and n.values]
        return _plain(found[-1][-1]) if found else None


def parse_tree(text: str) -> list[Node]:
    """Return the fields of `text`.

    Raises TextTreeError where brackets do not match, and for text that takes more time or memory
    than any network does: too many fields, too deep a nesting, endless escapes.
    """
    return _Parser(text).parse()


def to_mapping(nodes: list[Node]) -> dict[str, Any]:
    """Return fields as a nested dict; a field that stands more than once becomes a tuple."""
    collected: dict[str, list[Any]] = {}
    for node in nodes:
        value = to_mapping(node.children) if node.children is not None else None
        values = [value] if value is not None else [_convert(v) for v in node.values]
        collected.setdefault(node.name, []).extend(values)
    return {name: v[0] if len(v) == 1 else tuple(v) for name, v in collected.items()}


def _plain(value: str) -> str:
    return value[1:-1] if value[:1] in ("'", '"') else value


def _convert(value: str) -> Any:
    if value in ("true", "false"):
        return value == "true"
    for convert in (int, float):
        try:
            return convert(value)
        except ValueError:
            continue
    return _plain(value)


class _Parser:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = self._tokenize()
        self.next = next(self.tokens, None)
        self.line, self.counted = 1, 0
        self.fields = 0

    def parse(self) -> list[Node]:
        # A stack instead of recursion: hostile nesting must not exhaust Python's.
        fields: list[Node] = []
        # The fields of each message that is open, the mark that closes it, and the message itself.
        stack: list[tuple[list[Node], str, Node | None]] = [(fields, "", None)]
        while True:
            siblings, closing, parent = stack[-1]
            token = self._take()
            if token is None:
                if closing:
                    raise self._error(f"the text ends before {closing!r}", len(self.text))
                return fields
            if parent is not None and token.text == closing:
                parent.end = token.end
                stack.pop()
                continue
            if token.text in (";", ","):
                continue
            if token.text in "{}<>[]:" or token.text[0] in "'\"":
                raise self._error(f"expected the name of a field, found {token.text}", token.start)
            self._count(token)
            node = Node(token.text, token.start, self._line_of(token.start), token.end)
            siblings.append(node)
            opened = self._read_value(node)
            if opened:
                node.children = []
                if len(stack) >= MAX_DEPTH:
                    raise self._error(f"more than {MAX_DEPTH} levels of nesting", node.start)
                stack.append((node.children, _CLOSING[opened], node))

    def _read_value(self, node: Node) -> str:
        """Read a plain value or list into `node`; return the bracket that opens a message."""
        if self.next and self.next.text == ":":
            self._take()
        token = self._take()
        if token is None:
            raise self._error(f"field {node.name!r} has no value", len(self.text))
        if token.text in _CLOSING:
            return token.text
        if token.text == "[":
            while (item := self._take()) and item.text != "]":
                if item.text in "{}<>[:;":
                    raise self._error(f"unexpected {item.text!r} in a list", item.start)
                if item.text != ",":
                    self._count(item)
                    node.values.append(item.text)
                node.end = item.end
            return ""
        if token.text in "}>]:;,":
            raise self._error(f"field {node.name!r} has no value", token.start)
        pieces, end = [token.text], token.end
        is_string = token.text[0] in "'\""
        while is_string and self.next and self.next.text[0] in "'\"":
            # Neighbouring strings are one string.
            self._count(self.next)
            pieces.append(self.next.text)
            end = self.next.end
            self._take()
        if len(pieces) > 1:
            quote = token.text[0]
            pieces = [quote, *(piece[1:-1] for piece in pieces), pieces[-1][-1]]
        node.values.append("".join(pieces))
        node.end = end
        return ""

    def _count(self, token: Token) -> None:
        self.fields += 1
        if self.fields > MAX_FIELDS:
            raise self._error(f"more than {MAX_FIELDS:,} values, which no network has", token.start)

    def _take(self) -> Token | None:
        token, self.next = self.next, next(self.tokens, None)
        return token

    def _tokenize(self) -> Iterator[Token]:
        for match in _TOKEN.finditer(self.text):
            if match["other"] is not None:
                raise self._error(f"unexpected {match['other']!r}", match.start())
            if match.lastgroup == "string" and (run := _BACKSLASHES.search(match.group())):
                raise self._error(f"more than {MAX_BACKSLASHES} backslashes in a row",
                                  match.start() + run.start())
            if match.lastgroup:
                yield Token(match.group(), match.start(), match.end())

    def _line_of(self, offset: int) -> int:
        self.line += self.text.count("\n", self.counted, offset)
        self.counted = offset
        return self.line

    def _error(self, message: str, offset: int) -> TextTreeError:
        line = self.text.count("\n", 0, offset) + 1
        return TextTreeError(message, line, offset - self.text.rfind("\n", 0, offset))
