# moaserve, CPU build: a static binary on an empty base.
#   docker build -t moaserve .
#   docker run -p 8080:8080 -v $PWD/models:/models moaserve serve --model /models/model.gguf --listen 0.0.0.0:8080
FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=dev
RUN CGO_ENABLED=0 go build -trimpath -ldflags "-s -w -X main.version=${VERSION}" -o /moaserve .

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /moaserve /moaserve
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=60s CMD ["/moaserve", "health", "http://127.0.0.1:8080"]
ENTRYPOINT ["/moaserve"]
