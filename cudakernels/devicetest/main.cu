// Tests and benchmarks of the kernels on a GPU, without Go:
//
//	nvcc $(cat ../nvcc.flags) -cudart static -o /tmp/devicetest main.cu
//	/tmp/devicetest check bench
//
// Arguments: check (layer, quantize, sample, attention, fp8 and product), small (a few
// cases, for compute-sanitizer), bench, quick (the main shapes), latency (the
// element-wise kernels), choice (of tokens), decode and prompts (attention), products.
// With -gencode=arch=compute_80,code=compute_80 in place of the flags' targets, the code
// for compute capability 8.0 runs on a newer card.
#include "bench.cuh"
#include "bench_product.cuh"
#include "check_attention.cuh"
#include "check_fp8.cuh"
#include "check_layer.cuh"
#include "check_quantize.cuh"
#include "check_sample.cuh"

int main(int argc, char** argv) {
  const Device dev;
  for (int i = 1; i < argc; ++i) {
    const std::string what = argv[i];
    if (what == "check" || what == "layer") checkLayer();
    if (what == "check" || what == "quantize") checkQuantize();
    if (what == "bench" || what == "quantize") benchQuantize();
    if (what == "check" || what == "sample") checkSampling();
    if (what == "check" || what == "attention") checkAttention(dev);
    if (what == "check" || what == "fp8") checkFP8(dev);
    if (what == "check" || what == "product") checkProducts(dev);
    if (what == "latency") benchLayer(dev, readRate(dev));
    if (what == "decode") benchDecodes(dev);
    if (what == "prompts") benchPrompts(dev);
    if (what == "choice") benchSample(readRate(dev));
    if (what == "small") checkSmall(dev);
    if (what == "small") checkTops(1030), checkAdjustments(70, 40);
    if (what == "products") benchProducts(dev, readRate(dev));
    if (what == "bench" || what == "quick") bench(dev, what == "quick");
  }
  CK(cudaDeviceSynchronize());
  printf("%d failures\n", failures);
  return failures ? 1 : 0;
}
