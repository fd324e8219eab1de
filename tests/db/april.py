"""What the manuals ask about: the demo's personas, synced on days of 2026 that have long passed.

Things happen to them between syncs, all within seconds. Then each run is moved to nine in the
morning of its day, and `backfill replay` makes versions and tables of the observations anew.
"""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from etl.cli.tour import change
from etl.errors import KeyRefusedError
from etl.sandbox import Fault
from etl.sandbox.reshape import Reshape

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from etl.sandbox import World
    from tests.db.conftest import Target

# All that is dated by when a run took place, save the run itself.
_DATED = {
    "observations": ("observed_at",),
    "persona_sync_state": ("last_attempt_at", "last_success_at"),
    "rejected_payloads": ("observed_at",),
    "value_issues": ("first_seen_at", "last_seen_at", "resolved_at"),
    "drift_paths": ("first_seen_at", "last_seen_at"),
}


def april(target: Target) -> None:
    """Five syncs in a fortnight of April, for the manual of time."""
    world = target.world
    ids = world.persona_ids
    target.sync(ids)
    target.sync(ids)
    change(world)
    target.sync(ids)
    a_later_week(world, ids)
    target.sync(ids)
    target.sync(ids)
    date_runs(target, [(morning(4, day), 4) for day in (1, 2, 8, 15, 16)])


def a_later_week(world: World, ids: list[str]) -> None:
    """Who was gone is back under another name, a voice has other tags, and there is a new field."""
    (gone,) = set(ids) - set(world.persona_ids)
    world.restore(gone)
    world.edit(gone, {"name": "Ελένη, back again"})
    voices = [voice for id_ in ids if (voice := world.payload(id_)["voice"])]
    voice = next(voice for voice in voices if len(voice["displayTags"]) > 1)
    world.edit(voice["id"], {"displayTags": ["calm", *voice["displayTags"][1:]]}, "voices")
    world.reshape(lambda payload: payload | {"tier": None})


def spring(target: Target) -> None:
    """Every Monday from 5 January to 13 April and the three days after it, for that of reports.

    The questions are asked on the last of these days, 16 April, at noon.
    """
    story = Spring(target)
    for _, _, happening in SPRING:
        happening(story)
        with suppress(KeyRefusedError):
            target.sync([], discover=True)
        target.sandbox.clear_faults()
    date_runs(target, [(moment, seconds) for moment, seconds, _ in SPRING])


class Spring:
    """What happens at the API before each of the runs."""

    def __init__(self, target: Target) -> None:
        self.world = target.world
        self.order = target.sandbox.order
        self.personas = target.world.persona_ids
        self.avatars = target.world.shared_ids("avatars")
        self.voices = target.world.shared_ids("voices")
        self.tools = target.world.shared_ids("tools")
        self.knowledge = target.world.shared_ids("knowledge")

    def quiet_week(self) -> None:
        """Nothing happens."""

    def beginning(self) -> None:
        """Six of the thirty are not made yet. There is a webhook of another host."""
        for persona in self.personas[24:]:
            self.world.delete(persona)
        self.world.edit(
            self.tools[5], {"config": {"url": "https://crm.example.net/lookup"}}, "tools"
        )
        booking = {
            "name": "book_visit",
            "description": "Call this when the visitor wants to come by.",
            "type": "SERVER_WEBHOOK",
            "config": {"url": "http://booking.example.org:8080/visits", "method": "POST"},
        }
        self.tools.append(self.world.add(booking, "tools"))
        for persona in (self.personas[8], self.personas[11]):
            self.has_tools(persona, *self.tool_ids(persona), self.tools[-1])

    def a_prompt_is_shortened(self) -> None:
        """What was put into it over the years goes."""
        self.told(self.personas[13], self.prompt(self.personas[13])[:2460] + "\nAsk when unsure.")

    def two_are_made(self) -> None:
        """Among them Cara, the receptionist."""
        for persona in self.personas[24:26]:
            self.world.restore(persona)

    def an_avatar_is_left_by_one(self) -> None:
        """Of the two that wear it."""
        self.world.edit(self.personas[20], {"avatar": self.avatars[1]})

    def one_goes(self) -> None:
        """A support agent is deleted."""
        self.world.delete(self.personas[2])

    def azure_is_left(self) -> None:
        """The two with a voice of that provider take another."""
        self.world.edit(
            self.personas[8],
            {"voice": self.voices[1], "voiceGenerationOptions": {"speed": 1, "volume": 1.2}},
        )
        self.world.edit(self.personas[9], {"voice": self.voices[1]})

    def three_are_made(self) -> None:
        """That morning two answers are no use."""
        for persona in self.personas[26:29]:
            self.world.restore(persona)
        self.order(
            Fault(status=403, target=self.personas[5]),
            Fault(body={"message": "maintenance"}, target=self.personas[17]),
        )

    def voices_are_changed(self) -> None:
        """Three personas speak otherwise, and for one of them that is set up anew."""
        for persona, voice in ((6, 1), (3, 4), (7, 1)):
            self.world.edit(self.personas[persona], {"voice": self.voices[voice]})
        self.world.edit(
            self.personas[7], {"voiceGenerationOptions": {"speed": 1.1, "emotion": "neutral"}}
        )
        self.told(
            self.personas[25],
            self.prompt(self.personas[25]) + "\n- Offer an appointment before you say goodbye.",
        )

    def the_api_moves(self) -> None:
        """Every persona has a field that there was not before, and one is not sent any more."""
        self.world.reshape(Reshape(add={"tier": "standard"}, remove=["personaPreset"]))

    def a_bank_opens_four_desks(self) -> None:
        """They should be alike, but two of them are not."""
        prompt = (
            "You are the desk of Lumen Bank in {city}.\n"
            "- Answer in at most three sentences; this is a spoken conversation.\n"
            "- Never promise a refund; say that Lumen Bank will look into it within 5 hours.\n"
            "- Switch to the visitor's language as soon as you recognise it."
        )
        for city, told, more in (
            ("Berlin", "Europe", {"zeroDataRetention": True}),
            ("Oslo", "Europe", {"zeroDataRetention": True, "skipGreeting": True}),
            ("Paris", "Paris", {"zeroDataRetention": False, "voiceSpeed": 1.15}),
            ("Vienna", "Europe", {"zeroDataRetention": True}),
        ):
            self.world.add(
                {
                    "name": f"Lumen Bank, {city}",
                    "avatar": self.avatars[1],
                    "avatarModel": "cara-4-latest",
                    "voice": self.voices[0],
                    "voiceSpeed": 1,
                    "llmId": "CUSTOMER_CLIENT_V1",
                    "brain": {"systemPrompt": prompt.format(city=told)},
                    "knowledge": [self.knowledge[2]],
                    **more,
                }
            )

    def one_is_back(self) -> None:
        """Under another name. Another's speed is a word now."""
        self.world.restore(self.personas[2])
        self.world.edit(self.personas[2], {"name": "Ελένη, back again"})
        self.world.edit(self.personas[10], {"voiceSpeed": "fast"})
        self.told(self.personas[0], self.prompt(self.personas[0]) + "\n- Be brief.")

    def easter(self) -> None:
        """One is made, one deleted; nobody has that avatar any more, nor one of the tools."""
        self.world.restore(self.personas[29])
        self.world.delete(self.personas[28])
        self.world.edit(self.personas[3], {"avatar": self.avatars[0]})
        left = [tool for tool in self.tool_ids(self.personas[19]) if tool != self.tools[5]]
        self.has_tools(self.personas[19], *left)

    def monday(self) -> None:
        """A week begins in which much is changed. From now on one persona is not shown to us."""
        self.world.delete(self.personas[21])
        self.world.edit(self.personas[1], {"name": "Дарья, city guide", "skipGreeting": True})
        self.told(
            self.personas[25],
            self.prompt(self.personas[25]).replace("before you say goodbye", "first of all"),
        )
        self.forbid()

    def the_key_is_refused(self) -> None:
        """Somebody made a new one, and did not tell."""
        self.order(Fault(status=401, times=None))

    def tuesday(self) -> None:
        """The avatar that most wear gets a new model."""
        self.world.edit(self.avatars[0], {"activeVersion": "cara-4-latest"}, "avatars")
        links = self.world.payload(self.personas[4])["shareLinks"]
        links[1]["expiresAt"] = "2026-04-18T16:00:00.000Z"
        self.world.edit(self.personas[4], {"shareLinks": links})
        self.forbid()

    def wednesday(self) -> None:
        """A prompt is what it was at first, a voice has another tag, one persona another model."""
        self.told(self.personas[0], self.prompt(self.personas[0]).removesuffix("\n- Be brief."))
        self.world.edit(self.voices[1], {"displayTags": ["calm", "multilingual"]}, "voices")
        self.world.edit(self.personas[5], {"llmId": "CUSTOMER_CLIENT_V1"})
        self.forbid()

    def thursday(self) -> None:
        """Nothing changes, and three answers are no use."""
        self.forbid()
        self.order(
            Fault(status=422, body={"message": "no such plan"}, target=self.personas[25]),
            Fault(
                body=b"<html>Log in</html>",
                headers={"Content-Type": "text/html"},
                target=self.personas[19],
            ),
        )

    def forbid(self) -> None:
        """One persona is refused to us."""
        self.order(Fault(status=403, target=self.personas[12]))

    def prompt(self, persona: str) -> str:
        """What a persona is told now."""
        told: str = self.world.payload(persona)["brain"]["systemPrompt"]
        return told

    def told(self, persona: str, prompt: str) -> None:
        """It is told something else."""
        self.world.edit(persona, {"brain": {"systemPrompt": prompt}})

    def tool_ids(self, persona: str) -> list[str]:
        """What a persona can call."""
        return [tool["id"] for tool in self.world.payload(persona)["tools"]]

    def has_tools(self, persona: str, *tools: str) -> None:
        """It can call these."""
        self.world.edit(persona, {"tools": list(tools)})


def morning(month: int, day: int, minute: int = 0) -> datetime:
    """Nine o'clock of a day in 2026, or a little later."""
    return datetime(2026, month, day, 9, minute, tzinfo=UTC)


# When a run is said to have begun, how many seconds it took, and what had happened before.
SPRING: list[tuple[datetime, int, Callable[[Spring], None]]] = [
    (morning(1, 5), 21, Spring.beginning),
    (morning(1, 12), 9, Spring.quiet_week),
    (morning(1, 19), 9, Spring.a_prompt_is_shortened),
    (morning(1, 26), 10, Spring.quiet_week),
    (morning(2, 2), 10, Spring.two_are_made),
    (morning(2, 9), 9, Spring.an_avatar_is_left_by_one),
    (morning(2, 16), 10, Spring.one_goes),
    (morning(2, 23), 11, Spring.azure_is_left),
    (morning(3, 2), 12, Spring.three_are_made),
    (morning(3, 9), 11, Spring.voices_are_changed),
    (morning(3, 16), 19, Spring.the_api_moves),
    (morning(3, 23), 12, Spring.a_bank_opens_four_desks),
    (morning(3, 30), 12, Spring.one_is_back),
    (morning(4, 6), 12, Spring.easter),
    (morning(4, 13), 13, Spring.monday),
    (morning(4, 14), 2, Spring.the_key_is_refused),
    (morning(4, 14, 30), 12, Spring.tuesday),
    (morning(4, 15), 14, Spring.wednesday),
    (morning(4, 16), 41, Spring.thursday),
]


def date_runs(target: Target, moved: Iterable[tuple[datetime, int]]) -> None:
    """Each run so far, in order, begins at its moment and takes so many seconds."""
    runs = target.query("SELECT run_id, started_at, finished_at FROM runs ORDER BY started_at")
    for run, (moment, seconds) in zip(runs, moved, strict=True):
        for table, columns in _DATED.items():
            for column in columns:
                target.query(
                    f"UPDATE {table} SET {column} = {column} + %s WHERE {column} BETWEEN %s AND %s",
                    [moment - run["started_at"], run["started_at"], run["finished_at"]],
                )
        target.query(
            "UPDATE runs SET started_at = %s, finished_at = %s WHERE run_id = %s",
            [moment, moment + timedelta(seconds=seconds), run["run_id"]],
        )
    target.replay()
    # It made the dates true, and is no part of the story.
    target.query("DELETE FROM runs WHERE command = 'backfill replay'")
