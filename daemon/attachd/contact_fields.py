"""The fields of an Amazon Connect contact event, as far as they are documented.

Here: names, and values where a field has only so many; for those who check what a rule asks for. It decides nothing:
events with other fields and values are taken as they come.

Source: Amazon Connect admin guide, "Amazon Connect contact events"; the envelope is EventBridge's. Members that the
guide shows in samples only, or not at all, take any name (``*``).
"""

from typing import Final

from attachd.patterns.lint import Known

_ANYTHING: Final[Known] = {"*": None}

CHANNELS: Final = ("VOICE", "CHAT", "TASK", "EMAIL")

EVENT_TYPES: Final = (
    "INITIATED",
    "CONNECTED_TO_SYSTEM",
    "CONTACT_DATA_UPDATED",
    "QUEUED",
    "CONNECTED_TO_AGENT",
    "DISCONNECTED",
    "PAUSED",
    "RESUMED",
    "COMPLETED",
    "AMD_DISABLED",  # in the guide's list, though not among the valid values
)

INITIATION_METHODS: Final = (
    "INBOUND",
    "OUTBOUND",
    "TRANSFER",
    "CALLBACK",
    "API",
    "QUEUE_TRANSFER",
    "EXTERNAL_OUTBOUND",
    "MONITOR",
    "DISCONNECT",
    "AGENT_REPLY",
    "FLOW",
    "WEBRTC_API",  # of the API's enumeration
    "CAMPAIGN_PREVIEW",  # seen in code of others
)

_AGENT: Final[Known] = {
    "agentArn": None,
    "connectedToAgentTimestamp": None,
    "hierarchyGroups": _ANYTHING,
    "agentInitiatedHoldDuration": None,
    "afterContactWorkStartTimestamp": None,
    "afterContactWorkEndTimestamp": None,
    "afterContactWorkDuration": None,
    "acceptedByAgentTimestamp": None,
    "previewEndTimestamp": None,
    "stateTransitions": _ANYTHING,
}

CONTACT_EVENT: Final[Known] = {
    "version": None,
    "id": None,
    "detail-type": ("Amazon Connect Contact Event",),
    "source": ("aws.connect",),
    "account": None,
    "time": None,
    "region": None,
    "resources": None,
    "detail": {
        "eventType": EVENT_TYPES,
        "contactId": None,
        "initialContactId": None,
        "previousContactId": None,
        "relatedContactId": None,
        "channel": CHANNELS,
        "instanceArn": None,
        "initiationMethod": INITIATION_METHODS,
        "initiationTimestamp": None,
        "connectedToSystemTimestamp": None,
        "disconnectTimestamp": None,
        "scheduledTimestamp": None,
        "queueInfo": {"queueArn": None, "queueType": None, "enqueueTimestamp": None},
        "agentInfo": _AGENT,
        "segmentAttributes": {"*": _ANYTHING},
        "tags": _ANYTHING,
        "updatedProperties": None,
        "routingCriteria": _ANYTHING,
        "contactLens": _ANYTHING,
        "customerVoiceActivity": {"greetingStartTimestamp": None, "greetingEndTimestamp": None},
        "systemEndpoint": {"address": None, "type": None, "displayName": None},
        "recordings": _ANYTHING,
        "campaign": _ANYTHING,
        "outboundStrategy": _ANYTHING,
        "customerId": None,
        "contactDetails": _ANYTHING,
        "contactEvaluations": _ANYTHING,
        "disconnectReason": None,
        "answeringMachineDetectionStatus": None,
        "chatMetrics": {
            "chatContactMetrics": _ANYTHING,
            "agentMetrics": _ANYTHING,
            "customerMetrics": _ANYTHING,
        },
    },
}
"""What ``patterns.lint`` takes as ``known``."""
