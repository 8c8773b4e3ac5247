"""The page `/diagnostics`: only the leader answers, one question at a time, and always in time."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from typing import Final

import structlog

from edgefarm.errors import InvalidResource
from edgefarm.findings import Finding
from edgefarm.pages import Page
from reconciler.context import Context
from reconciler.diagnostics.question import Question
from reconciler.diagnostics.walk import Diagnosis

#: Seconds until a question is given up, waiting for the one before included.
_LIMIT: Final = 8.0
#: So many questions wait for their turn; whoever reaches the port may ask, so others are refused at once.
_MOST: Final = 8
#: The next question waits for as long as an answer took, but for no more than these seconds: so questions take about
#: half of the time of the reconciler, Vault and NATS at the most.
_LONGEST_REST: Final = 1.0


class DiagnosticsPage:
    """Makes the answers to `edgefarm doctor` (docs/installation.md)."""

    def __init__(self, context: Context, leading: Callable[[], bool], log: structlog.stdlib.BoundLogger) -> None:
        self._diagnosis = Diagnosis(context)
        self._leading = leading
        self._log = log
        self._turn = asyncio.Lock()
        self._asked = 0
        self._rests_until = 0.0

    async def answer(self, query: Mapping[str, str]) -> Page:
        """The findings as JSON; 503 where another replica leads, where too many ask, and when it takes too long."""
        if not self._leading():
            return Page.text("this replica does not lead: ask the one that holds the lease", ok=False)
        if self._asked >= _MOST:
            return Page.text("too many questions at a time: try again", ok=False)
        self._asked += 1
        try:
            question = Question.read(query)
            async with asyncio.timeout(_LIMIT), self._turn:
                return _page(await self._findings(question))
        except InvalidResource as error:
            return Page(f"{error}\n".encode(), HTTPStatus.BAD_REQUEST)
        except TimeoutError:
            return Page.text(f"it took longer than {_LIMIT:g} s: try again", ok=False)
        except Exception:  # noqa: BLE001 (whatever is wrong with an answer, the reconciler has to go on)
            self._log.exception("a diagnosis failed unexpectedly")
            return Page.text("the diagnosis failed: the reconciler's log says why", ok=False)
        finally:
            self._asked -= 1

    async def _findings(self, question: Question) -> Sequence[Finding]:
        """Find after the rest that the answer before has earned."""
        now = asyncio.get_running_loop().time
        await asyncio.sleep(self._rests_until - now())
        begin = now()
        try:
            return await self._diagnosis.findings(question)
        finally:
            self._rests_until = now() + min(now() - begin, _LONGEST_REST)


def _page(findings: Sequence[Finding]) -> Page:
    body = json.dumps({"findings": [finding.document() for finding in findings]}, ensure_ascii=False)
    return Page(f"{body}\n".encode(), content_type="application/json")
