"""How long `prompts similar` takes to group prompts, in what memory, and what it misses.

`python -m bench.prompts [--prompts N]`, by hand. The prompts are 2 to 3 kB and all distinct, in the
worlds of `WORLDS`; each is grouped in a process of its own, whose seconds and peak are told. What
is missed is counted in the first 2 000 of each (`--exact N`): those that stayed alone, or that a
group is told by, are held against each other, all pairs.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from concurrent.futures import ProcessPoolExecutor
from random import Random
from typing import TYPE_CHECKING

from rapidfuzz.distance import Indel

from etl.report.likeness import _WORD, groups_of
from etl.sandbox import prose

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

AT_LEAST = 0.9


def unrelated(rng: Random) -> Iterator[str]:
    """Each put together anew, out of the same twenty rules with other names and topics."""
    while True:
        yield _prompt(rng)


def edited(rng: Random) -> Iterator[str]:
    """One in four is new, the others are one of those, edited in up to an eighth of their words."""
    while True:
        original = _prompt(rng)
        yield original
        for _ in range(3):
            yield _edited(original, rng, rng.uniform(0, 0.125))


def template(rng: Random) -> Iterator[str]:
    """Three quarters are the same in all, the rest is each one's own: nothing is nearly alike."""
    shared = _prompt(rng)
    while True:
        own = " ".join(_invented(rng) for _ in range(len(shared.split()) // 3))
        yield f"{shared}\n{own}"


def edited_template(rng: Random) -> Iterator[str]:
    """The same, and three in four are an edit of one of those."""
    for original in template(rng):
        yield original
        for _ in range(3):
            yield _edited(original, rng, rng.uniform(0, 0.125))


def one_family(rng: Random) -> Iterator[str]:
    """All are the same prompt, edited in up to a tenth of its words."""
    original = _prompt(rng)
    while True:
        yield _edited(original, rng, rng.uniform(0, 0.1))


WORLDS: dict[str, Callable[[Random], Iterator[str]]] = {
    "unrelated": unrelated,
    "edited": edited,
    "template": template,
    "edited template": edited_template,
    "one family": one_family,
}


def _prompt(rng: Random) -> str:
    while True:
        text = prose.system_prompt(rng)
        if 2000 <= len(text) <= 3000:
            return text


def _invented(rng: Random) -> str:
    return "".join(rng.choices("abcdefghijklmnopqrstuvwxyz", k=rng.randint(3, 9)))


def _edited(text: str, rng: Random, share: float) -> str:
    """Words exchanged, left out or added: here and there, or all in one place."""
    words = text.split(" ")
    count = round(len(words) * share)
    if rng.random() < 0.5:
        place = rng.randrange(len(words) - count)
        words[place : place + count] = [_invented(rng) for _ in range(count)]
    else:
        for place in rng.sample(range(len(words)), count):
            words[place] = rng.choice((_invented(rng), "", f"{words[place]} {_invented(rng)}"))
    return " ".join(words)


def distinct(world: str, count: int) -> list[tuple[str, int]]:
    """So many of them, each used once but for every tenth."""
    rng = Random(7)
    texts: dict[str, int] = {}
    for text in WORLDS[world](rng):
        texts.setdefault(text, 1 if rng.random() < 0.9 else 2)
        if len(texts) == count:
            return list(texts.items())
    raise AssertionError


def timed(world: str, count: int) -> str:
    texts = distinct(world, count)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    started = time.process_time()
    found = groups_of(texts, AT_LEAST)
    seconds = time.process_time() - started
    peak = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    in_groups = sum(1 + len(group.others) for group in found)
    return f"{world:<16} {count:>8,} {seconds:>8.1f} {peak:>8.0f} {len(found):>8,} {in_groups:>8,}"


def missed(world: str, count: int) -> str:
    """Of those that joined no other, how many are enough like one of them to have done so."""
    texts = [text for text, _ in distinct(world, count)]
    found = groups_of([(text, 1) for text in texts], AT_LEAST)
    joined = {one.number for group in found for one in group.others}
    alone = [text for number, text in enumerate(texts) if number not in joined]
    words: dict[str, str] = {}
    left = [
        "".join(words.setdefault(word, chr(len(words))) for word in _WORD.findall(text))
        for text in alone
    ]
    kept: list[str] = []
    for text in left:
        if not any(
            Indel.normalized_similarity(text, other, score_cutoff=AT_LEAST) for other in kept
        ):
            kept.append(text)
    return f"{world:<16} {count:>8,} {len(joined):>8,} {len(left) - len(kept):>8,}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--prompts", type=int, default=10_000)
    parser.add_argument("--exact", type=int, default=2_000)
    parser.add_argument("--world", choices=WORLDS, action="append")
    given = parser.parse_args()

    def in_a_process(job: Callable[[str, int], str], world: str, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context) as pool:
            print(pool.submit(job, world, count).result(), flush=True)

    worlds = given.world or list(WORLDS)
    print(f"{'world':<16} {'prompts':>8} {'CPU s':>8} {'MiB':>8} {'groups':>8} {'in them':>8}")
    for world in worlds:
        in_a_process(timed, world, given.prompts)
    print(f"\n{'world':<16} {'prompts':>8} {'joined':>8} {'missed':>8}")
    for world in worlds:
        in_a_process(missed, world, given.exact)


if __name__ == "__main__":
    main()
