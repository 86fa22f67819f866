package cudakernels

// MaxProductRows is the most rows of x that [Product] takes. Beyond, the weights
// are no longer most of what a product reads, and matrix units decide.
const MaxProductRows = 16

// The geometry of product.cuh.
const (
	productWarps   = 8                       // that multiply
	productThreads = 32 * (productWarps + 4) // four warps copy
	productGroup   = 32                      // rows of W in a tile
	productTile    = productGroup * (1024 + 64)
	productBarrier = 2 * 8 * 8 // of 8 stages, full and empty
)

// productBlocks is the most thread blocks whose parts of a sum of squares are added.
const productBlocks = 192

// productStages is the most tiles in flight on a multiprocessor, 128 KiB. They last
// for the time in which the kernels between two products run; with more, thread
// blocks get their shares of the memory's speed less evenly.
const productStages = 4

// Product computes y = x w^T for few rows of x, up to [MaxProductRows], at the
// speed at which w is read, and what follows such products in a layer: the residual
// sum, the norm and the gated activation. An element's sum is the same for every M
// and in every run on devices of a kind.
//
// A norm is split over two products. The one before it writes the stream times the
// norm's weights, and the squares of what it made of the stream; the one behind it
// multiplies its sums by 1 / sqrt(mean(squares) + Eps). No kernel is between them.
//
// The weights are read ahead of the wait for the kernel before: no kernel of the
// step may write them.
type Product struct {
	W Ptr // bfloat16 or, with Scale, e4m3 [N][K]; [2*N][K] if Gated
	X Ptr // bfloat16 [M][K]
	Y Ptr // out: bfloat16 or, if F32, float32 [M][N]
	// Scale is what the sums of e4m3 weights are multiplied by, float32 a row of W; 0
	// for bfloat16 weights.
	Scale Ptr
	// Stream is the residual stream, in and out: float32 [M][N]. The sums are added to
	// it and Y is Stream * Norm. 0: Y is the sums.
	Stream Ptr
	Norm   Ptr // float32 [N]; with Stream
	// Squares is the sums of squares of the stream's rows in parts, one a thread block:
	// ProductSquaresBytes. They are written with Stream, and read if Normalise.
	Squares Ptr
	// Next is the weights of the next product, whose beginning is fetched to the L2
	// cache; 0 for none.
	Next Ptr

	M, N      int64
	K         int64 // a multiple of 64
	F32       int64 // 1 or 0, as all that follow but Stages
	Gated     int64 // W is [gate, up], Y = silu(gate) * up
	Normalise int64 // the sums are divided by the root mean square of the stream's rows
	Stages    int64 // tiles of the ring in shared memory: ProductStages

	NextRows     int64 // outputs of the next product
	NextGated    int64
	NextRowBytes int64 // bytes of a row of Next, a multiple of 16
	NextTiles    int64 // that a thread block fetches: ProductAhead; 0 without Next

	Eps float64
}

var _ Args = (*Product)(nil)

// Kernel implements [Args].
func (a *Product) Kernel() string {
	name := "product_bf16_"
	if a.Scale != 0 {
		name = "product_e4m3_"
	}
	if a.M <= 8 {
		return name + "8"
	}
	return name + "16"
}

// Shape implements [Args].
func (a *Product) Shape(d Device) Shape {
	return grid(d.SMs, productThreads, int(a.Stages)*productTile+productFixed(int(a.M)))
}

// ProductStages returns the tiles of the ring of a [Product] of m rows and k inputs;
// 0 for products that it does not do on the device.
func ProductStages(d Device, m, k int) int {
	if m < 1 || m > MaxProductRows || k < 64 || k%64 != 0 || d.SMs > productBlocks {
		return 0
	}
	// On compute capability 9.0 a multiprocessor must not have room for two thread
	// blocks: one that is let in early would take the place of another's.
	least := 2
	if d.Programmatic() {
		least = productStages
	}
	n := min(productStages, (d.SharedPerBlock-productFixed(m))/productTile)
	if n < least {
		return 0
	}
	return n
}

// ProductAhead returns the tiles of the next product's weights, 32 KiB each, that a
// thread block fetches to the L2 cache: the reading of about 3 microseconds, in which
// this kernel ends and others run. It is 0 for devices with an L2 cache of a few
// megabytes, those whose multiprocessors have less than 160 KiB of shared memory.
func ProductAhead(d Device) int {
	if d.SharedPerSM < 160<<10 {
		return 0
	}
	return 2
}

// ProductSquaresBytes returns the size of Squares.
func ProductSquaresBytes(d Device) int { return 4 * MaxProductRows * d.SMs }

// productFixed is the shared memory beside the ring: the sums of every warp for a
// group of rows, and barriers.
func productFixed(m int) int { return productWarps*roundUp(m, 8)*(productGroup+4)*4 + productBarrier }
