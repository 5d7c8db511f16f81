"""Through gateway and vLLM a Gemma answers as it does in Hugging Face transformers.

Both sides get the same messages, media as the same data URLs, and generate greedily in float32. Token ids are compared,
because text hides differences, and the log probability of each. The weights are random, so that every pixel and every
sample counts: a wrong resampler or a lost attention mask changes the first tokens.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import httpx
import pytest
import soundfile
import soxr
from PIL import ExifTags, Image

import gateway
from gateway.demo.model import Shape, write_model
from gateway.settings import Family
from tests.engine.media import Samples, data_url, encoded, picture, sound, wav

pytestmark = [
    pytest.mark.engine,
    pytest.mark.timeout(600),  # the first test of a model waits for its engine
    # Of what transformers does: torch.jit, audioread's modules, a palette whose alpha it drops.
    pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*"),
    pytest.mark.filterwarnings("ignore:.*slated for removal in Python 3.13:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning"),
]

TOKENS = 24
#: Largest difference of a log probability. float32 sums in another order give some 1e-5.
TOLERANCE = 1e-3


Part = tuple[str, str]
"""A kind (text, image, audio), and the text or the data URL."""


@dataclass(frozen=True)
class Model:
    """A small Gemma, served."""

    family: Family
    shape: Shape = Shape.E

    @property
    def name(self) -> str:
        """The name of its directory, which is the name under which it is served."""
        return f"{self.family}-{self.shape}"

    @property
    def hears(self) -> bool:
        """Whether it takes audio."""
        return self.family is not Family.GEMMA3 and self.shape is Shape.E


@dataclass(frozen=True)
class Case:
    """One message of a user; the budget in tokens for each picture, where it is not the model's own."""

    name: str
    parts: tuple[Part, ...] = field(repr=False)
    budget: int | None = None


@dataclass(frozen=True)
class Answer:
    """The ids of prompt and answer, and the natural logarithm of the probability of each token of the answer."""

    prompt: list[int]
    tokens: list[int]
    logprobs: list[float]


@dataclass(frozen=True)
class Served:
    """A model behind the gateway, and the same model in this process."""

    directory: Path
    base_url: str
    processor: Any = field(repr=False)
    model: Any = field(repr=False)


def text(words: str) -> Part:
    return ("text", words)


def image(content: bytes, kind: str = "png") -> Part:
    return ("image", data_url(content, f"image/{kind}"))


def clip(samples: Samples, rate: int = 16_000) -> Part:
    """A WAV of 32-bit floats, which loses nothing."""
    return ("audio", data_url(wav(samples, rate), "audio/wav"))


def turned_jpeg(drawn: Image.Image) -> bytes:
    """A JPEG whose EXIF says that it has to be turned by a quarter, clockwise."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    buffer = io.BytesIO()
    drawn.save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue()


def transparent_palette_png(drawn: Image.Image) -> bytes:
    """A PNG of 32 colours, of which the first eight are more or less transparent."""
    buffer = io.BytesIO()
    drawn.quantize(32).save(buffer, "PNG", transparency=bytes(range(0, 256, 32)))
    return buffer.getvalue()


SMALL = image(encoded(picture(300, 200, seed=1)))
LARGE = image(encoded(picture(640, 480, seed=2)))
TURNED = image(turned_jpeg(picture(320, 200, seed=3)), "jpeg")
PALETTE = image(transparent_palette_png(picture(256, 256, seed=4)))
SHORT = clip(sound(2.0))
LONG = clip(sound(3.3, seed=5))
STEREO = clip(sound(2.5, 44_100, channels=2, seed=6), 44_100)

WORDS = [Case("text", (text("Hello there"),))]
SIGHT = [
    Case("one picture", (SMALL, text("What is it?"))),
    Case("two pictures", (SMALL, LARGE, text("Which is more?"))),
    Case("a turned JPEG", (TURNED, text("Which way is up?"))),
    Case("a palette PNG with alpha", (PALETTE, text("What is behind it?"))),
]
BUDGETS = [Case(f"budget {budget}", (LARGE, text("Look")), budget) for budget in (70, 140, 280, 560)]
WHOLE_BUDGET = Case("budget 1120", (LARGE, text("Look")), 1120)
HEARING = [
    Case("a clip", (SHORT, text("Who said that?"))),
    Case("a stereo clip of 44.1 kHz", (STEREO, text("Who said that?"))),
]
TWO_CLIPS = Case("two clips", (SHORT, LONG, text("Which is longer?")))
BOTH = [
    Case("picture and clip", (SMALL, SHORT, text("Do they go together?"))),
    Case("interleaved", (text("Say"), LONG, text("and then"), LARGE, text("or not"))),
]


def equal(answer: Answer, expected: Answer) -> None:
    """The same tokens, as probable."""
    assert answer.prompt == expected.prompt
    assert answer.tokens == expected.tokens
    assert answer.logprobs == pytest.approx(expected.logprobs, abs=TOLERANCE)


def beyond_the_window(answer: Answer, expected: Answer) -> None:
    """Differs, on a CPU only, where a picture is longer than the sliding window of 1024.

    There a token of a picture sees what precedes the picture's end by the window, not its own place. Should this fail,
    that has been mended: expect `equal`.
    """
    assert answer.prompt == expected.prompt
    assert answer.logprobs[0] != pytest.approx(expected.logprobs[0], abs=TOLERANCE)


def padded_otherwise(answer: Answer, expected: Answer) -> None:
    """Near: of two clips vLLM pads Gemma 3n's shorter one with empty mel frames, transformers with those of silence."""
    assert answer.prompt == expected.prompt
    assert answer.logprobs[0] == pytest.approx(expected.logprobs[0], abs=0.5)


Check = Callable[[Answer, Answer], None]
"""What is asserted of the answer over HTTP and of that of transformers."""

LARGE_MODEL: list[tuple[Case, Check]] = [
    *((case, equal) for case in (*WORDS, *SIGHT, *BUDGETS)),
    (WHOLE_BUDGET, beyond_the_window),
]
PLAN: dict[Model, list[tuple[Case, Check]]] = {
    Model(Family.GEMMA4): [
        (case, equal) for case in (*WORDS, *SIGHT, *BUDGETS, WHOLE_BUDGET, *HEARING, TWO_CLIPS, *BOTH)
    ],
    Model(Family.GEMMA4, Shape.DENSE): LARGE_MODEL,
    Model(Family.GEMMA4, Shape.MOE): LARGE_MODEL,
    Model(Family.GEMMA3): [(case, equal) for case in (*WORDS, *SIGHT)],
    Model(Family.GEMMA3N): [
        *((case, equal) for case in (*WORDS, *SIGHT, *HEARING, *BOTH)),
        (TWO_CLIPS, padded_otherwise),
    ],
}


def planned() -> Iterator[Any]:
    """The plan, as pytest takes it. The vision tower of Gemma 3n is 1.1 GB, on either side."""
    for model, checks in PLAN.items():
        marks = [pytest.mark.extended, pytest.mark.timeout(900)] if model.family is Family.GEMMA3N else []
        for case, check in checks:
            yield pytest.param(model, case, check, id=f"{model.name}: {case.name}", marks=marks)


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Model], Served]]:
    """Serves the model that is asked for, in place of the one before."""
    with ExitStack() as running:

        @lru_cache(maxsize=1)
        def start(model: Model) -> Served:
            running.close()
            directory = tmp_path_factory.mktemp("parity") / model.name
            write_model(directory, model.family, model.shape)
            limits = '{"image": 2, "audio": 2}' if model.hears else '{"image": 2}'
            arguments = ["--dtype", "float32", "--enforce-eager", "--limit-mm-per-prompt", limits]
            server = running.enter_context(gateway.launch(directory, engine_args=arguments))
            return Served(directory, server.base_url, *load(directory))

        yield start


def load(directory: Path) -> tuple[Any, Any]:
    """Processor and model of transformers."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32).eval()
    return AutoProcessor.from_pretrained(directory), model


@pytest.mark.parametrize(("model", "case", "check"), list(planned()))
def test_the_answer_is_that_of_transformers(
    model: Model, case: Case, check: Check, serve: Callable[[Model], Served]
) -> None:
    served = serve(model)
    check(over_http(served, case), by_transformers(served, case))


def by_transformers(served: Served, case: Case) -> Answer:
    """The answer of `generate`."""
    import torch

    options: dict[str, Any] = {}
    if case.budget is not None:
        options["max_soft_tokens"] = case.budget
    prompt = served.processor.apply_chat_template(
        [{"role": "user", "content": [_local(part) for part in case.parts]}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs=options,
    )
    out = served.model.generate(
        **prompt,
        max_new_tokens=TOKENS,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_logits=True,
    )
    before = prompt["input_ids"].shape[1]
    tokens = out.sequences[0, before:].tolist()
    logprobs = [
        torch.log_softmax(step[0].float(), -1)[token].item() for step, token in zip(out.logits, tokens, strict=True)
    ]
    return Answer(prompt["input_ids"][0].tolist(), tokens, logprobs)


def over_http(served: Served, case: Case) -> Answer:
    """The answer of /v1/chat/completions."""
    body: dict[str, Any] = {
        "model": served.directory.name,
        "messages": [{"role": "user", "content": [_remote(part) for part in case.parts]}],
        "max_tokens": TOKENS,
        "temperature": 0,
        "ignore_eos": True,
        "logprobs": True,
        "return_token_ids": True,
    }
    if case.budget is not None:
        body["mm_processor_kwargs"] = {"max_soft_tokens": case.budget}
    reply = httpx.post(f"{served.base_url}/chat/completions", json=body, timeout=120)
    assert reply.status_code == 200, reply.text
    content = reply.json()
    choice = content["choices"][0]
    logprobs = [token["logprob"] for token in choice["logprobs"]["content"]]
    return Answer(content["prompt_token_ids"], choice["token_ids"], logprobs)


def _local(part: Part) -> dict[str, Any]:
    from transformers.image_utils import load_image

    kind, value = part
    match kind:
        case "text":
            return {"type": "text", "text": value}
        case "image":  # by Pillow: transformers' own loading of URLs wants the extension of torchvision
            return {"type": "image", "image": load_image(value)}
        case _:  # at 16 kHz by soxr's best, as the gateway has it: transformers takes its second best
            return {"type": "audio", "audio": _heard(value)}


def _heard(url: str) -> Samples:
    samples, rate = soundfile.read(io.BytesIO(base64.b64decode(url.partition(",")[2])), dtype="float32", always_2d=True)
    mono: Samples = soxr.resample(samples.mean(axis=1), rate, 16_000, quality="VHQ")
    return mono


def _remote(part: Part) -> dict[str, Any]:
    kind, value = part
    return {"type": "text", "text": value} if kind == "text" else {"type": f"{kind}_url", f"{kind}_url": {"url": value}}
