"""Through gateway and vLLM a Gemma answers as it does in Hugging Face transformers.

Both sides get the same messages, media as the same data URLs, and generate greedily in float32. Token ids are compared,
because text hides differences, and the log probability of each. The weights are random, so that every pixel and every
sample counts: a wrong resampler or a lost attention mask changes the first tokens.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import ExifTags, Image

import gateway
from gateway.demo.model import Shape, write_model
from gateway.settings import Family
from tests.engine.media import Samples, data_url, encoded, picture, sound, wav

pytestmark = [pytest.mark.engine, pytest.mark.filterwarnings("ignore::DeprecationWarning:torch.*")]

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
    processor: Any
    model: Any


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
HEARING = [
    Case("a clip", (SHORT, text("Who said that?"))),
    Case("a stereo clip of 44.1 kHz", (STEREO, text("Who said that?"))),
]
TWO_CLIPS = Case("two clips", (SHORT, LONG, text("Which is longer?")))
BOTH = [
    Case("picture and clip", (SMALL, SHORT, text("Do they go together?"))),
    Case("interleaved", (text("Say"), LONG, text("and then"), LARGE, text("or not"))),
]
BUDGETS = {budget: Case(f"budget {budget}", (LARGE, text("Look")), budget) for budget in (70, 140, 280, 560, 1120)}
WITHIN_WINDOW = [case for budget, case in BUDGETS.items() if budget < 1024]

E = Model(Family.GEMMA4)
LARGE_MODELS = (Model(Family.GEMMA4, Shape.DENSE), Model(Family.GEMMA4, Shape.MOE))
GEMMA3 = Model(Family.GEMMA3)
GEMMA3N = Model(Family.GEMMA3N)

EQUAL = {
    E: [*WORDS, *SIGHT, *BUDGETS.values(), *HEARING, TWO_CLIPS, *BOTH],
    **{model: [*WORDS, *SIGHT, *WITHIN_WINDOW] for model in LARGE_MODELS},
    GEMMA3: [*WORDS, *SIGHT],
    GEMMA3N: [*WORDS, *SIGHT, *HEARING, *BOTH],
}


def marks(model: Model) -> list[pytest.MarkDecorator]:
    """Gemma 3n's vision tower is 1.1 GB, on either side."""
    return [pytest.mark.extended, pytest.mark.timeout(600)] if model is GEMMA3N else [pytest.mark.timeout(300)]


def on(model: Model, case: Case) -> Any:
    return pytest.param(model, case, id=f"{model.name}: {case.name}", marks=marks(model))


@pytest.fixture(scope="module")
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Starts gateway and engine once for each model."""
    model: Model = request.param
    directory = tmp_path_factory.mktemp("parity") / model.name
    write_model(directory, model.family, model.shape)
    limits = '{"image": 2, "audio": 2}' if model in (E, GEMMA3N) else '{"image": 2}'
    arguments = ["--dtype", "float32", "--enforce-eager", "--limit-mm-per-prompt", limits]
    with gateway.launch(str(directory), engine_args=arguments) as server:
        yield Served(directory, server.base_url, *load(directory))


def load(directory: Path) -> tuple[Any, Any]:
    """Processor and model of transformers."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    model = AutoModelForImageTextToText.from_pretrained(directory, dtype=torch.float32).eval()
    return AutoProcessor.from_pretrained(directory), model


@pytest.mark.parametrize(
    ("served", "case"), [on(model, case) for model, cases in EQUAL.items() for case in cases], indirect=["served"]
)
def test_tokens_and_probabilities_are_those_of_transformers(served: Served, case: Case) -> None:
    expected, answer = by_transformers(served, case), over_http(served, case)
    assert answer.prompt == expected.prompt
    assert answer.tokens == expected.tokens
    assert answer.logprobs == pytest.approx(expected.logprobs, abs=TOLERANCE)


@pytest.mark.parametrize(("served", "case"), [on(model, BUDGETS[1120]) for model in LARGE_MODELS], indirect=["served"])
def test_a_picture_longer_than_the_window_differs(served: Served, case: Case) -> None:
    """On a CPU only: a token of a picture sees what precedes the picture's end by a window of 1024, not its own place.

    Should this fail, the attention of pictures on CPUs has been mended: move the case to the others.
    """
    expected, answer = by_transformers(served, case), over_http(served, case)
    assert answer.prompt == expected.prompt
    assert answer.logprobs[0] != pytest.approx(expected.logprobs[0], abs=TOLERANCE)


@pytest.mark.parametrize(("served", "case"), [on(GEMMA3N, TWO_CLIPS)], indirect=["served"])
def test_gemma_3n_pads_the_shorter_of_two_clips_otherwise(served: Served, case: Case) -> None:
    """vLLM pads it with empty mel frames, transformers with what its extractor makes of silence."""
    expected, answer = by_transformers(served, case), over_http(served, case)
    assert answer.prompt == expected.prompt
    assert answer.logprobs[0] == pytest.approx(expected.logprobs[0], abs=0.5)


def by_transformers(served: Served, case: Case) -> Answer:
    """The answer of `generate`."""
    import torch

    options: dict[str, Any] = {"load_audio_backend": "librosa"}
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


def _local(part: Part) -> dict[str, str]:
    kind, value = part
    return {"type": kind, "text" if kind == "text" else "url": value}


def _remote(part: Part) -> dict[str, Any]:
    kind, value = part
    return {"type": "text", "text": value} if kind == "text" else {"type": f"{kind}_url", f"{kind}_url": {"url": value}}
