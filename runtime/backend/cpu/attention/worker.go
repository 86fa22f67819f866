package attention

import "unsafe"

// worker is the scratch memory of one worker of the pool, and the loops that
// use it.
type worker struct {
	*Attention

	q          []float32 // [rows][HeadDim], scaled
	run, total []float32 // states
	keys, vals []float32 // a page in float32
	scales     []float32 // those of a page of codes
	scores     [maxRows * pageTokens]float32
	corr, ones [maxRows]float32
	product    product
	softmax    softmax
	merge      merge
	_          [128]byte // the next worker writes on other cache lines
}

// directRows is the number of query rows, heads counted separately, up to which
// pages are converted inside the products: beyond, converting once is cheaper
// than every six rows.
const directRows = 2 * maxRows

// task computes one task.
func (w *worker) task(k *task) {
	t := &w.tiles[k.tile]
	w.loadQueries(t)
	rows := int(t.rows) * w.config.group()
	size := w.partialFloats(rows)
	if int(k.to-k.from) < t.runs() {
		for i := int(k.from); i < int(k.to); i++ {
			w.computeRun(t, t.run(i), w.partialOf(t, i))
		}
		if !t.finish() {
			return
		}
		total := w.partialOf(t, 0)
		for i := 1; i < t.runs(); i++ {
			w.fold(total, w.partialOf(t, i))
		}
		w.storeOutputs(t, total)
		return
	}
	w.total = grow(w.total, size)
	total := stateIn(w.total, rows)
	w.computeRun(t, 0, total)
	for i := 1; i < t.runs(); i++ {
		w.run = grow(w.run, size)
		part := stateIn(w.run, rows)
		w.computeRun(t, t.run(i), part)
		w.fold(total, part)
	}
	w.storeOutputs(t, total)
}

// loadQueries copies the queries of a tile, row by row and the heads of the
// group beside each other, multiplied by the scale of the scores in base 2.
func (w *worker) loadQueries(t *tile) {
	d, group := w.config.HeadDim, w.config.group()
	q := &w.queries[t.query]
	w.q = grow(w.q, int(t.rows)*group*d)
	dst := w.q
	for row := int(t.row); row < int(t.row+t.rows); row++ {
		src := q.Q[row*q.QStride+int(t.head)*group*d:][:group*d]
		w.kernels.scale(&dst[0], &src[0], group*d, w.config.Scale*log2e)
		dst = dst[group*d:]
	}
}

// storeOutputs divides by the sums of weights and writes the rows of a tile.
func (w *worker) storeOutputs(t *tile, s state) {
	d, cols, group := w.config.HeadDim, w.config.valueCols(), w.config.group()
	q := &w.queries[t.query]
	i := 0
	for row := int(t.row); row < int(t.row+t.rows); row++ {
		out := q.Out[row*q.OutStride+int(t.head)*group*d:][:group*d]
		for g := range group {
			w.kernels.scale(&out[g*d], &s.o[i*cols], d, 1/s.l[i])
			i++
		}
	}
}

// fold merges the result of a run into that of the runs before it.
func (w *worker) fold(total, run state) {
	w.merge = merge{
		dst: &total.o[0], src: &run.o[0], m: &total.m[0], l: &total.l[0], mr: &run.m[0], lr: &run.l[0],
		rows: len(total.m), cols: w.config.valueCols(),
	}
	w.kernels.merge(&w.merge)
}

// computeRun computes the visible pages of one run, in order.
func (w *worker) computeRun(t *tile, run int, s state) {
	for i := range s.m {
		s.m[i] = minusInf
	}
	clear(s.l)
	table := w.queries[t.query].Pages[t.head]
	block := max(run*runBlocks, int(t.start))
	end := min((run+1)*runBlocks, int(t.block)+1)
	first := true
	if run == 0 && t.start > 0 {
		block = 0
	}
	for block < end {
		next := block + 1
		if next < int(t.start) {
			next = int(t.start) // from the sink to the span
		}
		ahead := table[block]
		if next <= int(t.block) {
			ahead = table[next]
		}
		w.computePage(t, block, table[block], ahead, s, first)
		block, first = next, false
	}
}

// computePage adds one page to the state of a tile's rows, up to maxRows rows
// at a time.
func (w *worker) computePage(t *tile, block int, page, next int32, s state, first bool) {
	rows := len(s.m)
	v := w.view(page, next, rows)
	parts := (rows + maxRows - 1) / maxRows
	size := (rows + parts - 1) / parts
	for from := 0; from < rows; from += size {
		to := min(from+size, rows)
		if block < int(t.block) {
			w.wholePage(v, s, from, to, first)
		} else {
			w.ownBlock(t, v, s, from, to, first)
		}
	}
}

// view is a page as the products read it.
type view struct {
	keys, values operand
	next         unsafe.Pointer // the page after it, if that is to be prefetched
}

// operand is the panels of the keys or of the values of a page.
type operand struct {
	panels   unsafe.Pointer
	scales   []float32 // see product; none unless the elements are codes
	element  int       // bytes
	products *products
}

// scale is where the scales begin at a column or step of the first panel.
func (o *operand) scale(at int) *float32 {
	if len(o.scales) == 0 {
		return nil
	}
	return &o.scales[at]
}

// view widens a page when enough rows share the cost, or when no kernel reads it
// as it is.
func (w *worker) view(page, next int32, rows int) view {
	memory, format := w.cache.page(page), w.cache.format
	if w.directKeys == nil || rows > directRows {
		w.keys, w.vals = grow(w.keys, w.config.keyElements()), grow(w.vals, pageTokens*w.config.valueCols())
		format.widen(w.keys, w.vals, memory)
		return view{
			keys:   operand{unsafe.Pointer(&w.keys[0]), nil, 4, w.kernels.f32},
			values: operand{unsafe.Pointer(&w.vals[0]), nil, 4, w.kernels.f32},
		}
	}
	keys, values, scales := format.panels(memory)
	w.scales = grow(w.scales, len(scales))
	w.cache.ops.FromF16(w.scales, scales)
	half := len(scales) / 2
	return view{
		keys:   operand{keys, w.scales[:half], format.element(), w.directKeys},
		values: operand{values, w.scales[half:], format.element(), w.directValues},
		next:   unsafe.Pointer(&w.cache.page(next)[0]),
	}
}

// wholePage adds a page that all rows see to the end.
func (w *worker) wholePage(v view, s state, from, to int, first bool) {
	w.computeScores(v, from, to, pageTokens)
	w.computeWeights(s, from, to, 0, pageTokens)
	w.addValues(v, s, from, to, 0, 0, pageTokens, w.rescale(first))
}

// ownBlock adds the page of the rows' own block, of which a row sees the keys
// up to its own. What lies beyond is not read as a value, and as a key only by
// lanes that the softmax discards: it may be left from another sequence.
func (w *worker) ownBlock(t *tile, v view, s state, from, to int, first bool) {
	group := w.config.group()
	position := w.queries[t.query].Start + int(t.row)
	seen := func(row int) int { return (position+row/group)%pageTokens + 1 }
	least := seen(from)
	w.computeScores(v, from, to, seen(to-1))
	for row := from; row < to; {
		next := min((row/group+1)*group, to) // the heads of one token
		w.computeWeights(s, row, next, row-from, seen(row))
		row = next
	}
	w.addValues(v, s, from, to, 0, 0, least, w.rescale(first))
	for row := from; row < to; {
		next := min((row/group+1)*group, to)
		if n := seen(row); n > least {
			w.addValues(v, s, row, next, row-from, least, n, &w.ones[0])
		}
		row = next
	}
}

// rescale is what the outputs so far are multiplied by: nil when there are none.
func (w *worker) rescale(first bool) *float32 {
	if first {
		return nil
	}
	return &w.corr[0]
}

// computeScores computes the scores of some rows with the first n keys, and with
// the others of the last panel.
func (w *worker) computeScores(v view, from, to, n int) {
	d := w.config.HeadDim
	w.product = product{
		a: &w.q[from*d], lda: 4 * d,
		b: v.keys.panels, panelBytes: v.keys.element * panelWidth * d, scales: v.keys.scale(0),
		c: &w.scores[0], ldc: 4 * pageTokens,
		k: d, panels: (n + panelWidth - 1) / panelWidth, ahead: v.values.panels,
	}
	v.keys.products[to-from](&w.product)
}

// computeWeights turns the scores of rows that see n keys into weights; at is
// the first of them in scores.
func (w *worker) computeWeights(s state, from, to, at, n int) {
	w.softmax = softmax{
		s: &w.scores[at*pageTokens], m: &s.m[from], l: &s.l[from], corr: &w.corr[at], rows: to - from, n: n,
	}
	w.kernels.softmax(&w.softmax)
}

// addValues adds the values of keys [first, end), weighted, to the outputs of
// some rows; at is the first of them in scores.
func (w *worker) addValues(v view, s state, from, to, at, first, end int, scale *float32) {
	cols := w.config.valueCols()
	w.product = product{
		a: &w.scores[at*pageTokens+first], lda: 4 * pageTokens,
		b: unsafe.Add(v.values.panels, v.values.element*first*panelWidth), panelBytes: v.values.element * valuePanel,
		scales: v.values.scale(first),
		c:      &s.o[from*cols], ldc: 4 * cols, scale: scale,
		k: end - first, panels: cols / panelWidth, ahead: v.next,
	}
	v.values.products[to-from](&w.product)
}
