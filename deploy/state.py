"""Prints what is deployed, for deploy.sh: a line NAME=VALUE for each setting of the function.

Each argument is a file with JSON as gcloud prints it; an empty file stands for something that does not exist. It needs
a Python 3.8 or newer without packages.
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

_EXAMPLE = """\
example:
  gcloud functions describe dataconnector-endpoint --format=json >function.json
  gcloud run services describe dataconnector-endpoint --format=json >service.json
  python3 deploy/state.py function.json service.json
"""
_ENVIRONMENT = {  # the variables that options of deploy.sh set, and the values that the function takes without them
    "FIRESTORE_DATABASE": ("DATABASE", "(default)"),
    "EVENTS_COLLECTION": ("COLLECTION", "events"),
    "DEVICES_COLLECTION": ("DEVICES", ""),
    "RETENTION_DAYS": ("RETENTION_DAYS", ""),
    "SIGNATURE_LEEWAY_SECONDS": ("LEEWAY", "10"),
    "LOG_LEVEL": ("LOG_LEVEL", "INFO"),
}
_FIXED = ("GOOGLE_CLOUD_PROJECT", "FUNCTION_USE_ASGI", "LOG_EXECUTION_ID")
_SECRET = "DT_SIGNATURE_SECRET"  # noqa: S105 - the name of the variable
_INVOKER_CHECK = "run.googleapis.com/invoker-iam-disabled"


def main(argv: list[str] | None = None) -> int:
    """Print the state."""
    parser = argparse.ArgumentParser(
        "python3 deploy/state.py",
        description=__doc__,
        epilog=_EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("function", help="gcloud functions describe")
    parser.add_argument("service", help="gcloud run services describe")
    parser.add_argument("revision", nargs="?", help="gcloud run revisions describe, of the revision that serves")
    parser.add_argument("--secret", action="store_true", help="print the signature secret in a plain variable instead")
    options = parser.parse_args(argv)
    function, service = _read(options.function), _read(options.service)
    revision = _read(options.revision) if options.revision else {}
    if options.secret:
        print(_environment(function, service, revision)[0][_SECRET])
        return 0
    ready = {each["status"] for each in revision.get("status", {}).get("conditions", []) if each["type"] == "Ready"}
    state = {**_function(function), **_service(service), **_settings(function, service, revision)}
    state["READY"] = "".join(ready)
    for name, value in state.items():
        print(f"{name}={' '.join(str(value).split())}")
    return 0


def _read(path: str) -> Any:
    with open(path, encoding="utf-8") as file:  # noqa: PTH123 - Python 3.8 without packages
        return json.loads(file.read() or "{}")


def _function(function: Any) -> dict[str, Any]:
    build, config = function.get("buildConfig", {}), function.get("serviceConfig", {})
    return {
        "EXISTS": "true" if function else "",
        "STATE": _state(function),
        "FLAGS": function.get("labels", {}).get("flags", ""),
        "ENTRY_POINT": build.get("entryPoint", ""),
        "URL": config.get("uri", ""),
    }


def _state(function: Any) -> str:
    errors = [each for each in function.get("stateMessages", []) if each.get("severity") == "ERROR"]
    return "failed" if errors else str(function.get("state", ""))


def _service(service: Any) -> dict[str, Any]:
    status = service.get("status", {})
    served = sorted((each for each in status.get("traffic", []) if each.get("percent")), key=lambda x: x["percent"])
    serving = served[-1].get("revisionName", "") if served else ""
    newest = status.get("latestCreatedRevisionName", "")
    annotations = service.get("metadata", {}).get("annotations", {})
    return {
        "REVISION": serving,
        "NEWEST_REVISION": newest,
        "TRAFFIC": "newest" if len(served) == 1 and serving == newest else " ".join(x["revisionName"] for x in served),
        "INVOKER_CHECK": "disabled" if annotations.get(_INVOKER_CHECK, "").lower() == "true" else "enabled",
    }


def _settings(function: Any, service: Any, revision: Any) -> dict[str, Any]:
    """Return the settings of the revision that serves; without a service those of the function."""
    config = function.get("serviceConfig", {})
    serves = not revision and _state(function) == "ACTIVE"  # what the last deployment made
    container = _container(service, revision)
    environment, secret = _environment(function, service, revision)
    limits = container.get("containers", [{}])[0].get("resources", {}).get("limits", {})
    return {
        **{name: environment.get(variable, default) for variable, (name, default) in _ENVIRONMENT.items()},
        "ORGANIZATION_ID": ",".join(environment.get("DT_ORGANIZATION_ID", "").replace(",", " ").split()),
        "SOURCE": environment.get("SOURCE_DIGEST", ""),
        "PREVIOUS": environment.get("PREVIOUS_REVISION", ""),
        "FIXED": ";".join(f"{name}={environment.get(name, '')}" for name in _FIXED),
        "SECRET": secret[0],
        "VERSION": secret[1],
        "PLAIN_SECRET": "true" if _SECRET in environment else "",
        "VARIABLES": " ".join(sorted({*environment, *config.get("environmentVariables", {})})),
        "SECRET_VARIABLE": "true" if _of_function(config)[0] else "",
        "EMAIL": container.get("serviceAccountName", config.get("serviceAccountEmail", "")),
        "CONCURRENCY": container.get("containerConcurrency", config.get("maxInstanceRequestConcurrency", "")),
        "CPU": _cpu(limits.get("cpu", config.get("availableCpu", ""))),
        "MEMORY": limits.get("memory", config.get("availableMemory", "")),
        "TIMEOUT": container.get("timeoutSeconds", config.get("timeoutSeconds", "")),
        **_deployment(function, "" if serves else environment.get("DEPLOYED_WITH", "")),
    }


def _deployment(function: Any, recorded: str) -> dict[str, Any]:
    """Return the settings that are read from the function, which shows those of its last deployment.

    Args:
        function: the function.
        recorded: runtime, build account, minimum and maximum of instances, separated by commas, of a revision that
            another deployment made; empty if the last one made it, and if the revision has no record.
    """
    build, config = function.get("buildConfig", {}), function.get("serviceConfig", {})
    account = build.get("serviceAccount", "").rpartition("/")[2]
    last = build.get("runtime", ""), account, config.get("minInstanceCount", 0), config.get("maxInstanceCount", "")
    runtime, account, minimum, maximum = recorded.split(",") if recorded else last
    return {
        "RUNTIME": runtime,
        "BUILD_SERVICE_ACCOUNT": account,
        "MIN_INSTANCES": minimum,
        "MAX_INSTANCES": maximum,
    }


def _container(service: Any, revision: Any) -> Any:
    return (revision or service.get("spec", {}).get("template", {})).get("spec", {})


def _environment(function: Any, service: Any, revision: Any) -> tuple[Any, tuple[str, str]]:
    """Return the plain variables, and name and version of the secret."""
    if container := _container(service, revision):
        return _of_container(container)
    config = function.get("serviceConfig", {})
    return config.get("environmentVariables", {}), _of_function(config)


def _of_container(spec: Any) -> tuple[Any, tuple[str, str]]:
    environment, secret = {}, ("", "")
    for variable in spec["containers"][0].get("env", []):
        reference = variable.get("valueFrom", {}).get("secretKeyRef")
        if reference and variable["name"] == _SECRET:
            secret = (reference["name"], reference["key"])
        elif not reference:
            environment[variable["name"]] = variable.get("value", "")
    return environment, secret


def _of_function(config: Any) -> tuple[str, str]:
    for each in config.get("secretEnvironmentVariables", []):
        if each["key"] == _SECRET:
            return each["secret"], each["version"]
    return "", ""


def _cpu(value: str) -> str:
    """Return 1 for 1000m."""
    return f"{int(value[:-1]) / 1000:g}" if value.endswith("m") else value


if __name__ == "__main__":
    sys.exit(main())
