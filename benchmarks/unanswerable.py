"""Makes questions that a passage does not answer out of questions that it does.

    question = unanswerable("When did the war begin?", passage, random.Random(0))    # "When did the war end?"

A name or number is exchanged for another one of the passage, a word for its opposite, or a "not" is put in.  Now and then
the passage answers the new question too; nobody has checked them one by one.
"""

from __future__ import annotations

import random
import re

OPPOSITES = (
    "first last,most least,before after,largest smallest,highest lowest,more less,increase decrease,increased decreased,"
    "oldest youngest,best worst,early late,north south,east west,northern southern,eastern western,began ended,"
    "start end,started ended,begin end,large small,major minor,high low,old new,won lost,win lose,born killed,opened closed,"
    "open close,"
    "support oppose,supported opposed,allowed banned,male female,men women,father mother,son daughter,black white,rich poor,"
    "strong weak,long short,top bottom,upper lower,internal external,public private,modern ancient,founded abolished,"
    "created destroyed,gained lost,joined left,many few,always never,common rare,popular unpopular,positive negative,"
    "rise fall,rose fell,good bad,hot cold,fast slow,easy difficult,buy sell,bought sold,same different,inside outside,"
    "above below,maximum minimum,longest shortest,import export,latest earliest,greater smaller,legal illegal,"
    "accepted rejected,known unknown,helped hindered,prior subsequent,majority minority,main secondary"
)
_OTHER = {word: other for pair in OPPOSITES.split(",") for word, other in (pair.split(), pair.split()[::-1])}
_NAMED = re.compile(r"[A-Z][\w'’.-]*(?:\s+(?:of|the|de|and)\s+(?=[A-Z]))?(?:\s+[A-Z][\w'’.-]*)*|\d[\d,.]*\d|\d")
_VERB = re.compile(r"\b(is|are|was|were|did|does|do|can|could|has|have|had|will|would|should)\b")
KINDS = ("name", "opposite", "not")
_SHARES = ("name",) * 4 + ("opposite",) * 4 + ("not",)


def unanswerable(question: str, passage: str, chance: random.Random) -> tuple[str, str] | None:
    """(kind, new question), or None where nothing can be exchanged."""
    makers = {"name": _other_name, "opposite": _opposite, "not": _negated}
    for kind in chance.sample(_SHARES, 2):  # two tries: otherwise most would get a "not"
        if made := makers[kind](question, passage, chance):
            return kind, made
    return None


def _other_name(question: str, passage: str, chance: random.Random) -> str | None:
    own = [found for found in _NAMED.finditer(question) if found.start() > 0]
    if not own:
        return None
    found = chance.choice(own)
    word, number = found.group(), found.group()[0].isdigit()
    others = [
        other
        for other in _NAMED.findall(passage)
        if other[0].isdigit() == number
        and other.lower() not in question.lower()
        and word.lower() not in other.lower()
        and (not number or (len(other) == 4) == (len(word) == 4))
    ]
    return question[: found.start()] + chance.choice(others) + question[found.end() :] if others else None


def _opposite(question: str, passage: str, chance: random.Random) -> str | None:
    found = [match for match in re.finditer(r"[A-Za-z]+", question) if match.group().lower() in _OTHER]
    if not found:
        return None
    match = chance.choice(found)
    return question[: match.start()] + _OTHER[match.group().lower()] + question[match.end() :]


def _negated(question: str, passage: str, chance: random.Random) -> str | None:
    found = _VERB.search(question)
    return f"{question[: found.end()]} {chance.choice(('not', 'not', 'never'))}{question[found.end() :]}" if found else None
