"""A request's media end up inside it, checked; everything else goes on as it came."""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import soundfile
from PIL import Image

from gateway.errors import GatewayError, MediaError, MediaTooLargeError, MediaUnreachableError
from gateway.media.inline import Inlined, Media
from gateway.metrics import Metrics
from gateway.protocol import InferenceRequest
from gateway.settings import Family, LongAudio, MediaSettings, Modality, ModelSettings
from tests.media.films import film
from tests.media.samples import chat, clip, data_url, ffmpeg_clip, image_bytes, image_part, picture, request, tone
from tests.media.site import answer, serve

MODEL = ModelSettings(modalities=frozenset({Modality.TEXT, Modality.IMAGE, Modality.AUDIO, Modality.VIDEO}))
PNG = image_bytes("PNG")
URL = data_url(PNG)
BASE64 = base64.b64encode(PNG).decode()
WAV = clip(tone(0.5, 16_000), 16_000)
WAV_64 = base64.b64encode(WAV).decode()
BMP_URL = data_url(image_bytes("BMP"), "image/bmp")


@pytest.fixture
async def media() -> AsyncIterator[Media]:
    limits = {"allowed_networks": ["127.0.0.0/8"], "max_parts": 8, "decode_workers": 1}
    media = Media(MediaSettings.model_validate(limits), Metrics())
    yield media
    await media.aclose()


async def inline(media: Media, request: InferenceRequest, tenant: str | None = None, **model: Any) -> Inlined:
    return await media.inline(request, MODEL.model_copy(update=model), tenant)


async def fault_of(media: Media, request: InferenceRequest) -> GatewayError:
    with pytest.raises(GatewayError) as fault:
        await inline(media, request)
    return fault.value


def decoded(request: InferenceRequest, name: str = "messages") -> Any:
    """A field as the engine gets it."""
    return msgspec.json.decode(b"".join(request.encode()))[name]


def without_uuid(part: dict[str, Any]) -> dict[str, Any]:
    assert re.fullmatch("[0-9a-f]{32}", part.pop("uuid"))
    return part


def first(request: InferenceRequest) -> Any:
    return decoded(request)[0]["content"][0]


def first_medium(request: InferenceRequest) -> Any:
    """The first part, which is one of media and carries the gateway's key for the engine's caches."""
    return without_uuid(first(request))


def opened(url: str) -> Image.Image:
    return Image.open(BytesIO(base64.b64decode(url.partition(",")[2])))


@pytest.mark.parametrize(
    "request_",
    [
        request("/v1/chat/completions", {"messages": [{"role": "user", "content": "an image_url, a uuid"}]}),
        request("/v1/chat/completions", {"messages": [{"role": "user", "content": "a [list]"}]}),
        request("/v1/chat/completions", {"messages": "not a list ["}),
        request("/v1/chat/completions", {"messages": [1, None, {"content": None}, {"content": 3}, {}, [[]]]}),
        chat({"type": "text", "text": "hello"}, "bare", 7, None),
        chat({"type": "nonsense", "image": 1}, {"type": ["image_url"], "x": 1}, {"type": "refusal", "refusal": "no"}),
        request("/v1/responses", {"input": "hello"}),
        request("/v1/responses", {"input": [{"role": "user", "content": [{"type": "input_image", "image_url": URL}]}]}),
        request("/v1/messages", {"messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}]}),
        request(
            "/v1/messages",
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "image",
                                "source": {"type": "base64", "media_type": "image/png", "data": BASE64},
                            }
                        ],
                    }
                ]
            },
        ),
        request("/v1/completions", {"prompt": ["a", "b"]}),
        request("/v1/embeddings", {"input": [[1, 2], [3]]}),
    ],
)
async def test_a_request_that_is_already_right_is_the_very_same(media: Media, request_: InferenceRequest) -> None:
    assert (await inline(media, request_)).request is request_


@pytest.mark.parametrize(
    ("part", "expected"),
    [
        (image_part(URL), image_part(URL)),
        (image_part(URL, detail="auto"), image_part(URL, detail="auto")),
        (image_part("data:image/png;x=y;base64," + BASE64), image_part("data:image/png;x=y;base64," + BASE64)),
        (
            {"type": "input_audio", "input_audio": {"data": WAV_64, "format": "wav"}},
            {"type": "input_audio", "input_audio": {"data": WAV_64, "format": "wav"}},
        ),
        ({**image_part(URL), "uuid": "u1"}, image_part(URL)),
        ({"type": "image_url", "image_url": URL}, image_part(URL)),
        ({"image_url": URL}, image_part(URL)),
        ({"image_url": {"url": URL}}, image_part(URL)),
        ({"type": None, "image_url": URL}, image_part(URL)),
        ({"type": "input_image", "image_url": URL}, image_part(URL)),
        ({"type": "input_image", "image_url": URL, "detail": "auto"}, image_part(URL, detail="auto")),
        (image_part("data:image/png;BASE64," + BASE64), image_part(URL)),
        ({"type": "audio_url", "audio_url": data_url(WAV)}, {"type": "audio_url", "audio_url": {"url": data_url(WAV)}}),
        (
            {"type": "input_audio", "input_audio": {"data": WAV_64, "format": "flac"}},
            {"type": "input_audio", "input_audio": {"data": WAV_64, "format": "wav"}},
        ),
        ({**image_part(URL), "cache_control": {"a": 1}, "uuid": 1}, {**image_part(URL), "cache_control": {"a": 1}}),
    ],
)
async def test_chat_parts_are_written_as_the_engine_takes_them(media: Media, part: Any, expected: Any) -> None:
    assert first_medium((await inline(media, chat(part))).request) == expected


async def test_a_text_part_loses_its_key(media: Media) -> None:
    outcome = await inline(media, chat({"type": "text", "text": "x", "uuid": "u"}))
    assert first(outcome.request) == {"type": "text", "text": "x"}


async def test_a_key_spelt_with_escapes_is_found(media: Media) -> None:
    document = (
        b'{"messages":[{"role":"user","content":[{"ty\\u0070e":"image_\\u0075rl","image_ur\\u006c":"ftp://x"}]}]}'
    )
    plain = chat()
    fields = {"messages": msgspec.Raw(msgspec.json.decode(document, type=dict[str, msgspec.Raw])["messages"])}
    fault = await fault_of(media, InferenceRequest(plain.path, fields, document))
    assert fault.param == "messages[0].content[0].image_url"


async def test_what_the_engine_would_misread_is_re_encoded(media: Media) -> None:
    part = first((await inline(media, chat(image_part(BMP_URL)))).request)
    assert part["image_url"]["url"].startswith("data:image/webp;base64,")
    assert opened(part["image_url"]["url"]).format == "WEBP"


async def test_a_clip_of_any_format_becomes_a_wav(media: Media) -> None:
    data = base64.b64encode(ffmpeg_clip(tone(0.5, 44_100, 2), 44_100, "mp4", "aac")).decode()
    part = first(
        (await inline(media, chat({"type": "input_audio", "input_audio": {"data": data, "format": "m4a"}}))).request
    )
    assert part["input_audio"]["format"] == "wav"
    info = soundfile.info(BytesIO(base64.b64decode(part["input_audio"]["data"])))
    assert (info.samplerate, info.channels, info.subtype) == (16_000, 1, "FLOAT")


async def test_urls_are_fetched_and_keep_their_order(media: Media) -> None:
    widths = [10, 11, 12]
    pages = {f"/{width}": answer(image_bytes("PNG", picture(size=(width, 5)))) for width in widths}
    async with serve({**pages, "/clip": answer(WAV, content_type="text/html")}) as site:
        base = f"http://127.0.0.1:{site.port}"
        clip_part = {"type": "audio_url", "audio_url": {"url": f"{base}/clip"}}
        outcome = await inline(media, chat(*(image_part(f"{base}/{width}") for width in widths), clip_part))
    *images, sound = decoded(outcome.request)[0]["content"]
    assert [opened(part["image_url"]["url"]).width for part in images] == widths
    assert sound["audio_url"]["url"] == data_url(WAV, "audio/wav")


async def test_a_file_is_read_from_the_media_folder(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(PNG)
    media = Media(MediaSettings(folder=tmp_path), Metrics())
    for name in ("a.png", str(tmp_path / "a.png"), f"file://{tmp_path}/a.png"):
        assert first_medium((await inline(media, chat(image_part(name)))).request) == image_part(URL)
    await media.aclose()


async def test_responses_images_are_inlined_in_messages_and_tool_results(media: Media) -> None:
    items = [
        {"role": "user", "content": [{"type": "input_image", "image_url": BMP_URL, "detail": "low", "uuid": "u"}]},
        {"type": "function_call_output", "call_id": "c", "output": [{"type": "input_image", "image_url": BMP_URL}]},
        {"type": "function_call_output", "call_id": "c", "output": "text"},
    ]
    outcome = await inline(media, request("/v1/responses", {"input": items}))
    message, result, _ = decoded(outcome.request, "input")
    assert opened(message["content"][0].pop("image_url")).format == "WEBP"
    assert message["content"] == [{"type": "input_image", "detail": "low"}]
    assert opened(result["output"][0]["image_url"]).format == "WEBP"
    assert decoded(outcome.request, "mm_processor_kwargs") == {"max_soft_tokens": 280}


async def test_messages_images_are_inlined_in_content_and_tool_results(media: Media) -> None:
    async with serve({"/": answer(PNG)}) as site:
        remote = {"type": "image", "source": {"type": "url", "url": f"http://127.0.0.1:{site.port}/"}}
        nested = {"type": "tool_result", "tool_use_id": "t", "content": [remote, {"type": "text", "text": "x"}]}
        outcome = await inline(
            media, request("/v1/messages", {"messages": [{"role": "user", "content": [remote, nested]}]})
        )
    expected = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": BASE64}}
    content = decoded(outcome.request)[0]["content"]
    assert content[0] == expected
    assert content[1]["content"][0] == expected


@pytest.mark.parametrize(
    ("fields", "parts", "sent", "header"),
    [
        ({}, [{}], None, None),
        ({}, [{"detail": "low"}], 70, None),
        ({}, [{"detail": "high"}], 1120, None),
        ({}, [{"max_soft_tokens": 560, "detail": "low"}], 560, None),
        ({"max_soft_tokens": 140}, [{"detail": "high"}], 140, None),
        ({"mm_processor_kwargs": {"images_kwargs": {"max_soft_tokens": 140}}}, [{}], 140, None),
        ({}, [{"detail": "low"}, {"detail": "high"}], 1120, '1120; requested="70, 1120"'),
        ({"max_soft_tokens": 140}, [], None, None),
    ],
)
async def test_the_budget_is_sent_in_the_engines_words(
    media: Media, fields: dict[str, Any], parts: list[dict[str, Any]], sent: int | None, header: str | None
) -> None:
    outcome = await inline(media, chat(*(image_part(URL, **part) for part in parts), **fields))
    kwargs = outcome.request.fields.get("mm_processor_kwargs")
    assert (msgspec.json.decode(kwargs) if kwargs else None) == ({"max_soft_tokens": sent} if sent else None)
    assert dict(outcome.headers).get(b"x-gemma-image-budget", b"").decode() == (header or "")
    assert b'"max_soft_tokens"' not in bytes(outcome.request.fields["messages"])
    assert "max_soft_tokens" not in outcome.request.fields


async def test_a_budget_beside_the_url_counts_and_is_taken_out(media: Media) -> None:
    outcome = await inline(media, chat({**image_part(URL), "max_soft_tokens": 70}))
    assert first_medium(outcome.request) == image_part(URL)
    assert decoded(outcome.request, "mm_processor_kwargs") == {"max_soft_tokens": 70}


async def test_a_text_request_loses_its_budget_but_not_its_check(media: Media) -> None:
    text = {"messages": [{"role": "user", "content": "x"}]}
    outcome = await inline(media, request("/v1/chat/completions", {**text, "max_soft_tokens": 70}))
    assert "max_soft_tokens" not in outcome.request.fields
    fault = await fault_of(media, request("/v1/completions", {"prompt": "x", "mm_processor_kwargs": {"a": 1}}))
    assert (fault.status, fault.param) == (400, "mm_processor_kwargs.a")


WHERE = "messages[0].content[0]"


@pytest.mark.parametrize(
    ("part", "status", "param"),
    [
        (image_part("data:image/png;base64,####"), 400, f"{WHERE}.image_url.url"),
        (image_part("data:image/png;base64,QUJD"), 400, f"{WHERE}.image_url.url"),
        (image_part("data:image/png;base64,"), 400, f"{WHERE}.image_url.url"),
        (image_part("data:image/png;base64,é"), 400, f"{WHERE}.image_url.url"),
        (image_part("data:image/png,abc"), 400, f"{WHERE}.image_url.url"),
        (image_part(URL[:-40]), 400, f"{WHERE}.image_url.url"),
        (image_part("ftp://example.com/a.png"), 400, f"{WHERE}.image_url.url"),
        (image_part("/etc/passwd"), 400, f"{WHERE}.image_url.url"),
        (image_part("http://10.0.0.1/a.png"), 422, f"{WHERE}.image_url.url"),
        (image_part("http://user@example.com/"), 422, f"{WHERE}.image_url.url"),
        (image_part(""), 400, f"{WHERE}.image_url.url"),
        (image_part(URL, detail="medium"), 400, f"{WHERE}.image_url.detail"),
        ({**image_part(URL), "detail": "medium"}, 400, f"{WHERE}.detail"),
        (image_part(URL, max_soft_tokens=71), 400, f"{WHERE}.image_url.max_soft_tokens"),
        ({**image_part(URL), "max_soft_tokens": 71}, 400, f"{WHERE}.max_soft_tokens"),
        ({"type": "image", "image": URL}, 400, f"{WHERE}.type"),
        ({"type": "image_url"}, 400, f"{WHERE}.image_url"),
        ({"type": "image_url", "image_url": {}}, 400, f"{WHERE}.image_url.url"),
        ({"type": "image_url", "image_url": [URL]}, 400, f"{WHERE}.image_url"),
        ({"type": "image_url", "image_url": {"url": 7}, "uuid": "u"}, 400, f"{WHERE}.image_url.url"),
        ({"type": "image_url", "image_url": None, "uuid": "u"}, 400, f"{WHERE}.image_url"),
        ({"type": "input_image", "file_id": "f"}, 400, f"{WHERE}.image_url"),
        ({"type": "input_audio", "input_audio": {"format": "wav"}}, 400, f"{WHERE}.input_audio.data"),
        ({"type": "input_audio", "input_audio": "x"}, 400, f"{WHERE}.input_audio.data"),
        ({"type": "input_audio", "input_audio": {"data": BASE64, "format": "wav"}}, 400, f"{WHERE}.input_audio.data"),
        ({"type": "audio_url", "audio_url": {"url": URL}}, 400, f"{WHERE}.audio_url.url"),
        (image_part(data_url(WAV)), 400, f"{WHERE}.image_url.url"),
        ({"type": "video_url", "video_url": {"url": data_url(PNG)}}, 400, f"{WHERE}.video_url.url"),
        ({"video_url": "http://127.0.0.1:1/"}, 422, f"{WHERE}.video_url"),
        ({"type": "file", "file": {"file_id": "f"}}, 400, f"{WHERE}.type"),
        ({"type": "image_embeds", "image_embeds": "QQ=="}, 400, f"{WHERE}.type"),
        ({"audio_embeds": "QQ=="}, 400, f"{WHERE}.type"),
        ({"type": "prompt_embeds", "data": "QQ=="}, 400, f"{WHERE}.type"),
        ({"image_pil": "x"}, 400, f"{WHERE}.type"),
    ],
)
async def test_a_bad_part_is_refused_by_name(media: Media, part: Any, status: int, param: str) -> None:
    fault = await fault_of(media, chat(part))
    assert (fault.status, fault.param) == (status, param)
    assert param.removesuffix(".type") in fault.message


@pytest.mark.parametrize(
    ("part", "param"),
    [
        ({"type": "input_audio", "input_audio": {"data": WAV_64, "format": "wav"}}, "input[0].content[0].type"),
        ({"type": "image_url", "image_url": URL}, "input[0].content[0].type"),
        ({"type": "input_file", "file_url": "http://127.0.0.1/"}, "input[0].content[0].type"),
        ({"type": "input_image", "image_url": "http://127.0.0.1:1/"}, "input[0].content[0].image_url"),
    ],
)
async def test_a_bad_responses_part_is_refused_by_name(media: Media, part: Any, param: str) -> None:
    fault = await fault_of(media, request("/v1/responses", {"input": [{"role": "user", "content": [part]}]}))
    assert fault.param == param


@pytest.mark.parametrize(
    ("block", "param"),
    [
        ({"type": "image"}, f"{WHERE}.source"),
        ({"type": "image", "source": {"type": "file", "file_id": "f"}}, f"{WHERE}.source.type"),
        ({"type": "image", "source": {"type": "base64", "data": "x"}}, f"{WHERE}.source.data"),
        ({"type": "image", "source": {"type": "url", "url": "http://10.0.0.1/"}}, f"{WHERE}.source.url"),
        ({"type": "image", "source": {"data": BASE64}, "max_soft_tokens": 70}, f"{WHERE}.max_soft_tokens"),
        ({"type": "document", "source": {"type": "url", "url": "http://10.0.0.1/"}}, f"{WHERE}.type"),
        (
            {"type": "tool_result", "content": [{"type": "image", "source": {"type": "url", "url": "file:///x"}}]},
            f"{WHERE}.content[0].source.url",
        ),
    ],
)
async def test_a_bad_messages_block_is_refused_by_name(media: Media, block: Any, param: str) -> None:
    fault = await fault_of(media, request("/v1/messages", {"messages": [{"role": "user", "content": [block]}]}))
    assert fault.param == param


async def test_a_modality_that_the_model_lacks_is_refused_before_anything_is_fetched(media: Media) -> None:
    async with serve({}) as site:
        url = f"http://127.0.0.1:{site.port}/"
        both = chat(image_part(url), {"type": "audio_url", "audio_url": {"url": url}})
        with pytest.raises(MediaError, match="takes no audio; it takes image, text"):
            await inline(media, both, family=Family.GEMMA3, modalities=frozenset({Modality.TEXT, Modality.IMAGE}))
    assert site.connections == 0


async def test_more_parts_than_the_limit_are_refused(media: Media) -> None:
    with pytest.raises(MediaTooLargeError, match="limit is 8"):
        await inline(media, chat(*[image_part(URL)] * 9))


async def test_embedded_data_over_the_limit_is_refused_undecoded() -> None:
    media = Media(MediaSettings(max_bytes=len(PNG) - 4), Metrics())
    with pytest.raises(MediaTooLargeError, match=r"max_bytes"):
        await inline(media, chat(image_part(URL)))
    await media.aclose()
    media = Media(MediaSettings(max_bytes=len(PNG)), Metrics())
    assert (await inline(media, chat(image_part(URL)))).headers == ()
    await media.aclose()


async def test_the_first_failing_part_cancels_the_others_and_is_raised_as_it_is(media: Media) -> None:
    async with serve({"/slow": None}) as site:
        base = f"http://127.0.0.1:{site.port}"
        parts = [image_part(f"{base}/slow"), image_part(f"{base}/missing")]
        with pytest.raises(MediaUnreachableError) as fault:
            await asyncio.wait_for(inline(media, chat(*parts)), 5)
        await asyncio.wait_for(site.gone.wait(), 2)
    assert fault.value.param == "messages[0].content[1].image_url.url"


async def test_a_client_that_leaves_cancels_its_fetches(media: Media) -> None:
    async with serve({"/": None}) as site:
        task = asyncio.create_task(inline(media, chat(image_part(f"http://127.0.0.1:{site.port}/"))))
        while not site.requests:
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.wait_for(site.gone.wait(), 2)
        with pytest.raises(asyncio.CancelledError):
            await task


async def test_decoding_leaves_the_event_loop_free(media: Media) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (1500, 1500, 3), np.uint8)
    large = chat(image_part(data_url(image_bytes("BMP", Image.fromarray(noise)), "image/bmp")))
    task = asyncio.create_task(inline(media, large))
    ticks = 0
    while not task.done():
        await asyncio.sleep(0.002)
        ticks += 1
    assert ticks > 3
    assert first((await task).request)["image_url"]["url"].startswith("data:image/webp;base64,")


async def uuid_of(media: Media, part: dict[str, Any], tenant: str | None, **fields: Any) -> str:
    uuid: str = first((await inline(media, chat(part, **fields), tenant)).request)["uuid"]
    return uuid


async def test_the_engines_key_is_the_contents_and_the_tenants(media: Media) -> None:
    other = image_part(data_url(image_bytes("PNG", picture(size=(31, 20)))))
    mine = await uuid_of(media, image_part(URL), "a")

    assert await uuid_of(media, {**image_part(URL), "uuid": "forged"}, "a") == mine
    assert await uuid_of(media, image_part(URL), "b") != mine
    assert await uuid_of(media, image_part(URL), None) != mine
    assert await uuid_of(media, other, "a") != mine


async def test_media_tell_what_they_cost(media: Media) -> None:
    clip_part = {"type": "audio_url", "audio_url": {"url": data_url(WAV)}}

    outcome = await inline(media, chat(image_part(URL), image_part(BMP_URL), clip_part))

    assert set(outcome.tokens) == {Modality.IMAGE, Modality.AUDIO}
    assert outcome.tokens[Modality.IMAGE] == 2 * (await inline(media, chat(image_part(URL)))).tokens[Modality.IMAGE]


async def test_data_seen_before_are_not_decoded_again(media: Media) -> None:
    metrics = Metrics()
    media = Media(MediaSettings(decode_workers=1), metrics)
    for _ in range(3):
        await inline(media, chat(image_part(BMP_URL)))
    await inline(media, chat(image_part(BMP_URL)), "another tenant")
    await media.aclose()

    count = {o: metrics.media_parts.labels("image", o)._value.get() for o in ("decoded", "cached", "passed")}
    assert count == {"decoded": 2, "cached": 2, "passed": 0}


async def test_an_image_that_went_on_unseen_is_explained_when_the_engine_refuses_it(media: Media) -> None:
    broken = bytearray(image_bytes("PNG", picture(size=(300, 200))))
    broken[len(broken) // 2] ^= 0xFF
    outcome = await inline(media, chat(image_part(URL), image_part(data_url(bytes(broken)))))

    with pytest.raises(MediaError) as fault:
        await media.explain(outcome)

    assert fault.value.param == "messages[0].content[1].image_url.url"
    assert await media.explain(await inline(media, chat(image_part(URL)))) is None  # type: ignore[func-returns-value]


LONG = data_url(clip(tone(45, 8_000), 8_000))
LONG_PART = {"type": "audio_url", "audio_url": {"url": LONG}}


async def test_a_long_clip_is_refused_unless_asked_otherwise(media: Media) -> None:
    fault = await fault_of(media, chat(LONG_PART))

    assert (fault.status, fault.param) == (400, f"{WHERE}.audio_url.url")
    assert "long_audio" in fault.message


async def test_a_long_clip_is_split_in_order_by_request(media: Media) -> None:
    outcome = await inline(media, chat(image_part(URL), LONG_PART, image_part(URL), long_audio="split"))

    content = decoded(outcome.request)[0]["content"]
    assert [part["type"] for part in content] == ["image_url", "audio_url", "audio_url", "image_url"]
    seconds = [soundfile.info(BytesIO(base64.b64decode(p["audio_url"]["url"][22:]))).duration for p in content[1:3]]
    assert sum(seconds) == pytest.approx(45)
    assert max(seconds) <= 30
    assert len({part["uuid"] for part in content[1:3]}) == 2
    assert "long_audio" not in outcome.request.fields
    assert outcome.headers == ()


async def test_a_long_clip_is_truncated_with_a_warning_by_the_models_setting(media: Media) -> None:
    outcome = await inline(media, chat(LONG_PART), long_audio=LongAudio.TRUNCATE)

    sent = base64.b64decode(first(outcome.request)["audio_url"]["url"].partition(",")[2])
    assert soundfile.info(BytesIO(sent)).duration == 30
    assert outcome.headers == ((b"x-gemma-audio-truncated", f"{WHERE}; heard=30; seconds=45.0".encode()),)


async def test_pieces_count_towards_the_limit_on_clips() -> None:
    media = Media(MediaSettings(max_clips=3, decode_workers=1), Metrics())
    with pytest.raises(MediaTooLargeError, match=r"max_clips"):
        await inline(media, chat(LONG_PART, LONG_PART, long_audio="split"))
    await media.aclose()


@pytest.mark.parametrize(("field", "value"), [("long_audio", "cut"), ("long_audio", 1), ("video_audio", "yes")])
async def test_a_bad_choice_is_refused_by_name_even_without_media(media: Media, field: str, value: Any) -> None:
    for request_ in (chat(image_part(URL), **{field: value}), chat("text", **{field: value})):
        fault = await fault_of(media, request_)
        assert (fault.status, fault.param) == (400, field)


@pytest.mark.parametrize(
    ("parts", "limit"),
    [([image_part(URL)] * 3, "max_images"), ([LONG_PART] * 3, "max_clips"), ([{"video_url": URL}] * 3, "max_videos")],
)
async def test_each_kind_of_media_has_its_limit(parts: list[Any], limit: str) -> None:
    media = Media(MediaSettings.model_validate({limit: 2}), Metrics())
    with pytest.raises(MediaTooLargeError, match=rf"the limit is 2 \(media\.{limit}\)"):
        await inline(media, chat(*parts))
    await media.aclose()


async def test_a_recording_becomes_clips_that_know_their_place(media: Media) -> None:
    pieces = (await media.clips(clip(tone(70, 8_000), 8_000), MODEL)).prepared.pieces

    assert len(pieces) >= 3
    assert sum(piece.seconds for piece in pieces) == pytest.approx(70)
    assert [piece.start for piece in pieces] == pytest.approx(
        [sum(p.seconds for p in pieces[:i]) for i in range(len(pieces))]
    )


async def test_a_video_is_shown_by_as_few_frames_as_the_request_asks_for(media: Media) -> None:
    part = {"type": "video_url", "video_url": {"url": data_url(film(frames=20, rate=10), "video/mp4")}}

    outcome = await inline(media, chat(part, media_io_kwargs={"video": {"num_frames": 5}}))

    header, *frames = first(outcome.request)["video_url"]["url"].split(",")
    assert (header, len(frames)) == ("data:video/jpeg;base64", 5)
    assert len(decoded(outcome.request, "media_io_kwargs")["video"]["frames_indices"]) == 5


async def test_a_file_over_the_limit_names_the_setting_of_its_kind(tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(bytes(20_001))
    limits = {"folder": tmp_path, "max_bytes": 10_000, "max_video_bytes": 20_000}
    media = Media(MediaSettings.model_validate(limits), Metrics())
    for part, setting in (({"video_url": "a.mp4"}, "media.max_video_bytes"), (image_part("a.mp4"), "media.max_bytes")):
        assert f"({setting})" in (await fault_of(media, chat(part))).message
    await media.aclose()
