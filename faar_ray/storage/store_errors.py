"""Short reasons for obstore's errors, whose own text has the request's URL and the server's whole answer."""

from __future__ import annotations

import re

from faar_ray.storage.atomic import reason_of

MISSING_BUCKET = {"NoSuchBucket", "ContainerNotFound"}
METADATA_SERVERS = ("169.254.169.254", "169.254.170.2", "metadata.google.internal")
"""Asked for a role's credentials when there are no others."""


def reason(error: Exception) -> str:
    """What went wrong, in a few words, without a URL."""
    text = str(error)
    if _asked_for_role(text):
        return "no credentials were found"
    if status := re.search(r"status code: (\d{3}[A-Za-z ]*)", text):
        return ", ".join(filter(None, (status[1].strip(), _code(text))))
    if "kind: Timeout" in text:
        return "timed out"
    if cause := re.search(r'(?:message|error): "([^"]+)"', text):
        return cause[1]
    if isinstance(error, OSError) and error.errno:
        return reason_of(error)

    first = next(filter(None, text.splitlines()), type(error).__name__)
    return re.sub(r"\S+://\S+", "...", first.rpartition(" - ")[2])


def is_missing_bucket(error: Exception) -> bool:
    """Whether the server says that it has no such bucket or container."""
    return _code(str(error)) in MISSING_BUCKET


def is_credential_error(error: Exception) -> bool:
    """Whether the server refused the credentials, or there are none."""
    text = str(error)
    return _asked_for_role(text) or re.search(r"status code: 40[13]", text) is not None


def _asked_for_role(text: str) -> bool:
    return any(server in text.partition(" - ")[0] for server in METADATA_SERVERS)


def _code(text: str) -> str:
    code = re.search(r"<Code>(\w+)</Code>", text)
    return code[1] if code else ""
