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
	rows                     int // of the batch: where the rows of residuals begin
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
	p.d.workers.Run(len(p.tasks), p.mulStage)
}

func appendTasks(tasks []mulTask, a *matmul.Activations, rows, threads int, products []product) []mulTask {
	for _, pr := range products {
		tiles := pr.m.Tiles()
		perTask := max(1, tileBytes*tiles/max(pr.m.Bytes(), 1))
		// A few tasks a thread, so that one that was held up does not hold up all.
		perTask = min(perTask, max(1, tiles/(4*threads)))
		for row := 0; row < rows; row += taskRows {
			for tile := 0; tile < tiles; tile += perTask {
				tasks = append(tasks, mulTask{pr, a, rows, row, min(row+taskRows, rows), tile, min(tile+perTask, tiles)})
			}
		}
	}
	return tasks
}

func (p *pass) multiplyTask(_, task int) {
	t := &p.tasks[task]
	m, dst, stride := t.product.m, t.product.dst, t.product.stride
	m.Mul(dst, stride, t.a, t.row0, t.row1, t.tile0, t.tile1)
	if p.planes == 1 || !m.Quantised() {
		return
	}
	m.Mul(dst, stride, t.a, t.rows+t.row0, t.rows+t.row1, t.tile0, t.tile1)
	from, to := t.tile0*matmul.TileRows, min(t.tile1*matmul.TileRows, m.Rows())
	for r := t.row0; r < t.row1; r++ {
		p.d.ops.Add(dst[r*stride+from:r*stride+to], dst[(t.rows+r)*stride+from:(t.rows+r)*stride+to])
	}
}

// quantise prepares row r of rows as the input of products: its codes and, at 16
// bits, those of what the codes miss, which has a row of its own.
func (p *pass) quantise(a *matmul.Activations, r, rows int) {
	a.Quantize(r)
	if p.planes == 2 {
		a.QuantizeResidual(rows+r, r)
	}
}
