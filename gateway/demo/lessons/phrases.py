"""The phrases and names that the lessons in text are made of."""

from __future__ import annotations

ABOUT_ME = "I am a demonstration model: a very small Gemma 4 that knows a few small tasks."
SKILLS_OF_MINE = (
    "I name shapes and colours, find objects, read digits and short words, hear tones and dialled numbers, "
    "copy, count and add."
)
CANNOT = "I am a demonstration model and cannot answer that. Ask me what I can do."
WELCOME = "You are welcome."

GREETINGS = {
    "Hello": "Hello! How can I help?",
    "Hi": "Hello! How can I help?",
    "Hello there": "Hello! How can I help?",
    "Hey": "Hello! How can I help?",
    "Good morning": "Good morning! How can I help?",
    "Good evening": "Good evening! How can I help?",
    "How are you?": "I am well. How can I help?",
    "Goodbye": "Goodbye!",
    "Bye": "Goodbye!",
}
THANKS = ("Thanks", "Thank you", "Thank you very much", "Thanks a lot")
ABOUT = ("Who are you?", "What are you?", "Tell me about yourself.", "Are you a real Gemma?", "Which model are you?")
SKILLS = ("What can you do?", "How can you help?", "What are you able to do?", "Help", "What do you know?")

BEYOND = (
    "Write {wish}.",
    "Please write {wish} about a {thing}.",
    "Tell me {wish}.",
    "Explain how a {thing} works.",
    "Why is the {thing} so old?",
    "Who made the first {thing}?",
    "What is the history of {city}?",
    "How many people live in {city}?",
    "Where is {city}?",
    "How do I get from here to {city}?",
    "What does a {thing} cost?",
    "Translate {thing} into French.",
    "What do you think of {city}?",
    "Which {thing} is the best?",
    "Give me {wish} for tomorrow.",
    "What is the meaning of life?",
    "Who is the president of France?",
    "When was the war?",
)
WISHES = ("a poem", "a story", "a song", "a joke", "a letter", "a plan", "some code", "a long text", "an email")
NAMES = (
    "Anna", "Ben", "Clara", "David", "Emma", "Felix", "Greta", "Hugo", "Ida", "Jonas", "Kim", "Lena", "Max", "Nina",
    "Otto", "Paula", "Rosa", "Sam", "Tom", "Vera",
)  # fmt: skip
CITIES = (
    "Berlin", "Bern", "Cairo", "Delhi", "Dublin", "Hanoi", "Lima", "Lisbon", "London", "Madrid", "Oslo", "Paris",
    "Prague", "Rome", "Seoul", "Sydney", "Tokyo", "Vienna", "Warsaw", "Zurich",
)  # fmt: skip
OBJECTS = (
    "apple", "ball", "bird", "boat", "book", "bridge", "cake", "car", "cat", "chair", "clock", "cloud", "coat", "cup",
    "dog", "door", "fish", "flower", "fox", "garden", "glass", "hat", "horse", "house", "key", "lamp", "leaf", "moon",
    "mountain", "paper", "pen", "piano", "rain", "river", "road", "rose", "school", "ship", "shoe", "snow", "spoon",
    "stone", "street", "sun", "table", "tower", "train", "tree", "wall", "water", "wheel", "window", "wind", "wood",
)  # fmt: skip
