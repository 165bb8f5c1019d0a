"""Connections, as user code sees them: an environment variable where the task runs comes before the database."""

from __future__ import annotations

from typing import Self

from tickless.authoring.daemon import daemon
from tickless.authoring.secret import hide_connection
from tickless.authoring.variable import from_environment
from tickless.errors import NotFound
from tickless.exceptions import AirflowNotFoundException
from tickless.model.connection import ConnectionFields, parse_connection

PREFIXES = ("TICKLESS_CONN_", "AIRFLOW_CONN_")


class Connection(ConnectionFields):
    """Where something outside is and how to log in there:

    warehouse = Connection.get("warehouse")
    connect(warehouse.host, warehouse.port, warehouse.login, warehouse.password)
    """

    __slots__ = ()

    @classmethod
    def get(cls, conn_id: str) -> Self:
        """The connection. TICKLESS_CONN_ID (or AIRFLOW_CONN_ID), a URI or JSON, comes before what is stored."""
        text = from_environment(PREFIXES, conn_id)
        try:
            found = daemon(f"connection {conn_id!r}").connection(conn_id) if text is None else None
        except NotFound as error:
            raise AirflowNotFoundException(f"The conn_id `{conn_id}` isn't defined: {error.message}") from None
        connection = cls(**(parse_connection(conn_id, text or "") if found is None else found))
        hide_connection(connection)
        return connection

    def __repr__(self) -> str:
        return f"<Connection {self.conn_id!r} ({self.conn_type})>"  # never the password, wherever it is printed


def get_connection(conn_id: str) -> Connection:
    """The same as `Connection.get`; what Airflow's `BaseHook.get_connection` does."""
    return Connection.get(conn_id)
