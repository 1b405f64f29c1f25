"""botocore's shapes compiled, once, into closures which check a decoded JSON value.

Only the model's own rules live here: type, required, length, range, enum, pattern. What Connect demands beyond
its model belongs to the operations. A check never echoes a value, since values may be credentials.
"""

import re
from collections.abc import Callable
from typing import Any

from attachd.simulator.errors import ApiError

Check = Callable[[Any, str, list[str]], None]
"""(value, where, problems): appends a sentence per broken constraint; raises ApiError on a wrong type."""

_INT32 = 2**31
_LAST_SECOND = 253_402_300_800  # the year 10000


def compile_shape(shape: Any, known: dict[str, Check] | None = None) -> Check:
    """Turn a botocore shape into a check; recursive shapes are tied by name through `known`."""
    known = {} if known is None else known
    name = shape.name
    if name not in known:

        def later(value: Any, where: str, problems: list[str]) -> None:
            """Stand in while the shape is being compiled, for whoever meets it inside itself."""
            known[name](value, where, problems)

        known[name] = later
        known[name] = _COMPILERS[shape.type_name](shape, known)
    return known[name]


def _wrong_type(where: str, wanted: str) -> ApiError:
    """Coral's answer to JSON of the wrong type, before any constraint is looked at."""
    return ApiError(
        "SerializationException", f"Value at '{where or 'body'}' can not be converted to {wanted}"
    )


def _broken(where: str, rule: str) -> str:
    """Coral's sentence for a broken constraint."""
    return f"Value at '{where}' failed to satisfy constraint: Member must {rule}"


def _structure(shape: Any, known: dict[str, Check]) -> Check:
    required = frozenset(shape.required_members)
    members = [
        (name, compile_shape(member, known), name in required) for name, member in shape.members.items()
    ]

    def check(value: Any, where: str, problems: list[str]) -> None:
        if type(value) is not dict:
            raise _wrong_type(where, "an object")
        prefix = f"{where}." if where else ""
        for name, check_member, must in members:
            member = value.get(name)
            # null is the same as absent in AWS's JSON
            if member is not None:
                check_member(member, prefix + name, problems)
            elif must:
                problems.append(_broken(prefix + name, "not be null"))

    return check


def _map(shape: Any, known: dict[str, Check]) -> Check:
    check_key, check_member = compile_shape(shape.key, known), compile_shape(shape.value, known)

    def check(value: Any, where: str, problems: list[str]) -> None:
        if type(value) is not dict:
            raise _wrong_type(where, "an object")
        for key, member in value.items():
            check_key(key, f"{where} key", problems)
            if member is None:
                problems.append(_broken(f"{where}.{key}", "not be null"))
            else:
                check_member(member, f"{where}.{key}", problems)

    return check


def _list(shape: Any, known: dict[str, Check]) -> Check:
    check_size, check_member = _length(shape), compile_shape(shape.member, known)

    def check(value: Any, where: str, problems: list[str]) -> None:
        if type(value) is not list:
            raise _wrong_type(where, "a list")
        check_size(value, where, problems)
        for index, member in enumerate(value, 1):
            if member is None:
                problems.append(_broken(f"{where}.{index}", "not be null"))
            else:
                check_member(member, f"{where}.{index}", problems)

    return check


def _string(shape: Any, _known: dict[str, Check]) -> Check:
    check_size = _length(shape)
    allowed = shape.metadata.get("enum")
    pattern = re.compile(shape.metadata["pattern"]) if "pattern" in shape.metadata else None

    def check(value: Any, where: str, problems: list[str]) -> None:
        if type(value) is not str:
            raise _wrong_type(where, "a string")
        check_size(value, where, problems)
        if allowed is not None and value not in allowed:
            problems.append(_broken(where, f"satisfy enum value set: [{', '.join(allowed)}]"))
        if pattern is not None and pattern.fullmatch(value) is None:
            problems.append(_broken(where, f"satisfy regular expression pattern: {pattern.pattern}"))

    return check


def _length(shape: Any) -> Check:
    least, most = shape.metadata.get("min", 0), shape.metadata.get("max", float("inf"))

    def check(value: Any, where: str, problems: list[str]) -> None:
        if len(value) < least:
            problems.append(_broken(where, f"have length greater than or equal to {least}"))
        elif len(value) > most:
            problems.append(_broken(where, f"have length less than or equal to {most}"))

    return check


def _integer(shape: Any, _known: dict[str, Check]) -> Check:
    least, most = shape.metadata.get("min", -_INT32), shape.metadata.get("max", _INT32 - 1)

    def check(value: Any, where: str, problems: list[str]) -> None:
        if type(value) is not int or not -_INT32 <= value < _INT32:
            raise _wrong_type(where, "an Integer")
        if value < least:
            problems.append(_broken(where, f"have value greater than or equal to {least}"))
        elif value > most:
            problems.append(_broken(where, f"have value less than or equal to {most}"))

    return check


def _boolean(_shape: Any, _known: dict[str, Check]) -> Check:
    def check(value: Any, where: str, _problems: list[str]) -> None:
        if type(value) is not bool:
            raise _wrong_type(where, "a boolean")

    return check


def _timestamp(_shape: Any, _known: dict[str, Check]) -> Check:
    """Check seconds since the epoch, rest-json's form of a timestamp in a body."""

    def check(value: Any, where: str, _problems: list[str]) -> None:
        if type(value) not in (int, float) or not abs(value) < _LAST_SECOND:
            raise _wrong_type(where, "a Timestamp")

    return check


# Types no simulated request carries yet are missing on purpose: compiling one fails at start, not at a call.
_COMPILERS: dict[str, Callable[[Any, dict[str, Check]], Check]] = {
    "structure": _structure,
    "map": _map,
    "list": _list,
    "string": _string,
    "integer": _integer,
    "boolean": _boolean,
    "timestamp": _timestamp,
}
