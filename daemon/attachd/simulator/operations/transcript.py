"""A chat's transcript: paging through it as GetTranscript does, and its lines as they are told. Pure."""

import re
from bisect import bisect_left, bisect_right
from typing import Any

from attachd.simulator.errors import ApiError
from attachd.simulator.instants import from_iso, iso_milliseconds
from attachd.simulator.state.nouns import METADATA, Contact, Item, Line, Receipt

_DEFAULT_PAGE = 10  # AWS: GetTranscript, MaxResults
_NEXT_TOKEN = re.compile(r"(FORWARD|BACKWARD)-(\d{1,9})")


def page(contact: Contact, request: dict[str, Any]) -> dict[str, Any]:
    """Return `Transcript` and, if there is more, `NextToken`; raises ApiError ValidationException.

    Defaults are GetTranscript's: 10 items, DESCENDING, BACKWARD from the end or FORWARD from a StartPosition.
    """
    direction, start = _where_to_begin(contact.transcript, request)
    size = request.get("MaxResults") or _DEFAULT_PAGE
    if direction == "FORWARD":
        following = start + size
        items, more = contact.transcript[start:following], following < len(contact.transcript)
    else:
        following = start - size
        items, more = contact.transcript[max(0, following + 1) : start + 1], following >= 0
    if request.get("SortOrder", "DESCENDING") == "DESCENDING":
        items = items[::-1]
    answer: dict[str, Any] = {"Transcript": [_written(item) for item in items]}
    if more:
        answer["NextToken"] = f"{direction}-{following}"
    return answer


def _where_to_begin(items: list[Item], request: dict[str, Any]) -> tuple[str, int]:
    """Return the direction and the index of the first item to show."""
    if "NextToken" in request:
        found = _NEXT_TOKEN.fullmatch(request["NextToken"])
        if found is None:
            raise ApiError("ValidationException", "NextToken is not one that GetTranscript returned")
        return found[1], int(found[2])
    position = request.get("StartPosition") or {}
    direction = request.get("ScanDirection") or ("FORWARD" if any(position.values()) else "BACKWARD")
    forward = direction == "FORWARD"
    if position.get("Id"):
        for index, item in enumerate(items):
            if item.id == position["Id"]:
                return direction, index
        raise ApiError("ValidationException", "StartPosition.Id is not in the transcript")
    if position.get("AbsoluteTime"):
        at = _instant(position["AbsoluteTime"])
        times = [item.at for item in items]
        return direction, bisect_left(times, at) if forward else bisect_right(times, at) - 1
    if position.get("MostRecent"):
        return direction, max(0, len(items) - position["MostRecent"])
    return direction, 0 if forward else len(items) - 1


def _instant(text: str) -> float:
    try:
        return from_iso(text)
    except (ValueError, OverflowError):
        raise ApiError("ValidationException", "StartPosition.AbsoluteTime is not ISO 8601") from None


def told(line: Line) -> dict[str, Any]:
    """Write a line as websockets and topics carry it: the item, and which chat it is of.

    A receipt is an item of Type MESSAGEMETADATA (amazon-connect-chatjs, MessageReceiptsUtil; its Id is assumed).
    """
    initial = {"InitialContactId": line.contact.initial_contact_id}
    if line.reader is None:
        return _written(line.item) | initial
    receipt = line.item.receipts[line.reader.id]
    last = max(at for at in (receipt.delivered_at, receipt.read_at) if at is not None)
    metadata = {"MessageId": line.item.id, "Receipts": [_receipt(line.reader.id, receipt)]}
    return initial | {
        "Id": line.item.id,
        "AbsoluteTime": iso_milliseconds(last),
        "Type": "MESSAGEMETADATA",
        "ContentType": METADATA,
        "ContactId": line.contact.id,
        "MessageMetadata": metadata,
    }


def _written(item: Item) -> dict[str, Any]:
    """Write an item as GetTranscript does; `Type` is MESSAGE or EVENT, the ContentType tells which event."""
    written: dict[str, Any] = {
        "Id": item.id,
        "AbsoluteTime": iso_milliseconds(item.at),
        "Type": item.type,
        "ContentType": item.content_type,
        "ContactId": item.contact_id,
    }
    if item.content is not None:
        written["Content"] = item.content
    if item.participant is not None:
        written["ParticipantId"] = item.participant.id
        written["ParticipantRole"] = item.participant.role
        written["DisplayName"] = item.participant.display_name
    if item.receipts:
        receipts = [_receipt(who, receipt) for who, receipt in item.receipts.items()]
        written["MessageMetadata"] = {"MessageId": item.id, "Receipts": receipts}
    return written


def _receipt(recipient_id: str, receipt: Receipt) -> dict[str, str]:
    written = {"RecipientParticipantId": recipient_id}
    if receipt.delivered_at is not None:
        written["DeliveredTimestamp"] = iso_milliseconds(receipt.delivered_at)
    if receipt.read_at is not None:
        written["ReadTimestamp"] = iso_milliseconds(receipt.read_at)
    return written
