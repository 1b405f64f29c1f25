"""rest-json, both ways: an HTTP request becomes an operation's checked input; an answer becomes status and bytes.

Everything is read from botocore's service models, so this room knows no operation by name and no rule of Connect.
No state, no clock, no network.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

import botocore.session
import msgspec

from attachd.simulator.errors import ApiError
from attachd.simulator.front.shapes import compile_shape

# Errors of the front door, which no service model lists.
_GENERIC_STATUS = {
    "SerializationException": 400,
    "AccessDeniedException": 403,
    "ExpiredTokenException": 403,
    "InvalidSignatureException": 403,
    "ResourceNotFoundException": 404,
    "UnknownOperationException": 404,
    "RequestTimeoutException": 408,
    "RequestEntityTooLargeException": 413,
    "ThrottlingException": 429,
    "TooManyRequestsException": 429,
    "InternalServiceException": 500,
    "ServiceUnavailableException": 503,
}
# The first of these which an operation models is what it answers to a broken constraint.
_CONSTRAINT_CODES = ("ValidationException", "InvalidParameterException", "InvalidRequestException")

_PROBLEMS_TOLD = 10
_INTERNAL = 500

_decode = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode


class Operation:
    """One operation of one service model, compiled: `parse` a request, find the status of an error."""

    def __init__(self, model: Any) -> None:
        self.name: str = model.name
        self._check = compile_shape(model.input_shape)
        self._places: dict[str, list[tuple[str, str]]] = {
            "body": [],
            "header": [],
            "uri": [],
            "querystring": [],
        }
        for name, member in model.input_shape.members.items():
            place = member.serialization.get("location", "body")
            self._places[place].append((name, member.serialization.get("name", name)))
        service_errors = {shape.name: shape for shape in model.service_model.error_shapes}
        self._statuses: dict[str, int] = _GENERIC_STATUS | {
            name: shape.metadata["error"]["httpStatusCode"] for name, shape in service_errors.items()
        }
        modelled = {shape.name for shape in model.error_shapes}
        self.internal_error: str = next(name for name in modelled if self._statuses[name] == _INTERNAL)
        """What the service calls its own failure."""
        self._constraint_code = next(code for code in _CONSTRAINT_CODES if code in modelled)

    def parse(self, labels: Mapping[str, Any], headers: Mapping[str, str], body: bytes) -> dict[str, Any]:
        """Gather and check the input: member name to value, absent members left out; raises ApiError.

        `labels` are the URI's, and with them what its query string says, as lists.
        """
        try:
            document = _decode(body) if body else {}
            request = self._gather(document, labels, headers)
            problems: list[str] = []
            self._check(request, "", problems)
        except RecursionError:
            raise ApiError("SerializationException", "the body is nested too deeply") from None
        except (msgspec.DecodeError, ValueError):
            raise ApiError("SerializationException", "the body is not well-formed JSON") from None
        if problems:
            count = f"{len(problems)} validation error{'s' if len(problems) > 1 else ''} detected: "
            raise ApiError(self._constraint_code, count + "; ".join(problems[:_PROBLEMS_TOLD]))
        return request

    def _gather(self, document: Any, labels: Mapping[str, Any], headers: Mapping[str, str]) -> dict[str, Any]:
        if type(document) is not dict:
            raise ApiError("SerializationException", "the body is not a JSON object")
        sources = (("body", document), ("header", headers), ("uri", labels), ("querystring", labels))
        request = {}
        for place, source in sources:
            for name, wire_name in self._places[place]:
                value = source.get(wire_name)
                if value is not None:
                    request[name] = value
        return request

    def status_of(self, code: str) -> int:
        """Return the HTTP status of an error code: its model's error trait, else AWS's generic one."""
        return self._statuses.get(code, 400)


class Router:
    """Finds the operation of a request among those simulated; knows the rest of each model by name only."""

    def __init__(self, simulated: Mapping[str, Iterable[str]]) -> None:
        self._exact: dict[tuple[str, str], Operation] = {}
        self._labelled: list[tuple[str, re.Pattern[str], Operation]] = []
        self._others: list[tuple[str, re.Pattern[str], str]] = []
        session = botocore.session.Session()
        for service, names in simulated.items():
            model = session.get_service_model(service)
            for name in model.operation_names:
                self._add(model.operation_model(name), simulated=name in set(names))

    def _add(self, model: Any, *, simulated: bool) -> None:
        method, template = model.http["method"], model.http["requestUri"].partition("?")[0]
        pattern = re.compile(re.sub(r"\\\{(\w+)\\?\+?\\\}", r"(?P<\1>[^/]+)", re.escape(template)))
        if not simulated:
            self._others.append((method, pattern, model.name))
        elif "{" in template:
            self._labelled.append((method, pattern, Operation(model)))
        else:
            self._exact[method, template] = Operation(model)

    def find(self, method: str, path: str) -> tuple[Operation, dict[str, Any]]:
        """Return the operation and what its URI says; raises ApiError UnknownOperationException."""
        path, _, query = path.partition("?")
        operation = self._exact.get((method, path))
        if operation is not None:
            return operation, {}
        for wanted, pattern, labelled in self._labelled:
            found = pattern.fullmatch(path) if wanted == method else None
            if found is not None:
                asked = parse_qs(query, keep_blank_values=True) if query else {}
                return labelled, asked | {name: unquote(value) for name, value in found.groupdict().items()}
        raise ApiError("UnknownOperationException", self._why_not(method, path))

    def _why_not(self, method: str, path: str) -> str:
        for wanted, pattern, name in self._others:
            if wanted == method and pattern.fullmatch(path) is not None:
                return f"the simulator does not play {name} yet"
        return "no operation of Amazon Connect answers to this method and path"


def error_answer(operation: Operation | None, error: ApiError) -> tuple[int, dict[str, str], bytes]:
    """Write an error as SDKs read it: status, `x-amzn-ErrorType`, a body with the message."""
    status = operation.status_of(error.code) if operation else _GENERIC_STATUS.get(error.code, 400)
    message = error.message.encode(errors="replace").decode()  # which may quote a header that is no UTF-8
    # Both models spell the member "Message"; front-door errors are read case-insensitively by every SDK.
    return status, {"x-amzn-ErrorType": error.code}, encode({"Message": message})
