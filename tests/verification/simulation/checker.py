"""What is checked when a world is at rest: every session, every visit and every server, against every promise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from itertools import accumulate, pairwise
from uuid import UUID

from lastcall.sessions.instance import GUARD_RETRY_SECONDS, STOP_SECONDS
from lastcall.sessions.reaper import CRASH_STEADY_SECONDS
from lastcall.shutdown import FORCE_MARGIN_SECONDS, HURRY_SECONDS, Schedule
from lastcall.transport.stream import LINGER_SECONDS

from tests.support.fake_rows import MemoryRecord, SessionRecord

from .agent import DEAF_SECONDS
from .clients import Visit
from .truth import AT_ONCE, EXACT_SECONDS, INFINITE, LATENCY_SECONDS, Truth
from .watch import GHOST_SECONDS, Watch, overlap
from .world import SETTINGS, Server, World

OWN_ROW_SECONDS = 0.3  # from an end to its row, by a server that has its database
DEAD_SAME_HOST_SECONDS = 2.5  # from a crash to the row, by a server on the same host
DEAD_OTHER_HOST_SECONDS = 4.0
OVERLAP_SECONDS = 0.5  # two causes so close together overlap
JUDGED_SECONDS = 0.6
GAP_SECONDS = 1.5  # of a judge's own trouble; with more it is not steady
BACK_SECONDS = GUARD_RETRY_SECONDS + LATENCY_SECONDS  # from the end of a server's trouble to its first sign of life
LEASE_LOST_SECONDS = 1.4  # trouble shorter than this costs nobody the lease
ANEW_SECONDS = 1.5  # in which one that was declared dead finds out, and registers anew
LEFT_SECONDS = 1.5  # before its end: whoever has a sound database for so long leaves nothing behind
OVERLOADED = 1013
REFUSED_OPENINGS = frozenset({"half", "foreign", "lost", "silent"})
UNFINISHED_OPENINGS = frozenset({"half", "silent"})
CRASH_EVENTS = frozenset({"session_crashed", "connection_crashed", "socket_crashed", "response_failed"})


class Checker:
    """One look at a world that is at rest."""

    def __init__(self, world: World, watch: Watch, visits: list[Visit]) -> None:
        self._world = world
        self._watch = watch
        self._visits = visits
        self._memories: dict[UUID, dict[tuple[str, str, str], MemoryRecord]] = {}
        for name, memory in world.database.memories.items():
            self._memories.setdefault(memory.source_session_id, {})[name] = memory
        self._failed = Counter(
            fields["session_id"] for _, event, fields in world.logged if event == "memory_not_finalized"
        )
        self._owners = {record.instance.instance_id: server for server in world.servers for record in server.link.own()}

    def run(self) -> None:
        by_session = {visit.session_id: visit for visit in self._visits if visit.session_id is not None}
        for key, row in self._world.database.sessions.items():
            self._watch.look_at_end(row)  # also one that nothing in the database should have written
            visit = by_session.get(key) or self._unheard(row)
            assert row.instance_id is not None
            self._session(row, visit, self._owners[row.instance_id])
        for visit in self._visits:
            self._visit(visit)
        for server in self._world.servers:
            self._server(server)
            self._crowd(server)
        self._returns()
        self._deletions()
        self._logs()

    def _unheard(self, row: SessionRecord) -> Visit | None:
        """The visit of a session whose client never heard of it."""
        for visit in reversed(self._visits):
            if visit.user == row.user_id and visit.session_id is None and visit.opened_at <= row.session_start:
                return visit
        return None

    # --- sessions

    def _session(self, row: SessionRecord, visit: Visit | None, owner: Server) -> None:
        self._world.count("reason", row.end_reason or "active")
        truth = Truth(self._watch, owner, row, visit)
        self._count_overlaps(truth)
        if row.is_active or row.session_end is None or row.ended_at is None:
            self._watch.broken("I1 orphan", f"{row.session_id} of {owner.name} is active after all is over")
            return
        self._reason(row, truth, owner)
        self._prompt(row, truth, owner)
        self._left(row, owner)
        self._swept(row, owner)
        self._memory(row)
        if visit is not None:
            self._ghost(row, visit, owner)

    def _reason(self, row: SessionRecord, truth: Truth, owner: Server) -> None:
        """Whether the row says truly why and when the session ended."""
        assert row.session_end is not None
        end = row.session_end
        fitting = [cause for cause in truth.causes if row.end_reason in cause.reasons]
        if not any(
            max(cause.low, row.session_start) - EXACT_SECONDS
            <= end
            <= max(cause.high, row.session_start) + EXACT_SECONDS
            for cause in fitting
        ):
            told = [(cause.kind, round(cause.low, 3), round(cause.high, 3)) for cause in truth.causes]
            self._watch.broken(
                "I3 end", f"{row.session_id} of {owner.name} says {row.end_reason} at {end:.3f}; what happened: {told}"
            )
        if row.end_reason in ("owner_died", "server_error") and truth.troubled(row.session_start, row.ended_at or end):
            return  # its own word came too late, or it never got as far as to serve
        if row.end_reason == "by_hand":
            return  # dated by the one who closed it, also long after a crash
        late = [cause for cause in truth.causes if end > max(cause.until, row.session_start) + EXACT_SECONDS]
        if row.end_reason == "owner_died" and owner.over_at is not None:
            # Of one that died before its own word was committed, only its last sign of life is known.
            late = [cause for cause in late if cause.until + LATENCY_SECONDS < owner.over_at]
        if late:
            first = min(late, key=lambda cause: cause.until)
            self._watch.broken(
                "I3 end",
                f"{row.session_id} of {owner.name} ended at {end:.3f} ({row.end_reason}), though {first.kind} at"
                f" {first.at:.3f} ended it by {first.until:.3f}",
            )

    def _prompt(self, row: SessionRecord, truth: Truth, owner: Server) -> None:
        """Whether the row was closed soon after the session's end, by the first server that could."""
        assert row.ended_at is not None
        due = min((cause.until for cause in truth.causes), default=INFINITE)
        limit = self._soonest(self._sound(owner), due, OWN_ROW_SECONDS)
        if owner.over_at is not None:
            due = max(owner.over_at, row.session_start)
            for other in self._world.servers:
                if other is not owner:
                    seconds = DEAD_SAME_HOST_SECONDS if other.host == owner.host else DEAD_OTHER_HOST_SECONDS
                    limit = min(limit, self._soonest(self._sound(other), due, seconds))
        if row.ended_at > limit + EXACT_SECONDS:
            self._watch.broken(
                "I1 orphan",
                f"{row.session_id} of {owner.name} was over at {due:.3f}, its row ({row.end_reason}) closed at"
                f" {row.ended_at:.3f}, later than {limit:.3f}",
            )

    def _left(self, row: SessionRecord, owner: Server) -> None:
        """Whether a server that ended by itself left nothing to the others."""
        assert row.ended_at is not None
        if owner.how != "exited" or owner.over_at is None or row.ended_at <= owner.over_at:
            return
        excused = owner.cut_until > owner.over_at - LEFT_SECONDS or overlap(
            owner.trouble, owner.over_at - LATENCY_SECONDS, owner.over_at
        )
        if not excused:
            self._watch.broken("I1 orphan", f"{owner.name} ended by itself and left {row.session_id} active")

    @staticmethod
    def _soonest(sound: Iterator[tuple[float, float]], due: float, seconds: float) -> float:
        return min((max(start, due) + seconds for start, end in sound if end - max(start, due) >= seconds),
                   default=INFINITE)  # fmt: skip

    def _sound(self, server: Server) -> Iterator[tuple[float, float]]:
        """The spans in which a server ran and had its database. After trouble, its writer may wait before a retry."""
        if server.ready_at is None:
            return
        start = server.ready_at
        own = [record.instance.instance_id for record in server.link.own()]
        gaps = [[at, at] for key, at in self._watch.declared.items() if key in own]  # it has to become steady anew
        for begin, end in sorted(server.trouble + gaps):
            yield start, begin
            start = max(start, end + 1.0)
        yield start, server.signalled_at or (server.over_at if server.over_at is not None else INFINITE)

    def _swept(self, row: SessionRecord, owner: Server) -> None:
        if row.end_reason != "owner_died" or row.instance_id in self._watch.declared:
            return
        assert row.ended_at is not None
        dead = owner.over_at is not None and owner.over_at <= row.ended_at
        if not (dead or self._silent(owner, row.ended_at)):
            self._watch.broken("I6 swept", f"{row.session_id} of {owner.name}, which was alive and well")

    def _silent(self, owner: Server, at: float) -> bool:
        """Whether a server gave no sign of life for long, while another one had its database all the time.

        A judge's look may be a little older than what it led to; and where its own trouble begins in between, as much
        older as that lasts.
        """
        for judge in self._world.servers:
            if judge is owner or (judge.over_at is not None and judge.over_at < at - JUDGED_SECONDS):
                continue
            looks = [at]
            if overlap(judge.trouble, at - JUDGED_SECONDS, at):
                looks += [when for when in judge.troubled_at if when <= at]
            if any(
                self._unheard_of(owner, look) and (self._sound_for_long(judge, look) or self._steady(judge, look))
                for look in looks
            ):
                return True
        return False

    @staticmethod
    def _unheard_of(owner: Server, at: float) -> bool:
        spans: list[list[float]] = []
        for begin, end in owner.trouble:
            if spans and begin - spans[-1][1] <= BACK_SECONDS:
                spans[-1][1] = end  # it had no time to say a word in between
            else:
                spans.append([begin, end])
        return any(begin <= at and end >= at - JUDGED_SECONDS and min(end, at) - begin >= LEASE_LOST_SECONDS
                   for begin, end in spans)  # fmt: skip

    def _steady(self, judge: Server, at: float) -> bool:
        """Whether it renewed its lease all the time: trouble that lets every other statement through is no gap."""
        since = at - CRASH_STEADY_SECONDS
        beats = [beat for beat in self._watch.beats.get(judge, ()) if since - GAP_SECONDS <= beat <= at]
        return bool(beats) and all(
            later - earlier <= GAP_SECONDS for earlier, later in pairwise([since, *beats, at]) if later > since
        )

    @staticmethod
    def _sound_for_long(judge: Server, at: float) -> bool:
        since = at - CRASH_STEADY_SECONDS + JUDGED_SECONDS
        return judge.started_at <= since and not any(
            min(end, at) - max(begin, since) > GAP_SECONDS for begin, end in judge.trouble
        )

    def _memory(self, row: SessionRecord) -> None:
        database, key = self._world.database, row.session_id
        said = [item for item in database.said_in(key) if item.role == "user"]
        kept = [item for item in said if not item.deleted]
        never = any("#never" in item.content for item in kept)
        wanted = "none" if not said else "failed" if never else "done"
        if said and row.memory_status == "failed" and row.memory_attempts >= SETTINGS.memory_attempts_max:
            # Tries that ended with their server, or without a database, count too.
            wanted = (
                "failed" if any(server.trouble or server.signalled_at for server in self._world.servers) else wanted
            )
        self._tries(row)
        if row.memory_status != wanted or (wanted == "failed" and not row.memory_error):
            self._watch.broken("I4 memory", f"{key} is {row.memory_status}, not {wanted} (error: {row.memory_error})")
            return
        self._world.count("memory", wanted)
        made = self._memories.get(key, {})
        expected = {f"said {item.item_id}" for item in kept} if wanted == "done" else set()
        if {name[2] for name in made} != expected or any(name[0] != row.user_id for name in made):
            self._watch.broken("I4 memory", f"{key} left {len(made)} memories of {len(expected)}")
        if any(memory.updated_at != row.memory_finalized_at for memory in made.values()):
            self._watch.broken("I4 memory", f"the memory of {key} was applied again")

    def _tries(self, row: SessionRecord) -> None:
        """Whether only tries that failed were counted: one that a shutdown cut off is given back."""
        world, since = self._world, row.ended_at or INFINITE
        until = row.memory_finalized_at or INFINITE
        if any(overlap(server.trouble, since, until) or _died(server, since, until) for server in world.servers):
            return
        store = world.counts.get("store", Counter())
        if store["claim_memory/cancelled_yet_done"] or store["claim_memory/cancelled_unheard"]:
            return  # a shutdown cut off who asked, and nobody knows what to give back
        failed = self._failed[str(row.session_id)]
        if row.memory_attempts > failed + (row.memory_status == "done"):
            self._watch.broken("I4 memory", f"{row.session_id} counts {row.memory_attempts} tries; {failed} failed")

    def _ghost(self, row: SessionRecord, visit: Visit, owner: Server) -> None:
        """Whether the socket outlived a row that somebody else closed."""
        assert row.ended_at is not None
        assert visit.wire is not None
        owners = {record.instance.instance_id for record in owner.link.own()}
        if row.closed_by in owners and row.end_reason != "shutdown":
            return
        seconds = GHOST_SECONDS
        if visit.wire.full_at is not None or any(what in ("vanish", "slow") for _, what in visit.causes):
            seconds += owner.settings.close_seconds + owner.settings.send_seconds + LINGER_SECONDS
        limit = self._socket_until(owner, row.ended_at, seconds)
        ended = min(visit.closed_at or INFINITE, visit.wire.ended_at if visit.wire.ended else INFINITE)
        ended = min([ended, *(at for at, what in visit.causes if what in AT_ONCE)])  # nothing is served after its own
        if ended > limit:
            self._watch.broken("I2 ghost", f"{visit.name} was served until {ended:.3f}, row closed {row.ended_at:.3f}")

    @staticmethod
    def _socket_until(owner: Server, closed_at: float, seconds: float) -> float:
        """The latest end of a socket that has so many seconds from the end of its row. Trouble meanwhile begins them
        anew."""
        limit = closed_at + seconds
        for begin, end in owner.trouble:
            if begin <= limit + LATENCY_SECONDS and end >= closed_at:
                limit = max(limit, end + seconds + GUARD_RETRY_SECONDS)
        return limit

    def _count_overlaps(self, truth: Truth) -> None:
        seen: Counter[str] = Counter()
        for number, first in enumerate(truth.causes):
            for second in truth.causes[number + 1 :]:
                if second.at - first.at <= OVERLAP_SECONDS and first.kind != second.kind:
                    seen["+".join(sorted((first.kind, second.kind)))] = 1
        for name in seen:
            self._world.count("overlap", name)

    # --- connections and servers

    def _visit(self, visit: Visit) -> None:
        """Whether somebody gave the server a reason to end it."""
        assert visit.wire is not None
        if visit.closed_at is None and visit.wire.ended is None:
            self._watch.broken("I7 unbounded", f"{visit.name}'s connection never ended")
            return
        at = min(visit.closed_at or INFINITE, visit.wire.ended_at if visit.wire.ended else INFINITE)
        server = visit.server
        if visit.close_code == OVERLOADED and not visit.errors:
            self._world.count("ending by server", "overloaded")
            if self._open_at(server, at) >= server.settings.connections_max:
                return
        if visit.manner.opening in UNFINISHED_OPENINGS and not overlap(server.freezes, visit.opened_at, at):
            limit = visit.opened_at + server.settings.handshake_seconds
            if at > limit + EXACT_SECONDS:
                self._watch.broken("I7 unbounded", f"{visit.name} had until {at:.3f} to shake hands, not {limit:.3f}")
        excused = visit.manner.opening in REFUSED_OPENINGS or overlap(server.trouble, at - 8.0, at)
        if not excused and not any(when <= at + EXACT_SECONDS for when in self._reasons(visit)):
            self._watch.broken("I8 contained", f"{visit.name} was ended with {visit.close_code} for no reason")

    def _reasons(self, visit: Visit) -> list[float]:
        """When somebody gave the server a reason to end a connection."""
        assert visit.wire is not None
        server, row = visit.server, self._world.database.sessions.get(visit.session_id or UUID(int=0))
        causes = [when for when, _ in visit.causes] + [visit.wire.full_at or INFINITE]
        causes += [when for when in (server.signalled_at, server.over_at) if when is not None]
        if row is not None and row.session_id in self._watch.by_hand:
            causes.append(self._watch.by_hand[row.session_id])
        if row is not None and row.session_end is not None and row.end_reason in ("expired", "idle"):
            causes.append(row.session_end)
        own = [record.instance.instance_id for record in server.link.own()]
        causes += [when for key, when in self._watch.declared.items()
                   if key in own and when >= visit.opened_at - ANEW_SECONDS]  # fmt: skip
        return causes

    def _open_at(self, server: Server, at: float) -> int:
        """How many connections to a server were open at a moment, as the clients saw it."""
        ends = (visit.wire.ended_at if visit.wire is not None and visit.wire.ended else INFINITE
                for visit in self._visits if visit.server is server and visit.opened_at <= at)  # fmt: skip
        return sum(end >= at for end in ends)

    def _server(self, server: Server) -> None:
        self._world.count("process", server.how)
        if server.over_at is None:
            self._watch.broken("I7 unbounded", f"{server.name} never ended")
            return
        if server.how == "failed" and not server.trouble:
            self._watch.broken("I8 contained", f"{server.name} fell over")
        if server.signalled_at is None or server.how == "crashed":
            return
        took = server.over_at - server.signalled_at
        excused = self._stubborn(server) or overlap(server.trouble, server.signalled_at, server.over_at)
        limit = server.settings.drain_seconds + (FORCE_MARGIN_SECONDS if excused else LATENCY_SECONDS)
        if server.hurried_at is not None and not excused:
            hurried = server.hurried_at - server.signalled_at + HURRY_SECONDS
            commits = Schedule(server.settings.drain_seconds).last_commits_seconds
            limit = min(limit, hurried + commits + LATENCY_SECONDS)
        if overlap(server.freezes, server.signalled_at, server.over_at):
            limit += STOP_SECONDS + sum(end - start for start, end in server.freezes)
        if took > limit + EXACT_SECONDS:
            self._watch.broken("I7 unbounded", f"{server.name} took {took:.3f} s to shut down")

    def _stubborn(self, server: Server) -> bool:
        """Whether an agent that ignores cancellation may have been at work when it was told to end."""
        assert server.signalled_at is not None
        since = server.signalled_at - DEAF_SECONDS - server.settings.append_seconds
        since -= sum(end - start for start, end in server.freezes)
        return any(
            "#stubborn" in visit.marks or ("#deaf" in visit.marks and visit.said_at[-1] >= since)
            for visit in self._visits
            if visit.server is server and visit.said_at
        )

    def _crowd(self, server: Server) -> None:
        """Whether it served no more sessions at once than its limit. Ends count as soon as anybody can know of them."""
        spans = []
        for visit in self._visits:
            row = self._world.database.sessions.get(visit.session_id or UUID(int=0))
            if visit.server is server and visit.created_at is not None and row is not None:
                ends = [at for at, _ in visit.causes] + [end for end in (row.session_end, server.over_at) if end]
                spans.append((visit.created_at, min(ends)))
        steps = sorted(step for start, end in spans if start < end for step in ((start, 1), (end, -1)))
        most = max(accumulate(step for _, step in steps), default=0)
        if most > server.settings.connections_max:
            self._watch.broken("I7 unbounded", f"{server.name} served {most} sessions at once")

    def _returns(self) -> None:
        """Whether everyone who came back to a conversation was shown what is in it, and nothing else."""
        earlier: dict[str, list[Visit]] = {}
        for visit in self._visits:
            before = earlier.setdefault(visit.conversation, [])
            heard = {ack.item_id for one in before for ack in one.acks if ack.at < visit.opened_at}
            known = heard - {item_id for one in before for item_id in one.deleting}
            seen = {ack.item_id for ack in visit.acks}
            if known and seen - known and not known <= seen:
                self._watch.broken("I5 lost", f"{visit.name} came back and was not shown {len(known - seen)} items")
            gone = {item_id for one in before for item_id, at in one.deleted.items() if at < visit.opened_at}
            if gone & seen:
                self._watch.broken("I5 lost", f"{visit.name} came back and was shown {len(gone & seen)} deleted items")
            before.append(visit)

    def _deletions(self) -> None:
        """Whether what was deleted stayed so."""
        told = {item_id for visit in self._visits for item_id in visit.deleted}
        for item in self._world.database.messages.values():
            if item.item_id in told and not item.deleted:
                self._watch.broken("I5 lost", f"{item.item_id} was acknowledged as deleted, and is there again")

    def _logs(self) -> None:
        for at, event, fields in self._world.logged:
            self._world.count("log", event)
            if event in CRASH_EVENTS and fields.get("crashed"):
                self._watch.broken("I8 contained", f"the server logged {event} at {at:.3f}")


def _died(server: Server, since: float, until: float) -> bool:
    """Whether it was ended, by somebody else, between two moments."""
    return server.how in ("crashed", "forced") and server.over_at is not None and since <= server.over_at <= until
