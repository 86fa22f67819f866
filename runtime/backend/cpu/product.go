package cpu

import "github.com/moaserve/moaserve/runtime/backend/cpu/matmul"

// product is one matrix to multiply the current activations with:
// dst[r*stride+n] for every row r of the batch and output n.
type product struct {
	m      *matmul.Matrix
	dst    []float32
	stride int
}

// mulTask is a part of a product that one worker computes.
type mulTask struct {
	product                  product
	a                        *matmul.Activations
	row0, row1, tile0, tile1 int
}

const (
	// tileBytes is the packed weight of a task's tiles: they stay in a core's
	// private cache while the task's rows pass by.
	tileBytes = 128 << 10
	// taskRows is how many rows a task takes: enough to amortise reading the
	// weights from the shared cache, few enough that the rows' codes stay near.
	taskRows = 64
)

// multiply computes products that share their input, all tasks in one round of
// the workers.
func (p *pass) multiply(a *matmul.Activations, products ...product) {
	p.tasks = appendTasks(p.tasks[:0], a, p.rows, p.d.opts.Threads, products)
	p.d.workers.RunNear(len(p.tasks), p.mulStage)
}

func appendTasks(tasks []mulTask, a *matmul.Activations, rows, threads int, products []product) []mulTask {
	for _, pr := range products {
		tiles := pr.m.Tiles()
		perTask := max(1, tileBytes*tiles/max(pr.m.Bytes(), 1))
		// A few tasks a thread, so that one that was held up does not hold up all.
		perTask = min(perTask, max(1, tiles/(4*threads)))
		for row := 0; row < rows; row += taskRows {
			for tile := 0; tile < tiles; tile += perTask {
				tasks = append(tasks, mulTask{pr, a, row, min(row+taskRows, rows), tile, min(tile+perTask, tiles)})
			}
		}
	}
	return tasks
}

// multiplyTask computes a task. At 16 bits a row and its residual are neighbours,
// so that one pass over the weights serves both; their products are added up in
// the row's own place.
func (p *pass) multiplyTask(_, task int) {
	t := &p.tasks[task]
	m, dst, stride := t.product.m, t.product.dst, t.product.stride
	if p.planes == 1 {
		m.Mul(dst, stride, t.a, t.row0, t.row1, t.tile0, t.tile1)
		return
	}
	if !m.Quantised() {
		for r := t.row0; r < t.row1; r++ { // no residuals: every other row
			m.Mul(dst, stride, t.a, 2*r, 2*r+1, t.tile0, t.tile1)
		}
		return
	}
	m.Mul(dst, stride, t.a, 2*t.row0, 2*t.row1, t.tile0, t.tile1)
	from, to := t.tile0*matmul.TileRows, min(t.tile1*matmul.TileRows, m.Rows())
	for r := t.row0; r < t.row1; r++ {
		p.d.ops.Add(dst[2*r*stride+from:2*r*stride+to], dst[(2*r+1)*stride+from:(2*r+1)*stride+to])
	}
}

// input returns the values of row r of a product's input, to be filled and
// followed by quantise.
func (p *pass) input(a *matmul.Activations, r int) []float32 { return a.Row(p.planes * r) }

// quantise prepares row r as the input of products: its codes and, at 16 bits,
// those of what the codes miss, which has a row of its own.
func (p *pass) quantise(a *matmul.Activations, r int) {
	a.Quantize(p.planes * r)
	if p.planes == 2 {
		a.QuantizeResidual(2*r+1, 2*r)
	}
}

// output returns row r, of n values, of a product's output.
func (p *pass) output(dst []float32, r, n int) []float32 {
	at := p.planes * r * n
	return dst[at : at+n : at+n]
}
