"""Performs what `session` decides for a leaf, and keeps nats-server at the configuration that follows from it.

One thread decides, one talks to Vault, one looks at nats-server and the hub, others answer probes. The leaf serves its
node whatever Vault, the hub and this process do: nothing in here ever stops it but a change that needs a restart.
"""

from __future__ import annotations

import gc
import os
import queue
import signal
import threading
import time
from types import FrameType
from typing import Final

from edgefarm import __version__
from edgefarm.errors import EdgefarmError, InvalidCredential
from edgefarm.nats.leafconfig import LeafServer, leaf_config
from sidecar import metrics, session
from sidecar.credentials import Credentials
from sidecar.health import Page
from sidecar.keeper import Keeper, Worker
from sidecar.leaf.configuration import Change, change_to, server_of
from sidecar.leaf.credentials import LeafCredentials
from sidecar.leaf.disk import Disk
from sidecar.leaf.metrics import LeafFigures, render
from sidecar.leaf.server import Seen, look, read_certificate, tell
from sidecar.leaf.settings import LeafSettings
from sidecar.leaf.steps import LeafSteps
from sidecar.leaf.store import LeafStore
from sidecar.leaf.upkeep import Connecting, Upkeep
from sidecar.log import Log, utc
from sidecar.store import write_file
from sidecar.vault import VaultClient

#: A renewal counts as overdue when it is so many seconds late: a few attempts may fail before.
OVERDUE_AFTER: Final = 60.0
#: The longest wait for an event; also how late a clock that was set back is noticed.
_LONGEST_WAIT: Final = 30.0
#: nats-server may run as another user of the same group; nothing in it is secret.
_CONFIGURATION_MODE: Final = 0o440
_SIGNALS: Final = {Change.RELOAD: signal.SIGHUP, Change.RESTART: signal.SIGTERM}

_Event = session.Event | Seen


class _LeafKeeper(Keeper):
    """What is said to the owner of a pod about its annotations is not for leafs."""

    label = "edge_network"

    def sentence(self, failed: session.Failed) -> str:
        """What failed, as it is, and what that means once the credentials have ended."""
        ended_at = self.state.ended_at(time.time())
        return failed.message if ended_at is None else _ended(ended_at, failed.message)


class LeafRunner:
    """One run of a leaf's sidecar."""

    def __init__(self, settings: LeafSettings, vault: VaultClient, log: Log) -> None:
        self._settings = settings
        self._store = LeafStore(settings.server.credentials)
        self._log = log
        self._credentials: LeafCredentials | None = None  # also expired ones: the configuration follows from them
        self._certificate: bytes | None = None
        self._wanted: LeafServer | None = None
        self._obstacle = ""  # why there is no configuration, or not the newest one
        self._connected: frozenset[str] = frozenset()
        self._current = False
        self._disk = Disk()
        self._upkeep = Upkeep()
        self._connecting = Connecting()
        self._inbox: queue.SimpleQueue[_Event] = queue.SimpleQueue()
        self._worker: Worker[_Event] = Worker(self._inbox.put, log)
        timing = session.Timing(settings.refresh_seconds, settings.grant_retry_seconds)
        steps = LeafSteps(settings, vault, self._store)
        self._keeper = _LeafKeeper(steps, timing, self._worker.submit, self._apply, log)

    def run(self) -> int:
        """Run until SIGTERM or SIGINT; return the exit status. nats-server goes on."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop_signal)
        if self._settings.ca_bundle is not None:
            write_file(self._settings.server.hub_ca, self._settings.ca_bundle.encode(), _CONFIGURATION_MODE)
        self._certificate = read_certificate(self._settings.server)
        persisted = self._load()
        if persisted is not None:
            self._use(persisted)
        self._worker.start()
        threading.Thread(target=self._watch, name="watch", daemon=True).start()
        self._keeper.handle(session.Started(persisted))
        gc.freeze()  # what is alive now stays alive: later collections need not look at it (or touch its pages)
        while not self._keeper.stopped:
            self._next()
        self._log.info("stopped")
        return 0

    def page(self, path: str) -> Page | None:
        """A page of the health port; called by its threads."""
        if path == "/healthz":
            return Page(200, f"{self._readiness()[1]}\n")
        if path == "/readyz":
            ready, sentence = self._readiness()
            return Page(200 if ready else 503, f"{sentence}\n")
        if path == "/metrics":
            return Page(200, render(self._figures()), metrics.CONTENT_TYPE)
        return None

    def _load(self) -> LeafCredentials | None:
        try:
            return self._store.load()
        except InvalidCredential as error:
            self._log.warning(str(error))
            return None

    # ── events ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _on_stop_signal(self, _number: int, _frame: FrameType | None) -> None:
        self._inbox.put(session.Signal.STOP)

    def _next(self) -> None:
        try:
            event = self._inbox.get(timeout=self._patience())
        except queue.Empty:
            event = session.Signal.TICK
        if isinstance(event, Seen):
            self._seen(event)
            # So many looks come that a Tick might not.
            self._keeper.handle(session.Signal.TICK)
        else:
            self._keeper.handle(event)

    def _patience(self) -> float:
        due_at = self._keeper.due_at
        if due_at is None:
            return _LONGEST_WAIT
        # A little late rather than early: a Tick before its time would only be sent again.
        return min(_LONGEST_WAIT, max(0.0, due_at - time.time()) + 0.001)

    # ── nats-server ─────────────────────────────────────────────────────────────────────────────────────────────────

    def _watch(self) -> None:
        while True:
            credentials = self._credentials
            try:
                self._inbox.put(look(self._settings.server, credentials.access.hub if credentials else ()))
            except Exception as error:  # noqa: BLE001 - the thread's boundary: it has to go on looking
                self._log.failure("unexpected failure", error=repr(error))
            time.sleep(self._settings.look_every)

    def _apply(self, credentials: Credentials) -> None:
        assert isinstance(credentials, LeafCredentials)  # our steps make no others
        self._use(credentials)

    def _use(self, credentials: LeafCredentials) -> None:
        """These are in force: nats-server reads the files at its next connect, the configuration may change."""
        self._credentials = credentials
        self._configure()

    def _configure(self) -> None:
        """Write the configuration if it has changed; what stands in the way is shown, and tried again."""
        if self._credentials is None:
            return
        server = self._settings.server
        if server.tls_dir is not None and self._certificate is None:
            self._obstacle = f"waiting for the leaf's certificate in {server.tls_dir}"
            return
        try:
            wanted = server_of(self._settings, self._credentials.access, self._store, self._certificate)
            content = leaf_config(wanted).encode()
            if _read(server.configuration) != content:
                write_file(server.configuration, content, _CONFIGURATION_MODE)
                self._log.info("configuration written", domain=self._settings.domain)
        except (OSError, ValueError, EdgefarmError) as error:
            self._obstacle = f"the configuration of nats-server cannot be written: {error}"
            self._log.problem(self._obstacle, topic="configuration")
            return
        if wanted != self._wanted:
            self._upkeep = self._upkeep.renewed()
        self._wanted, self._obstacle = wanted, ""
        self._log.recovered("the configuration is in place", topic="configuration")

    def _seen(self, seen: Seen) -> None:
        if (seen.certificate != self._certificate and seen.certificate is not None) or self._obstacle:
            self._certificate = seen.certificate or self._certificate
            self._configure()
        self._connected = seen.connected or frozenset()
        self._mind_disk(seen.disk)
        if self._wanted is None or self._credentials is None:
            return
        if seen.metadata is not None:
            change = change_to(self._wanted, seen.metadata)
            self._keep_up(Change.RESTART if seen.disk.calls_for_restart else change)
        if seen.connected is not None:
            self._mind_uplink(self._credentials, seen.connected, reachable=seen.hub_reachable)

    def _keep_up(self, change: Change) -> None:
        """Have nats-server take the configuration over."""
        now = time.monotonic()
        self._current = change is Change.NONE
        if self._current:
            if self._upkeep.asked is not Change.NONE:
                self._log.info("nats-server runs the new configuration", after=self._upkeep.asked.value)
            self._upkeep = self._upkeep.settled()
            self._log.recovered("nats-server has followed", topic="server")
            return
        if not self._upkeep.due(change, now):
            return
        self._upkeep = self._upkeep.ask(change, now)
        problem = tell(self._settings.server, _SIGNALS[change])
        if problem is not None:
            self._log.problem(f"nats-server cannot be told to {change.value}: {problem}", topic="server")
        elif self._upkeep.overdue:
            self._log.problem(f"{_NOT_FOLLOWED}: its log says why", topic="server", change=change.value)
        else:
            self._log.info("nats-server is told", change=change.value)

    def _mind_disk(self, disk: Disk) -> None:
        self._disk = disk
        if disk.failure:
            self._log.problem(f"{_NOT_WRITTEN}: {disk.failure}", topic="disk")
        else:
            self._log.recovered("all streams are written", topic="disk")

    def _mind_uplink(self, credentials: LeafCredentials, connected: frozenset[str], *, reachable: bool) -> None:
        """Get new credentials when the hub seems to refuse ours: it never says so, it only ends the connection."""
        up = {credentials.account, credentials.system_account} <= connected
        self._connecting, refused = self._connecting.observe(connected=up, reachable=reachable, now=time.monotonic())
        if up:
            self._log.recovered("the uplink is connected", topic="uplink")
        if refused:
            self._log.problem(
                "the hub can be reached, but nats-server is not connected to it: getting new credentials",
                topic="uplink",
            )
            self._keeper.handle(session.Signal.REFUSED)

    # ── health ──────────────────────────────────────────────────────────────────────────────────────────────────────

    def _readiness(self) -> tuple[bool, str]:
        """Whether nats-server can be started, and what there is to say about it."""
        problem = self._keeper.state.problem
        if self._wanted is None:
            return False, self._obstacle or (problem.message if problem else "waiting for the first credentials")
        remarks = ["the configuration is in place", self._obstacle]
        if self._upkeep.overdue:
            remarks.append(_NOT_FOLLOWED)
        if self._disk.failure:
            remarks.append(f"{_NOT_WRITTEN} until there is room on the node's disk ({self._disk.failure})")
        remarks.append(self._uplink_remark(problem.message if problem else "not done yet"))
        return True, "; ".join(filter(None, remarks))

    def _uplink_remark(self, reason: str) -> str:
        """What there is to say about the credentials of the uplink; `reason` is why they are not renewed."""
        ended_at = self._keeper.state.ended_at(time.time())
        if ended_at is not None:
            return _ended(ended_at, reason)
        if self._credentials is None or not self._overdue():
            return ""
        return (
            f"the renewal of the uplink's credentials is overdue ({reason}): without one the hub accepts this leaf "
            f"until {utc(self._credentials.expires_at)}; {_NODE_GOES_ON}"
        )

    def _overdue(self) -> int:
        """For how many seconds a renewal has been due, when that is long enough to be said."""
        if self._credentials is None:
            return 0
        due = self._keeper.state.renew_at if self._keeper.state.held is not None else self._credentials.expires_at
        late = time.time() - due
        return int(late) if late >= OVERDUE_AFTER else 0

    def _figures(self) -> LeafFigures:
        credentials = self._credentials
        uplinks = (
            {"network": credentials.account, "system": credentials.system_account} if credentials is not None else {}
        )
        return LeafFigures(
            version=__version__,
            network=self._settings.pod.network,
            domain=self._settings.domain,
            ready=self._readiness()[0],
            renewals=self._keeper.state.renewals,
            failures=dict(self._keeper.failures),
            expires_at=credentials.expires_at if credentials is not None else None,
            overdue=self._overdue(),
            uplinks={name: account in self._connected for name, account in uplinks.items()},
            current=self._current,
            reloads=self._upkeep.reloads,
            restarts=self._upkeep.restarts,
            written=not self._disk.failure,
        )


_NODE_GOES_ON: Final = "clients on this node are accepted whatever happens"
_NOT_FOLLOWED: Final = "nats-server has not taken over its new configuration"
_NOT_WRITTEN: Final = "JetStream no longer writes to a stream"


def _ended(moment: float, reason: str) -> str:
    return (
        f"the uplink's credentials ended on {utc(moment)}, and the hub refuses this leaf until they are renewed "
        f"({reason}); {_NODE_GOES_ON}"
    )


def _read(path: os.PathLike[str]) -> bytes | None:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None
