# One static executable in an empty image. Builds with BuildKit, the classic builder and Podman.

FROM rust:1.95-slim-bookworm AS build
# For the C parts: librdkafka, SQLite and OpenSSL.
RUN apt-get update -qq \
 && apt-get install -y -qq --no-install-recommends g++ make perl >/dev/null \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# Static glibc has the resolver for files and DNS built in, so names work without a library beside it.
ENV RUSTFLAGS="-C target-feature=+crt-static" CARGO_TERM_COLOR=never

# Dependencies are a layer of their own, made anew only when they change.
# Tests and benchmarks stay outside, so the manifest must not name them. Of what they share only the manifest matters: the lock file names it.
COPY Cargo.toml Cargo.lock ./
COPY testkit/Cargo.toml testkit/
RUN sed -i '/^\[\[\(test\|bench\)\]\]/,/^$/d' Cargo.toml \
 && mkdir src \
 && touch testkit/lib.rs \
 && echo 'fn main() {}' | tee src/main.rs >src/lib.rs \
 && cargo build --locked --profile dist --features tls --target "$(rustc -vV | sed -n 's/^host: //p')"

COPY . .
ARG BUILD_COMMIT=
# The placeholders above are younger than the real files; touched ones are built again.
RUN sed -i '/^\[\[\(test\|bench\)\]\]/,/^$/d' Cargo.toml \
 && mkdir -p /image/data \
 && touch src/main.rs src/lib.rs \
 && cargo build --locked --profile dist --features tls --target "$(rustc -vV | sed -n 's/^host: //p')" \
 && cp target/*/dist/order-tracker /image/ \
 && ldd /image/order-tracker 2>&1 | grep -E 'statically linked|not a dynamic executable'

# What `docker compose` runs before each start: psql beside the service's own migrations.
FROM postgres:18 AS migrate
COPY --from=build /image/order-tracker /usr/local/bin/

FROM scratch
ARG BUILD_COMMIT=
LABEL org.opencontainers.image.title="order-tracker" \
      org.opencontainers.image.description="Takes food orders, walks each one to its delivery, and can prove that none was lost" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.revision="${BUILD_COMMIT}"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build --chown=65532:65532 /image/ /
USER 65532:65532
# DATA_DIR is used only without PG_DSN.
ENV APP_HOST=0.0.0.0 APP_PORT=8080 DATA_DIR=/data
EXPOSE 8080
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s --retries=3 CMD ["/order-tracker", "healthcheck"]
ENTRYPOINT ["/order-tracker"]
