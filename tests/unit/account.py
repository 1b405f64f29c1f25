"""An AWS account in front of a simulated Connect, without a socket and with a clock in hand."""

from typing import Any
from urllib.parse import urlencode

import msgspec

from attachd.simulator.dials import Dials
from attachd.simulator.front.api import Answer, Api
from attachd.simulator.front.truth import truth
from attachd.simulator.state.world import World

CREDENTIALS = ["CONNECTION_CREDENTIALS"]
TOPIC = "arn:aws:sns:eu-central-1:111122223333:chats"


class Refused(Exception):
    pass


class Account:
    """An AWS account with a clock in hand."""

    def __init__(self, **dials: Any) -> None:
        self.dials = Dials(**dials)
        self.instance_id = self.dials.instance_id
        self.world = World(self.dials)
        self.events: list[dict[str, Any]] = []
        self.now = 1_800_000_000.0
        self.api = Api(self.world, self.events.append, self.now)

    def send(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        payload = msgspec.json.encode(body) if body is not None else b""
        return self.api.call(method, path, headers, payload, self.now)

    def ask(self, method: str, path: str, body: Any = None, bearer: str = "") -> Any:
        answer = self.send(method, path, body, **({"X-Amz-Bearer": bearer} if bearer else {}))
        if answer.spoiled is not None:
            raise Refused(f"no answer: {answer.spoiled.kind}")
        content = msgspec.json.decode(answer.body)
        if answer.status != 200:
            raise Refused(f"{answer.status} {answer.headers['x-amzn-ErrorType']} {content['Message']}")
        return content

    def start(self, **more: Any) -> Any:
        body = {"ContactFlowId": "flow", "ParticipantDetails": {"DisplayName": "Cleo"}} | more
        return self.ask("PUT", "/contact/chat", {"InstanceId": self.instance_id} | body)

    def stop(self, contact_id: str) -> Any:
        body = {"InstanceId": self.instance_id, "ContactId": contact_id}
        return self.ask("POST", "/contact/stop", body)

    def describe(self, contact_id: str) -> Any:
        return self.ask("GET", f"/contacts/{self.instance_id}/{contact_id}")["Contact"]

    def create(self, contact_id: str, role: str = "CUSTOM_BOT", **more: Any) -> Any:
        details = {"ParticipantRole": role, "DisplayName": "Ava"}
        body = {"InstanceId": self.instance_id, "ContactId": contact_id, "ParticipantDetails": details}
        return self.ask("POST", "/contact/create-participant", body | more)

    def connect(self, token: str, **more: Any) -> Any:
        body = {"Type": CREDENTIALS, "ConnectParticipant": True} | more
        return self.ask("POST", "/participant/connection", body, token)

    def join(self, token: str) -> str:
        return str(self.connect(token)["ConnectionCredentials"]["ConnectionToken"])

    def say(self, bearer: str, content: str = "hello", kind: str = "text/plain", **more: Any) -> Any:
        body = {"ContentType": kind, "Content": content} | more
        return self.ask("POST", "/participant/message", body, bearer)

    def read(self, bearer: str, **body: Any) -> Any:
        return self.ask("POST", "/participant/transcript", body, bearer)

    def leave(self, bearer: str) -> Any:
        return self.ask("POST", "/participant/disconnect", {}, bearer)

    def kinds(self, bearer: str) -> list[str]:
        return [item["ContentType"] for item in self.read(bearer, SortOrder="ASCENDING")["Transcript"]]

    def bot_token(self, contact_id: str, **more: Any) -> str:
        return str(self.create(contact_id, **more)["ParticipantCredentials"]["ParticipantToken"])

    def update(self, contact_id: str, **attributes: str) -> Any:
        body = {"InitialContactId": contact_id, "Attributes": attributes}
        return self.ask("POST", "/contact/attributes", {"InstanceId": self.instance_id} | body)

    def attributes(self, contact_id: str) -> Any:
        path = f"/contact/attributes/{self.instance_id}/{contact_id}"
        return self.ask("GET", path)["Attributes"]

    def tag(self, contact_id: str, **tags: str) -> Any:
        body = {"InstanceId": self.instance_id, "ContactId": contact_id, "Tags": tags}
        return self.ask("POST", "/contact/tags", body)

    def untag(self, contact_id: str, *keys: str) -> Any:
        query = urlencode([("TagKeys", key) for key in keys])
        return self.ask("DELETE", f"/contact/tags/{self.instance_id}/{contact_id}?{query}")

    def stream(self, contact_id: str, topic: str = TOPIC, token: str = "") -> str:
        where = {"StreamingEndpointArn": topic}
        body = {"InstanceId": self.instance_id, "ContactId": contact_id, "ClientToken": token}
        answer = self.ask("POST", "/contact/start-streaming", body | {"ChatStreamingConfiguration": where})
        return str(answer["StreamingId"])

    def unstream(self, contact_id: str, streaming_id: str) -> Any:
        body = {"InstanceId": self.instance_id, "ContactId": contact_id, "StreamingId": streaming_id}
        return self.ask("POST", "/contact/stop-streaming", body)

    def search(self, **more: Any) -> Any:
        when = {"Type": "INITIATION_TIMESTAMP", "StartTime": self.now - 3600, "EndTime": self.now}
        return self.ask(
            "POST", "/search-contacts", {"InstanceId": self.instance_id, "TimeRange": when} | more
        )

    def set_timers(self, contact_id: str, **value: Any) -> Any:
        timer = {"ParticipantRole": "CUSTOMER", "TimerType": "IDLE", "TimerValue": value}
        path = f"/contact/participant-role-config/{self.instance_id}/{contact_id}"
        body = {"ChannelConfiguration": {"Chat": {"ParticipantTimerConfigList": [timer]}}}
        return self.ask("PUT", path, body)

    def signal(self, bearer: str, kind: str, **more: Any) -> Any:
        body = {"ContentType": f"application/vnd.amazonaws.connect.event.{kind}"} | more
        return self.ask("POST", "/participant/event", body, bearer)

    def control(self, contact_id: str, verb: str, **body: str) -> Any:
        path = f"/_simulator/contacts/{contact_id}/{verb}"
        answer = self.api.control(path, msgspec.json.encode(body), self.now)
        told = msgspec.json.decode(answer.body)
        if answer.status != 200:
            raise Refused(f"{answer.status} {told['message']}")
        return told

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.api.advance(self.now)

    def chat(self) -> tuple[str, str]:
        """Start a chat whose customer is connected; return the contact's id and the customer's bearer."""
        started = self.start()
        return started["ContactId"], self.join(started["ParticipantToken"])

    def all_told(self) -> Any:
        return truth(self.world)

    def told(self, contact_id: str) -> Any:
        return next(each for each in self.all_told()["contacts"] if each["id"] == contact_id)

    def announced(self, contact_id: str) -> list[str]:
        details = [event["detail"] for event in self.events]
        return [each["eventType"] for each in details if each["contactId"] == contact_id]
