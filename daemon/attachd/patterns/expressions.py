"""Match expressions: what may stand in a field's array, and event-ruler's complaint about all else.

Here: one array of a pattern, into tests. Fields, paths and $or are ``parse``'s; what a test does is ``operators``'.

Source: event-ruler's ``JsonRuleCompiler``, whose checks come in this order and whose sentences are AWS's answers,
slips included (a bad ``cidr`` is said to be a bad prefix).
"""

from __future__ import annotations

import difflib
import sys
from typing import TYPE_CHECKING, NoReturn

from attachd.patterns.addresses import parse_address, parse_network
from attachd.patterns.document import Array, Node, Object, Scalar, error_at
from attachd.patterns.numerals import Numeral, number
from attachd.patterns.operators import (
    OPERATORS,
    Absent,
    AnythingBut,
    Between,
    Caseless,
    Exactly,
    LeafTest,
    Prefix,
    Present,
    SameAddress,
    Suffix,
    Truth,
    Wildcard,
    Within,
)

if TYPE_CHECKING:
    from collections.abc import Callable

_ONE_KEY = "Only one key allowed in match expression"
_MANY_ELEMENTS = "Too many elements in numeric expression"
_MAX = sys.float_info.max


class Expressions:
    """Reads the array of one field; holds where that is, so that a refusal can say so."""

    def __init__(self, text: str, path: str) -> None:
        self._text = text
        self._path = path

    def tests(self, values: Array) -> tuple[LeafTest, ...]:
        """Read the alternatives of a field.

        Raises:
            PatternError: one of them is no match expression, or there is none.
        """
        if not values.items:
            self._refuse(values, "Empty arrays are not allowed")
        return tuple(self._test(item) for item in values.items)

    def _refuse(self, node: Node, message: str, hint: str = "") -> NoReturn:
        raise error_at(self._text, node.start, message, self._path, hint)

    def _test(self, node: Node) -> LeafTest:
        if isinstance(node, Object):
            return self._operator(node)
        if isinstance(node, Array):
            self._refuse(node, "Match value must be String, number, true, false, or null")
        if isinstance(node.value, Numeral):
            return Exactly(number(node.value.text))
        if isinstance(node.value, bool):
            return Truth(node.value)
        address = parse_address(node.value) if isinstance(node.value, str) else None
        return Exactly(node.value) if address is None else SameAddress(address)

    def _operator(self, node: Object) -> LeafTest:
        if not node.members:
            self._refuse(node, "Match expression name not found")
        name, operand = node.members[0]
        readers: dict[str, Callable[[Node], LeafTest]] = {
            "exactly": lambda operand: Exactly(self._string(operand, "exact match pattern must be a string")),
            "prefix": lambda operand: self._affix(operand, "prefix"),
            "suffix": lambda operand: self._affix(operand, "suffix"),
            "equals-ignore-case": lambda operand: Caseless.of(self._caseless(operand)),
            "wildcard": self._wildcard,
            "numeric": self._numeric,
            "exists": self._exists,
            "cidr": self._cidr,
            "anything-but": self._anything_but,
        }
        if name not in readers:
            close = difflib.get_close_matches(name.lower(), OPERATORS, n=1)
            hint = f"did you mean {close[0]!r}?" if close else ""
            self._refuse(operand, f"Unrecognized match type {name}", hint)
        test = readers[name](operand)
        if len(node.members) > 1:
            self._refuse(node, _MANY_ELEMENTS if name in {"numeric", "anything-but"} else _ONE_KEY)
        return test

    def _string(self, node: Node, complaint: str) -> str:
        if not (isinstance(node, Scalar) and isinstance(node.value, str)):
            self._refuse(node, complaint)
        return node.value

    def _caseless(self, node: Node) -> str:
        return self._string(node, "equals-ignore-case match pattern must be a string")

    def _affix(self, node: Node, name: str) -> LeafTest:
        if not isinstance(node, Object):
            text = self._string(node, f"{name} match pattern must be a string")
            return Prefix(text) if name == "prefix" else Suffix(text)
        if not node.members:
            self._refuse(node, f"{name.capitalize()} expression name not found")
        inner, operand = node.members[0]
        if inner != "equals-ignore-case":
            self._refuse(operand, f"Unsupported {name} pattern: {inner}")
        text = self._caseless(operand)
        if len(node.members) > 1:
            self._refuse(node, _ONE_KEY)
        return Caseless.of(text, whole=False, backwards=name == "suffix")

    def _wildcard(self, node: Node) -> LeafTest:
        text = self._string(node, "wildcard match pattern must be a string")
        pieces = [""]
        at = 0
        while at < len(text):
            if text[at] == "*":
                if text.startswith("*", at + 1):
                    self._refuse(node, f"Consecutive wildcard characters at pos {_byte_position(text, at)}")
                pieces.append("")
            elif text[at] == "\\":
                if not text.startswith(("*", "\\"), at + 1):
                    self._refuse(node, f"Invalid escape character at pos {_byte_position(text, at)}")
                at += 1
                pieces[-1] += text[at]
            else:
                pieces[-1] += text[at]
            at += 1
        if len(pieces) == 1:
            return Exactly(pieces[0])
        return Wildcard(pieces[0], tuple(pieces[1:-1]), pieces[-1])

    def _exists(self, node: Node) -> LeafTest:
        if not (isinstance(node, Scalar) and isinstance(node.value, bool)):
            self._refuse(node, "exists match pattern must be either true or false.")
        return Present() if node.value else Absent()

    def _cidr(self, node: Node) -> Within:
        text = self._string(node, "prefix match pattern must be a string")
        try:
            return Within(parse_network(text))
        except ValueError as error:
            self._refuse(node, str(error))

    def _numeric(self, node: Node) -> Between:
        if not isinstance(node, Array):
            self._refuse(node, "Value of numeric must be an array.")
        operator = self._operator_name(node, 0, "Invalid member in numeric match")
        if operator not in {"=", "<", "<=", ">", ">="}:
            self._refuse(node.items[0], f"Unrecognized numeric range operator: {operator}")
        first = self._bound(node, 1, "equals" if operator == "=" else operator)
        if operator in {">", ">="} and len(node.items) > 2:  # noqa: PLR2004 - an operator and its number
            return self._range(node, first, low_included=operator == ">=")
        if len(node.items) > 2:  # noqa: PLR2004 - likewise
            self._refuse(node.items[2], _MANY_ELEMENTS)
        bound = self._comparable(node, first)
        match operator:
            case "=":
                return Between(bound, bound)
            case "<" | "<=":
                return Between(-_MAX, bound, high_included=operator == "<=")
            case _:
                return Between(bound, _MAX, low_included=operator == ">=")

    def _range(self, node: Array, first: str, *, low_included: bool) -> Between:
        operator = self._operator_name(node, 2, "Bad value in numeric range")
        if operator not in {"<", "<="}:
            self._refuse(node.items[2], f"Bad numeric range operator: {operator}")
        second = self._bound(node, 3, operator)
        if len(node.items) > 4:  # noqa: PLR2004 - two operators, two numbers
            self._refuse(node.items[4], "Too many terms in numeric range expression")
        low, high = self._comparable(node, first), self._comparable(node, second)
        if low >= high:
            self._refuse(node, "Bottom must be less than top")
        return Between(low, high, low_included, operator == "<=")

    def _operator_name(self, node: Array, index: int, complaint: str) -> str:
        item = node.items[index] if index < len(node.items) else None
        if not (isinstance(item, Scalar) and isinstance(item.value, str)):
            self._refuse(node if item is None else item, f"{complaint}: {self._token(item)}")
        return item.value

    def _token(self, item: Node | None) -> str:
        """Spell a node as event-ruler's tokenizer does: a bracket for anything with parts, or for none left."""
        if item is None:
            return "]"
        return self._text[item.start : item.end if isinstance(item, Scalar) else item.start + 1]

    def _bound(self, node: Array, index: int, name: str) -> str:
        item = node.items[index] if index < len(node.items) else None
        if not (isinstance(item, Scalar) and isinstance(item.value, Numeral)):
            self._refuse(node if item is None else item, f"Value of {name} must be numeric")
        return item.value.text

    def _comparable(self, node: Node, digits: str) -> float:
        value = number(digits)
        if isinstance(value, Numeral):
            self._refuse(node, f"Cannot compare number : {digits}")
        return value

    def _anything_but(self, node: Node) -> AnythingBut:
        name = ""
        operand = node
        if isinstance(node, Object):
            if not node.members:
                self._refuse(node, "Anything-But expression name not found")
            name, operand = node.members[0]
            if name not in {"equals-ignore-case", "prefix", "suffix", "wildcard"}:
                self._refuse(operand, f"Unsupported anything-but pattern: {name}")
        if isinstance(operand, Object) or (
            isinstance(operand, Scalar) and operand.value in {None, True, False}
        ):
            self._refuse(operand, "Value of anything-but must be an array or single string/number value.")
        excluded = operand.items if isinstance(operand, Array) else (operand,)
        tests = (
            tuple(self._excluded(name, item) for item in excluded)
            if name
            else self._values(operand, excluded)
        )
        if isinstance(node, Object) and len(node.members) > 1:
            self._refuse(node, _MANY_ELEMENTS)
        if not tests:  # event-ruler takes {"prefix": []}, and then fails on the first event
            self._refuse(operand, "Empty arrays are not allowed")
        return AnythingBut(tests)

    def _values(self, operand: Node, excluded: tuple[Node, ...]) -> tuple[LeafTest, ...]:
        tests: list[LeafTest] = []
        for item in excluded:
            match item:
                case Scalar(value=str() as text):
                    tests.append(Exactly(text))
                case Scalar(value=Numeral(text=digits)):
                    tests.append(Exactly(self._comparable(item, digits)))
                case _:
                    self._refuse(item, "Inside anything but list, start|null|boolean is not supported.")
        if len({type(test.value) for test in tests if isinstance(test, Exactly)}) != 1:
            kinds = "either all values are number or string, mixed type is not supported"
            self._refuse(operand, f"Inside anything but list, {kinds}")
        return tuple(tests)

    def _excluded(self, name: str, item: Node) -> LeafTest:
        match name:
            case "wildcard":
                return self._wildcard(item)
            case "equals-ignore-case":
                kinds = "number|start|null|boolean is not supported."
                return Caseless.of(
                    self._string(item, f"Inside anything-but/equals-ignore-case list, {kinds}")
                )
            case _:
                text = self._string(item, "prefix/suffix match pattern must be a string")
                if not text:
                    self._refuse(item, "Null prefix/suffix not allowed")
                return Prefix(text) if name == "prefix" else Suffix(text)


def _byte_position(text: str, at: int) -> int:
    """Count as event-ruler does: in UTF-8 bytes, after an opening quote."""
    return len(text[:at].encode("utf-8", "surrogatepass")) + 1
