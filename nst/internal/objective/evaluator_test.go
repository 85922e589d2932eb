package objective

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/internal/tiling"
	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

func TestMain(m *testing.M) { nsttest.RunWithPretend(m) }

// image is a picture to test with, of uniform noise.
type image struct {
	width, height int
	pixels        []float32
	alpha         []float32 // nil: opaque
	levels        []Level   // of a mask; nil: there is none
}

func noise(seed uint64, width, height int) *image {
	random := rand.New(rand.NewPCG(seed, 0))
	p := &image{width: width, height: height, pixels: make([]float32, 3*width*height)}
	for i := range p.pixels {
		p.pixels[i] = random.Float32()
	}
	return p
}

// fading gives it alpha, from 0 at the left to 1 at the right.
func (p *image) fading() {
	p.alpha = make([]float32, p.width*p.height)
	for i := range p.alpha {
		p.alpha[i] = min(max(float32(i%p.width)/float32(p.width)*2-0.5, 0), 1)
	}
}

// halves gives it a mask whose left part, of that many columns, has the level a, and the
// rest b.
func (p *image) halves(columns int, a, b Level) {
	p.levels = make([]Level, p.width*p.height)
	for i := range p.levels {
		if p.levels[i] = b; i%p.width < columns {
			p.levels[i] = a
		}
	}
}

func (p *image) source(t tiling.Tile) torch.Tensor {
	w := t.Seen
	return torch.FromPart(p.pixels, p.height, p.width, w.Top, w.Left, w.Bottom-w.Top, w.Right-w.Left)
}

func (p *image) tensor(device torch.Device) torch.Tensor {
	return torch.FromFloats(p.pixels, device, 1, 3, int64(p.height), int64(p.width))
}

func (p *image) plane(values []float32) torch.Tensor {
	return torch.FromFloats(values, torch.CPU, 1, 1, int64(p.height), int64(p.width))
}

// shares are the levels with their shares of the pixels; one without a mask.
func (p *image) shares() map[Level]float64 {
	if p.levels == nil {
		return map[Level]float64{0: 1}
	}
	out := map[Level]float64{}
	for _, l := range p.levels {
		out[l] += 1 / float64(len(p.levels))
	}
	return out
}

// guides are nil for an opaque picture without a mask.
func (p *image) guides(layers []vgg19.Layer, device torch.Device) Guides {
	if p.levels == nil && p.alpha == nil {
		return nil
	}
	out := Guides{}
	for level := range p.shares() {
		member := make([]float32, p.width*p.height)
		for i := range member {
			if member[i] = 1; p.alpha != nil {
				member[i] = p.alpha[i]
			}
			if p.levels != nil && p.levels[i] != level {
				member[i] = 0
			}
		}
		out.AddGuide(level, p.plane(member), layers, device, torch.Float32)
	}
	return out
}

// weighted are layers, each of which weighs more by 1 than the one before.
func weighted(t testing.TB, first float64, names ...string) (out []WeightedLayer) {
	t.Helper()
	for i, name := range names {
		l, err := vgg19.Lookup(name)
		require.NoError(t, err)
		out = append(out, WeightedLayer{l, first + float64(i)})
	}
	return out
}

// gatysLayers are the paper's.
func gatysLayers(t testing.TB) (content, style []WeightedLayer) {
	for _, l := range weighted(t, 0, "relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1") {
		style = append(style, WeightedLayer{l.Layer, 0.2})
	}
	return weighted(t, 1, "relu4_2"), style
}

// newPool is workers on a device, with the network.
func newPool(t testing.TB, model string, device torch.Device, workers int) *tiling.Pool {
	p := &tiling.Pool{Context: context.Background(), Primary: device, Passes: 1, Warn: func(string) {}}
	for range workers {
		w := &tiling.Worker{Thread: torch.StartThread(device), Threads: 1}
		t.Cleanup(w.Thread.Close)
		require.NoError(t, w.Thread.Do(context.Background(), func() (err error) {
			w.Network, err = vgg19.Load(model, device)
			return err
		}))
		t.Cleanup(w.Network.Close)
		w.Network.SetFast(true)
		w.Network.SetFused(true)
		p.Workers = append(p.Workers, w)
	}
	return p
}

// channels has the network's numbers of maps put into a spec.
func channels(t testing.TB, spec *Spec, w *tiling.Worker) {
	var err error
	spec.Channels, err = w.Network.Require(w.Device(), spec.Layers())
	require.NoError(t, err)
}

// newEvaluator measures the styles, of which the first has the weight ¼, and makes the
// evaluator of a content. It is for the pool's first thread.
func newEvaluator(t testing.TB, pool *tiling.Pool, spec *Spec, content *image, styles ...*image) *Evaluator {
	channels(t, spec, pool.Workers[0])
	var opacity Opacity
	if content.alpha != nil {
		opacity = NewOpacity(content.plane(content.alpha), spec.ContentLayers(), pool.Primary, torch.Float32)
	}
	if spec.Neighbours {
		e, err := New(pool, spec, content.width, content.height, Styles{Neighbourhoods: neighbourhoods(t, pool, spec,
			content, styles...)}, content.source, opacity, nil)
		require.NoError(t, err)
		return e
	}
	var targets []StyleTargets
	for _, s := range styles {
		found, err := MeasureStyle(pool, spec, s.width, s.height, s.source, s.guides(spec.StyleLayers(), pool.Primary))
		require.NoError(t, err)
		defer found.Close()
		targets = append(targets, found)
	}
	var regions []Region
	guides := content.guides(spec.StyleLayers(), pool.Primary)
	for level, share := range content.shares() {
		for _, l := range spec.StyleLayers() {
			var parts []Weighted
			for i, found := range targets {
				if s, ok := found[l][level]; ok {
					parts = append(parts, Weighted{s, 0.25 + float64(i)/2})
				}
			}
			regions = append(regions, Region{l, share, guides[l.Stride][level], Blend(parts)})
		}
	}
	e, err := New(pool, spec, content.width, content.height, Styles{Regions: regions}, content.source, opacity, nil)
	require.NoError(t, err)
	return e
}

// similarity is R of all positions of maps [1,n_C,h,w], which are few.
func similarity(maps torch.Tensor) torch.Tensor {
	f := torch.Transpose(torch.View(matrix(maps), torch.Shape(maps)[1], -1), 0, 1)
	k := torch.Shape(f)[0]
	lengths := torch.Pow(torch.SquareSums(f), -0.5)
	u := torch.Mul(f, torch.View(lengths, k, 1))
	ones := torch.Cast(torch.Full(1, torch.CPU, k, k), torch.TypeOf(f))
	d := torch.Sub(ones, torch.MM(u, torch.Transpose(u, 0, 1)))
	return torch.View(torch.Mul(d, torch.Pow(torch.MM(ones, d), -1)), 1, k, k)
}

// neighbourhoods are those of a content's regions, with the styles' weights of newEvaluator.
func neighbourhoods(t testing.TB, pool *tiling.Pool, spec *Spec, content *image,
	styles ...*image) (out []Neighbourhood) {
	all := make([]LevelCandidates, len(styles))
	for i, s := range styles {
		var err error
		guides := s.guides(spec.GuideLayers(), pool.Primary)
		all[i], err = MeasureCandidates(pool, spec, s.width, s.height, s.source, guides)
		require.NoError(t, err)
	}
	guides := content.guides(spec.GuideLayers(), pool.Primary)
	for level, share := range content.shares() {
		n := Neighbourhood{Share: share, Styles: make([][]WeightedCandidates, 1)}
		if guides != nil {
			n.Guides = map[int]torch.Tensor{}
		}
		for stride, of := range guides {
			n.Guides[stride] = of[level]
		}
		for i := range styles {
			if c, ok := all[i][level]; ok {
				n.Styles[0] = append(n.Styles[0], WeightedCandidates{c, 0.25 + float64(i)/2})
			}
		}
		out = append(out, n)
	}
	return out
}

// oracle is an objective as the papers write it, differentiated by autograd alone. What it
// compares with it computes itself, from the pictures and their masks.
type oracle struct {
	t       *testing.T
	network *vgg19.Network
	spec    *Spec
	content *image
	styles  []*image
}

// features are a picture's at some layers.
func (o *oracle) features(x torch.Tensor, layers []WeightedLayer, wrap torch.Wrap) map[vgg19.Layer]torch.Tensor {
	out := map[vgg19.Layer]torch.Tensor{}
	names := layersOf(layers)
	for i, f := range o.network.Features(beside(beside(x, wrap.X), wrap.Y), names) {
		for _, dim := range []int64{2, 3} {
			if dim == 2 && wrap.Y || dim == 3 && wrap.X {
				n := torch.Shape(f)[dim]
				f = torch.Slice(f, dim, aside/int64(names[i].Stride), n-aside/int64(names[i].Stride))
			}
		}
		out[names[i]] = f
	}
	return out
}

// aside is how much of a picture that comes round is set beside it: more than any halo.
const aside = 80

// beside turns a picture [1,3,H,W] over the diagonal, [1,3,W,H], and, if it comes round, has
// as much of it before and behind, so that autograd knows.
func beside(x torch.Tensor, round bool) torch.Tensor {
	shape := torch.Shape(x)
	h, w := shape[2], shape[3]
	margin := int64(0)
	if round {
		margin = aside
	}
	to := w + 2*margin
	choice := make([]float32, w*to)
	for i := range to {
		choice[((i-margin)%w+w)%w*to+i] = 1
	}
	y := torch.MM(torch.View(x, 3*h, w), torch.FromFloats(choice, torch.CPU, w, to))
	return torch.Stack([]torch.Tensor{torch.Transpose(torch.View(y, 3, h, to), 1, 2)}, 0)
}

// cost is J of one layer: ‖now−target‖²/(4n) by the normalisation.
func (o *oracle) cost(now, target torch.Tensor, meanSquare float64) torch.Tensor {
	return scaledCost(o.spec.Normalisation, torch.SquareSums(torch.Sub(now, target)), torch.SquareSums(target),
		float64(torch.Count(target)), meanSquare)
}

// scaledCost is J of the square of a distance, with n values, from a target of such a size.
func scaledCost(by Normalisation, square, size torch.Tensor, n, meanSquare float64) torch.Tensor {
	switch by {
	case RelativeToTarget:
		return torch.Scale(square, 1/torch.Float64s(size)[0])
	case MeanSquare:
		return torch.Scale(square, meanSquare/n)
	}
	return torch.Scale(square, 1/(4*n))
}

// styleCost is J_l of a region.
func styleCost(by Normalisation, loss Loss, now, target Statistics, c float64) torch.Tensor {
	switch loss.(type) {
	case Wasserstein:
		square, size := wasserstein(now, target)
		return scaledCost(by, square, size, c, 1000/(c*c))
	case Sliced:
		square, size := sliced(now, target[quantiles])
		return scaledCost(by, square, size, 1, 1000/(c*c))
	}
	total := torch.Full(0, torch.CPU)
	for name, v := range target {
		cost := scaledCost(by, torch.SquareSums(torch.Sub(now[name], v)), torch.SquareSums(v),
			float64(torch.Count(v)), 1000/(c*c))
		total = torch.Add(total, cost)
	}
	return total
}

// sliced is SW², and the target's size, of projections [1,K,P], weights [1,P] and a table of
// quantiles [1,K,Q]: sorted, ranked and looked up here.
func sliced(now Statistics, table torch.Tensor) (square, size torch.Tensor) {
	shape, q := torch.Shape(now[projections]), int(torch.Shape(table)[2])
	x, w := torch.Float64s(torch.Detach(now[projections])), torch.Float64s(now[weightings])
	values, wanted := torch.Float64s(table), middle(q)
	var target []byte
	for k := range int(shape[1]) {
		row := x[k*len(w) : (k+1)*len(w)]
		order, ranks := ranked(row, w)
		at := make([]float64, len(w))
		for i, p := range order {
			at[p] = ranks[i]
		}
		for _, v := range lookUp(wanted, values[k*q:(k+1)*q], at) {
			target = binary.LittleEndian.AppendUint64(target, math.Float64bits(v))
		}
	}
	scalar := torch.TypeOf(now[projections])
	d := torch.Sub(now[projections], torch.Cast(torch.FromBytes(target, torch.Float64, shape...), scalar))
	square = torch.SquareSums(torch.Mul(d, torch.Pow(torch.Cast(now[weightings], scalar), 0.5)))
	size = torch.Scale(torch.SquareSums(table), 1/float64(shape[1])/float64(q))
	return torch.Scale(square, 1/float64(shape[1])), size
}

// middle are (i+½)/n.
func middle(n int) []float64 {
	out := make([]float64, n)
	for i := range out {
		out[i] = (float64(i) + 0.5) / float64(n)
	}
	return out
}

// ranked are the places of values in ascending order, and the middles of their weights.
func ranked(x, w []float64) (order []int, ranks []float64) {
	for i := range x {
		order = append(order, i)
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(x[a], x[b]) })
	sum := 0.0
	for _, i := range order {
		ranks = append(ranks, sum+w[i]/2)
		sum += w[i]
	}
	return order, ranks
}

// lookUp is a function through points, linear between them and constant beyond.
func lookUp(at, values, wanted []float64) (out []float64) {
	for _, u := range wanted {
		k, _ := slices.BinarySearch(at, u)
		switch {
		case k == 0:
			out = append(out, values[0])
		case k == len(at):
			out = append(out, values[len(at)-1])
		default:
			part := (u - at[k-1]) / (at[k] - at[k-1])
			out = append(out, values[k-1]+part*(values[k]-values[k-1]))
		}
	}
	return out
}

// quantileTable is a style's, [1,K,quantileCount].
func quantileTable(x, weights torch.Tensor) torch.Tensor {
	all, w := torch.Float64s(torch.Detach(x)), torch.Float64s(weights)
	var out []byte
	for k := range len(all) / len(w) {
		row := all[k*len(w) : (k+1)*len(w)]
		order, ranks := ranked(row, w)
		var sorted []float64
		for _, p := range order {
			sorted = append(sorted, row[p])
		}
		for _, v := range lookUp(ranks, sorted, middle(quantileCount)) {
			out = binary.LittleEndian.AppendUint64(out, math.Float64bits(v))
		}
	}
	return torch.Cast(torch.FromBytes(out, torch.Float64, 1, directionCount, quantileCount), torch.TypeOf(x))
}

// styleStatistics are what a style's statistics are blended of.
func styleStatistics(loss Loss, f, weights torch.Tensor) Statistics {
	out := statistics(loss, f, weights)
	if _, ok := loss.(Sliced); ok {
		return Statistics{quantiles: quantileTable(out[projections], out[weightings])}
	}
	return out
}

// wasserstein is W², and the target's size, as the formulas stand: of the covariances' own
// roots, so that it is another way than Compare's.
func wasserstein(now, target Statistics) (square, size torch.Tensor) {
	symmetric := func(t torch.Tensor) torch.Tensor {
		t = torch.Cast(t, torch.Float64)
		return torch.Scale(torch.Add(t, torch.Transpose(t, 1, 2)), 0.5)
	}
	a, b := symmetric(target[GramMatrices]), symmetric(now[GramMatrices])
	c := int(torch.Shape(a)[1])
	identity := make([]float32, c*c)
	for i := range c {
		identity[i*c+i] = 1
	}
	eye := torch.Cast(torch.FromFloats(identity, torch.CPU, 1, int64(c), int64(c)), torch.Float64)
	trace := func(t torch.Tensor) torch.Tensor { return torch.Sums(torch.Mul(t, eye)) }
	means := torch.Cast(target[Means], torch.Float64)
	size = torch.Add(torch.SquareSums(means), trace(a))
	delta := torch.Float64s(size)[0]*1e-4/float64(c) + 1e-8
	a, b = torch.Add(a, torch.Scale(eye, delta)), torch.Add(b, torch.Scale(eye, delta))
	root := func(t torch.Tensor) torch.Tensor {
		values, vectors := torch.Eigh(t)
		return torch.Bmm(torch.Mul(vectors, torch.View(torch.Pow(values, 0.5), 1, 1, int64(c))),
			torch.Transpose(vectors, 1, 2))
	}
	rootA := root(a)
	cross, _ := torch.Eigh(torch.Bmm(torch.Bmm(rootA, b), rootA))
	square = torch.SquareSums(torch.Sub(torch.Cast(now[Means], torch.Float64), means))
	square = torch.Add(square, torch.Sub(torch.Add(trace(a), trace(b)),
		torch.Scale(torch.Sums(torch.Pow(cross, 0.5)), 2)))
	return square, size
}

// statistics are a region's.
func statistics(loss Loss, f, weights torch.Tensor) Statistics {
	out, mean := Statistics{}, torch.Bmm(f, torch.Transpose(weights, 0, 1))
	switch loss := loss.(type) {
	case SelfSimilarity: // whose test has 5×8 positions
		shape := torch.Shape(f)
		out[similarities] = similarity(torch.View(f, shape[0], shape[1], 5, 8))
	case Gram:
		out[GramMatrices] = torch.Bmm(torch.Mul(f, weights), torch.Transpose(f, 1, 2))
	case Moments, Wasserstein:
		centred := torch.Sub(f, mean)
		out[GramMatrices] = torch.Bmm(torch.Mul(centred, weights), torch.Transpose(centred, 1, 2))
		out[Means] = mean
	case meansAlone:
		out[Means] = mean
	case Sliced:
		out[projections], out[weightings] = torch.Bmm(loss.directions(f), f), weights
	}
	return out
}

// weights are those of a layer's positions for a region, [1,P].
func (o *oracle) weights(p *image, l vgg19.Layer, level Level) (w torch.Tensor, ok bool) {
	n := int64(positions(l, p.width, p.height))
	guides := p.guides([]vgg19.Layer{l}, torch.CPU)
	if guides == nil {
		return torch.Full(1/float64(n), torch.CPU, 1, n), level == 0
	}
	if w, ok = guides[l.Stride][level]; ok {
		w = torch.View(w, 1, n)
	}
	return w, ok
}

// evaluate returns the total and ∂J/∂x.
func (o *oracle) evaluate(x torch.Tensor) (float64, []float32) {
	torch.ClearGradient(x)
	total := torch.Full(0, torch.CPU)
	add := func(cost torch.Tensor, weight float64) { total = torch.Add(total, torch.Scale(cost, weight)) }
	spec := o.spec
	target := o.features(o.content.tensor(torch.CPU), spec.content(), spec.Wrap)
	now := o.features(x, spec.content(), spec.Wrap)
	for _, l := range spec.content() {
		a, b := target[l.Layer], now[l.Layer]
		if spec.ContentLoss != nil {
			a, b = similarity(a), similarity(b)
			add(o.cost(b, torch.Detach(a), 1), spec.Alpha*l.Weight)
			continue
		}
		if o.content.alpha != nil {
			alpha := NewOpacity(o.content.plane(o.content.alpha), []vgg19.Layer{l.Layer}, torch.CPU, torch.Float32)
			defer alpha.Close()
			a, b = torch.Mul(a, alpha[l.Layer.Stride]), torch.Mul(b, alpha[l.Layer.Stride])
		}
		add(o.cost(b, a, 1), spec.Alpha*l.Weight)
	}
	now = o.features(x, spec.style(), spec.Wrap)
	var styles []map[vgg19.Layer]torch.Tensor
	for _, s := range o.styles {
		styles = append(styles, o.features(s.tensor(torch.CPU), spec.style(), torch.Wrap{}))
	}
	if spec.Neighbours {
		for level, share := range o.content.shares() {
			for l, cost := range o.neighbourCosts(now, styles, level) {
				add(cost, spec.Beta*l.Weight*share)
			}
		}
	}
	for _, l := range spec.style() {
		if spec.Neighbours {
			break
		}
		for level, share := range o.content.shares() {
			w, ok := o.weights(o.content, l.Layer, level)
			require.True(o.t, ok)
			measured := statistics(spec.StyleLoss, matrix(now[l.Layer]), w)
			blend, sum := Statistics{}, 0.0
			for i, s := range o.styles {
				w, ok := o.weights(s, l.Layer, level)
				if !ok {
					continue
				}
				weight := 0.25 + float64(i)/2
				sum += weight
				for name, v := range styleStatistics(spec.StyleLoss, matrix(styles[i][l.Layer]), w) {
					v = torch.Scale(v, weight)
					if before, ok := blend[name]; ok {
						v = torch.Add(before, v)
					}
					blend[name] = v
				}
			}
			for name, v := range blend {
				blend[name] = torch.Detach(torch.Scale(v, 1/sum))
			}
			add(styleCost(spec.Normalisation, spec.StyleLoss, measured, blend, float64(l.Layer.Channels)),
				spec.Beta*l.Weight*share)
		}
	}
	for _, dim := range []int64{2, 3} { // the total variation, as its formula stands
		n := torch.Shape(x)[dim]
		d := torch.Sub(torch.Slice(x, dim, 1, n), torch.Slice(x, dim, 0, n-1))
		add(torch.SquareSums(d), spec.Gamma/float64(torch.Count(x)))
		if dim == 2 && spec.Wrap.Y || dim == 3 && spec.Wrap.X {
			d := torch.Sub(torch.Slice(x, dim, n-1, n), torch.Slice(x, dim, 0, 1))
			add(torch.SquareSums(d), spec.Gamma/float64(torch.Count(x)))
		}
	}
	torch.Backward([]torch.Tensor{total}, nil)
	return torch.Float64s(torch.Detach(total))[0], torch.Floats(torch.Gradient(x))
}

// squares are a picture's features by layer in squares of 4×4 pixels, in float64:
// [square][position][map].
func squares(of map[vgg19.Layer]torch.Tensor, width, height int) map[vgg19.Layer][][][]float64 {
	out := map[vgg19.Layer][][][]float64{}
	rows, columns := height/4, width/4
	for l, f := range of {
		shape, values := torch.Shape(f), torch.Float64s(torch.Detach(f))
		h, w, n := int(shape[2]), int(shape[3]), max(1, 4/l.Stride)
		for p := range rows * columns {
			y, x := p/columns, p%columns
			var square [][]float64
			for i := range n * n {
				position := make([]float64, shape[1])
				row, column := y*n+i/n, x*n+i%n
				if l.Stride > 4 {
					row, column = min(y*4/l.Stride, h-1), min(x*4/l.Stride, w-1)
				}
				for c := range position {
					position[c] = values[(c*h+row)*w+column]
				}
				square = append(square, position)
			}
			out[l] = append(out[l], square)
		}
	}
	return out
}

// means are those of squares.
func means(of [][][]float64) (out [][]float64) {
	for _, square := range of {
		mean := make([]float64, len(square[0]))
		for _, position := range square {
			for c, v := range position {
				mean[c] += v / float64(len(square))
			}
		}
		out = append(out, mean)
	}
	return out
}

// centre takes positions' weighted mean from them, which it returns with their root mean
// square.
func centre(positions [][]float64, weights []float64) (mean []float64, size float64) {
	mean = make([]float64, len(positions[0]))
	for p, position := range positions {
		for c, v := range position {
			mean[c] += weights[p] * v
		}
	}
	for p, position := range positions {
		for c := range position {
			position[c] -= mean[c]
			size += weights[p] * position[c] * position[c]
		}
	}
	return mean, math.Sqrt(size)
}

func dot(a, b []float64) (sum float64) {
	for i := range a {
		sum += a[i] * b[i]
	}
	return sum
}

// neighbourCosts are the costs of a region by the nearest neighbours, one by one.
func (o *oracle) neighbourCosts(now map[vgg19.Layer]torch.Tensor, styles []map[vgg19.Layer]torch.Tensor,
	level Level) map[WeightedLayer]torch.Tensor {
	grid := vgg19.Layer{Stride: 4}
	w, ok := o.weights(o.content, grid, level)
	require.True(o.t, ok)
	weights := torch.Float64s(w)
	queries, sizes := map[vgg19.Layer][][]float64{}, map[vgg19.Layer]float64{}
	for l, q := range squares(now, o.content.width, o.content.height) {
		queries[l] = means(q)
		_, sizes[l] = centre(queries[l], weights)
	}
	rows, columns := o.content.height/4, o.content.width/4
	targets, centres, sum := map[vgg19.Layer][]float32{}, map[vgg19.Layer][]float64{}, 0.0
	for i, s := range o.styles {
		w, ok := o.weights(s, grid, level)
		if !ok {
			continue
		}
		share := 0.25 + float64(i)/2
		sum += share
		chosen := halfOrMore(torch.Float64s(w))
		candidates, all := map[vgg19.Layer][][][]float64{}, map[vgg19.Layer][][]float64{}
		sizesOf := map[vgg19.Layer]float64{}
		for l, of := range squares(styles[i], s.width, s.height) {
			for _, p := range chosen {
				candidates[l] = append(candidates[l], of[p])
			}
			all[l] = means(candidates[l])
			equal := make([]float64, len(chosen))
			for k := range equal {
				equal[k] = 1 / float64(len(chosen))
			}
			var mean []float64
			mean, sizesOf[l] = centre(all[l], equal)
			if centres[l] == nil {
				centres[l] = make([]float64, len(mean))
			}
			for c, v := range mean {
				centres[l][c] += share * v
			}
			for _, square := range candidates[l] {
				for _, position := range square {
					for c := range position {
						position[c] -= mean[c]
					}
				}
			}
		}
		for p := range weights {
			best, most := 0, math.Inf(-1)
			for k := range chosen {
				product, square := 0.0, 0.0
				for _, l := range o.spec.style() {
					product += l.Weight * dot(queries[l.Layer][p], all[l.Layer][k]) / sizes[l.Layer] / sizesOf[l.Layer]
					square += l.Weight * dot(all[l.Layer][k], all[l.Layer][k]) / math.Pow(sizesOf[l.Layer], 2)
				}
				if cosine := product / math.Sqrt(square); cosine > most {
					best, most = k, cosine
				}
			}
			for l, of := range candidates {
				n := max(1, 4/l.Stride)
				if targets[l] == nil {
					targets[l] = make([]float32, len(of[best][0])*rows*n*columns*n)
				}
				for i, position := range of[best] {
					length := math.Sqrt(dot(position, position))
					row, column := p/columns*n+i/n, p%columns*n+i%n
					for c, v := range position { // [n_C,rows·n,columns·n]
						targets[l][(c*rows*n+row)*columns*n+column] += float32(share * v / length)
					}
				}
			}
		}
	}
	out := map[WeightedLayer]torch.Tensor{}
	for _, l := range o.spec.style() {
		mean := make([]float32, len(centres[l.Layer]))
		for c, v := range centres[l.Layer] {
			mean[c] = float32(v / sum)
		}
		n, r := int64(len(mean)), max(1, 4/l.Layer.Stride)
		t := torch.FromFloats(targets[l.Layer], torch.CPU, 1, n, int64(rows*r), int64(columns*r))
		t = torch.Scale(t, 1/sum)
		f := now[l.Layer]
		for stride := 4; stride < l.Layer.Stride; stride *= 2 {
			t = torch.AvgPool2d(t)
		}
		shape := torch.Shape(t)
		f = torch.Slice(torch.Slice(f, 2, 0, shape[2]), 3, 0, shape[3])
		w, _ := o.weights(o.content, vgg19.Layer{Stride: max(4, l.Layer.Stride)}, level)
		if r > 1 { // each of a square's has a part of its weight
			w = torch.Scale(enlarged(torch.View(w, int64(rows), int64(columns)), r), 1/float64(r*r))
			w = torch.View(w, 1, torch.Count(w))
		}
		f = torch.Sub(matrix(f), torch.FromFloats(mean, torch.CPU, n, 1))
		count := torch.Shape(f)[2]
		lengths := torch.Pow(torch.SquareSums(torch.Transpose(torch.View(f, n, count), 0, 1)), -0.5)
		d := torch.Sub(torch.Mul(f, torch.View(lengths, 1, 1, count)), matrix(t))
		cost := torch.SquareSums(torch.Mul(d, torch.Pow(w, 0.5)))
		out[l] = scaledCost(o.spec.Normalisation, cost, torch.Full(1, torch.CPU), 1,
			1000/math.Pow(float64(l.Layer.Channels), 2))
	}
	return out
}

// enlarged has each value of a matrix r×r times.
func enlarged(t torch.Tensor, r int) torch.Tensor {
	shape := torch.Shape(t)
	for dim := range int64(2) {
		var all []int64
		for i := range shape[dim] * int64(r) {
			all = append(all, i/int64(r))
		}
		t = torch.IndexSelect(t, dim, places(all, torch.CPU))
	}
	return t
}

// meansAlone is a third style loss: all that one takes.
type meansAlone struct{}

func (meansAlone) Sums(f Features) Statistics {
	return Statistics{Means: Moments{}.Sums(f)[Means]}
}

func (meansAlone) Statistics(sums Statistics) Statistics { return sums }

func (meansAlone) Target(style Statistics) (Statistics, Terms) { return style, differences(style) }

func (meansAlone) Compare(now Statistics, target Target) (norms Statistics, slopes Slopes) {
	d, norm := target.difference(Means, now)
	target.normalisers[Means].applySlope(d)
	return Statistics{Means: norm}, Slopes{Statistics{Means: d}, 1}
}

func (meansAlone) Recordable() bool { return true }

func (meansAlone) Memory(of Extent) Takes { return Moments{}.Memory(of) }

func (meansAlone) AddGradient(into Gradient, f Features, slopes Slopes) {
	weights := f.Guide
	if weights.T == nil {
		weights = torch.Full(f.Uniform, torch.CPU, 1, torch.Shape(f.F)[2])
	}
	g := torch.Mul(slopes.Of[Means], weights)
	if into.Fresh {
		torch.Copy(into.Into, g)
	} else {
		torch.AddInPlace(into.Into, g, 1)
	}
}

// The evaluator's gradient, fed in by hand at the layers, is autograd's.
func TestGradientIsAutograds(t *testing.T) {
	nsttest.NoLeaks(t)
	pool := newPool(t, nsttest.Model(t), torch.CPU, 2)
	content, style := gatysLayers(t)
	for name, c := range map[string]struct {
		Spec
		pooling      vgg19.Pooling
		padding      vgg19.Padding
		masks, alpha bool
	}{
		"classic":  {Spec: Spec{Alpha: 10, Beta: 40}},
		"balanced": {Spec: Spec{Alpha: 1, Beta: 100, Normalisation: RelativeToTarget}},
		"gatys":    {Spec: Spec{Alpha: 1, Beta: 5, Normalisation: MeanSquare}},
		"average pooling": {Spec: Spec{Alpha: 1, Beta: 100, Normalisation: RelativeToTarget},
			pooling: vgg19.RescaledAveragePooling},
		"a layer of both costs": {Spec: Spec{Alpha: 1, Beta: 100, Normalisation: RelativeToTarget,
			Content: weighted(t, 0.3, "relu3_1", "relu4_1"), Style: weighted(t, 0.3, "relu4_1", "relu1_2")}},
		"before and after ReLU": {Spec: Spec{Alpha: 1, Beta: 100, Normalisation: RelativeToTarget,
			Content: weighted(t, 0.3, "conv2_2", "pool3"), Style: weighted(t, 0.3, "conv2_2", "relu2_2", "pool1")}},
		"total variation": {Spec: Spec{Alpha: 1, Beta: 100, Gamma: 50, Normalisation: RelativeToTarget}},
		"content alone":   {Spec: Spec{Alpha: 1, Normalisation: RelativeToTarget}},
		"style alone":     {Spec: Spec{Beta: 100, Normalisation: RelativeToTarget}},
		"moments":         {Spec: Spec{Alpha: 1, Beta: 100, Normalisation: RelativeToTarget, StyleLoss: Moments{}}},
		"moments of gatys": {Spec: Spec{Alpha: 1, Beta: 5, Normalisation: MeanSquare, StyleLoss: Moments{}},
			padding: vgg19.ReplicatePadding},
		"w2": {Spec: Spec{Alpha: 1, Beta: 100, Normalisation: RelativeToTarget, StyleLoss: Wasserstein{}}},
		"w2 of masks": {Spec: Spec{Alpha: 1, Beta: 5, Normalisation: MeanSquare, StyleLoss: Wasserstein{}},
			masks: true, alpha: true},
		"swd": {Spec: Spec{Alpha: 1, Beta: 100, Normalisation: RelativeToTarget, StyleLoss: Sliced{}}},
		"swd of masks": {Spec: Spec{Alpha: 1, Beta: 5, Normalisation: MeanSquare, StyleLoss: Sliced{}},
			masks: true, alpha: true},
		"nn": {Spec: Spec{Alpha: 1, Beta: 100, Normalisation: RelativeToTarget, Neighbours: true}},
		"nn of uneven layers": {Spec: Spec{Alpha: 1, Beta: 100, Normalisation: RelativeToTarget, Neighbours: true,
			Content: weighted(t, 0.3, "relu3_1"), Style: weighted(t, 0.3, "relu4_1", "relu1_2")}},
		"nn of masks": {Spec: Spec{Alpha: 1, Beta: 5, Normalisation: MeanSquare, Neighbours: true},
			masks: true, alpha: true},
		"nn that wraps, classic": {
			Spec:    Spec{Alpha: 10, Beta: 40, Neighbours: true, Wrap: torch.Wrap{X: true, Y: true}},
			pooling: vgg19.RescaledAveragePooling},
		"self-similarity": {Spec: Spec{Alpha: 1, Beta: 100, Normalisation: RelativeToTarget,
			ContentLoss: SelfSimilarity{}, Content: weighted(t, 0.3, "relu3_1", "relu4_1"),
			Style: weighted(t, 0.3, "relu4_1", "relu1_2")}},
		"self-similarity and nn": {Spec: Spec{Alpha: 10, Beta: 40, ContentLoss: SelfSimilarity{}, Neighbours: true}},
		"masks":                  {Spec: Spec{Alpha: 1, Beta: 100, Normalisation: RelativeToTarget}, masks: true},
		"masks and moments":      {Spec: Spec{Alpha: 10, Beta: 40, StyleLoss: Moments{}}, masks: true},
		"alpha":                  {Spec: Spec{Alpha: 1, Beta: 100, Normalisation: RelativeToTarget}, alpha: true},
		"alpha and moments": {Spec: Spec{Alpha: 1, Beta: 5, Normalisation: MeanSquare, StyleLoss: Moments{}},
			alpha: true},
		"alpha and masks": {Spec: Spec{Alpha: 10, Beta: 40}, masks: true, alpha: true},
		"wrap": {Spec: Spec{Alpha: 1, Beta: 100, Gamma: 50, Normalisation: RelativeToTarget,
			Wrap: torch.Wrap{X: true, Y: true}}},
		"wrap in one direction, with masks": {Spec: Spec{Alpha: 1, Beta: 100, Gamma: 50,
			Normalisation: RelativeToTarget, Wrap: torch.Wrap{X: true}}, masks: true, alpha: true},
		"wrap in the other": {Spec: Spec{Alpha: 1, Beta: 100, Normalisation: RelativeToTarget,
			Wrap: torch.Wrap{Y: true}}, padding: vgg19.ReplicatePadding},
		"another loss": {Spec: Spec{Alpha: 1, Beta: 100, Normalisation: RelativeToTarget,
			StyleLoss: meansAlone{}}},
	} {
		t.Run(name, func(t *testing.T) {
			spec := c.Spec
			if spec.StyleLoss == nil {
				spec.StyleLoss = Gram{}
			}
			tolerance := 1e-5
			switch spec.StyleLoss.(type) {
			case Wasserstein, Sliced: // a root magnifies how float32 rounds, and what nearly ties changes ranks
				tolerance = 1e-4
			}
			if spec.Content == nil {
				spec.Content, spec.Style = content, style
			}
			width, height := 50, 37
			if spec.Wrap.X {
				width = 48
			}
			if spec.Wrap.Y {
				height = 32
			}
			contentImage, styles := noise(1, width, height), []*image{noise(2, 33, 48), noise(3, 64, 64)}
			if c.masks {
				contentImage.halves(20, 10, 200)
				styles[0].halves(16, 200, 10)
				styles[1].halves(32, 10, 200)
			}
			if c.alpha {
				contentImage.fading()
				styles[0].fading()
			}
			require.NoError(t, pool.Workers[0].Thread.Do(context.Background(), func() error {
				for _, w := range pool.Workers {
					pooling, padding := c.pooling, c.padding
					if pooling == "" {
						pooling = vgg19.MaxPooling
					}
					if padding == "" {
						padding = vgg19.ZeroPadding
					}
					require.NoError(t, w.Network.SetPooling(pooling))
					require.NoError(t, w.Network.SetPadding(padding))
				}
				all := pool.Workers
				defer func() { pool.Workers = all }()
				pool.Size, pool.Passes, pool.Recompute, pool.Workers = tiling.Size{}, 1, false, all[:1]
				e := newEvaluator(t, pool, &spec, contentImage, styles...)
				defer e.Close()
				x := noise(4, width, height).tensor(torch.CPU)
				torch.RequireGrad(x, true)
				total, want := (&oracle{t, all[0].Network, &spec, contentImage, styles}).evaluate(x)
				// As one, in tiles, and shared out.
				for _, how := range []struct {
					side, workers, passes int
					recompute             bool
				}{{0, 1, 1, false}, {16, 2, 3, false}, {32, 1, 1, true}} {
					pool.Size, pool.Passes = tiling.Size{Side: how.side}, how.passes
					pool.Recompute, pool.Workers = how.recompute, all[:how.workers]
					require.NoError(t, e.recut())
					values, gradient, err := e.Evaluate(x)
					require.NoError(t, err)
					costs, got := e.Costs(torch.Float64s(values))[0], torch.Floats(gradient)
					assert.InEpsilon(t, total, costs.Total, 1e-5)
					assert.InEpsilon(t, total, torch.Float64s(e.Totals(values))[0], 1e-5)
					require.Positive(t, nsttest.Norm(want))
					assert.LessOrEqual(t, nsttest.Difference(got, want), tolerance, "relative L2 error, %+v", how)
					assert.InEpsilon(t, nsttest.Norm(want), costs.GradientL2, tolerance)
				}
				return nil
			}))
		})
	}
}

// In float64 a style loss's gradient is autograd's within 1e-9.
func TestStyleLossGradients(t *testing.T) {
	for name, loss := range map[string]Loss{"gram": Gram{}, "moments": Moments{}, "w2": Wasserstein{},
		"swd": Sliced{}, "similarity": SelfSimilarity{}} {
		for how, normalisation := range map[string]Normalisation{"paper": Paper, "relative": RelativeToTarget} {
			t.Run(name+" "+how, func(t *testing.T) {
				nsttest.NoLeaks(t)
				require.NoError(t, torch.Scoped(func() error {
					const c, positions = 6, 40
					random := rand.New(rand.NewPCG(1, 0))
					values := func(n int) []float32 {
						out := make([]float32, n)
						for i := range out {
							out[i] = random.Float32()
						}
						return out
					}
					features := func() torch.Tensor {
						f := torch.FromFloats(values(c*positions), torch.CPU, 1, c, positions)
						return torch.Cast(f, torch.Float64)
					}
					guide := torch.Cast(torch.FromFloats(values(positions), torch.CPU, 1, positions), torch.Float64)
					guide = torch.Scale(guide, 1/torch.Float64s(torch.Sum(guide))[0])
					style := styleStatistics(loss, features(), guide)
					for name, v := range style {
						style[name] = torch.Detach(v)
					}
					F := features()
					torch.RequireGrad(F, true)
					want := styleCost(normalisation, loss, statistics(loss, F, guide), style, c)
					torch.Backward([]torch.Tensor{want}, nil)

					spec := Spec{Normalisation: normalisation}
					of, terms := loss.Target(style)
					target := Target{of, map[Statistic]normaliser{}}
					for name, term := range terms {
						target.normalisers[name] = spec.newNormaliser(term.Squares, term.Values, 1,
							statisticDimensions, 1)
						defer target.normalisers[name].close()
					}
					var got torch.Tensor
					torch.NoGrad(func() {
						at := Place{Rows: 5, Columns: 8, Height: 5, Width: 8}
						f := Features{F: torch.Detach(F), At: at, Guide: guide}
						norms, slopes := loss.Compare(loss.Sums(f), target)
						cost := 0.0
						for name, norm := range norms {
							cost += target.normalisers[name].cost(0, 1, math.Pow(torch.Float64s(norm)[0], 2))
						}
						assert.InEpsilon(t, torch.Float64s(torch.Detach(want))[0], cost, 1e-9)
						got = torch.EmptyLike(f.F)
						for name, slope := range slopes.Of { // as Slopes.at makes them
							if len(torch.Shape(slope)) == featureDimensions {
								slopes.Of[name] = torch.Flatten(slope, 2, 3)
							}
						}
						loss.AddGradient(Gradient{got, true}, f, slopes)
					})
					difference := torch.Float64s(torch.Norms(torch.Sub(got, torch.Gradient(F))))[0]
					size := torch.Float64s(torch.Norms(torch.Gradient(F)))[0]
					require.Positive(t, size)
					assert.LessOrEqual(t, difference/size, 1e-9)
					return nil
				}))
			})
		}
	}
}

// A CPU tensor that slips into the evaluation is found by the pretend accelerator.
func TestSlippedTensorIsCaught(t *testing.T) {
	pool := newPool(t, "../../vgg19/testdata/small.pt", "pretend:0", 1)
	content, style := gatysLayers(t)
	for name, other := range map[string]torch.Device{"a CPU tensor": torch.CPU,
		"another device's tensor": "pretend:1"} {
		t.Run(name, func(t *testing.T) {
			err := pool.Workers[0].Thread.Do(context.Background(), func() error {
				spec := Spec{Alpha: 1, Beta: 100, Content: content, Style: style, StyleLoss: Gram{}}
				e := newEvaluator(t, pool, &spec, noise(1, 32, 32), noise(1, 32, 32))
				defer e.Close()
				target := e.summed[2].regions[0].target
				slipped := torch.Keep(torch.To(target.Statistics[GramMatrices], other))
				torch.Close(target.Statistics[GramMatrices])
				target.Statistics[GramMatrices] = slipped
				_, _, err := e.Evaluate(noise(1, 32, 32).tensor("pretend:0"))
				return err
			})
			assert.ErrorContains(t, err, "same device")
		})
	}
}

func TestCheckNamesTheTerm(t *testing.T) {
	nan := math.NaN()
	for want, c := range map[string]Costs{
		"the content cost": {Content: math.Inf(1)},
		"the style cost of relu2_1": {Style: map[vgg19.Layer]float64{{Name: "relu1_1"}: 1, {Name: "relu2_1"}: nan},
			Total: nan},
		"the gradient": {GradientL2: nan},
	} {
		err := c.Check(7)
		assert.ErrorIs(t, err, ErrDiverged)
		assert.ErrorContains(t, err, want)
		assert.ErrorContains(t, err, "iteration 7")
	}
	assert.NoError(t, Costs{}.Check(0))
}

// What an evaluation is estimated to need is within 15 % of what it takes.
func TestMemoryEstimate(t *testing.T) {
	nsttest.Long(t)
	pool := newPool(t, nsttest.Model(t), torch.CPU, 1)
	network := pool.Workers[0].Network
	content, style := gatysLayers(t)
	for _, c := range []struct {
		width, height, side, passes int
		hows                        []string
	}{
		{320, 240, 0, 1, []string{"fast", "exact", "avg", "few layers"}},
		{400, 240, 160, 1, []string{"fast"}},
		{400, 240, 160, 100, []string{"fast", "few layers"}},
	} {
		for name, how := range map[string]struct {
			fast           bool
			pooling        vgg19.Pooling
			content, style []WeightedLayer
		}{
			"fast":       {true, vgg19.MaxPooling, content, style},
			"exact":      {false, vgg19.MaxPooling, content, style},
			"avg":        {true, vgg19.RescaledAveragePooling, content, style},
			"few layers": {true, vgg19.MaxPooling, weighted(t, 1, "relu2_2"), weighted(t, 1, "relu3_1")},
		} {
			if !slices.Contains(c.hows, name) {
				continue
			}
			t.Run(fmt.Sprint(c, " ", name), func(t *testing.T) {
				require.NoError(t, pool.Workers[0].Thread.Do(context.Background(), func() error {
					network.SetFast(how.fast)
					require.NoError(t, network.SetPooling(how.pooling))
					pool.Size, pool.Passes = tiling.Size{Side: c.side}, c.passes
					spec := Spec{Alpha: 1, Beta: 100, Content: how.content, Style: how.style,
						Normalisation: RelativeToTarget, StyleLoss: Gram{}}
					e := newEvaluator(t, pool, &spec, noise(1, c.width, c.height), noise(2, 64, 64))
					defer e.Close()
					x := noise(1, c.width, c.height).tensor(torch.CPU)
					_, _, err := e.Evaluate(x) // the network keeps what it will
					require.NoError(t, err)
					before, _ := torch.HostTensors()
					require.NoError(t, torch.ResetPeak(torch.CPU))
					_, _, err = e.Evaluate(x)
					require.NoError(t, err)
					_, peak := torch.HostTensors()
					var most, passes int64
					job := Job{Network: network, Width: c.width, Height: c.height, Pictures: 1}
					for _, tile := range e.tiles {
						job.Tile = tile
						need := spec.Memory(job)
						if c.passes > 1 { // all that went before are kept
							passes += need.Pass
							need.Most += passes - need.Pass
						}
						most = max(most, need.Most)
					}
					most += spec.StyleMemory(job)
					if c.side > 0 {
						most += 4 * torch.Count(x) // the gradient
					}
					t.Logf(t.Name()+" %.1f MiB estimated, %.1f measured, ratio %.3f", float64(most)/(1<<20),
						float64(peak-before)/(1<<20), float64(most)/float64(peak-before))
					assert.InEpsilon(t, float64(peak-before), float64(most), 0.15)
					return nil
				}))
			})
		}
	}
}

// Of a large style picture every k-th row and column is looked among; a region that has none
// of those has what is nearest to it.
func TestCandidatesOfLargeStyles(t *testing.T) {
	nsttest.NoLeaks(t)
	pool := newPool(t, "../../vgg19/testdata/small.pt", torch.CPU, 1)
	style := noise(1, 300, 301)
	style.levels = make([]Level, style.width*style.height)
	for i := range style.levels {
		if style.levels[i] = 200; i/style.width == 7 {
			style.levels[i] = 10
		}
	}
	require.NoError(t, pool.Workers[0].Thread.Do(context.Background(), func() error {
		spec := Spec{Beta: 1, Style: weighted(t, 1, "relu1_1"), Neighbours: true}
		channels(t, &spec, pool.Workers[0])
		all, err := MeasureCandidates(pool, &spec, style.width, style.height, style.source, nil)
		require.NoError(t, err)
		defer all.Close()
		l := spec.StyleLayers()[0]
		assert.Equal(t, int64(150*151), torch.Shape(all[0][l])[1], "every second")
		pool.Size = tiling.Size{Side: 37} // which begin at odd rows too
		tiled, err := MeasureCandidates(pool, &spec, style.width, style.height, style.source, nil)
		require.NoError(t, err)
		defer tiled.Close()
		assert.InDeltaSlice(t, torch.Floats(all[0][l]), torch.Floats(tiled[0][l]), 1e-5)
		pass := pool.Workers[0].Network.Run(style.tensor(torch.CPU), vgg19.Window{Bottom: 301, Right: 300},
			spec.StyleLayers(), false)
		defer pass.Close()
		maps := pass.Feature(l)
		want := torch.Floats(torch.Clone(torch.Slice(torch.Slice(maps, 2, 4, 5), 3, 10, 11)))
		at := torch.Floats(torch.Clone(torch.Slice(all[0][l], 1, 2*150+5, 2*150+6)))
		assert.InDeltaSlice(t, want, at, 1e-5, "row 4 and column 10")

		regions, err := MeasureCandidates(pool, &spec, style.width, style.height, style.source,
			style.guides(spec.GuideLayers(), torch.CPU))
		require.NoError(t, err)
		defer regions.Close()
		assert.Equal(t, int64(150), torch.Shape(regions[10][l])[1], "row 6, beside 7")
		assert.Equal(t, int64(150*151), torch.Shape(regions[200][l])[1])
		return nil
	}))
}

// The grid is of every fourth pixel, where a layer is as coarse.
func TestGrid(t *testing.T) {
	for want, names := range map[int][]string{1: {"relu1_1"}, 2: {"relu1_1", "relu2_1"}, 4: {"relu1_1", "relu4_1"},
		8: {"relu4_1", "relu5_1"}} {
		spec := Spec{Beta: 1, Style: weighted(t, 1, names...)}
		assert.Equal(t, want, spec.Grid(), names)
	}
}
