"""vLLM reads what was prepared as transformers reads what came, and accepts the parts as they are written."""

from __future__ import annotations

import base64
from collections.abc import Callable
from functools import cache
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gateway.media import audio, image
from gateway.media.inline import Media
from gateway.metrics import Metrics
from gateway.settings import Family, LongAudio, MediaSettings, Modality, ModelSettings
from tests.media.samples import chat, clip, data_url, image_bytes, image_part, picture, request, tone

pytestmark = pytest.mark.engine

ALL = frozenset({Modality.TEXT, Modality.IMAGE, Modality.AUDIO})
BMP_URL = data_url(image_bytes("BMP"))


@pytest.fixture(scope="module", autouse=True)
def _importable() -> None:
    """Importing transformers beside a torch for the CPU needs the plugin's platform hook."""
    from gateway.engine.compat import platform

    platform()


@pytest.fixture
def read_by_vllm() -> Callable[[bytes], Any]:
    from vllm.multimodal.media.image import ImageMediaIO

    return lambda data: np.asarray(ImageMediaIO().load_bytes(data).media)


@pytest.fixture
def read_by_transformers() -> Callable[[bytes], Any]:
    from transformers.image_utils import load_image

    return lambda data: np.asarray(load_image(data_url(data)))


def reaching(data: bytes, family: Family = Family.GEMMA4, budget: int | None = None, *, shrink: bool = False) -> bytes:
    """The image that the engine gets for this one."""
    (piece,) = image.prepare(data, 10**8, family, budget, shrink).pieces
    return data if piece.base64 is None else base64.b64decode(piece.base64)


def turned(kind: str) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 8
    return image_bytes(kind, exif=exif)


@pytest.mark.filterwarnings("ignore:Palette images with Transparency:UserWarning")
@pytest.mark.parametrize(
    "data",
    [
        image_bytes("PNG"),
        image_bytes("PNG", picture("L")),
        image_bytes("PNG", picture("1")),
        image_bytes("PNG", picture("P")),
        image_bytes("PNG", picture("P"), transparency=3),
        image_bytes("PNG", picture("P"), transparency=bytes(range(256))),
        image_bytes("PNG", picture("L"), transparency=7),
        image_bytes("PNG", picture("RGB"), transparency=(0, 0, 0)),
        image_bytes("PNG", picture("I;16")),
        turned("PNG"),
        image_bytes("JPEG"),
        image_bytes("JPEG", picture("L")),
        image_bytes("JPEG", picture("CMYK")),
        turned("JPEG"),
        turned("WEBP"),
        turned("TIFF"),
        image_bytes("WEBP"),
        image_bytes("WEBP", save_all=True, append_images=[picture("L")]),
        image_bytes("GIF", picture("P")),
        image_bytes("GIF", picture("P"), transparency=picture("P").getpixel((5, 5))),
        image_bytes("GIF", picture("P"), save_all=True, append_images=[picture("L").convert("P")]),
        image_bytes("BMP"),
        image_bytes("TIFF", picture("CMYK")),
        image_bytes("TIFF", picture("I;16")),
        image_bytes("TIFF", picture("F")),
        image_bytes("AVIF"),
        image_bytes("HEIF"),
    ],
)
def test_vllm_sees_what_transformers_sees(
    data: bytes, read_by_vllm: Callable[[bytes], Any], read_by_transformers: Callable[[bytes], Any]
) -> None:
    np.testing.assert_array_equal(read_by_vllm(reaching(data)), read_by_transformers(data))


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGBA"), ("PNG", "LA"), ("WEBP", "RGBA"), ("TIFF", "RGBA")])
def test_an_alpha_channel_is_painted_on_white(kind: str, mode: str, read_by_vllm: Callable[[bytes], Any]) -> None:
    data = image_bytes(kind, picture(mode), **({"lossless": True, "exact": True} if kind == "WEBP" else {}))
    opened = Image.open(BytesIO(data)).convert("RGBA")
    white = Image.new("RGB", opened.size, "white")
    white.paste(opened, mask=opened.getchannel("A"))
    np.testing.assert_array_equal(read_by_vllm(reaching(data)), np.asarray(white))


def processor(family: Family) -> Any:
    """As the released preprocessor_config.json makes it."""
    from transformers.models.gemma3.image_processing_gemma3 import Gemma3ImageProcessor
    from transformers.models.gemma4.image_processing_gemma4 import Gemma4ImageProcessor
    from transformers.models.siglip.image_processing_siglip import SiglipImageProcessor

    match family:
        case Family.GEMMA4:
            return Gemma4ImageProcessor()
        case Family.GEMMA3:
            return Gemma3ImageProcessor(size={"height": 896, "width": 896}, do_normalize=False)
        case Family.GEMMA3N:
            return SiglipImageProcessor(size={"height": 768, "width": 768}, resample=2, do_normalize=False)


@pytest.mark.parametrize(("kind", "orientation"), [("JPEG", 1), ("PNG", 6)])
@pytest.mark.parametrize(
    ("family", "budget", "size", "share"),
    [
        (Family.GEMMA4, 70, (1000, 750), 0.01),
        (Family.GEMMA4, 140, (900, 1440), 0.01),
        (Family.GEMMA4, 280, (1900, 1500), 0.01),
        (Family.GEMMA4, 560, (2600, 1950), 0.01),
        (Family.GEMMA3, None, (2500, 1400), 0.25),
        (Family.GEMMA3N, None, (1800, 1400), 0.25),
    ],
)
def test_the_model_sees_a_shrunk_image_as_it_would_have_seen_the_large_one(
    family: Family, budget: int | None, size: tuple[int, int], share: float, kind: str, orientation: int
) -> None:
    """But for one step of 255 in that share of samples: Pillow and torchvision round differently."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = image_bytes(kind, grainy(size), exif=exif, **({"quality": 90} if kind == "JPEG" else {"compress_level": 0}))
    small = reaching(data, family, budget, shrink=True)
    assert small is not data
    before, after = (pixels(family, budget, sent) for sent in (data, small))
    assert after.shape == before.shape
    difference = np.abs(after - before) * 255
    assert difference.max() < 1.001
    assert (difference > 0.5).mean() < share


@cache
def grainy(size: tuple[int, int]) -> Image.Image:
    """Colours with the noise of a photograph."""
    noise = np.random.default_rng(0).normal(0, 12, (size[1], size[0], 3)).astype(np.float32)
    return Image.fromarray(np.clip(np.asarray(picture(size=size)) + noise, 0, 255).astype(np.uint8))


def pixels(family: Family, budget: int | None, sent: bytes) -> Any:
    """What the processor makes of an image that vLLM has read, from 0 to 1."""
    from vllm.multimodal.media.image import ImageMediaIO

    options = {} if budget is None else {"max_soft_tokens": budget}
    processed = processor(family)(ImageMediaIO().load_bytes(sent).media, return_tensors="pt", **options)
    return processed["pixel_values"].numpy()


@pytest.mark.parametrize("subtype", ["PCM_16", "PCM_24", "FLOAT", "PCM_32", "ULAW"])
def test_vllm_hears_the_samples_that_were_prepared(subtype: str) -> None:
    import soundfile
    from vllm.multimodal.media.audio import AudioMediaIO

    data = clip(tone(0.5, 16_000), 16_000, subtype=subtype)
    (piece,) = audio.prepare(data, 30, Family.GEMMA4, LongAudio.REJECT, 1).pieces
    sent = data if piece.base64 is None else base64.b64decode(piece.base64)
    samples, rate = AudioMediaIO().load_bytes(sent)
    assert rate == 16_000
    np.testing.assert_array_equal(samples, soundfile.read(BytesIO(data), dtype="float32")[0])


async def test_vllm_accepts_every_part_as_it_is_written() -> None:
    from vllm.entrypoints.anthropic.protocol import AnthropicMessagesRequest
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.responses.protocol import ResponsesRequest

    sound = base64.b64encode(clip(tone(0.5, 8_000), 8_000, "FLAC")).decode()
    source = {"type": "base64", "media_type": "image/bmp", "data": BMP_URL.partition(",")[2]}
    block = {"type": "image", "source": source}
    requests = {
        ChatCompletionRequest: chat(
            image_part(BMP_URL, detail="low", max_soft_tokens=70),
            {"image_url": BMP_URL, "uuid": "u"},
            {"type": "input_image", "image_url": BMP_URL, "detail": "original"},
            {"type": "input_audio", "input_audio": {"data": sound, "format": "flac"}},
            {"type": "audio_url", "audio_url": {"url": f"data:audio/flac;base64,{sound}"}},
        ),
        ResponsesRequest: request(
            "/v1/responses",
            {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": BMP_URL, "detail": "low"}]}]},
        ),
        AnthropicMessagesRequest: request(
            "/v1/messages",
            {
                "max_tokens": 1,
                "messages": [{"role": "user", "content": [block, {"type": "tool_result", "content": [block]}]}],
            },
        ),
    }
    media = Media(MediaSettings(), Metrics())
    for kind, sent in requests.items():
        inlined = (await media.inline(sent, ModelSettings(modalities=ALL))).request
        assert inlined is not sent
        parsed = kind.model_validate_json(b"".join(inlined.encode())).model_dump()
        content = (parsed.get("messages") or parsed.get("input"))[0]["content"]
        assert list(content)
    await media.aclose()
