"""JSONPath (RFC 9535) as far as waiting needs it: names, indexes, wildcards, descendants, filters; no functions.

The official provider takes this RFC and not kubectl's dialect: a name with a
dot or a slash is written `['llmp.dev/revision']`, and a backslash is an error.
"""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Iterator
from typing import Any

Selector = Callable[[Any], Iterator[Any]]

_TOKEN = re.compile(
    r"""\s*(?:(?P<string>'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*")|(?P<number>-?\d+(?:\.\d+)?)
    |(?P<word>[A-Za-z_\u0080-\U0010ffff][\w\u0080-\U0010ffff]*)|(?P<sign>\.\.|&&|\|\||==|!=|<=|>=|[][().,*?@$!<>:]))""",
    re.VERBOSE,
)
_COMPARE = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
_LITERALS = {"true": True, "false": False, "null": None}


class BadPath(ValueError):
    """The expression is not a JSONPath."""


class JsonPath:
    """A compiled path; `select` gives every value that it finds."""

    def __init__(self, text: str):
        self._text, self._tokens, self._at = text, _tokens(text), 0
        self._expect("$")
        self._segments = self._path()
        if self._peek():
            raise BadPath(f"{text!r}: {self._peek()!r} is not expected there")

    def select(self, document: Any) -> list[Any]:
        """All values at the path, in document order."""
        return _walk([document], self._segments)

    def _path(self) -> list[Selector]:
        segments: list[Selector] = []
        while self._peek() in (".", "..", "["):
            descend = self._peek() == ".."
            if self._peek() != "[":
                self._next()
            selector = self._bracket() if self._peek() == "[" else self._shorthand()
            segments.append(_deep(selector) if descend else selector)
        return segments

    def _shorthand(self) -> Selector:
        if self._peek() == "*":
            self._next()
            return _children
        kind, name = self._next_token()
        if kind != "word":
            raise BadPath(f"{self._text!r}: a name is expected, not {name!r}; write other names as ['name']")
        return _child(name)

    def _bracket(self) -> Selector:
        self._expect("[")
        selectors = [self._selector()]
        while self._peek() == ",":
            self._next()
            selectors.append(self._selector())
        self._expect("]")
        return lambda value: (found for selector in selectors for found in selector(value))

    def _selector(self) -> Selector:
        kind, token = self._next_token()
        if token == "*" and kind == "sign":
            return _children
        if token == "?" and kind == "sign":
            keep = self._or()
            return lambda value: (child for child in _children(value) if keep(child))
        if kind == "string":
            return _child(_unquoted(token))
        if kind == "number" and "." not in token:
            return _index(int(token))
        raise BadPath(f"{self._text!r}: {token!r} selects nothing")

    def _or(self) -> Callable[[Any], bool]:
        terms = [self._and()]
        while self._peek() == "||":
            self._next()
            terms.append(self._and())
        return lambda value: any(term(value) for term in terms)

    def _and(self) -> Callable[[Any], bool]:
        terms = [self._test()]
        while self._peek() == "&&":
            self._next()
            terms.append(self._test())
        return lambda value: all(term(value) for term in terms)

    def _test(self) -> Callable[[Any], bool]:
        if self._peek() == "!":
            self._next()
            inner = self._test()
            return lambda value: not inner(value)
        if self._peek() == "(":
            self._next()
            inner = self._or()
            self._expect(")")
            return inner
        left = self._operand()
        if self._peek() not in _COMPARE:
            return lambda value: bool(left(value))
        compare, right = _COMPARE[self._next()], self._operand()
        return lambda value: _compared(compare, left(value), right(value))

    def _operand(self) -> Callable[[Any], list[Any]]:
        kind, token = self._next_token()
        if token == "@" and kind == "sign":
            segments = self._path()
            return lambda value: _walk([value], segments)
        if kind in ("string", "number"):
            literal = _unquoted(token) if kind == "string" else float(token)
            return lambda _: [literal]
        if token in _LITERALS:
            return lambda _: [_LITERALS[token]]
        raise BadPath(f"{self._text!r}: {token!r} cannot be compared")

    def _peek(self) -> str:
        kind, token = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
        return token if kind == "sign" else kind

    def _next(self) -> str:
        return self._next_token()[1]

    def _next_token(self) -> tuple[str, str]:
        if self._at >= len(self._tokens):
            raise BadPath(f"{self._text!r} ends too early")
        self._at += 1
        return self._tokens[self._at - 1]

    def _expect(self, sign: str) -> None:
        if self._peek() != sign:
            raise BadPath(f"{self._text!r}: {sign!r} is expected instead of {self._peek() or 'the end'!r}")
        self._next()


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, at = [], 0
    while at < len(text.rstrip()):
        match = _TOKEN.match(text, at)
        if not match:
            raise BadPath(f"{text!r}: {text[at]!r} is not expected at position {at}")
        tokens.append((str(match.lastgroup), match[match.lastgroup or 0]))
        at = match.end()
    return tokens


def _unquoted(token: str) -> str:
    return re.sub(r"\\(.)", r"\1", token[1:-1])


def _walk(values: list[Any], segments: list[Selector]) -> list[Any]:
    for segment in segments:
        values = [found for value in values for found in segment(value)]
    return values


def _child(name: str) -> Selector:
    return lambda value: iter((value[name],)) if isinstance(value, dict) and name in value else iter(())


def _index(position: int) -> Selector:
    def select(value: Any) -> Iterator[Any]:
        if isinstance(value, list) and -len(value) <= position < len(value):
            yield value[position]

    return select


def _children(value: Any) -> Iterator[Any]:
    return iter(value.values() if isinstance(value, dict) else value if isinstance(value, list) else ())


def _deep(selector: Selector) -> Selector:
    def select(value: Any) -> Iterator[Any]:
        yield from selector(value)
        for child in _children(value):
            yield from select(child)

    return select


def _compared(compare: Callable[[Any, Any], bool], left: list[Any], right: list[Any]) -> bool:
    if not left or not right:
        # Nothing equals nothing, and nothing else.
        return compare in (operator.eq, operator.le, operator.ge) if left == right else compare is operator.ne
    if compare in (operator.eq, operator.ne):
        return compare(left[0], right[0])
    comparable = all(isinstance(v, int | float) for v in (left[0], right[0])) or all(
        isinstance(v, str) for v in (left[0], right[0])
    )
    return comparable and compare(left[0], right[0])
