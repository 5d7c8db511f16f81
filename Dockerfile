# The images: `gateway` (Python and the gateway; neither torch nor vLLM) and `engine` (vLLM's own image with our package).
#
#   docker build --target gateway --tag gemma-gateway/gateway:0.1.0 .
#   docker build --target engine  --tag gemma-gateway/engine:0.1.0 .
#
# docs/images.md says how they are released: pinned by digest, signed, with a list of their parts.

# What they stand on. A release names digests: --build-arg DEBIAN_IMAGE=docker.io/library/debian@sha256:…
ARG DEBIAN_IMAGE=docker.io/library/debian:12.14-slim
ARG VLLM_IMAGE=docker.io/vllm/vllm-openai:v0.32.0


FROM ${DEBIAN_IMAGE} AS tools
# Debian keeps no older versions to pin; the image's digest and date tell which ones these are.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends binutils ca-certificates python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY deploy/requirements-build.txt deploy/
RUN python3 -m venv /opt/build \
    && /opt/build/bin/pip install --no-cache-dir --require-hashes --requirement deploy/requirements-build.txt


FROM tools AS wheel
COPY pyproject.toml README.md LICENSE ./
COPY gateway gateway
RUN /opt/build/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .


FROM tools AS assembled
COPY deploy/requirements.txt deploy/
# Without pip, tests of others and debugging symbols; babel is asked for the English names of languages alone. Libraries that
# a wheel brings keep their symbols: their layout was changed by hand, and strip breaks some. ldd tells if it broke any.
RUN python3 -m venv --without-pip /opt/gateway \
    && /opt/build/bin/pip --python /opt/gateway/bin/python install --no-cache-dir --no-compile --require-hashes \
        --requirement deploy/requirements.txt \
    && find /opt/gateway/lib -type d -name tests -path '*/numpy/*' -prune -exec rm -r {} + \
    && find /opt/gateway/lib -path '*/babel/locale-data/*.dat' ! -name en.dat ! -name root.dat -delete \
    && find /opt/gateway/lib -name '*.so' -type f ! -path '*.libs/*' -exec strip --strip-debug {} + \
    && find /opt/gateway/lib -name '*.so' -type f -exec ldd {} + >/dev/null
COPY --from=wheel /wheels /wheels
# Compiled beforehand, as nothing can be written where it runs; by hash, so that the same sources give the same bytes.
RUN /opt/build/bin/pip --python /opt/gateway/bin/python install --no-cache-dir --no-compile --no-deps /wheels/*.whl \
    && python3 -m compileall -q --invalidation-mode unchecked-hash /opt/gateway/lib


FROM ${DEBIAN_IMAGE} AS gateway
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates python3 \
    && rm -rf /var/lib/apt/lists/* \
    && install -d /etc/gemma-gateway \
    && install -d -o 10001 -g 10001 /var/lib/gemma-gateway
COPY --from=assembled /opt/gateway /opt/gateway
ENV HOME=/tmp \
    PATH=/opt/gateway/bin:/usr/local/bin:/usr/bin:/bin \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /tmp
USER 10001:10001
# The API, and what is for the inside alone: /metrics, /livez, /readyz.
EXPOSE 8000 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=30s --retries=3 \
    CMD ["python", "-I", "-c", "import http.client as h, os; c = h.HTTPConnection('127.0.0.1', int(os.environ.get('GEMMA_GATEWAY_SERVER__ADMIN_PORT', 9090)), timeout=4); c.request('GET', '/livez'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["gemma-gateway"]
CMD ["gateway", "--config", "/etc/gemma-gateway/config.yaml"]
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="gemma-gateway" \
      org.opencontainers.image.description="OpenAI-compatible gateway for Google's Gemma models in front of vLLM" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"


FROM ${VLLM_IMAGE} AS engine
USER 0
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
COPY --from=wheel /wheels /wheels
# What vLLM's image holds stays as it is, since vLLM is built and tested with just that; ours adds what is missing. Of
# vLLM's extra `audio`, which its image leaves out, the libraries come as ours.
RUN python="$(command -v python3)" \
    && uv pip list --quiet --format freeze --python "$python" >/tmp/held.txt \
    && uv pip install --no-cache --python "$python" --constraint /tmp/held.txt \
        /wheels/*.whl 'runai-model-streamer[s3]>=0.15.7' 'timm>=1.0' \
    && rm -r /tmp/held.txt /wheels \
    && if ! command -v python; then ln -s "$python" /usr/local/bin/python; fi \
    && install -d -m 0777 /var/cache/huggingface /models
ENV HOME=/tmp \
    USER=engine \
    HF_HOME=/var/cache/huggingface \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
WORKDIR /tmp
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM
# 503 while it loads, warms up and drains; a large model loads for minutes.
HEALTHCHECK --interval=10s --timeout=5s --start-period=30m --retries=3 \
    CMD ["python", "-I", "-c", "import http.client as h; c = h.HTTPConnection('127.0.0.1', 8000, timeout=4); c.request('GET', '/health'); raise SystemExit(c.getresponse().status != 200)"]
ENTRYPOINT ["gemma-gateway"]
CMD ["engine", "--help"]
ARG VERSION=0.1.0
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title="gemma-gateway-engine" \
      org.opencontainers.image.description="vLLM with the presets for Google's Gemma models" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}"
