"""Nodes over real sockets: registration, leases by the database's clock, lost nodes, and starts of a node anew."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.answers import refusal
from tests.support.event_loop import on_loop
from tests.support.fake_trainer import FakeTrainer, serve_trainer
from tests.support.postgres import EACH_DATABASE
from tests.support.scheduling import Stage, staged, tiny_spec
from tuneforge.v1 import errors_pb2, events_pb2, jobs_pb2, nodes_pb2, scheduler_pb2, spec_pb2

pytestmark = EACH_DATABASE

SUCCEEDED = nodes_pb2.ATTEMPT_STATE_SUCCEEDED


async def nodes_of(stage: Stage) -> list[nodes_pb2.Node]:
    """Returns the nodes."""
    return list((await stage.stub.ListNodes(scheduler_pb2.ListNodesRequest())).nodes)


async def warned(stage: Stage, words: str) -> None:
    """Waits for a warning of the scheduler in the log of j1."""
    async for event in stage.events():
        if event.attempt == 0 and words in event.log.message:
            return


@on_loop
async def test_registration_is_idempotent(tmp_path: Path) -> None:
    """Registering twice gives the same node and the same manager token; the answer says how to keep the lease."""
    async with staged(tmp_path) as stage:
        request = scheduler_pb2.RegisterNodeRequest(node=stage.trainer.node())
        first = await stage.stub.RegisterNode(request)
        second = await stage.stub.RegisterNode(request)
        assert first.manager_token
        assert first.manager_token == second.manager_token
        assert first.lease_ttl.seconds == 10
        assert first.heartbeat_interval.seconds == 1
        assert first.node.state == nodes_pb2.NODE_STATE_READY
        assert len(await nodes_of(stage)) == 1


@on_loop
async def test_registration_lists_every_wrong_field(tmp_path: Path) -> None:
    """A registration with several faults is refused once, with all of them."""
    async with staged(tmp_path) as stage:
        node = nodes_pb2.Node(name="nodes/n1", address="nowhere", labels={"": "x"})
        error = await refusal(stage.stub.RegisterNode(scheduler_pb2.RegisterNodeRequest(node=node)), "INVALID_ARGUMENT")
        assert error.reason == "INVALID_FIELD"
        fields = {each.field for each in error.fields}
        assert fields == {"node.address", "node.generation", "node.capacity.slots", "node.labels"}
        node.name = "n1"
        error = await refusal(stage.stub.RegisterNode(scheduler_pb2.RegisterNodeRequest(node=node)), "INVALID_ARGUMENT")
        assert error.reason == "INVALID_NAME"


@on_loop
async def test_heartbeat_of_a_stranger_is_refused(tmp_path: Path) -> None:
    """A node that has not registered is told to."""
    async with staged(tmp_path) as stage:
        error = await refusal(stage.trainer.beat(stage.address), "NOT_FOUND")
        assert error.reason == "NOT_FOUND"


@on_loop
async def test_heartbeat_of_an_old_start_is_refused(tmp_path: Path) -> None:
    """After a newer start of a node has registered, the older one is told to end."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        newer = FakeTrainer(generation="0000000000000002", address=stage.trainer.address)
        await newer.register(stage.address)
        error = await refusal(stage.trainer.beat(stage.address), "ABORTED")
        assert error.reason == "STALE_ATTEMPT"
        assert (await newer.beat(stage.address)).HasField("lease_expire_time")


@on_loop
async def test_draining_node_gets_no_work(tmp_path: Path) -> None:
    """A node that says that it is shutting down is shown as DRAINING and gets no attempt."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.trainer.beat(stage.address, is_draining=True)
        assert (await nodes_of(stage))[0].state == nodes_pb2.NODE_STATE_DRAINING
        await stage.create()
        await stage.trainer.beat(stage.address)
        await stage.trainer.started()
        assert (await stage.get()).attempt == 1


@on_loop
async def test_nodes_are_listed_by_pages(tmp_path: Path) -> None:
    """Nodes come by name, page by page; a wrong size or token is refused."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await FakeTrainer(name="nodes/n0", address="127.0.0.1:1").register(stage.address)
        request = scheduler_pb2.ListNodesRequest(page_size=1)
        first = await stage.stub.ListNodes(request)
        second = await stage.stub.ListNodes(
            scheduler_pb2.ListNodesRequest(page_size=1, page_token=first.next_page_token)
        )
        assert [page.nodes[0].name for page in (first, second)] == ["nodes/n0", "nodes/n1"]
        assert not second.next_page_token
        error = await refusal(stage.stub.ListNodes(scheduler_pb2.ListNodesRequest(page_size=-1)), "INVALID_ARGUMENT")
        assert error.reason == "INVALID_FIELD"
        wrong = scheduler_pb2.ListNodesRequest(page_token="x" * 24)
        error = await refusal(stage.stub.ListNodes(wrong), "INVALID_ARGUMENT")
        assert error.reason == "INVALID_PAGE_TOKEN"


@on_loop
async def test_silent_node_is_a_condition_first(tmp_path: Path) -> None:
    """An overdue heartbeat makes the job UNREACHABLE and leaves it RUNNING; a heartbeat takes the condition back."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        await stage.trainer.emit(await stage.trainer.started())
        await stage.until_state("RUNNING")
        stage.clock.advance(11)
        await warned(stage, "does not answer")
        job = await stage.get()
        assert job.state == jobs_pb2.JOB_STATE_RUNNING
        assert list(job.conditions) == [jobs_pb2.JOB_CONDITION_UNREACHABLE]
        assert (await nodes_of(stage))[0].state == nodes_pb2.NODE_STATE_UNREACHABLE
        explained = await stage.stub.ExplainJob(scheduler_pb2.ExplainJobRequest(name=job.name))
        assert "another one follows after 10 min" in explained.summary
        assert not explained.HasField("forecast"), "nothing that was measured says when it ends"
        await stage.trainer.beat(stage.address)
        await warned(stage, "answers again")
        assert list((await stage.get()).conditions) == []


@on_loop
async def test_lost_node_is_replaced_and_fenced(tmp_path: Path) -> None:
    """After `lost_after` another node gets the job; what the old one still says does not count, and it is stopped."""
    async with (
        staged(tmp_path) as stage,
        serve_trainer(FakeTrainer(name="nodes/n2")) as other,
    ):
        await stage.trainer.register(stage.address)
        await stage.create()
        old = await stage.trainer.started()
        await stage.trainer.emit(old, 2)
        await stage.until_state("RUNNING")
        stage.clock.advance(11)
        await warned(stage, "does not answer")
        stage.clock.advance(600)
        await other.register(stage.address)
        new = await other.started()
        assert new.request.token > old.request.token
        await stage.trainer.emit(old, 5)
        await stage.trainer.beat(stage.address)
        await stage.trainer.until(lambda: old.stops)
        await stage.trainer.end(old, SUCCEEDED)
        await stage.trainer.beat(stage.address)
        await stage.trainer.until(lambda: old.is_gone)
        await other.emit(new, 3)
        await other.end(new, SUCCEEDED)
        assert (await stage.until_state("SUCCEEDED")).attempt == 2
        assert stage.registry.published["projects/p/jobs/j1"].lineage.attempt == 2
        events = await stage.all_events()
        steps = [(e.attempt, e.step.step) for e in events if e.WhichOneof("payload") == "step"]
        assert steps == [(1, 1), (1, 2), (2, 1), (2, 2), (2, 3)]
        assert "NODE_LOST" in [e.state.reason for e in events if e.WhichOneof("payload") == "state"]


@on_loop
async def test_restart_of_the_scheduler_gives_one_full_ttl(tmp_path: Path) -> None:
    """While the scheduler was away no lease could be renewed, so none is overdue until one full TTL has passed."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        attempt = await stage.trainer.started()
        await stage.trainer.emit(attempt)
        await stage.until_state("RUNNING")
        await stage.stop()
        stage.clock.advance(3600)
        await stage.start()
        assert (await nodes_of(stage))[0].state == nodes_pb2.NODE_STATE_READY
        await stage.trainer.end(attempt, SUCCEEDED)
        assert (await stage.until_state("SUCCEEDED")).attempt == 1


@on_loop
async def test_new_start_without_the_attempt_loses_it_at_once(tmp_path: Path) -> None:
    """A node that registers anew and does not hold what should run there gets a new attempt without any wait."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        await stage.trainer.emit(await stage.trainer.started())
        await stage.until_state("RUNNING")
        stage.trainer.held.clear()
        stage.trainer.generation = "0000000000000002"
        await stage.trainer.register(stage.address)
        second = await stage.trainer.started(2)
        assert second.request.name.endswith("/attempts/2")
        request = scheduler_pb2.ListAttemptsRequest(parent="projects/p/jobs/j1", page_size=1)
        newest = await stage.stub.ListAttempts(request)
        request.page_token = newest.next_page_token
        oldest = (await stage.stub.ListAttempts(request)).attempts[0]
        assert oldest.state == nodes_pb2.ATTEMPT_STATE_LOST
        assert oldest.failure.reason == errors_pb2.ERROR_REASON_WORKER_LOST


@on_loop
async def test_new_start_with_the_attempt_goes_on(tmp_path: Path) -> None:
    """A node whose agent was killed registers anew with the workers that it adopted: the attempt goes on."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        attempt = await stage.trainer.started()
        await stage.trainer.emit(attempt)
        await stage.until_state("RUNNING")
        stage.trainer.generation = "0000000000000002"
        await stage.trainer.register(stage.address)
        await stage.trainer.emit(attempt, 2)
        await stage.trainer.end(attempt, SUCCEEDED)
        assert (await stage.until_state("SUCCEEDED")).attempt == 1


@on_loop
async def test_vanished_attempt_is_lost(tmp_path: Path) -> None:
    """A node that answers NOT_FOUND for an attempt that it had confirmed has lost it."""
    async with staged(tmp_path, trainer={"cuts": [1]}) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        attempt = await stage.trainer.started()
        attempt.is_gone = True
        await stage.trainer.emit(attempt)
        await stage.trainer.started(2)


@on_loop
async def test_unconfirmed_attempt_leaves_a_dead_node_at_once(tmp_path: Path) -> None:
    """An attempt whose start never arrived does not wait for `lost_after`: it is fenced and goes to another node."""
    async with staged(tmp_path) as stage:
        dead = FakeTrainer(name="nodes/n0", address="127.0.0.1:1", slots=9)
        await dead.register(stage.address)
        await stage.create()
        await stage.until_state("STARTING")
        stage.clock.advance(11)
        await stage.trainer.register(stage.address)
        attempt = await stage.trainer.started()
        assert attempt.request.name.endswith("/attempts/2")


@on_loop
async def test_start_that_arrives_after_the_attempt_was_given_up(tmp_path: Path) -> None:
    """What a node begins after its attempt was given up is stopped at once."""
    gate = asyncio.Event()
    async with staged(tmp_path, trainer={"gate": gate}) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        await stage.trainer.until(lambda: stage.trainer.waiting)
        stage.clock.advance(11)
        await stage.until_state("QUEUED")
        async for event in stage.events():
            if event.state.reason == "NODE_LOST":
                break
        gate.set()
        attempt = await stage.trainer.started()
        await stage.trainer.until(lambda: attempt.stops)


@on_loop
async def test_labels_and_memory_choose_the_node(tmp_path: Path) -> None:
    """An attempt goes only to a node that carries every label asked for."""
    async with (
        staged(tmp_path) as stage,
        serve_trainer(FakeTrainer(name="nodes/n2", labels={"zone": "b"})) as other,
    ):
        await stage.trainer.register(stage.address)
        await other.register(stage.address)
        await stage.create(spec=tiny_spec(resources=spec_pb2.Resources(node_labels={"zone": "b"})))
        await other.started()
        assert stage.trainer.starts == []


@on_loop
async def test_heartbeat_stream_renews_each_time(tmp_path: Path) -> None:
    """Each message on the stream is answered with the end of the renewed lease, by the database's clock."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        stream = stage.stub.Heartbeat()
        request = scheduler_pb2.HeartbeatRequest(name="nodes/n1", generation=stage.trainer.generation)
        ends = []
        for _ in range(2):
            await stream.write(request)
            answer = await stream.read()
            assert isinstance(answer, scheduler_pb2.HeartbeatResponse)
            ends.append(answer.lease_expire_time.seconds)
            stage.clock.advance(5)
        assert ends == [1010, 1015]
        await stream.done_writing()


async def stall_event(stage: Stage, *, is_over: bool, has_stacks: bool = False) -> events_pb2.Event:
    """Waits for a stall in the log of j1."""
    async for event in stage.events():
        is_it = event.HasField("stall") and event.stall.is_over == is_over
        if is_it and (is_over or bool(event.stall.stacks) == has_stacks):
            return event
    raise AssertionError("the job ended without it")


@on_loop
async def test_attempt_without_progress_is_a_condition(tmp_path: Path) -> None:
    """A node that tells of a stall makes the job STALLED and leaves it RUNNING; the log has the stacks, and the end."""
    async with staged(tmp_path) as stage:
        await stage.trainer.register(stage.address)
        await stage.create()
        held = await stage.trainer.started()
        await stage.trainer.emit(held)
        await stage.until_state("RUNNING")
        held.status.stall.CopyFrom(events_pb2.Stall(attempt=1, message="it stands still"))
        await stage.trainer.beat(stage.address)
        first = await stall_event(stage, is_over=False)
        assert (first.attempt, first.stall.message) == (0, "it stands still")
        job = await stage.get()
        assert (job.state, list(job.conditions)) == (jobs_pb2.JOB_STATE_RUNNING, [jobs_pb2.JOB_CONDITION_STALLED])
        explained = await stage.stub.ExplainJob(scheduler_pb2.ExplainJobRequest(name=job.name))
        assert "It makes no progress" in explained.summary
        held.status.stall.stacks = "Thread 1: train_loop"
        for _ in range(3):  # said again and again, told once
            await stage.trainer.beat(stage.address)
        await stall_event(stage, is_over=False, has_stacks=True)
        await stage.restart()
        held.status.ClearField("stall")
        await stage.trainer.register(stage.address)
        await stage.trainer.beat(stage.address)
        await stall_event(stage, is_over=True)
        assert list((await stage.get()).conditions) == []
        await stage.trainer.end(held, SUCCEEDED)
        told = [event.stall for event in await stage.all_events() if event.HasField("stall")]
        assert [(each.is_over, bool(each.stacks)) for each in told] == [(False, False), (False, True), (True, False)]
