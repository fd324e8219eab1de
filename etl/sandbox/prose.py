"""The words of the made-up personas: names, descriptions and prompts. Knows no ids and no JSON.

The texts mix scripts, directions, emoji and combining marks on purpose: they travel from the
API through Postgres to a report, and each of those has broken on one of them somewhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

NAMES = (
    "Cara",
    "Zoë",
    "Łukasz",
    "Ngu\u0065\u0302\u0303n An",  # ễ as a letter and two combining marks
    "Ame\u0301lie",  # é as a letter and a combining mark
    "美咲",
    "李小明",
    "김서연",
    "सुनीता",
    "สมชาย",
    "محمد",
    "נועה",
    "Ελένη",
    "Дарья",
    "O'Brien",
    'Bob "The Builder"',
    "Nurse Joy 👩🏽‍⚕️",  # one glyph of four code points
    "Robot 🤖",
    "Ingeborg",
    "Tomás",
)
ROLES = (
    "receptionist",
    "language tutor",
    "support agent",
    "onboarding coach",
    "sales adviser",
    "interview trainer",
    "tour guide",
    "triage nurse",
    "product specialist",
    "banking assistant",
)
COMPANIES = (
    "Harbour Dental",
    "Lumen Bank",
    "Kestrel Airways",
    "Oakline Insurance",
    "Papaya Mobile",
    "Tidewater Energy",
    "Studio Größe",
    "Café Łódź",
    "みどり保険",
    "Fjord & Sønner",
)
TOPICS = (
    "opening hours",
    "a refund",
    "an appointment",
    "a lost card",
    "the loyalty programme",
    "a delayed delivery",
    "changing a password",
    "an invoice",
    "data protection",
    "the return policy",
    "a damaged parcel",
    "an upgrade",
)
GREETINGS = (
    "Hello and welcome!",
    "¡Hola! ¿En qué puedo ayudarte?",
    "Grüß Gott, schön, dass Sie da sind.",
    "こんにちは、ご用件をお聞かせください。",
    "مرحبا، كيف يمكنني مساعدتك؟",
    "שלום, איך אפשר לעזור?",
    "नमस्ते, मैं आपकी कैसे मदद कर सकती हूँ?",
    "Здравствуйте! Чем могу помочь?",
    "안녕하세요, 무엇을 도와드릴까요? 😊",
)
TRAITS = (
    "warm",
    "calm under pressure",
    "curious",
    "dryly funny",
    "precise",
    "encouraging",
    "brief",
    "patient",
)
_OPENINGS = (
    "You are {name}, the {role} of {company}.",
    "You play the part of {name}, a {role} who has worked at {company} for {number} years.",
    "Act as {name}. You are a {role} and speak for {company} and nobody else.",
)
_HEADINGS = (
    "# How you speak",
    "# What you know",
    "# What you must not do",
    "# When someone is upset",
    "# Handing over to a person",
    "# Examples",
    "## Numbers, dates and prices",
    "## Small talk",
)
_RULES = (
    "Answer in at most {number} sentences; this is a spoken conversation, not an e-mail.",
    "Ask one question at a time and wait for the answer.",
    "When the visitor asks about {topic}, first find out which customer number they have.",
    "Never promise {topic}; say that {company} will look into it within {number} hours.",
    "Say numbers the way a person would: “twenty past {number}”, not “{number}:20”.",
    "If you did not understand, say so, and ask them to repeat it more slowly.",
    "Do not mention that you are a language model unless you are asked directly.",
    "Switch to the visitor's language as soon as you recognise it. Start with: {greeting}",
    "Questions about {topic} go to the team on floor {number}; call the tool `hand_over` for it.",
    "Keep the tone {trait}, even when the visitor is not.",
    "You may talk about {topic} and {topic2}, and about nothing that concerns other customers.",
    "Spell out e-mail addresses letter by letter, and read them back once.",
    "Do not give medical, legal or financial advice; offer {topic2} instead.",
    "Should somebody ask for the price, it is {number} euros a month, taxes included.",
    "End with a short summary of what was agreed about {topic}, then say goodbye.",
    "Visitor: I have been waiting for {number} days!\nYou: I'm sorry. Let me see what happened.",
    "Visitor: Can you help me with {topic}?\nYou: Of course. {greeting} May I have your name?",
    "Don't read out URLs; say that {company} sends the link by text message.",
    "Backslashes \\ and {{braces}} in a customer's text are part of the text; leave them alone.",
    "If the line is silent for more than {number} seconds, ask whether they are still there.",
)


def likely(rng: Random, probability: float) -> bool:
    """True that often."""
    return rng.random() < probability


def persona_name(rng: Random) -> str:
    """A first name, often with what the persona is for."""
    name = rng.choice(NAMES)
    return name if likely(rng, 0.3) else f"{name}, {rng.choice(ROLES)}"


def description(rng: Random) -> str:
    """One sentence, as a team would write it in the vendor's studio."""
    return f"A {rng.choice(TRAITS)} {rng.choice(ROLES)} for {rng.choice(COMPANIES)}."


def personality(rng: Random) -> str:
    """A line on character."""
    first, second = rng.sample(TRAITS, 2)
    return f"{first.capitalize()} and {second}. {rng.choice(GREETINGS)}"


def system_prompt(rng: Random) -> str:
    """From one line to about 10 kB, mostly 0.5 to 3 kB: the sizes teams really write."""
    company, name, role = rng.choice(COMPANIES), rng.choice(NAMES), rng.choice(ROLES)
    opening = rng.choice(_OPENINGS).format(
        name=name, role=role, company=company, number=rng.randint(2, 9)
    )
    if likely(rng, 0.08):
        return opening
    size = rng.randint(500, 3000) if likely(rng, 0.9) else rng.randint(3000, 9500)
    lines = [opening]
    length = len(opening)
    while length < size:
        if len(lines) % 7 == 1:
            line = "\n" + rng.choice(_HEADINGS)
        else:
            topic, topic2 = rng.sample(TOPICS, 2)
            line = "- " + rng.choice(_RULES).format(
                company=company,
                topic=topic,
                topic2=topic2,
                number=rng.randint(2, 9),
                trait=rng.choice(TRAITS),
                greeting=rng.choice(GREETINGS),
            )
        lines.append(line)
        length += len(line) + 1
    return "\n".join(lines)
