"""No password of a URI leaves the environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from faar_ray.config.run_sections import Tracking
from faar_ray.config.secrets import take_credentials, with_credentials, without_secrets, without_user
from faar_ray.config.trial_file import read_trial
from faar_ray.errors import ConfigError
from faar_ray.tools import shell_command
from tests.commands import environment

VARIABLES = ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD")
SECRET = "s3cr3t"


@pytest.fixture(autouse=True)
def empty_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test moves to the environment leaves with it."""
    for name in VARIABLES:
        monkeypatch.setenv(name, "")  # so that the end of the test restores it
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("uri", "plain"),
    [
        ("http://me:s3cr3t@127.0.0.1:5057", "http://127.0.0.1:5057"),
        ("https://s3cr3t@host/mlflow", "https://host/mlflow"),
        ("http://me:a/s3cr3t#b?c@host:5000", "http://host:5000"),
        ("http://me:a@s3cr3t@host", "http://host"),
        ("postgresql://u:s3cr3t@h/db", "postgresql://u@h/db"),
        ("postgresql+psycopg2://u:s3 cr3t s3cr3t@h:5432/db?sslmode=require", "postgresql+psycopg2://u@h:5432/db?sslmode=require"),
        ("postgresql://h/db?user=u&password=s3cr3t", "postgresql://h/db?user=u"),
        ("mysql+pymysql://u:%73s3cr3t@h/db?password=s3cr3t&access_token=s3cr3t&charset=utf8", "mysql+pymysql://u@h/db?charset=utf8"),
        ("mssql+pyodbc:///?odbc_connect=DSN%3Dx%3BPWD%3Ds3cr3t", "mssql+pyodbc:///"),
        ("tracking={uri: 'http://me:s3cr3t@host'}: no", "tracking={uri: 'http://host'}: no"),
    ],
)  # fmt: skip
def test_a_password_is_left_out_wherever_it_stands(uri: str, plain: str) -> None:
    assert without_secrets(uri) == plain
    assert without_secrets(plain) == plain


@pytest.mark.parametrize(
    "text",
    [
        "http://127.0.0.1:5000",
        "http://127.0.0.1:5000/a@b",
        "postgresql://u@h:5432/db",
        "sqlite:////data/50%25 a:b@c/w%3Fz/mlflow.db?timeout=9",
        "MLflow cannot use 'http://h:5000': ask me@example.org",
        "is it ok? password=none",
    ],
)
def test_what_holds_no_password_stays(text: str) -> None:
    assert without_secrets(text) == text


def test_a_servers_credentials_go_where_mlflow_reads_them() -> None:
    from mlflow.utils.credentials import read_mlflow_creds

    assert take_credentials("http://me:s3%40cr3t@host:5000") == "http://host:5000"
    creds = read_mlflow_creds()
    assert (creds.username, creds.password) == ("me", "s3@cr3t")
    assert with_credentials("http://host:5000") == "http://host:5000"


def test_a_database_gets_its_password_back_for_the_connection_alone() -> None:
    whole = "postgresql://u:s3cr3t@h/db?sslmode=require"
    assert take_credentials(whole) == (plain := "postgresql://u@h/db?sslmode=require")
    assert with_credentials(plain) == whole
    assert with_credentials("postgresql://u@other/db") == "postgresql://u@other/db"


def test_another_user_of_the_same_database_may_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://v:other@h/db")
    assert with_credentials("postgresql://u@h/db") == "postgresql://v:other@h/db"
    assert without_user("postgresql://u@h/db") == without_user("postgresql://v:other@h/db") == "postgresql://h/db"


def test_the_environments_uri_gives_its_password_to_a_recorded_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:s3cr3t@host")
    assert with_credentials("http://host") == "http://host"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == SECRET


def test_a_config_never_holds_the_password() -> None:
    tracking = Tracking(uri=f"postgresql://u:{SECRET}@h/db")
    assert SECRET not in repr(tracking) + tracking.model_dump_json()


@pytest.mark.parametrize("key", ["tracking.uri", "storage.path", "nonsense", "data.root"])
def test_messages_do_not_quote_it(tmp_path: Path, key: str) -> None:
    path = tmp_path / "trial.yaml"
    path.write_text(f"{key.replace('.', ': {')}: htp://me:{SECRET}@host{'}' * ('.' in key)}\noptim: {{epochs: x}}\n")
    for overrides in ((), (f"{key}=ftp://me:{SECRET}@host", "optim.epochs=y")):
        with pytest.raises(ConfigError) as error:
            read_trial(path, overrides)
        assert "epochs" in str(error.value)
        assert SECRET not in str(error.value)


def test_a_command_to_type_again_is_without_it() -> None:
    words = ["python", "-m", "faar_ray.tune", "a b.yaml", f"tracking.uri=http://me:{SECRET}@host", "--resume"]
    assert shell_command(words) == "python -m faar_ray.tune 'a b.yaml' tracking.uri=http://host --resume"


@pytest.mark.parametrize(
    ("argument", "shown", "variables"),
    [
        ("tracking.uri=http://me:s3cr3t@host", "tracking.uri=http://host", [None, "me", SECRET]),
        ("--tracking-uri=http://me:s3cr3t@host", "--tracking-uri=http://host", [None, "me", SECRET]),
        ("tracking={uri: 'http://me:s3cr3t@host'}", "tracking={uri: 'http://host'}", [None, "me", SECRET]),
        ("postgresql://u:s3cr3t@h/db", "postgresql://u@h/db", ["postgresql://u:s3cr3t@h/db", None, None]),
        ("storage.path=s3://key:s3cr3t@bucket", "storage.path=s3://key:s3cr3t@bucket", [None, None, None]),  # refused
    ],
)
def test_the_list_of_processes_does_not_show_it(argument: str, shown: str, variables: list[str | None]) -> None:
    script = (
        "import json, os, psutil, sys\nfrom faar_ray.command_line import hide_passwords\nhide_passwords()\n"
        f"print(json.dumps([psutil.Process().cmdline()[-2:], sys.argv[1:], [*map(os.environ.get, {VARIABLES})]]))"
    )
    command = [sys.executable, "-c", script, "space.yaml", argument]
    output = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60, check=True).stdout
    assert json.loads(output) == [["space.yaml", shown], ["space.yaml", shown], variables]
