# moaserve: build, serve, test. `make help` lists the targets.

MODEL   := models/SmolLM2-135M-Instruct.Q4_1.gguf
GOBIN   := $(CURDIR)/.bin
VENV    := .venv
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
GOFLAGS_BUILD := -trimpath -ldflags "-s -w -X main.version=$(VERSION)"

# Pinned tools. golangci-lint carries staticcheck.
GOLANGCI_LINT := github.com/golangci/golangci-lint/v2/cmd/golangci-lint@v2.15.0

.DEFAULT_GOAL := help

## help: list the targets
.PHONY: help
help:
	@sed -n 's/^## //p' $(MAKEFILE_LIST)

## build: build ./moaserve (pure Go, no CGO)
.PHONY: build
build:
	CGO_ENABLED=0 go build $(GOFLAGS_BUILD) -o moaserve .

## serve: build, fetch SmolLM2-135M (98 MB) and serve it on 127.0.0.1:8080
.PHONY: serve
serve: build $(MODEL)
	./moaserve serve --model $(MODEL)

$(MODEL): | build
	./moaserve models pull

## test: lint, and test everything against the real model and the real SDKs; the CUDA backend over a driver of plain C
.PHONY: test
test: lint $(MODEL) $(VENV)/ok
	MOASERVE_TEST_MODEL=$(CURDIR)/$(MODEL) MOASERVE_TEST_PYTHON=$(CURDIR)/$(VENV)/bin/python \
		go test -timeout 20m ./...
	@if command -v gcc >/dev/null; then $(MAKE) test-cuda; else echo "no gcc: the CUDA backend is not tested"; fi

# The CUDA build needs cgo, cuda.h (from NVIDIA's wheel: no GPU, no root) and a
# libcuda.so to link with: that of the tests, for the real one is on the machine
# that runs the binary. CUDA_INCLUDE=/usr/local/cuda/include takes another header.
CUDA         := $(GOBIN)/cuda
CUDA_INCLUDE ?= $(CUDA)/include
CUDA_ENV = CGO_ENABLED=1 \
	CGO_CFLAGS="-O2 -I$(CURDIR)/runtime/internal/cudadrv/compat -I$(CUDA_INCLUDE)" \
	CGO_LDFLAGS="-L$(CUDA)/fake -Wl,--unresolved-symbols=ignore-in-object-files" CGO_LDFLAGS_ALLOW='-Wl,--unresolved-symbols=.*'
CUDA_HEADERS := nvidia-cuda-runtime==13.0.96 nvidia-cuda-crt==13.0.88
CUDA_NVCC    := nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-cccl==13.0.85

## build-cuda: build ./moaserve with the CUDA backend (needs gcc; runs where libcuda.so.1 and libcublasLt.so.13 are)
.PHONY: build-cuda
build-cuda: $(CUDA)/include/cuda.h $(CUDA)/fake/libcuda.so
	$(CUDA_ENV) go build -tags cuda $(GOFLAGS_BUILD) -o moaserve .

## test-cuda: lint and test the CUDA backend without a GPU, its kernels replaced by plain C
.PHONY: test-cuda
test-cuda: $(CUDA)/include/cuda.h $(CUDA)/fake/libcuda.so $(GOBIN)/golangci-lint
	$(CUDA_ENV) go vet -tags cuda . ./runtime ./runtime/backend/cuda/... ./runtime/internal/... ./bench/...
	$(CUDA_ENV) $(GOBIN)/golangci-lint run --build-tags cuda ./runtime/backend/cuda/... ./runtime/internal/...
	$(CUDA_ENV) LD_LIBRARY_PATH=$(CUDA)/fake MOASERVE_CUBLASLT=libcuda.so.1 \
		go test -tags cuda -timeout 20m ./runtime/backend/cuda/... ./runtime/internal/...
	$(CUDA_ENV) LD_LIBRARY_PATH=$(CUDA)/fake MOASERVE_CUBLASLT=libcuda.so.1 go test -tags cuda -timeout 5m -run LostDevice .

## kernels: compile cudakernels/*.cu to the embedded fatbins (nvcc comes from NVIDIA's wheels, no GPU needed)
.PHONY: kernels
kernels: $(CUDA)/include/cuda.h
	$(CUDA)/venv/bin/python -m pip install -q --disable-pip-version-check $(CUDA_NVCC)
	CUDA_WHEELS=$(CUDA)/venv go generate ./cudakernels

$(CUDA)/include/cuda.h:
	python3 -m venv $(CUDA)/venv
	$(CUDA)/venv/bin/python -m pip install -q --disable-pip-version-check $(CUDA_HEADERS)
	ln -sfn $$(dirname $$(find $(CUDA)/venv -name cuda.h | head -1)) $(CUDA)/include

$(CUDA)/fake/libcuda.so: runtime/internal/fakecuda/testdata/fakecuda.c
	mkdir -p $(@D)
	gcc -O3 -march=native -ffast-math -fno-finite-math-only -fPIC -fvisibility=hidden -Wall -shared -Wl,-soname,libcuda.so.1 -o $(@D)/libcuda.so.1 $< -lm
	ln -sf libcuda.so.1 $@

## race: the concurrent packages under the race detector
.PHONY: race
race:
	go test -race -timeout 20m ./gateway/... ./runtime/engine/... ./runtime/kv/... ./runtime/backend/cpu/workers/... ./client/...

## lint: gofmt, go vet, staticcheck and the linters of .golangci.yml
.PHONY: lint
lint: $(GOBIN)/golangci-lint
	@test -z "$$(gofmt -l $$(git ls-files '*.go'))" || { gofmt -d $$(git ls-files '*.go'); exit 1; }
	go vet ./...
	$(GOBIN)/golangci-lint run ./...

$(GOBIN)/golangci-lint:
	GOBIN=$(GOBIN) go install $(GOLANGCI_LINT)

# The Python packages that tests use as independent implementations and clients.
$(VENV)/ok: scripts/requirements-test.txt
	python3 -m venv $(VENV)
	$(VENV)/bin/python -m pip install -q --disable-pip-version-check -r $<
	@touch $@

## load: 2000 concurrent streams through the gateway, with their latency (wants an idle machine)
.PHONY: load
load:
	MOASERVE_LOAD=1 go test -run TestManyStreams -v ./gateway

## soak: 200 conversations with reuse against as many without, bit for bit, and the scheduler's random test at length (an hour on two cores)
.PHONY: soak
soak: $(MODEL)
	go test -run Interleaved -v ./runtime/engine -rapid.checks=3000
	MOASERVE_TEST_MODEL=$(CURDIR)/$(MODEL) MOASERVE_CONVERSATIONS=200 go test -run Conversations -v -timeout 4h ./runtime

## bench: decode and prefill speed of the engine on the real model
.PHONY: bench
bench: build $(MODEL)
	./moaserve bench --model $(MODEL)

## clean: remove what was built (models stay)
.PHONY: clean
clean:
	rm -rf moaserve $(GOBIN) $(VENV)
