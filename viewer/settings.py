"""What the viewer and the local system agree on: where each finds the other, and which settings they share."""

from pathlib import Path

DEFAULT_PORT = 8081
LOCAL_SYSTEM = Path(".state/settings.json")  # written by ./run.sh
SETTINGS = {  # the function's, and the viewer's options for them
    "GOOGLE_CLOUD_PROJECT": "--project",
    "FIRESTORE_DATABASE": "--database",
    "EVENTS_COLLECTION": "--collection",
    "DEVICES_COLLECTION": "--devices",
}
