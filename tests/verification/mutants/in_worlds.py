"""Mistakes that the simulation has to see, or a test where the simulated worlds show them rarely.

Those in `tests/support/fake_*.py` stand for the same mistakes in SQL.
"""

from __future__ import annotations

from dataclasses import replace

from .mutant import BOUND, CONTAINED, END, GHOST, LOST, ORPHAN, REMEMBER, SWEPT, mutant

CONNECTION, READER, EXIT_PATH = (
    "server/lastcall/realtime/connection.py",
    "server/lastcall/realtime/reader.py",
    "server/lastcall/realtime/exit_path.py",
)
WATCH = "server/lastcall/realtime/watch.py"
SESSION, CONVERSATION = "server/lastcall/sessions/session.py", "server/lastcall/conversation/conversation.py"
RESPONSE, STREAM, LISTENER = (
    "server/lastcall/conversation/responses/response.py",
    "server/lastcall/transport/stream.py",
    "server/lastcall/listener.py",
)
JOURNAL, RESPONDER = "server/lastcall/conversation/journal.py", "server/lastcall/conversation/responses/responder.py"
MAIN, SHUTDOWN, INSTANCE = (
    "server/lastcall/main.py",
    "server/lastcall/shutdown.py",
    "server/lastcall/sessions/instance.py",
)
LAST_RESORTS, CONNECTIONS = "tests/unit/realtime/test_last_resorts.py", "tests/unit/realtime/test_connection.py"
EXITS, RECALLS = "tests/unit/realtime/test_exit_path.py", "tests/unit/memory/test_recall.py"
FINALIZING, RECALL = "tests/unit/memory/test_finalizer.py", "server/lastcall/memory/recall.py"
GATE = "server/lastcall/limits/gate.py"
DEATH, DEATHS = "server/lastcall/sessions/death.py", "tests/unit/sessions/test_death.py"
LEASES, REAPS = "tests/integration/sessions/test_instance.py", "tests/integration/sessions/test_reaper.py"
REAPER, MEMORY = "server/lastcall/sessions/upkeep/reaper.py", "server/lastcall/memory/finalizer.py"
MEMORY_ATTEMPT = "server/lastcall/memory/attempts.py"
STORE, TABLES = "tests/support/fake_store.py", "tests/support/fake_tables.py"
CONVERSATIONS, MEMORIES = "tests/support/fake_conversations.py", "tests/support/fake_memories.py"


HINTS = {
    "a reaper dies of its first error": 54,
    "a new guard does not ask what it missed": 46,
    "a session may begin under a dead instance": 18,
    "a shutdown uses up a try at memory, for lack of a shield": 18,
    "a write is dropped with its caller": 15,
}
"""Where the search begins, for those that few worlds see."""


EXIT = (
    mutant(
        "the socket is closed before the row",
        EXIT_PATH,
        "            await self._end_session()\n",
        "            await self._close()\n            await self._end_session()\n",
        ORPHAN,
    ),
    mutant(
        "the row is written before the socket is closed though somebody else closed it",
        EXIT_PATH,
        "if self._session.reason in CLOSED_ALREADY:",
        "if False:",
        GHOST,
        test=f"{LAST_RESORTS}::test_a_socket_whose_row_another_closed_does_not_wait_for_the_database",
    ),
    mutant(
        "an end may lie before its session",
        SESSION,
        "self._ended = max(self.started, ended if ended is not None else trio.current_time())",
        "self._ended = ended if ended is not None else trio.current_time()",
        END,
        test=f"{LAST_RESORTS}::test_a_session_never_ends_before_it_began",
    ),
    mutant(
        "the exit without its deadline",
        EXIT_PATH,
        "trio.move_on_after(seconds, shield=True) as limit",
        "trio.CancelScope(shield=True) as limit",
        BOUND,
    ),
    mutant(
        "a session stays in the registry",
        EXIT_PATH,
        "        self._services.registry.discard(self._session)\n",
        "",
        CONTAINED,
        BOUND,
    ),
    mutant(
        "a row whose begin was not heard of is forgotten",
        CONNECTION,
        "            session.began()\n"
        "            recalled = await services.store.begin_session(start, within=within)\n",
        "            recalled = await services.store.begin_session(start, within=within)\n"
        "            session.began()\n",
        ORPHAN,
        END,
    ),
    mutant(
        "a lost connection counts as closed by its client",
        READER,
        "elif code == 1006:",
        "elif code == 1005:",
        END,
    ),
    mutant(
        "an end that is written late rewrites",
        TABLES,
        "        if not self._is_active(end.session_id):\n            return False\n",
        "        if end.session_id not in self.sessions:\n            return False\n",
        END,
    ),
    mutant(
        "an end is dated by its commit",
        TABLES,
        "self._close(self.sessions[end.session_id], end.ended, end.reason",
        "self._close(self.sessions[end.session_id], trio.current_time(), end.reason",
        END,
    ),
    mutant(
        "a write is dropped with its caller",
        STORE,
        "            await write.settled.wait()\n        if not",
        "            try:\n                await write.settled.wait()\n"
        "            finally:\n                write.abandoned = True\n        if not",
        ORPHAN,
        END,
    ),
    mutant(
        "a row may end before it began",
        TABLES,
        "session.session_end = max(session.session_start, min(ended, now))",
        "session.session_end = min(ended, now)",
        END,
    ),
    mutant(
        "a write that failed is not tried again",
        STORE,
        "                self._queue.appendleft(write)\n",
        "",
        ORPHAN,
        END,
        LOST,
    ),
)

ALIVE = (
    mutant(
        "a session's time is never up",
        WATCH,
        "        if trio.current_time() >= deadline:\n            self._late()\n",
        "",
        END,
        ORPHAN,
    ),
    mutant(
        "a client that floods may go on",
        READER,
        "                self._session.stop(EndReason.FLOODING)\n",
        "",
        END,
    ),
    mutant(
        "a silent client is never given up",
        WATCH,
        "            self._session.stop(EndReason.CLIENT_VANISHED, ended=self._stream.last_received)\n",
        "            pass\n",
        ORPHAN,
        END,
    ),
    mutant(
        "a silent client's end is dated by its discovery",
        WATCH,
        "self._session.stop(EndReason.CLIENT_VANISHED, ended=self._stream.last_received)",
        "self._session.stop(EndReason.CLIENT_VANISHED)",
        END,
    ),
    mutant(
        "pings are counted from the last ping",
        WATCH,
        "            return heard + self._interval\n",
        "            return now + self._interval\n",
        ORPHAN,
        END,
    ),
    mutant(
        "a slow reader is never given up",
        STREAM,
        "                scope.deadline = trio.current_time() + self._send_seconds\n",
        "",
        ORPHAN,
        END,
        BOUND,
    ),
    mutant(
        "a handshake may take for ever",
        LISTENER,
        "with trio.move_on_after(settings.handshake_seconds) as opening,",
        "with trio.CancelScope() as opening,",
        BOUND,
    ),
    mutant(
        "more connections than the limit",
        GATE,
        "full = open_sessions >= self._connections_max",
        "full = open_sessions < 0",
        BOUND,
    ),
    mutant(
        "an agent runs inside the session",
        CONNECTION,
        "                    await conversation.run(inbox)\n",
        "                    async with trio.open_nursery() as inside:\n"
        "                        conversation._responder._start_reply = inside.start_soon\n"
        "                        await conversation.run(inbox)\n",
        ORPHAN,
        END,
    ),
    mutant(
        "a socket waits for an agent that ignores cancellation",
        LISTENER,
        "                        await self._serve_caller(transport, caller, tasks)\n",
        "                        async with trio.open_nursery() as own:\n"
        "                            await self._serve_caller(transport, caller, own)\n"
        "                            own.cancel_scope.cancel()\n",
        GHOST,
        test=f"{CONNECTIONS}::test_an_agent_that_ignores_cancellation_does_not_keep_its_socket_open",
    ),
    mutant(
        "an agent's exception ends its session",
        RESPONSE,
        "except Exception:  # noqa: BLE001 - whatever an agent raises is this response's failure",
        "except OSError:",
        CONTAINED,
    ),
    mutant(
        "an agent may leave the process",
        RESPONSE,
        "            with self._generation, contained():\n",
        "            with self._generation:\n",
        CONTAINED,
    ),
)

WORDS = (
    mutant(
        "an item is acknowledged before its commit",
        CONVERSATION,
        "            entry = await self._journal.append(event, item)\n",
        "            self._outbox.emit(server_events.ItemDone(previous_item_id=None, item=item))\n"
        "            entry = await self._journal.append(event, item)\n",
        LOST,
    ),
    mutant(
        "an answer is acknowledged before its commit",
        RESPONSE,
        "        try:\n            self.figures_stored =",
        "        self._output.acknowledge()\n        try:\n            self.figures_stored =",
        LOST,
    ),
    mutant(
        "an answer is acknowledged though it was not stored",
        RESPONSE,
        '            self._fail("store_unavailable", "The answer could not be stored. Please try again.")\n'
        "            self._output.mark_incomplete()\n            return False\n",
        "            return True\n",
        LOST,
    ),
    mutant(
        "words are stored after the cut",
        JOURNAL,
        '        if self.closed:\n            raise SessionClosed("the session is over")\n',
        "        pass\n",
        GHOST,
        test=f"{LAST_RESORTS}::test_after_the_cut_nothing_more_is_stored_and_nothing_acknowledged",
    ),
    mutant(
        "words are stored though the row is closed",
        TABLES,
        '                raise SessionClosed("the session\'s row is closed")\n',
        "                pass\n",
        GHOST,
    ),
    mutant(
        "a deletion is acknowledged before its commit",
        CONVERSATION,
        "            await self._journal.delete(event.item_id)\n",
        "            self._outbox.emit(server_events.ItemDeleted(item_id=event.item_id))\n"
        "            await self._journal.delete(event.item_id)\n",
        LOST,
    ),
    mutant(
        "an answer that is deleted while it is said is stored without the mark",
        JOURNAL,
        "            entry.deleted = True  # its response goes on, and stores it as deleted\n",
        "            pass\n",
        LOST,
    ),
    mutant(
        "a resumed conversation shows what was deleted",
        CONVERSATIONS,
        "kept = [item for item in self.items(conversation_id) if not item.deleted]",
        "kept = self.items(conversation_id)",
        LOST,
    ),
    mutant(
        "what was deleted is remembered",
        MEMORIES,
        'if item.kind == "message" and not item.deleted]',
        'if item.kind == "message"]',
        REMEMBER,
    ),
    mutant(
        "an answer outside the conversation is stored in it",
        RESPONDER,
        "            return OutOfBandSink(self._journal)\n",
        "            pass\n",
        CONTAINED,
    ),
    mutant(
        "a resumed conversation begins empty",
        CONNECTION,
        "            history=self._history.items,\n",
        "            history=(),\n",
        LOST,
    ),
    mutant(
        "an answer that is said but not stored yet is deleted in vain",
        JOURNAL,
        "if entry is not None and entry.pending:",
        'if entry is not None and entry.item.status == "in_progress":',
        LOST,
        test="tests/unit/conversation/test_tools.py"
        "::test_an_item_that_is_said_but_not_stored_yet_may_be_deleted_and_created_again",
    ),
    mutant(
        "a client may not use the id of a deleted item again",
        TABLES,
        "            if not item.deleted and (key in self.message_ids or key in taken):\n",
        "            if key in self.message_ids or key in self.deleted_ids or key in taken:\n",
        LOST,
        test="tests/unit/conversation/test_tools.py::test_an_id_is_taken_until_its_item_is_deleted",
    ),
)

STOPPING = (
    mutant(
        "the bulk close counts as done though it failed",
        SHUTDOWN,
        " if session.session_id in closed]\n",
        " if session.has_row]\n",
        ORPHAN,
        END,
    ),
    mutant(
        "the bulk close does not let ends go first",
        STORE,
        'LEAVING = ("close_instance_sessions", "stop_instance")',
        'LEAVING = ("",)',
        END,
    ),
    mutant(
        "sessions are not told of the shutdown",
        SHUTDOWN,
        "        session.stop(EndReason.SHUTDOWN)\n",
        "        pass\n",
        GHOST,
    ),
    mutant(
        "answers get all the time that they want",
        SHUTDOWN,
        "        signals.enter(FINISH_RESPONSES, grace)\n",
        "        signals.enter(FINISH_RESPONSES)\n",
        END,
        BOUND,
    ),
    mutant(
        "the bulk close without a deadline",
        SHUTDOWN,
        "trio.move_on_after(CLOSE_ROWS.seconds_max, shield=True) as limit",
        "trio.CancelScope(shield=True) as limit",
        BOUND,
        test=f"{LAST_RESORTS}::test_a_bulk_close_that_hangs_is_given_up_at_its_bound",
    ),
    mutant(
        "a failed bulk close is taken as done",
        SHUTDOWN,
        '            _log.error("bulk_close_failed", error=str(error))\n',
        '            _log.error("bulk_close_failed", error=str(error))\n'
        "            return [session.session_id for session in services.registry]\n",
        ORPHAN,
        test=f"{LAST_RESORTS}::test_a_bulk_close_that_fails_leaves_each_session_to_end_its_own_row",
    ),
    mutant(
        "sockets get all the time that they want",
        MAIN,
        "signals.enter(END_SESSIONS, connections.cancel_scope)",
        "signals.enter(END_SESSIONS)",
        BOUND,
    ),
    mutant(
        "memory gets all the time that it wants",
        MAIN,
        "signals.enter(FINALIZE_MEMORY, memory_budget)",
        "signals.enter(FINALIZE_MEMORY)",
        BOUND,
    ),
    mutant(
        "a second signal changes nothing",
        SHUTDOWN,
        "        self.hurry.set()\n        self._shorten()\n",
        "        pass\n",
        END,
    ),
    mutant(
        "a server that drains takes sessions",
        CONNECTION,
        "if services.draining.is_set() or services.gate",
        "if services.gate",
        END,
        GHOST,
    ),
    mutant(
        "nobody is told that the server drains",
        MAIN,
        "        services.draining.set()\n",
        "",
        END,
        GHOST,
        BOUND,
    ),
)

OTHERS = (
    mutant(
        "notifications are ignored",
        INSTANCE,
        "            closed = connection.closed_by_others()\n",
        "            closed = ()\n",
        GHOST,
    ),
    mutant(
        "a new guard does not ask what it missed",
        INSTANCE,
        "closed = await self._closed_meanwhile(connection)",
        "closed = ()",
        GHOST,
    ),
    mutant(
        "a lost lease is not followed by a new one",
        INSTANCE,
        "                await self.register()\n            except",
        "                pass\n            except",
        CONTAINED,
    ),
    mutant(
        "a lease is renewed only when there is news",
        INSTANCE,
        "with trio.move_on_after(self._settings.heartbeat_seconds):",
        "with trio.CancelScope():",
        END,
        ORPHAN,
    ),
    mutant(
        "a lease connection that is lost is not replaced",
        INSTANCE,
        "                self._note_trouble(error)\n            lost_at",
        "                self._note_trouble(error)\n                return\n            lost_at",
        SWEPT,
        GHOST,
        test=f"{LEASES}::test_a_lost_lease_connection_is_replaced_and_sessions_live_on",
    ),
    mutant(
        "a lease is renewed on its own connection only",
        INSTANCE,
        "                until_lost.start_soon(self._renew_unguarded, until_lost.cancel_scope)\n",
        "",
        SWEPT,
        test=f"{LEASES}::test_without_its_connection_the_lease_is_renewed_by_others_and_closed_rows_are_seen",
    ),
    mutant(
        "a lease that is renewed on other connections lets rows be closed unseen",
        INSTANCE,
        "                self._stop_sessions(await self._closed_meanwhile(self._store))\n",
        "",
        GHOST,
        test=f"{LEASES}::test_without_its_connection_the_lease_is_renewed_by_others_and_closed_rows_are_seen",
    ),
    mutant(
        "a start does not wait for its lease",
        INSTANCE,
        "            await lease.wait_held()\n",
        "",
        ORPHAN,
        test=f"{LEASES}::test_a_start_without_its_lease_connection_ends_and_says_why",
    ),
    mutant(
        "a session that is about to get its row is taken for deleted",
        INSTANCE,
        "if session.row_stored]",
        "if session]",
        CONTAINED,
        test=f"{LEASES}::test_a_session_that_is_about_to_get_its_row_is_not_taken_for_deleted",
    ),
    mutant(
        "a session may begin under a dead instance",
        TABLES,
        "if start.instance_id not in self.instances or self.instances[start.instance_id].gone:",
        "if start.instance_id not in self.instances:",
        GHOST,
        END,
        ORPHAN,
    ),
    mutant(
        "everybody with a row is taken for dead",
        DEATH,
        "return LEASE_RAN_OUT if seen.heartbeat >= suspect.lease_seconds else None",
        "return LEASE_RAN_OUT",
        SWEPT,
    ),
    mutant(
        "a process that cannot be seen is taken for dead",
        DEATH,
        "if process is ProcessState.GONE:",
        "if process in (ProcessState.GONE, ProcessState.UNKNOWN):",
        SWEPT,
    ),
    mutant(
        "a lost connection is death though the process lives",
        DEATH,
        "if process is None and min(seen.heartbeat, seen.guard) >= gone_seconds:",
        "if min(seen.heartbeat, seen.guard) >= gone_seconds:",
        SWEPT,
    ),
    mutant(
        "a lost connection is death at once",
        DEATH,
        "min(seen.heartbeat, seen.guard) >= gone_seconds:",
        "seen.guard >= 0.0:",
        SWEPT,
    ),
    mutant(
        "a lost connection is death in spite of heartbeats by others",
        DEATH,
        "min(seen.heartbeat, seen.guard) >= gone_seconds:",
        "seen.guard >= gone_seconds:",
        SWEPT,
        test=f"{REAPS}::test_a_heartbeat_by_another_connection_keeps_an_instance_alive",
    ),
    mutant(
        "silence is death although the connection is there",
        DEATH,
        "min(seen.heartbeat, seen.guard) >= gone_seconds:",
        "seen.heartbeat >= gone_seconds:",
        SWEPT,
    ),
    mutant(
        "a heartbeat that is earlier than the last is no sign of life",
        DEATH,
        "if known.heartbeat == suspect.heartbeat else now",
        "if known.heartbeat and known.heartbeat >= suspect.heartbeat else now",
        SWEPT,
        test=f"{DEATHS}::test_any_other_heartbeat_is_a_sign_of_life_also_an_earlier_one",
    ),
    mutant(
        "what was seen before a gap still counts",
        DEATH,
        "if answered - self._answered > GAP_SECONDS:",
        "if False:",
        SWEPT,
        test=f"{DEATHS}::test_two_looks_too_far_apart_are_no_observation",
    ),
    mutant(
        "a reaper without heartbeats of its own believes in the others' silence",
        REAPER,
        "if not self._lease.held:",
        "if False:",
        SWEPT,
        test=f"{REAPS}::test_after_an_outage_instances_that_are_not_back_yet_are_not_swept",
    ),
    mutant(
        "one that came back is reaped all the same",
        TABLES,
        "        if record.heartbeat_at != suspect.heartbeat:\n            return 0\n",
        "",
        SWEPT,
    ),
    mutant(
        "a process id is looked up on the wrong host",
        DEATH,
        "same_host = suspect.host_id is not None and suspect.host_id == self._host_id",
        "same_host = suspect.host_id is not None",
        SWEPT,
    ),
    mutant(
        "a reaper dies of its first error",
        REAPER,
        '                _log.warning("reaper_failed", error=str(error))\n',
        '                _log.warning("reaper_failed", error=str(error))\n                return\n',
        ORPHAN,
    ),
    mutant(
        "a dead server's sessions end when they are found",
        TABLES,
        "            self._close(session, ended, EndReason.OWNER_DIED, None, judge)\n",
        "            self._close(session, trio.current_time(), EndReason.OWNER_DIED, None, judge)\n",
        END,
    ),
)

REMEMBERING = (
    mutant(
        "memory is neither announced nor looked for",
        MEMORY,
        "        with trio.move_on_after(seconds) as interval:\n"
        "            await self._idle.park()\n"
        "        return interval.cancelled_caught\n",
        "        await trio.sleep_forever()\n",
        REMEMBER,
    ),
    mutant(
        "memory is queued only for ends of its owner",
        TABLES,
        "        if any(item.role == ",
        "        if closed_by and any(item.role == ",
        REMEMBER,
    ),
    mutant(
        "memory that failed is never tried again",
        MEMORY_ATTEMPT,
        "        if claim.attempts >= self._settings.memory_attempts_max:\n",
        "        if claim.attempts:\n",
        REMEMBER,
    ),
    mutant(
        "memory that fails is tried for ever",
        MEMORY_ATTEMPT,
        "            retry_after = None\n",
        "            pass\n",
        REMEMBER,
    ),
    mutant(
        "memory is claimed without a lease",
        MEMORIES,
        "            session.memory_due_at = now + lease_seconds\n",
        "            session.memory_due_at = now\n",
        REMEMBER,
    ),
    mutant(
        "memory is applied by everybody who worked on it",
        MEMORIES,
        "        session = self._pending(session_id)\n        if session is None:\n            return False\n"
        "        session.memory_status",
        "        session = self.sessions[session_id]\n        session.memory_status",
        REMEMBER,
    ),
    mutant(
        "memory is not marked as done",
        MEMORIES,
        'session.memory_status, session.memory_error, session.memory_due_at = "done", None, None',
        "session.memory_error, session.memory_due_at = None, None",
        REMEMBER,
    ),
    mutant(
        "a shutdown uses up a try at memory, for lack of a shield",
        MEMORY_ATTEMPT,
        "trio.move_on_after(RELEASE_SECONDS, shield=True)",
        "trio.move_on_after(RELEASE_SECONDS)",
        REMEMBER,
    ),
    mutant(
        "memory that raises ends the server",
        MEMORY_ATTEMPT,
        "except Exception as error:  # noqa: BLE001 - whatever an agent raises costs this one try",
        "except OSError as error:",
        CONTAINED,
    ),
    mutant(
        "a session claims the memory of another",
        MEMORY,
        "claim_memory(self._together_max, CLAIM_SECONDS, session_ids=session_ids)",
        "claim_memory(self._together_max, CLAIM_SECONDS)",
        REMEMBER,
        test=f"{FINALIZING}::test_a_session_that_asks_is_finalized_at_once_by_a_claim_of_its_own",
    ),
    mutant(
        "an exit waits for memory without a bound",
        EXIT_PATH,
        "trio.CancelScope(deadline=deadline, shield=True):",
        "trio.CancelScope(shield=True):",
        BOUND,
        test=f"{EXITS}::test_an_exit_waits_for_memory_no_longer_than_its_budget",
    ),
    mutant(
        "a connection that is cancelled forgets its memory",
        EXIT_PATH,
        "trio.CancelScope(deadline=deadline, shield=True):",
        "trio.CancelScope(deadline=deadline):",
        REMEMBER,
        test=f"{EXITS}::test_a_connection_that_is_cancelled_finalizes_its_memory_all_the_same",
    ),
    mutant(
        "a client waits for memory",
        EXIT_PATH,
        "                await self._close_while_finalizing()\n",
        "                await self._finalize_memory()\n                await self._close()\n",
        BOUND,
        test=f"{EXITS}::test_no_client_waits_for_memory_that_hangs",
    ),
    mutant(
        "a begin waits for memory without a bound",
        RECALL,
        "with trio.move_on_after(PENDING_SECONDS_MAX):",
        "with trio.CancelScope():",
        BOUND,
        test=f"{RECALLS}::test_memory_that_hangs_is_waited_for_no_longer_than_the_bound",
    ),
    mutant(
        "a begin does not wait for memory",
        RECALL,
        "while leaving or found.pending:",
        "while False:",
        REMEMBER,
        test=f"{RECALLS}::test_pending_memory_is_waited_for_until_it_is_there",
    ),
    mutant(
        "a begin does not know of an end on its way",
        RECALL,
        "while leaving or found.pending:",
        "while found.pending:",
        REMEMBER,
        test=f"{RECALLS}::test_an_end_that_is_still_being_written_counts_as_pending",
    ),
    mutant(
        "a memory's agent may take for ever",
        MEMORY_ATTEMPT,
        "with trio.fail_after(self._settings.memory_seconds):\n                reading = ",
        "with trio.CancelScope():\n                reading = ",
        REMEMBER,
        BOUND,
    ),
)

_ALL = EXIT + ALIVE + WORDS + STOPPING + OTHERS + REMEMBERING
MUTANTS = tuple(replace(each, hint=HINTS.get(each.name, 0)) for each in _ALL)
