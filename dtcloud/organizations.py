"""Looks up the organization of a DT project."""

from disruptive.requests import DTRequest

from dtcloud.errors import explained


class OrganizationError(Exception):
    """Raised if DT's API does not return the organization; the text gives the reason."""


def organization_of(project: str) -> str:
    """Return the id of the organization that a project belongs to.

    Args:
        project: DT's project id.

    Raises:
        OrganizationError: DT's API refuses the request, or cannot be reached.
    """
    with explained(OrganizationError):
        return str(DTRequest.get(f"/projects/{project}")["organization"]).rpartition("/")[2]
