"""Deploys deploy/firestore.rules to a database through the REST API of Firebase Rules, for deploy.sh.

Standard input holds an access token. It needs a Python 3.8 or newer without packages.
"""

from __future__ import annotations

import argparse
import json
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

_RULES = Path(__file__).parent / "firestore.rules"
_API = "https://firebaserules.googleapis.com"
_NOT_FOUND = 404


def main(argv: list[str] | None = None) -> int:
    """Deploy the rules; return 0, or 1 if the API refuses them."""
    parser = argparse.ArgumentParser("python3 deploy/rules.py", description="Deploy the rules of a database.")
    parser.add_argument("--project", required=True)
    parser.add_argument("--database", default="(default)")
    parser.add_argument("--collection", default="events")
    parser.add_argument("--devices", default="")
    parser.add_argument("--api", default=_API, help="URL of the API")
    options = parser.parse_args(argv)
    parent = f"{options.api}/v1/projects/{options.project}"
    suffix = "" if options.database == "(default)" else f"/{options.database}"
    source = {"files": [{"name": "firestore.rules", "content": rules(options.collection, options.devices)}]}
    token = sys.stdin.readline().strip()
    try:
        ruleset = _request("POST", f"{parent}/rulesets", token, {"source": source})["name"]
        name = f"projects/{options.project}/releases/cloud.firestore{suffix}"
        release = {"name": name, "rulesetName": ruleset}
        try:
            _request("PATCH", f"{options.api}/v1/{name}", token, {"release": release})
        except urllib.error.HTTPError as error:
            if error.code != _NOT_FOUND:
                raise
            _request("POST", f"{parent}/releases", token, release)
    except OSError as error:
        print(f"The rules were not deployed: {error}.", file=sys.stderr)
        return 1
    return 0


def rules(events: str, devices: str) -> str:
    """Return the rules for these collections."""
    text = _RULES.read_text(encoding="utf-8").replace("match /events/", f"match /{events}/")
    return text.replace("match /devices/", f"match /{devices or 'devices'}/")


def _request(method: str, url: str, token: str, body: dict[str, Any]) -> dict[str, Any]:
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers, method=method)  # noqa: S310 - https
    with urllib.request.urlopen(request, timeout=60) as response:  # noqa: S310 - https
        answer: dict[str, Any] = json.load(response)
    return answer


if __name__ == "__main__":
    sys.exit(main())
