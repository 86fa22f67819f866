// Tests and benchmarks of the kernels on a GPU, without Go:
//
//	nvcc $(cat ../nvcc.flags) -cudart static -o /tmp/devicetest main.cu
//	/tmp/devicetest check bench
//
// Arguments: check (layer and attention), small (a few cases, for compute-sanitizer),
// bench, quick (the main shapes), latency (the element-wise kernels). With
// -gencode=arch=compute_80,code=compute_80 in place of the flags' targets, the code
// for compute capability 8.0 runs on a newer card.
#include "bench.cuh"
#include "check_attention.cuh"
#include "check_layer.cuh"

int main(int argc, char** argv) {
  const Device dev;
  for (int i = 1; i < argc; ++i) {
    const std::string what = argv[i];
    if (what == "check" || what == "layer") checkLayer();
    if (what == "check" || what == "attention") checkAttention(dev);
    if (what == "latency") benchLayer(dev, readRate(dev));
    if (what == "small") checkSmall(dev);
    if (what == "bench" || what == "quick") bench(dev, what == "quick");
  }
  CK(cudaDeviceSynchronize());
  printf("%d failures\n", failures);
  return failures ? 1 : 0;
}
