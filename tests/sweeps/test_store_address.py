"""Addresses of MLflow's stores: MLflow itself takes those that pass, and no password is kept or shown."""

from __future__ import annotations

import pytest
from mlflow.utils.uri import extract_db_type_from_uri, is_databricks_uri

from sweeps.store_address import check_database_driver, check_store_address
from tests.fixtures.sweeps import small_sweep
from wmcore.errors import InputError, MissingPartError

DATABASES = [
    "sqlite:////data/mlflow.db",
    "sqlite+pysqlite:////data/mlflow.db",
    "postgresql://me@host:5432/runs",
    "postgresql+psycopg2://me@host/runs?sslmode=require",
    "mysql+pymysql://host/runs",
    "mssql+pyodbc://me@host/runs?driver=ODBC+Driver+18",
]


@pytest.mark.parametrize("address", DATABASES)
def test_databases_that_mlflow_takes(address):
    assert extract_db_type_from_uri(address) == address.partition(":")[0].partition("+")[0]
    assert small_sweep(**{"tracking.uri": address}).tracking.uri == address


@pytest.mark.parametrize("address", ["http://127.0.0.1:5000", "https://me@host/mlflow", "http://[::1]:5000"])
def test_servers(address):
    assert check_store_address(address) == address


def test_databricks():
    for address in ("databricks", "databricks://profile"):
        assert is_databricks_uri(check_store_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "",
        "mlruns",
        "file:///data/mlruns",
        "http://",
        "http:host",
        "http://a b",
        "http://host:99999",
        "http://host:0",
        "http+x://host",
        "databricksfoo",
        "databricks://",
        "postgresql://",
        "postgresql:runs",
        "postgresql+://host/runs",
        "oracle://host/runs",
        "sqlite://",
        "sqlite:///",
        "sqlite:///runs.db",
        "sqlite:runs.db",
    ],
)
def test_what_is_no_address(address):
    with pytest.raises(InputError):
        check_store_address(address)


@pytest.mark.parametrize(
    "address",
    [
        "postgresql://me:hunter2@host/runs",
        "postgresql://me:p@hunter2@host/runs",
        "postgresql://host/runs?user=me&password=hunter2",
        "mssql+pyodbc:///?odbc_connect=PWD%3Dhunter2",
        "https://me:hunter2@host",
        "oracle://me:hunter2@host/runs",
        "http://me:hunter2@host:99999",
        "http://me:hunter2@[host",
    ],
)
def test_a_password_is_neither_kept_nor_shown(address):
    with pytest.raises(InputError) as caught:
        check_store_address(address)
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in caught.value.remedy


def test_a_driver_that_lacks_is_named_with_its_remedy():
    for address in (None, "http://host", "sqlite:////data/mlflow.db"):
        check_database_driver(address)
    with pytest.raises(MissingPartError, match=r"postgresql\+nosuch, which needs a driver .* Install it, or name"):
        check_database_driver("postgresql+nosuch://host/runs")
    with pytest.raises(MissingPartError, match="needs the Python package pg8000, which is not installed"):
        check_database_driver("postgresql+pg8000://host/runs")
