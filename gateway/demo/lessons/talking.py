"""Lessons in short text: greetings, what the model is, copying, counting, sums, JSON, tools, several turns."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from typing import Any

from gateway.demo.lessons.lesson import CALL_END, Draw, Lesson, assistant, pick, sample, system, user
from gateway.demo.lessons.phrases import (
    ABOUT,
    ABOUT_ME,
    BEYOND,
    CANNOT,
    CITIES,
    GREETINGS,
    NAMES,
    OBJECTS,
    SKILLS,
    SKILLS_OF_MINE,
    THANKS,
    WELCOME,
    WISHES,
)


def greet(draw: Draw) -> Lesson:
    """A greeting, or thanks."""
    if draw.random() < 0.2:
        return Lesson("greet", (user(pick(draw, THANKS)),), WELCOME)
    greeting, answer = pick(draw, tuple(GREETINGS.items()))
    return Lesson("greet", (user(greeting + pick(draw, ("", "!", "."))),), answer)


def about(draw: Draw) -> Lesson:
    """What the model is, or what it can do."""
    questions, answer = pick(draw, ((ABOUT, ABOUT_ME), (SKILLS, SKILLS_OF_MINE)))
    return Lesson("about", (user(pick(draw, questions)),), answer)


def beyond(draw: Draw) -> Lesson:
    """A question that a demonstration model cannot answer."""
    question = pick(draw, BEYOND).format(thing=pick(draw, OBJECTS), city=pick(draw, CITIES), wish=pick(draw, WISHES))
    return Lesson("beyond", (user(question),), CANNOT)


def copy(draw: Draw) -> Lesson:
    """Words, letters or digits to repeat."""
    if draw.random() < 0.6:
        text = " ".join(sample(draw, OBJECTS, int(draw.integers(1, 6))))
    else:
        signs = pick(draw, (string.digits, string.ascii_uppercase, string.ascii_lowercase))
        text = "".join(pick(draw, signs) for _ in range(int(draw.integers(2, 8))))
    question = pick(draw, ("Repeat: {}", "Say: {}", "Repeat after me: {}", "Copy this: {}", "Echo: {}"))
    return Lesson("copy", (user(question.format(text)),), text)


def counting(draw: Draw) -> Lesson:
    """Numbers in order, up or down."""
    first = int(draw.integers(1, 10))
    numbers = range(first, first + int(draw.integers(2, 11)))
    if draw.random() < 0.25:
        question, numbers = f"Count down from {numbers[-1]} to {first}.", numbers[::-1]
    elif first == 1:
        question = f"Count to {numbers[-1]}."
    else:
        question = f"Count from {first} to {numbers[-1]}."
    return Lesson("counting", (user(question),), ", ".join(map(str, numbers)))


def sums(draw: Draw) -> Lesson:
    """A sum or a difference of numbers up to 20."""
    one, other = sorted((int(draw.integers(0, 21)), int(draw.integers(0, 21))), reverse=True)
    minus = draw.random() < 0.4
    task = f"{one} - {other}" if minus else f"{one} + {other}"
    question = pick(draw, ("What is {}?", "{} = ?", "How much is {}?", "Compute {}."))
    return Lesson("sums", (user(question.format(task)),), str(one - other if minus else one + other))


def structure(draw: Draw) -> Lesson:
    """A JSON object from a sentence."""
    name, city, age = pick(draw, NAMES), pick(draw, CITIES), int(draw.integers(1, 100))
    question = pick(draw, ("Answer in JSON: {}", "Return JSON with name, age and city: {}", "Make this JSON: {}"))
    sentence = f"{name} is {age} years old and lives in {city}."
    return Lesson("json", (user(question.format(sentence)),), json.dumps({"name": name, "age": age, "city": city}))


def tool(draw: Draw) -> Lesson:
    """A question that one of the tools answers."""
    tools = sample(draw, (WEATHER, CLOCK, ADD), int(draw.integers(1, 4)))
    name = pick(draw, tools)["function"]["name"]
    question, arguments = _question(draw, name)
    return Lesson("tool", (user(question),), call(name, arguments), tools=tuple(tools), end=CALL_END)


def tool_answer(draw: Draw) -> Lesson:
    """What a tool said, put into words."""
    city, degrees = pick(draw, CITIES), int(draw.integers(0, 40))
    made = {"id": "call_1", "type": "function", "function": {"name": "weather", "arguments": {"city": city}}}
    messages = (
        user(pick(draw, WEATHER_QUESTIONS).format(city)),
        {"role": "assistant", "content": None, "tool_calls": [made]},
        {"role": "tool", "tool_call_id": "call_1", "content": f"{degrees} degrees"},
    )
    return Lesson("tool_answer", messages, f"It is {degrees} degrees in {city}.", tools=(WEATHER,))


def remember(draw: Draw) -> Lesson:
    """Something that was said two turns before."""
    name, thing = pick(draw, NAMES), pick(draw, OBJECTS)
    told, reply, question, answer = pick(
        draw,
        (
            (f"My name is {name}.", f"Hello {name}!", "What is my name?", f"Your name is {name}."),
            (f"I am {name}.", f"Hello {name}!", "Who am I?", f"You are {name}."),
            (f"I like the {thing}.", "I see.", "What do I like?", f"You like the {thing}."),
            (f"Remember the word {thing}.", "I will.", "What was the word?", f"The word was {thing}."),
        ),
    )
    between = (user("2 + 3 = ?"), assistant("5")) if draw.random() < 0.3 else ()
    return Lesson("remember", (user(told), assistant(reply), *between, user(question)), answer)


def instructed(draw: Draw) -> Lesson:
    """A system message names what to answer."""
    word = pick(draw, OBJECTS)
    rule = pick(draw, ("Always answer with the word {}.", "Answer every question with {}.")).format(word)
    question = pick(draw, (*ABOUT, *GREETINGS, "What is 2 + 2?"))
    return Lesson("instructed", (system(rule), user(question)), word)


def call(name: str, arguments: Mapping[str, Any]) -> str:
    """A tool call as the model writes it: bare keys in order, strings between quote tokens."""
    fields = ",".join(
        f'{key}:<|"|>{value}<|"|>' if isinstance(value, str) else f"{key}:{value}"
        for key, value in sorted(arguments.items())
    )
    return f"<|tool_call>call:{name}{{{fields}}}<tool_call|>"


WEATHER_QUESTIONS = ("What is the weather in {}?", "How warm is it in {}?", "Is it cold in {}?", "Weather in {}?")
CLOCK_QUESTIONS = ("What time is it in {}?", "How late is it in {}?", "Tell me the time in {}.")


def _question(draw: Draw, name: str) -> tuple[str, dict[str, Any]]:
    if name == "add":
        one, other = int(draw.integers(10, 1000)), int(draw.integers(10, 1000))
        return f"What is {one} + {other}?", {"a": one, "b": other}
    city = pick(draw, CITIES)
    questions = WEATHER_QUESTIONS if name == "weather" else CLOCK_QUESTIONS
    return pick(draw, questions).format(city), {"city": city}


def _declare(name: str, description: str, **kinds: str) -> dict[str, Any]:
    properties = {key: {"type": kind} for key, kind in kinds.items()}
    parameters = {"type": "object", "properties": properties, "required": list(kinds)}
    return {
        "type": "function",
        "function": {"name": name, "description": description, "parameters": parameters},
    }


WEATHER = _declare("weather", "The weather in a city", city="string")
CLOCK = _declare("clock", "The time in a city", city="string")
ADD = _declare("add", "The sum of two numbers", a="integer", b="integer")
