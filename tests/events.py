"""Bodies as DT Cloud sends them: one real shape for each of the 19 event types."""

import json
import uuid
from typing import Any

_AT = "2026-05-16T08:13:15.361624Z"
DATA: dict[str, dict[str, Any]] = {
    "touch": {"touch": {"updateTime": _AT}},
    "temperature": {
        "temperature": {
            "value": 27,
            "updateTime": _AT,
            "samples": [{"value": 27, "sampleTime": _AT}, {"value": 26.85, "sampleTime": _AT}],
            "isBackfilled": False,
        }
    },
    "objectPresent": {"objectPresent": {"state": "NOT_PRESENT", "updateTime": _AT}},
    "humidity": {
        "humidity": {
            "temperature": 22.45,
            "relativeHumidity": 17,
            "samples": [{"temperature": 22.45, "relativeHumidity": 17, "sampleTime": _AT}],
            "isBackfilled": False,
            "updateTime": _AT,
        }
    },
    "objectPresentCount": {"objectPresentCount": {"total": 4176, "updateTime": _AT}},
    "touchCount": {"touchCount": {"total": 469, "updateTime": _AT}},
    "waterPresent": {"waterPresent": {"state": "PRESENT", "updateTime": _AT}},
    "networkStatus": {
        "networkStatus": {
            "signalStrength": 45,
            "rssi": -83,
            "updateTime": _AT,
            "cloudConnectors": [{"id": "bdkjbo2v0000uk377c4g", "signalStrength": 45, "rssi": -83}],
            "transmissionMode": "LOW_POWER_STANDARD_MODE",
        }
    },
    "batteryStatus": {"batteryStatus": {"percentage": 100, "updateTime": _AT}},
    "labelsChanged": {"added": {"key": "value"}, "modified": {"key": "new"}, "removed": ["key1", "key2"]},
    "connectionStatus": {
        "connectionStatus": {"connection": "ETHERNET", "available": ["CELLULAR", "ETHERNET"], "updateTime": _AT}
    },
    "ethernetStatus": {
        "ethernetStatus": {"macAddress": "f0:b5:b7:00:0a:08", "ipAddress": "10.0.0.1", "errors": [], "updateTime": _AT}
    },
    "cellularStatus": {
        "cellularStatus": {"signalStrength": 80, "errors": [{"code": "7", "message": "x"}], "updateTime": _AT}
    },
    "co2": {"co2": {"ppm": 617, "updateTime": _AT}},
    "pressure": {"pressure": {"pascal": 94936, "updateTime": _AT}},
    "motion": {"motion": {"state": "MOTION_DETECTED", "updateTime": _AT}},
    "deskOccupancy": {"deskOccupancy": {"state": "NOT_OCCUPIED", "updateTime": _AT, "remarks": []}},
    "contact": {"contact": {"state": "OPEN", "updateTime": _AT}},
    "probeWireStatus": {"probeWireStatus": {"state": "THREE_WIRE", "updateTime": _AT}},
}


def envelope(event_type: str = "temperature", **changes: Any) -> dict[str, Any]:
    """Return a whole envelope with an eventId of its own; `changes` go into its event."""
    event = {
        "eventId": uuid.uuid4().hex[:20],
        "targetName": "projects/bhmh0143iktucae701vg/devices/bchonod7rihjtvdmd2vg",
        "eventType": event_type,
        "data": DATA.get(event_type, {}),
        "timestamp": _AT,
    }
    return {
        "event": event | changes,
        "labels": {"name": "Milk fridge", "room": "Küche"},
        "metadata": {
            "deviceId": "bchonod7rihjtvdmd2vg",
            "projectId": "bhmh0143iktucae701vg",
            "deviceType": event_type,
            "productNumber": "102058",
        },
    }


def encode(value: Any) -> bytes:
    """Return the compact UTF-8 JSON that the sender sends."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
