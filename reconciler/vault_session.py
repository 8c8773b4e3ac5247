"""The reconciler's login to Vault: runs the synchronous client in threads and keeps its token fresh."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Concatenate, Final, ParamSpec, TypeVar

from edgefarm import names
from edgefarm.errors import VaultRefused, VaultUnavailable
from edgefarm.vault import Vault

P = ParamSpec("P")
T = TypeVar("T")

_THREADS: Final = 16
#: Log in again when so much of the token's life has passed.
_RENEW_AT: Final = 0.8
_FORBIDDEN: Final = 403


class VaultSession:
    """One Vault client that is logged in as the reconciler whenever it is used."""

    def __init__(self, vault: Vault, token_file: Path, *, fresh_seconds: float = 5.0) -> None:
        """`token_file` holds the projected service account token for Vault; it is read at each login.

        A 403 within `fresh_seconds` of a login is taken for what it says rather than for a token that has expired.
        """
        self._vault = vault
        self._token_file = token_file
        self._fresh_seconds = fresh_seconds
        self._threads = ThreadPoolExecutor(_THREADS, thread_name_prefix="vault")
        self._login: asyncio.Task[None] | None = None
        self._since = 0.0
        self._until = 0.0

    async def call(self, function: Callable[Concatenate[Vault, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run `function(vault, …)` in a thread; a 403 of an old login is answered with a new one, once."""
        began = await self._logged_in()
        call = partial(function, self._vault, *args, **kwargs)
        try:
            return await self._run(call)
        except VaultRefused as error:
            if error.status != _FORBIDDEN or self._now() - began < self._fresh_seconds:
                raise
        await self._logged_in(not_of=began)
        return await self._run(call)

    async def close(self) -> None:
        """Close the connections; calls under way end by themselves (each has a timeout)."""
        if self._login is not None:
            self._login.cancel()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._vault.close()

    async def _logged_in(self, *, not_of: float | None = None) -> float:
        """Log in unless the login is still good and not the one of `not_of`; return when it was made.

        All who need a login at the same time wait for one and share its outcome: an absent Vault costs each of them
        one time limit, not one after the other.
        """
        if self._now() >= self._until or self._since == not_of:
            if self._login is None:
                self._login = asyncio.create_task(self._log_in())
                self._login.add_done_callback(self._login_ended)
            await asyncio.shield(self._login)
        return self._since

    async def _log_in(self) -> None:
        lease = await self._run(partial(self._vault.login, names.CONTROLLER_ROLE, self._token()))
        self._since = self._now()
        self._until = self._since + lease.total_seconds() * _RENEW_AT

    def _login_ended(self, login: asyncio.Task[None]) -> None:
        self._login = None
        if not login.cancelled():
            login.exception()  # whoever waited has it; nobody may be left who did

    def _token(self) -> str:
        try:
            return self._token_file.read_text().strip()
        except OSError as error:
            raise VaultUnavailable(
                f"Nothing can be proven to Vault, because the service account token {self._token_file} cannot be "
                f"read: {error.strerror}."
            ) from error

    async def _run(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)

    def _now(self) -> float:
        return asyncio.get_running_loop().time()
