"""Two writers forced past the lock: a batch waits for its turn, and no version is there twice."""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from datetime import timedelta
from uuid import UUID

import pytest

from etl.errors import LockedError
from etl.jobs.arrival import Arrival
from etl.jobs.batches import Loader
from etl.jobs.opened_run import close, opened_run
from etl.jobs.reckoning import read_batch
from etl.jobs.removal import remove_missing
from etl.jobs.summary import Tally
from etl.payload.decode import loads
from etl.source.answer import Answer
from etl.store.engine import database_now, make_engine
from tests.db.test_sync_lock import LOCKS

ROUNDS = 8
VOICE = "00000000-0000-4000-8000-00000000aaaa"

# Who takes the lock closes the runs that are open: here nobody may.
NOBODY_CLOSES_ORPHANS = """
    CREATE FUNCTION stay_open() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
    CREATE TRIGGER stay_open BEFORE UPDATE ON runs FOR EACH ROW WHEN (new.status = 'crashed')
       EXECUTE FUNCTION stay_open();
"""


class Writer:
    """A run that holds the lock of another name: nothing but its manners stops it from writing."""

    def __init__(self, target, held: ExitStack, lock: str) -> None:
        engine = make_engine(target.url, target.schema, json_deserializer=loads)
        self.run = held.enter_context(opened_run(engine, target.url, lock, command="sync"))
        reading = held.enter_context(engine.connect())
        self.reader = reading.execution_options(isolation_level="AUTOCOMMIT")
        self.loader = Loader(
            self.run,
            Tally(0),
            http_requests=lambda: 0,
            watch=lambda _: None,
        )

    def read(self, world, ids: list[str], revision: int):
        """These personas, each with another name and another voice than in other revisions."""
        begun = database_now(self.reader)
        arrivals = []
        for nth, persona_id in enumerate(ids):
            shown = world.payload(persona_id) | {
                "name": f"revision {revision}",
                "voice": {"id": VOICE, "displayName": f"voice {revision % 3}"},
            }
            body = json.dumps(shown).encode()
            answer = Answer(UUID(persona_id), 200, body, "application/json", 0.0, 1, 1)
            moment = begun + timedelta(microseconds=nth)
            arrivals.append(Arrival(UUID(persona_id), moment, answer))
        return read_batch(self.reader, arrivals)

    def bring(self, world, ids: list[str], revision: int) -> None:
        self.loader.load(self.read(world, ids, revision))

    def close(self) -> None:
        close(self.run, "succeeded", None, None)


def both(work) -> None:
    """Does the work twice at the same time. Raises what either raises."""
    failed: list[BaseException] = []

    def caught(nth: int) -> None:
        try:
            work(nth)
        except BaseException as exc:
            failed.append(exc)
            raise

    threads = [threading.Thread(target=caught, args=(nth,)) for nth in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failed:
        raise failed[0]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_at_the_same_time_they_come_to_a_history_that_they_could_have_made_in_turn(copying):
    with copying(count=8, seed=3) as target:
        target.query(NOBODY_CLOSES_ORPHANS)
        ids = target.world.persona_ids
        # Not the same personas, though most are, and not in the same order.
        theirs = [ids[:6], ids[:1:-1]]
        all_have_read = threading.Barrier(2, timeout=20)

        def copy(nth: int) -> None:
            for turn in range(ROUNDS):
                with ExitStack() as held:
                    writer = Writer(target, held, ("one", "other")[nth])
                    batch = writer.read(target.world, theirs[nth], 2 * turn + nth)
                    # So that one of them has read what is no longer true when it writes.
                    all_have_read.wait()
                    writer.loader.load(batch)
                    writer.close()

        both(copy)
        assert [row["status"] for row in target.rows("runs")] == ["succeeded"] * 2 * ROUNDS
        items = target.rows("run_items")
        assert {item["outcome"] for item in items} <= {"created", "updated", "unchanged"}
        # Each of the answers is an observation, as each brought another name.
        assert len(target.rows("observations", kind="persona")) == 2 * 6 * ROUNDS
        for persona_id in ids:
            seen = target.rows("observations", kind="persona", entity_id=UUID(persona_id))
            versions = target.versions(persona_id)
            assert [v["valid_from"] for v in versions] == sorted(o["observed_at"] for o in seen)
            state = target.state(persona_id)
            assert state["last_attempt_at"] == max(o["observed_at"] for o in seen)


def test_a_batch_waits_for_that_of_another_run(copying):
    with copying(count=4) as target, ExitStack() as held:
        target.query(NOBODY_CLOSES_ORPHANS)
        ids = target.world.persona_ids
        one, other = (Writer(target, held, name) for name in ("one", "other"))
        with one.run.writing():
            loading = threading.Thread(target=other.bring, args=(target.world, ids, 1))
            loading.start()
            while not target.query(f"SELECT 1 FROM {LOCKS} AND NOT granted"):
                assert loading.is_alive()
        loading.join()
        assert other.loader.tally.outcomes == {"created": 4}
        one.close()
        other.close()


def test_a_run_that_another_took_for_dead_writes_nothing_more(copying):
    """The network took its lock away, and it can't know yet: only its own row says so."""
    with copying(count=4) as target, ExitStack() as held:
        ids = target.world.persona_ids
        one = Writer(target, held, "one")
        one.bring(target.world, ids, 1)
        other = Writer(target, held, "other")
        assert target.row("runs", run_id=one.run.run_id)["status"] == "crashed"
        before = target.dump()
        with pytest.raises(LockedError, match="another run has written since"):
            one.bring(target.world, ids, 2)
        gone = UUID(ids[0])
        one.loader.tally.missing = {gone: target.now()}
        with pytest.raises(LockedError, match="another run has written since"):
            remove_missing(one.loader, [gone], max_percent=None)
        assert target.dump() == before
        other.bring(target.world, ids, 3)
        other.close()
        assert {row["name"] for row in target.rows("personas")} == {"revision 3"}


def test_who_takes_the_lock_waits_for_the_batch_of_a_run_that_lost_it(copying):
    with copying(count=4) as target, ExitStack() as held:
        one = Writer(target, held, "one")
        with one.run.writing():
            opening = threading.Thread(target=lambda: Writer(target, held, "other").close())
            opening.start()
            while not target.query("SELECT 1 FROM pg_locks WHERE NOT granted"):
                assert opening.is_alive()
            assert target.row("runs", run_id=one.run.run_id)["status"] == "running"
        opening.join()
        assert target.row("runs", run_id=one.run.run_id)["status"] == "crashed"
