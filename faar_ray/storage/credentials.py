"""Which store a URI names, where it is, and where its credentials come from; they are written nowhere.

obstore reads the environment, a web identity and the machine's role itself. It does not read AWS profiles: boto3 does.
"""

from __future__ import annotations

import os
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

from obstore.store import AzureStore, GCSStore, S3Store

CREDENTIAL_SOURCES = {
    "s3": "the environment, the AWS profile or the machine's role",
    "gs": "the environment, gcloud's application-default login or the machine's service account",
    "az": "the environment, the Azure CLI's login (AZURE_USE_AZURE_CLI=true) or the machine's identity",
}
SERVERS = {
    "s3": ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"),
    "gs": ("GOOGLE_BASE_URL",),
    "az": ("AZURE_STORAGE_ENDPOINT", "AZURE_STORAGE_ACCOUNT_NAME"),
}
"""Environment variables that say where the buckets of a scheme are; the first that is set counts."""
PROFILE_FILES = {"AWS_SHARED_CREDENTIALS_FILE": "~/.aws/credentials", "AWS_CONFIG_FILE": "~/.aws/config"}
"""Where a profile may be, by the environment variable that names another file."""
SHARED_VARIABLES = (*(name for names in SERVERS.values() for name in names), "AWS_REGION", "AWS_DEFAULT_REGION")
"""What the trials of a cluster get of the driver's environment: where the bucket is, and no key to it."""
PROFILE_REFRESH = timedelta(minutes=5)
"""boto3 renews a temporary credential 10 minutes before it ends or earlier."""


def server(uri: str) -> str:
    """The server or the account that the environment names for a URI; "" for the provider's own."""
    names = SERVERS.get(uri.partition("://")[0], ())
    return next((os.environ[name] for name in names if os.environ.get(name)), "")


def store_class(scheme: str) -> Any:
    """obstore's class for a scheme of a URI that the config has checked."""
    return {"s3": S3Store, "gs": GCSStore, "az": AzureStore}[scheme]


def store_options(scheme: str) -> dict[str, Any]:
    """Options that obstore does not take from the environment itself.

    Raises:
        ValueError: the AWS profile needs boto3, which is not installed.
    """
    if scheme != "s3":
        return {}
    provider = _profile_credentials(os.environ.get("AWS_PROFILE"), *map(_profile_file, PROFILE_FILES))
    if provider is None:
        return {}
    region = os.environ.get("AWS_REGION")  # which boto3 does not read
    return {"credential_provider": provider} | ({"region": region} if region else {})


def _profile_file(variable: str) -> Path | None:
    path = Path(os.environ.get(variable) or PROFILE_FILES[variable]).expanduser()
    return path if path.is_file() else None


@cache  # a session of boto3 takes a tenth of a second
def _profile_credentials(profile: str | None, credentials: Path | None, config: Path | None) -> Any:
    """boto3's credentials and region where there is a profile; None where obstore finds all by itself."""
    if not (profile or credentials or config):
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider
    except ImportError:
        if (profile or credentials) and not os.environ.get("AWS_ACCESS_KEY_ID"):
            raise ValueError("an AWS profile needs boto3: pip install boto3") from None
        return None

    try:
        return Boto3CredentialProvider(ttl=PROFILE_REFRESH)
    except ValueError:  # boto3 found none: neither in the profile nor elsewhere
        return None
