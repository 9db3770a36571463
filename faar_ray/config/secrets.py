"""Passwords in URIs: they stand nowhere but in the environment of the process that connects.

`http://me:PASSWORD@host` becomes `http://host`, with MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD set;
`postgresql://me:PASSWORD@host/db` becomes `postgresql://me@host/db`, with MLFLOW_TRACKING_URI set to the whole of it.
A resumed run, whose files hold the short form, finds the rest in the same variables.
"""

from __future__ import annotations

import os
import re
from urllib.parse import quote, unquote

URI_VARIABLE, EXPERIMENT_VARIABLE = "MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME"
USER_VARIABLE, PASSWORD_VARIABLE = "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"

PORT = r"\d+(?:[/?#\s'\",;)\]}]|$)"
PASSWORD = re.compile(  # ends with the last '@' of host and port; one that holds '/', '?' or '#', with the first '@'
    rf"(?P<scheme>[a-z][\w+.-]*)://(?P<user>[^\s:/@]*):(?!{PORT})(?P<password>(?=\S)(?:[^/?#\n]*(?=@)|[^@\n]*))@",
    re.IGNORECASE,
)
HTTP_USER = re.compile(r"(?P<scheme>https?)://(?P<user>[^\s:/?#@]+)@", re.IGNORECASE)
QUERY = re.compile(r"(?<=[\w/])\?([^\s'\"}]*)")
SECRET_OPTION = re.compile(
    r"([\w.-]*(passw(or)?d|pwd|secret|token|signature|(access|api|account)_?key)[\w.-]*|sig|odbc_connect)=.*",
    re.IGNORECASE,
)


def without_secrets(text: str) -> str:
    """A URI, or a text with URIs in it, without their passwords; of http without the user as well."""
    text = HTTP_USER.sub(r"\g<scheme>://", PASSWORD.sub(_without_password, text))
    return QUERY.sub(_without_options, text) if "://" in text else text


def _without_password(match: re.Match[str]) -> str:
    user = "" if match["scheme"].lower() in ("http", "https") else match["user"]
    return f"{match['scheme']}://{user}" + "@" * bool(user)


def _without_options(match: re.Match[str]) -> str:
    kept = "&".join(option for option in match[1].split("&") if not SECRET_OPTION.fullmatch(option))
    return f"?{kept}" if kept or not match[1] else ""


def without_user(uri: str) -> str:
    """The place that a URI names, whoever connects."""
    return re.sub(r"://[^\s/@]*@", "://", without_secrets(uri))


def take_credentials(uri: str) -> str:
    """Move the credentials of a tracking URI to the environment of this process; gives the URI without them."""
    plain = without_secrets(uri)
    if plain == uri:
        return uri

    match = PASSWORD.match(uri)
    if not is_server(uri):
        if match:  # the characters that end a password are escaped: a client ends it with the first of them
            uri = f"{match['scheme']}://{match['user']}:{quote(unquote(match['password']), '')}{uri[match.end() - 1 :]}"
        os.environ[URI_VARIABLE] = uri
    elif match := match or HTTP_USER.match(uri):
        for variable, part in ((USER_VARIABLE, "user"), (PASSWORD_VARIABLE, "password")):
            if value := unquote(match.groupdict().get(part) or ""):
                os.environ[variable] = value
    return plain


def with_credentials(plain: str) -> str:
    """What a client connects to: a database with the password that MLFLOW_TRACKING_URI has for it.

    A server's user and password are read from the environment by MLflow itself.
    """
    known = os.environ.get(URI_VARIABLE, "")
    if without_user(known) != without_user(plain):
        return plain
    take_credentials(known)
    return plain if is_server(plain) else os.environ[URI_VARIABLE]


def is_server(uri: str) -> bool:
    """Whether a tracking URI is a server's, not a database's."""
    return uri.lower().startswith(("http://", "https://"))
