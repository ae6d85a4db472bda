# pixelnet-tf on a CPU, as an ordinary user.
#
#   docker build -t pixelnet-tf . && docker run --rm -v "$PWD:/data" pixelnet-tf --help
#
# Only what requirements.lock names is installed, each file checked against its hash.
FROM python:3.11-slim AS build
COPY requirements.lock /src/
RUN python -m venv /venv \
    && /venv/bin/pip install --no-cache-dir --require-hashes -r /src/requirements.lock
COPY setup.py pyproject.toml README.md LICENSE /src/
COPY configs /src/configs
COPY prototxt_import /src/prototxt_import
COPY pixelnet_tf /src/pixelnet_tf
RUN /venv/bin/pip install --no-cache-dir --no-deps /src

FROM python:3.11-slim
COPY --from=build /venv /venv
ENV PATH="/venv/bin:$PATH" PYTHONDONTWRITEBYTECODE=1 MPLCONFIGDIR=/tmp
RUN useradd --create-home --uid 1000 pixelnet
USER pixelnet
WORKDIR /data
EXPOSE 8501
ENTRYPOINT ["pixelnet-tf"]
CMD ["--help"]
