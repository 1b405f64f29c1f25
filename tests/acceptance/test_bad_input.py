"""What is no contact event ends as its own outcome, beside neighbours that are served."""

import json
from pathlib import Path

from acceptance.town import Robot, Town, town


async def test_bad_bodies_are_named_counted_and_put_aside_while_their_neighbours_are_served(
    tmp_path: Path,
) -> None:
    robot = Robot()
    async with town(tmp_path, robot) as place, place.attachd() as daemon:
        envelope = {"detail-type": "Amazon Connect Contact Event", "source": "aws.connect"}
        instance = "arn:aws:connect:eu-central-1:111122223333:instance/x"
        for body in (
            "no json at all",
            '{"Records": []}',
            json.dumps(envelope | {"detail": {"eventType": "INITIATED", "instanceArn": instance}}),
            json.dumps(
                envelope | {"detail": {"eventType": "SNEEZED", "contactId": "c", "instanceArn": instance}}
            ),
            "[" * 50_000,
        ):
            _send(place, body)
        await place.spoke(await place.start_chat())
        lines = await place.settled(7)
        metrics = await place.get(f"{daemon.url}/metrics")
        health = await place.get(f"{daemon.url}/healthz"), await place.get(f"{daemon.url}/readyz")
        aside = _quarantined(place)
    outcomes = sorted(line["outcome"] for line in lines)
    assert outcomes == sorted(
        [
            "attached",
            "duplicate",
            "not_json",
            "not_json",
            "not_a_contact_event",
            "no_contact_id",
            "unknown_event_type",
        ]
    )
    assert health == ("ok\n", "ok\n")
    assert 'attachd_outcomes_total{outcome="not_json",source="contact-events"} 2.0' in metrics
    assert sorted(reason.partition(":")[0] for reason in aside.values()) == [
        "no_contact_id",
        "not_a_contact_event",
        "not_json",
        "not_json",
    ]
    assert "no json at all" in aside


def _send(place: Town, body: str) -> None:
    place.sqs().send_message(QueueUrl=place.embedded.queue_url, MessageBody=body)


def _quarantined(place: Town) -> dict[str, str]:
    """Bodies put aside, and why."""
    answer = place.sqs().receive_message(
        QueueUrl=place.embedded.quarantine_url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
    )
    return {
        message["Body"]: message["MessageAttributes"]["attachd.reason"]["StringValue"]
        for message in answer["Messages"]
    }
