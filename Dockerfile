# docker build --build-arg VERSION=$(git describe --tags --always) -t kube-node .
# The final image has Debian's Python, kube-node and the relays: no shell, no package manager. packaging/image.sh says what is in it.
FROM debian:bookworm-slim AS build
RUN apt-get update \
    && apt-get install -y --no-install-recommends gcc libc6-dev python3-venv \
    && rm -rf /var/cache/apt/archives/*.deb
WORKDIR /src
COPY . .
ARG VERSION=
RUN ./build.sh binaries --version="$VERSION" && packaging/image.sh /image

FROM scratch
COPY --from=build /image /
ENTRYPOINT ["/opt/kube-node/kube-node.standalone"]
CMD ["agent"]
