"""Chats for a teacher to answer: everyday topics in forms of their own, split by topic into train and test."""

from __future__ import annotations

from collections.abc import Iterator

from labelgen.storage_benchmark.texts import Document, split_of

__all__ = ["chat_prompts"]

_TOPICS = """
bread, tides, bicycles, volcanoes, chess, bees, glaciers, violins, vaccines, maps, coffee, eclipses, rivers,
batteries, owls, cathedrals, money, thunderstorms, gardens, trains, sleep, glass, spices, satellites, penguins,
novels, bridges, soap, deserts, elections, knots, cheese, whales, clocks, rice, mirrors, forests, radio, salt,
marathons, paper, fungi, lighthouses, chocolate, magnets, wolves, kites, rainbows, libraries, tea, earthquakes,
elevators, pottery, honey, comets, hospitals, sailing, prime numbers, databases, recursion, spreadsheets,
photography, insulation, anxiety, friendship, job interviews, taxes, poetry, jazz, compost
""".replace("\n", " ")
_FORMS = (
    "Explain to a ten-year-old how {topic} came to matter to people.",
    "Give me five surprising facts about {topic}, as a numbered list.",
    "Write a short story in which {topic} play a part.",
    "What are common mistakes people make about {topic}, and how can they be avoided?",
    "Write a Python function that has something to do with {topic}, with a docstring and an example.",
    "Write a friendly e-mail that invites a colleague to a talk about {topic}.",
)


def chat_prompts() -> Iterator[Document]:
    """Yield the questions; all questions about a topic are in one split."""
    for form_index, form in enumerate(_FORMS):
        for topic in _TOPICS.strip().split(", "):
            yield Document(name=f"{topic}/{form_index}", text=form.format(topic=topic), split=split_of(topic))
