# SPDX-License-Identifier: Apache-2.0
# docker build --build-arg VERSION=$(git describe --tags --always) -t kube-node .
# The final image has Debian's Python, kube-node and the relays: no shell, no package manager. packaging/image.sh says what is in it.
# For another machine: --platform; the build stage then runs by emulation, which takes minutes. Tried: linux/amd64, linux/arm64.
FROM debian:bookworm-slim AS build
RUN apt-get update && apt-get install -y --no-install-recommends gcc musl-tools python3-venv
WORKDIR /src
COPY . .
RUN python3 -m venv .venv && .venv/bin/pip install --no-deps --require-hashes -r requirements/run.lock && \
    .venv/bin/pip install --no-deps --no-build-isolation .
ARG VERSION=
ARG SOURCE_DATE_EPOCH
RUN .venv/bin/python packaging/binaries.py --cc=musl-gcc --version="$VERSION" && packaging/image.sh /image

FROM scratch
ARG VERSION=
LABEL org.opencontainers.image.title="kube-node" \
    org.opencontainers.image.description="Pod addresses for Kubernetes, taken from the Node object: plugins, agent and controller" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /image /
# Whoever writes on a node asks for root in its manifest.
USER 65532:65532
ENTRYPOINT ["/opt/kube-node/kube-node.standalone"]
CMD ["agent"]
