"""Addresses of MLflow's stores: which are accepted, and what they must not hold."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, parse_qsl, urlsplit

from wmcore.errors import InputError, MissingPartError

SERVERS, DATABASES = ("http", "https"), ("postgresql", "mysql", "mssql")
FORMS = (
    "http://HOST:PORT, https://HOST, sqlite:////FOLDER/FILE, databricks, or postgresql://, mysql:// or mssql:// with "
    "USER@HOST/DATABASE, where +DRIVER may follow the first word"
)
_SECRET = re.compile(r"pass|pwd|secret|token|odbc_connect", re.IGNORECASE)
"""Names of an address's parameters that hold one."""


def check_store_address(address: str) -> str:
    """Returns an address that MLflow takes, whatever the folder that it is called in.

    Raises:
        InputError: it is none, or holds a password; the message does not show it.
    """
    try:
        parts, port = urlsplit(address), urlsplit(address).port
    except ValueError as error:
        raise _refused(f"must be null or a store's address, and cannot be read ({error})", "***") from error
    shown = _without_secrets(address, parts)
    if parts.password is not None or any(_SECRET.search(name) for name, _ in parse_qsl(parts.query)):
        raise _refused(
            "must hold no password, because it is written to the ledger, to the report and to MLflow itself",
            shown,
            remedy="Leave it out and give it where the client looks for it: MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD for a server, PGPASSWORD or ~/.pgpass for PostgreSQL, ~/.my.cnf for MySQL.",
        )
    if not _is_taken(address, parts) or port == 0:
        raise _refused(f"must be null or an MLflow store's address ({FORMS}); MLflow refuses plain folders", shown)
    if parts.scheme.startswith("sqlite") and not address.partition(":///")[2].startswith("/"):
        raise _refused(
            "must name its file from the root on: it would be another one in every folder that wmsweep is called in",
            shown,
            remedy="Write sqlite:////FOLDER/FILE, with four slashes.",
        )
    return address


def _is_taken(address: str, parts: SplitResult) -> bool:
    kind, plus, driver = parts.scheme.partition("+")
    if re.search(r"\s", address) or (plus and not driver):
        return False
    if kind in SERVERS:
        return not plus and bool(parts.hostname)
    if kind == "sqlite":
        return bool(address.partition(":///")[2])
    if kind in DATABASES:
        return address.startswith(f"{parts.scheme}://") and bool(parts.netloc or parts.path.strip("/"))
    return address == "databricks" or (kind == "databricks" and not plus and bool(parts.netloc))


def _without_secrets(address: str, parts: SplitResult) -> str:
    """The address as it may be shown."""
    shown = address.replace(parts.netloc, re.sub(r":.*@", ":***@", parts.netloc), 1)
    return shown.replace(parts.query, re.sub(r"=[^&]*", "=***", parts.query)) if _SECRET.search(parts.query) else shown


def _refused(rule: str, shown: str, remedy: str = "") -> InputError:
    return InputError("", rule, value=shown, remedy=remedy)


def check_database_driver(address: str | None) -> None:
    """Checks that this machine can speak to a database.

    Raises:
        MissingPartError: the Python package that does is not installed.
    """
    if address is None or urlsplit(address).scheme.partition("+")[0] not in DATABASES:
        return
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import NoSuchModuleError

    scheme = urlsplit(address).scheme
    try:
        make_url(address).get_dialect().import_dbapi()
    except (ImportError, NoSuchModuleError) as error:
        package = getattr(error, "name", None)
        missing = f"the Python package {package}, which is not installed" if package else f"a driver ({error})"
        raise MissingPartError(
            f"tracking.uri starts with {scheme}, which needs {missing}. Install it, or name one that is there, as in "
            f"{scheme.partition('+')[0]}+DRIVER://."
        ) from error
