"""The RPCs of sweeps: read the request, call a rule, answer. No rules here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import grpc
from sqlalchemy import Connection

from services.grpckit import context as calls
from services.grpckit.errors import FieldViolation, ServiceError, invalid_fields, not_found
from services.grpckit.pages import cut, page_of
from services.scheduler.broadcast import Broadcast
from services.scheduler.ledger import Ledger
from services.scheduler.store import sweeps as sweep_store
from services.scheduler.sweeps.asking import importances
from services.scheduler.sweeps.controller import SweepController
from services.scheduler.sweeps.decisions import parameters_of, told
from services.scheduler.sweeps.trials import ENDED_SWEEP, Standings, TrialState
from services.scheduler.sweeps.verbs import SweepVerbs
from services.scheduler.verbs import call_of
from services.scheduler.wire.sweep_drafts import sweep_draft, sweep_preview
from services.scheduler.wire.sweeps import sweep_to_proto, trial_to_proto
from tuneforge.names import ProjectName, SweepName, TrialName
from tuneforge.v1 import sweeps_pb2

Context = grpc.aio.ServicerContext[Any, Any]
LEAST_TRIALS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepParts:
    """What the methods of sweeps call."""

    ledger: Ledger
    verbs: SweepVerbs
    controller: SweepController
    broadcast: Broadcast
    heartbeat_s: float
    """Longest silence of a watch."""


class SweepCalls:
    """The methods of sweeps; `SchedulerServicer` takes them over."""

    _sweeps: SweepParts

    async def CreateSweep(self, request: sweeps_pb2.CreateSweepRequest, _: Context) -> sweeps_pb2.Sweep:
        """Checks a sweep whole and begins it."""
        project = ProjectName.parse(request.parent).project
        missing = [
            FieldViolation(name, f"is missing: say {what}")
            for name, is_there, what in (
                ("spec", request.HasField("spec"), "what to train"),
                ("plan", request.HasField("plan"), "what to search"),
            )
            if not is_there
        ]
        if missing:
            raise invalid_fields(missing)
        draft = sweep_draft(request, project, calls.current().actor)
        if request.validate_only:
            return sweep_preview(await self._sweeps.verbs.check(draft))
        answer = await self._sweeps.verbs.create(draft, call_of(request, project, "CreateSweep"))
        return sweeps_pb2.Sweep.FromString(answer)

    async def GetSweep(self, request: sweeps_pb2.GetSweepRequest, _: Context) -> sweeps_pb2.Sweep:
        """Returns a sweep."""
        return sweep_to_proto(await self._standings(SweepName.parse(request.name)))

    async def ListSweeps(self, request: sweeps_pb2.ListSweepsRequest, _: Context) -> sweeps_pb2.ListSweepsResponse:
        """Lists a project's sweeps, newest first."""
        project = ProjectName.parse(request.parent).project
        page = page_of(request.page_size, request.page_token, scope=f"ListSweeps {request.parent}")
        before = page.after_number(0) or None

        def read(connection: Connection, now_ms: int) -> list[Standings]:
            numbers = sweep_store.list_newest(connection, project, before, page.size + 1)
            found = (sweep_store.load(connection, number, now_ms) for number in numbers)
            return [seen for seen in found if seen is not None]

        rows = await self._sweeps.ledger.read_now(read)
        shown, token = cut(rows, page, lambda seen: str(seen.sweep.number))
        return sweeps_pb2.ListSweepsResponse(sweeps=map(sweep_to_proto, shown), next_page_token=token)

    async def WatchSweep(
        self, request: sweeps_pb2.WatchSweepRequest, _: Context
    ) -> AsyncIterator[sweeps_pb2.WatchSweepResponse]:
        """Streams a sweep and its trials."""
        name, sent = SweepName.parse(request.name), request.after_revision
        parts, is_due = self._sweeps, True
        while True:
            changed = parts.controller.changed  # before the look: a change after it wakes us
            seen = await self._standings(name)
            is_over = seen.sweep.state in ENDED_SWEEP
            is_news = seen.sweep.revision > sent
            if is_due or is_news or is_over:
                news = [each for each in seen.trials if each.revision > sent]
                yield sweeps_pb2.WatchSweepResponse(
                    sweep=sweep_to_proto(seen), trials=[trial_to_proto(each, with_reports=True) for each in news]
                )
                sent = seen.sweep.revision
            if is_over:
                return
            if parts.broadcast.is_draining:
                raise ServiceError("DRAINING", "the scheduler is shutting down; watch again after the last revision")
            is_due = not await self._news(changed)

    async def _news(self, changed: asyncio.Event) -> bool:
        """Waits for a change of any sweep, and no longer than a watch may be silent; returns whether there was one."""
        loop = asyncio.get_running_loop()
        until = loop.time() + self._sweeps.heartbeat_s
        while not changed.is_set() and loop.time() < until and not self._sweeps.broadcast.is_draining:
            try:
                async with asyncio.timeout(min(1.0, self._sweeps.heartbeat_s)):
                    await changed.wait()
            except TimeoutError:
                pass
        return changed.is_set()

    async def CancelSweep(self, request: sweeps_pb2.CancelSweepRequest, _: Context) -> sweeps_pb2.Sweep:
        """Stops a sweep."""
        name = SweepName.parse(request.name)
        call = call_of(request, name.project, "CancelSweep")
        return sweeps_pb2.Sweep.FromString(await self._sweeps.verbs.cancel(name, request.reason, call))

    async def PauseSweep(self, request: sweeps_pb2.PauseSweepRequest, _: Context) -> sweeps_pb2.Sweep:
        """Pauses a sweep."""
        name = SweepName.parse(request.name)
        call = call_of(request, name.project, "PauseSweep")
        return sweeps_pb2.Sweep.FromString(await self._sweeps.verbs.pause(name, request.reason, call))

    async def ResumeSweep(self, request: sweeps_pb2.ResumeSweepRequest, _: Context) -> sweeps_pb2.Sweep:
        """Lets a paused sweep go on."""
        name = SweepName.parse(request.name)
        call = call_of(request, name.project, "ResumeSweep")
        return sweeps_pb2.Sweep.FromString(await self._sweeps.verbs.resume(name, call))

    async def DeleteSweep(self, request: sweeps_pb2.DeleteSweepRequest, _: Context) -> sweeps_pb2.Sweep:
        """Takes an ended sweep out."""
        name = SweepName.parse(request.name)
        call = call_of(request, name.project, "DeleteSweep")
        return sweeps_pb2.Sweep.FromString(await self._sweeps.verbs.delete(name, call))

    async def GetTrial(self, request: sweeps_pb2.GetTrialRequest, _: Context) -> sweeps_pb2.Trial:
        """Returns a trial."""
        name = TrialName.parse(request.name)
        seen = await self._standings(name.parent)
        trial = next((each for each in seen.trials if each.number == name.trial), None)
        if trial is None:
            raise not_found("trial", name)
        return trial_to_proto(trial, with_reports=True)

    async def ListTrials(self, request: sweeps_pb2.ListTrialsRequest, _: Context) -> sweeps_pb2.ListTrialsResponse:
        """Lists the trials of a sweep by their numbers."""
        name = SweepName.parse(request.parent)
        page = page_of(request.page_size, request.page_token, scope=f"ListTrials {name}")
        seen = await self._standings(name)
        rows = [each for each in seen.trials if each.number > page.after_number(0)][: page.size + 1]
        shown, token = cut(rows, page, lambda trial: str(trial.number))
        return sweeps_pb2.ListTrialsResponse(trials=map(trial_to_proto, shown), next_page_token=token)

    async def GetSweepImportances(
        self, request: sweeps_pb2.GetSweepImportancesRequest, _: Context
    ) -> sweeps_pb2.SweepImportances:
        """Says how much each parameter matters."""
        seen = await self._standings(SweepName.parse(request.name))
        for number in range(len(seen.sweep.plan.rounds), 0, -1):
            ended = [each for each in seen.of_round(number) if each.state is TrialState.SUCCEEDED]
            if len(ended) >= LEAST_TRIALS:
                space, goal = parameters_of(seen, number), seen.sweep.plan.goal
                found = await asyncio.to_thread(importances, [told(each) for each in ended], space, goal)
                return sweeps_pb2.SweepImportances(importances=found, round=number, trials=len(ended))
        return sweeps_pb2.SweepImportances()

    async def _standings(self, name: SweepName) -> Standings:
        def read(connection: Connection, now_ms: int) -> Standings | None:
            number = sweep_store.find(connection, name)
            return None if number is None else sweep_store.load(connection, number, now_ms)

        seen = await self._sweeps.ledger.read_now(read)
        if seen is None:
            raise not_found("sweep", name)
        return seen
