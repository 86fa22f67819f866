# moaserve, CPU build: a static binary on an empty base.
#   docker build -t moaserve .
#   docker run -p 8080:8080 -v $PWD/models:/models moaserve serve --model /models/model.gguf --listen 0.0.0.0:8080
# With the CUDA backend:
#   docker build --target cuda -t moaserve:cuda .
#   docker run --gpus all -p 8080:8080 -v $PWD/models:/models moaserve:cuda serve --model /models/model.gguf --listen 0.0.0.0:8080
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /moaserve .

FROM golang:1.26-bookworm AS build-cuda
RUN apt-get update && apt-get install -y --no-install-recommends python3-venv && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN make build-cuda VERSION=${VERSION}

# The driver's libcuda.so.1 comes from the host, cuBLASLt from the package.
FROM nvidia/cuda:13.0.1-base-ubuntu24.04 AS cuda
RUN apt-get update && apt-get install -y --no-install-recommends libcublas-13-0 && rm -rf /var/lib/apt/lists/*
COPY --from=build-cuda /src/moaserve /moaserve
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=120s CMD ["/moaserve", "health", "http://127.0.0.1:8080"]
ENTRYPOINT ["/moaserve"]

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /moaserve /moaserve
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["/moaserve", "health", "http://127.0.0.1:8080"]
ENTRYPOINT ["/moaserve"]
