"""Variables and connections as the daemon deals with them: sealed on their way in, opened on their way out.

There is one writer, the leader; writes take turns here, so that a rotation of the key never overwrites what somebody
has just set. What is secret is told to the log's mask before anybody else can.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace

from tickless.clock import Clock
from tickless.errors import Conflict, NotFound, Refused, TicklessError, Unavailable, Unstorable, UserError
from tickless.model.connection import ConnectionFields
from tickless.model.id import AttemptId, Epoch
from tickless.model.row import EventRow
from tickless.model.secret import is_sensitive
from tickless.model.setting import Connection, ConnectionRow, SettingGone, SettingRow, Variable, VariableRow
from tickless.store.base import Store
from tickless.store.reader import MAX_PAGE, Reader
from tickless.store.vault import Vault
from tickless.telemetry.mask import hide

MAX_VALUE_BYTES = 1024 * 1024
"""Of a variable, or of a connection's extra."""


class Secrets:
    """Implements `api.base.SecretStore`."""

    def __init__(
        self,
        *,
        store: Store,
        reader: Reader,
        vault: Vault,
        clock: Clock,
        epoch: Callable[[], Epoch],
        on_lost: Callable[[TicklessError], None],
    ) -> None:
        """`epoch` raises Unavailable while nobody leads; `on_lost` hears of a write whose outcome is unknown."""
        self._store = store
        self._reader = reader
        self._vault = vault
        self._clock = clock
        self._epoch = epoch
        self._on_lost = on_lost
        self._turn = asyncio.Lock()

    # ---- variables ------------------------------------------------------------------------------------------------

    async def variable(self, key: str) -> Variable:
        row = await self._store.variable(key)
        if row is None:
            raise NotFound(f"there is no variable {key!r}", hint="`tickless variable list` shows those there are.")
        return self._open_variable(row)

    async def variables(self, *, after: str | None, limit: int) -> list[Variable]:
        return [self._open_variable(row) for row in await self._reader.variables(after=after, limit=limit)]

    async def set_variable(
        self,
        key: str,
        value: str,
        description: str | None = None,
        *,
        actor: str,
        request: tuple[AttemptId, int] | None = None,
    ) -> None:
        """Create it or change its value. Without a description it keeps the one it has."""
        check_name("variable", key)
        check_text("the value", value)
        check_text("the description", description)
        if is_sensitive(key):
            hide(value)
        async with self._turn:
            row = VariableRow(
                key=key,
                val=self._vault.seal(value, f"variable/{key}"),
                description=description,
                changed_at=self._clock.now(),
            )
            await self._write([row], self._event(actor, "set_variable", key=key), request)

    async def delete_variable(self, key: str, *, actor: str, request: tuple[AttemptId, int] | None = None) -> bool:
        """Whether there was one."""
        check_name("variable", key)
        async with self._turn:
            event = self._event(actor, "delete_variable", key=key)
            return await self._write([SettingGone(table="variable", name=key)], event, request)

    def _open_variable(self, row: VariableRow) -> Variable:
        value = self._vault.open(row.val, f"variable/{row.key}")
        if is_sensitive(row.key):
            hide(value)
        return Variable(key=row.key, value=value, description=row.description, changed_at=row.changed_at)

    # ---- connections ----------------------------------------------------------------------------------------------

    async def connection(self, conn_id: str) -> Connection:
        row = await self._store.connection(conn_id)
        if row is None:
            raise NotFound(
                f"there is no connection {conn_id!r}", hint="`tickless connection list` shows those there are."
            )
        return self._open_connection(row)

    async def connections(self, *, after: str | None, limit: int) -> list[Connection]:
        return [self._open_connection(row) for row in await self._reader.connections(after=after, limit=limit)]

    async def set_connection(self, connection: ConnectionFields, *, actor: str, is_new: bool = False) -> None:
        """Create it, or put it in the place of the one with its id: with `is_new` that is Refused."""
        check_name("connection", connection.conn_id)
        for name in ("conn_type", "description", "host", "schema", "login", "password", "extra"):
            check_text(name, getattr(connection, name))
        if connection.extra is not None:
            try:
                is_object = isinstance(json.loads(connection.extra), dict)
            except (ValueError, RecursionError):
                is_object = False
            if not is_object:
                raise UserError(f"the extra of connection {connection.conn_id!r} is not a JSON object")
        if connection.port is not None and not 0 <= connection.port < 1 << 16:
            raise UserError(f"the port of connection {connection.conn_id!r} is {connection.port}, not one of 0 to 65535")
        _hide_secrets(connection)
        async with self._turn:
            if is_new and await self._store.connection(connection.conn_id) is not None:
                raise Refused(
                    f"there is a connection {connection.conn_id!r} already",
                    hint=f"Remove it first: tickless connection delete {connection.conn_id}",
                )
            event = self._event(actor, "set_connection", conn_id=connection.conn_id)
            await self._write([self._seal_connection(connection)], event)

    async def delete_connection(self, conn_id: str, *, actor: str) -> bool:
        """Whether there was one."""
        check_name("connection", conn_id)
        async with self._turn:
            event = self._event(actor, "delete_connection", conn_id=conn_id)
            return await self._write([SettingGone(table="connection", name=conn_id)], event)

    def _seal_connection(self, connection: ConnectionFields) -> ConnectionRow:
        def seal(name: str, text: str | None) -> str | None:
            return None if text is None else self._vault.seal(text, f"connection/{connection.conn_id}/{name}")

        return ConnectionRow(
            conn_id=connection.conn_id,
            conn_type=connection.conn_type,
            description=connection.description,
            host=connection.host,
            schema=connection.schema,
            login=connection.login,
            password=seal("password", connection.password),
            port=connection.port,
            extra=seal("extra", connection.extra),
            changed_at=self._clock.now(),
        )

    def _open_connection(self, row: ConnectionRow) -> Connection:
        def unseal(name: str, sealed: str | None) -> str | None:
            return None if sealed is None else self._vault.open(sealed, f"connection/{row.conn_id}/{name}")

        connection = Connection(
            conn_id=row.conn_id,
            conn_type=row.conn_type,
            description=row.description,
            host=row.host,
            schema=row.schema,
            login=row.login,
            password=unseal("password", row.password),
            port=row.port,
            extra=unseal("extra", row.extra),
            changed_at=row.changed_at,
        )
        _hide_secrets(connection)
        return connection

    # ---- the key --------------------------------------------------------------------------------------------------

    async def rotate(self, *, actor: str) -> int:
        """Seal everything with a new key and forget the old ones; how many rows that were.

        Killed half-way it leaves both keys in the file, and the next rotation finishes the work.
        """
        count = 0
        async with self._turn:
            self._epoch()  # not even a new key without the lead
            self._vault.rotate()
            after: str | None = None
            while variables := await self._reader.variables(after=after, limit=MAX_PAGE):
                after = variables[-1].key
                rows: list[SettingRow] = [
                    replace(row, val=self._vault.seal(self._open_variable(row).value, f"variable/{row.key}"))
                    for row in variables
                ]
                await self._write(rows)
                count += len(rows)
            after = None
            while connections := await self._reader.connections(after=after, limit=MAX_PAGE):
                after = connections[-1].conn_id
                rows = [
                    replace(self._seal_connection(self._open_connection(row)), changed_at=row.changed_at)
                    for row in connections
                ]
                await self._write(rows)
                count += len(rows)
            await self._write([], self._event(actor, "rotate_secret_key", sealed=count))
            self._vault.drop_old_keys()
        return count

    def _event(self, actor: str, action: str, **detail: str | int) -> EventRow:
        """A line of the audit: names only, never what is kept under them."""
        return EventRow(at=self._clock.now(), actor=actor, action=action, detail=json.dumps(detail))

    async def _write(
        self, rows: list[SettingRow], event: EventRow | None = None, request: tuple[AttemptId, int] | None = None
    ) -> bool:
        try:
            return await self._store.write_settings(self._epoch(), rows, request=request, event=event)
        except Unstorable as error:
            raise UserError(f"Postgres refuses this: {error.message}", hint=error.hint) from error
        except (Conflict, Unavailable) as error:
            self._on_lost(error)
            raise


def check_name(what: str, name: str) -> None:
    """Raise UserError for a name that a variable or a connection cannot have."""
    if not 0 < len(name) <= 250 or not name.isprintable():
        raise UserError(
            f"{name[:300]!r} cannot be the name of a {what}", hint="Give it 1 to 250 characters that can be shown."
        )


def check_text(what: str, text: str | None) -> None:
    """Raise UserError for a text that cannot be stored."""
    if text is None:
        return
    try:
        size = len(text.encode())
    except UnicodeEncodeError:
        raise UserError(f"{what} has half a surrogate pair, which is no character") from None
    if "\0" in text:
        raise UserError(f"{what} has a NUL character")
    if size > MAX_VALUE_BYTES:
        raise UserError(
            f"{what} is {size:,} bytes; the limit is {MAX_VALUE_BYTES:,}",
            hint="Keep large data in files or object storage, and hand on where it is.",
        )


def _hide_secrets(connection: ConnectionFields) -> None:
    hide(connection.password)
    if connection.extra is None:
        return
    todo = [json.loads(connection.extra)]
    while todo:
        for key, value in todo.pop().items():
            if isinstance(value, dict):
                todo.append(value)
            elif isinstance(value, str) and is_sensitive(key):
                hide(value)
