# rlgrad with TensorFlow for CPUs, from this checkout:
#   docker build -t rlgrad .
#   docker run --rm -v "$PWD/runs:/home/rlgrad/runs" rlgrad train cartpole
FROM python:3.11-slim

ARG EXTRAS=cpu

# Pictures of MuJoCo need EGL; pygame and everything else bring what they need. Debian's security updates are wanted, so no pins.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libegl1 libgl1-mesa-dri \
    && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 rlgrad
WORKDIR /opt/rlgrad
COPY pyproject.toml README.md LICENSE ./
COPY rlgrad rlgrad
COPY agents agents
COPY envs envs
COPY configs configs
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".[${EXTRAS}]"

USER 1000
WORKDIR /home/rlgrad
RUN mkdir runs
ENV TF_CPP_MIN_LOG_LEVEL=3 MUJOCO_GL=egl SDL_VIDEODRIVER=dummy
ENTRYPOINT ["rlgrad"]
CMD ["--help"]
