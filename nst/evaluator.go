package nst

import (
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// Costs are the values of the objective for one picture.
type Costs struct {
	// Content is J_content, the layers' costs weighted and summed.
	Content float64 `json:"content"`
	// Style is J_l of each style layer, before its weight.
	Style map[string]float64 `json:"style"`
	// TV is the total variation, before its weight; 0 if that is 0.
	TV float64 `json:"tv"`
	// Total is J = α·J_content + β·Σ λ_l·J_l + γ·TV, where α is the scale's: at
	// the result's size ContentWeight, at smaller ones more (see Options.Scales).
	Total float64 `json:"total"`
	// GradientL2 is the Euclidean norm of ∂J/∂pixels.
	GradientL2 float64 `json:"gradient_l2"`
}

// contentTerm is one layer's part of the content cost.
type contentTerm struct {
	layer  string
	weight float64        // λ_l
	unit   unit           // what the paper's costs are multiplied by: see Balanced
	values float64        // in a picture's maps, n_C·n_H·n_W
	tiles  []torch.Tensor // a_C at each tile's positions; none: they are computed when needed
}

// styleTerm is one layer's part of the style cost: the regions' costs, each
// times the region's share of the picture, summed.
type styleTerm struct {
	layer   string
	weight  float64 // λ_l
	regions []region
}

// region is a part of the pictures that has its own style. Without masks there
// is one, the whole picture.
type region struct {
	share          float64      // of the picture's pixels
	guide          torch.Tensor // of the layer's positions, [1,1,n_H,n_W]: see gram
	target         statistics
	unit, meanUnit unit    // what the paper's costs are multiplied by
	values         float64 // in a Gram matrix, n_C²
	meanValues     float64 // in a mean, n_C
}

// unit is what a term's cost is multiplied by, for each picture, and its slope: what a
// difference of features or statistics is multiplied by to be the gradient, on the
// host and on the device.
type unit struct {
	values, slopes []float64
	device         torch.Tensor // [N,1,…], as many dimensions as a difference has
}

// slope makes difference, of the caller's, ∂J/∂ what it is of.
func (u unit) slope(difference torch.Tensor) {
	torch.MulInPlace(difference, torch.To(u.device, torch.DeviceOf(difference)))
}

// number is the slope of one picture alone, which another operation can take along.
// On the CPU there is none: that would round otherwise than where several are made
// together.
func (u unit) number() (slope float64, ok bool) {
	if len(u.slopes) > 1 || torch.DeviceOf(u.device) == torch.CPU {
		return 1, false
	}
	return u.slopes[0], true
}

// perPicture is a number for each picture, to multiply something of so many
// dimensions that is like like: [N,1,…].
func perPicture(values []float64, like torch.Tensor, dimensions int) torch.Tensor {
	sizes, single := []int64{int64(len(values))}, make([]float32, len(values))
	for i, v := range values {
		single[i] = float32(v)
	}
	for range dimensions - 1 {
		sizes = append(sizes, 1)
	}
	return torch.Cast(torch.FromFloats(single, torch.DeviceOf(like), sizes...), torch.TypeOf(like))
}

// evaluator computes the objective and its gradient for N pictures at once, each
// with costs of its own. It knows the pictures' targets; it owns them until
// close.
//
// An evaluation has three steps: (1) run the network and sum the Gram matrices,
// (2) from the sums, the costs and D_l = ∂J/∂G_l, (3) feed ∂J/∂F_l in at the
// layers and back-propagate to the pixels. Gram matrices are sums over
// positions, so steps 1 and 3 go tile by tile, and what is found is exact: a tile
// sees, beyond itself, all that its positions depend on, and its positions alone
// count. One tile that is the whole picture is run once, others twice, but for
// each worker's last.
type evaluator struct {
	farm          *farm
	width, height int // of the pictures
	tiles         []tile
	unit          units
	loss          StyleLoss
	alpha, beta   float64
	gamma         float64 // of the total variation
	content       []contentTerm
	style         []styleTerm
	layers        []string // of all terms, each once

	opaque       map[int]torch.Tensor    // how opaque the content is at the positions of a stride, [1,1,n_H,n_W]; nil: it is wholly
	contentOf    func(tile) torch.Tensor // the part of the content pictures, [N,3,h,w], on the CPU
	coefficients torch.Tensor            // [N,terms]; none before they are needed
}

// newEvaluator returns an evaluator of pictures of a size, without targets.
func newEvaluator(f *farm, s *settings, width, height int) *evaluator {
	e := &evaluator{farm: f, width: width, height: height, unit: s.unit, loss: s.StyleLoss, alpha: s.alpha, beta: s.beta, gamma: s.gamma}
	for _, l := range s.content {
		if s.alpha*l.weight > 0 {
			e.content = append(e.content, contentTerm{layer: l.layer, weight: l.weight, values: f.channels[l.layer] * e.positions(l.layer)})
		}
	}
	for _, l := range s.style {
		if s.beta*l.weight > 0 {
			e.style = append(e.style, styleTerm{layer: l.layer, weight: l.weight})
		}
	}
	for _, layer := range slices.Concat(e.contentLayers(), e.styleLayers()) {
		if !slices.Contains(e.layers, layer) {
			e.layers = append(e.layers, layer)
		}
	}
	e.tiles = cut(width, height, f.size, deepest(e.layers))
	return e
}

// deepest is the last of layers whose names have been checked.
func deepest(layers []string) vgg19.Layer {
	l, err := vgg19.Deepest(layers)
	if err != nil {
		panic(err)
	}
	return l
}

func (e *evaluator) contentLayers() (out []string) {
	for _, t := range e.content {
		out = append(out, t.layer)
	}
	return out
}

func (e *evaluator) styleLayers() (out []string) {
	for _, t := range e.style {
		out = append(out, t.layer)
	}
	return out
}

// setContent tells where the content pictures' parts are to be had. Balanced costs
// are in units of their features' mean square: J = mean((a_C−a_G)²)/mean(a_C²).
func (e *evaluator) setContent(contentOf func(tile) torch.Tensor) error {
	e.contentOf = contentOf
	return e.fit(e.findContent)
}

// fit is farm.fit: before do is called again, the pictures are cut anew.
func (e *evaluator) fit(do func() error) error {
	size := e.farm.size
	return e.farm.fit(e.width, e.height, deepest(e.layers), func() error {
		if size != e.farm.size {
			size = e.farm.size
			if err := e.recut(); err != nil {
				return err
			}
		}
		return do()
	})
}

// recut cuts the pictures anew, by the farm's size of tiles.
func (e *evaluator) recut() error {
	e.tiles = cut(e.width, e.height, e.farm.size, deepest(e.layers))
	return e.findContent()
}

// findContent finds the content terms' units and, if they are to be kept, features.
func (e *evaluator) findContent() error {
	keep := !e.farm.forget
	for k := range e.content {
		t := &e.content[k]
		torch.Close(t.unit.device)
		torch.Close(t.tiles...)
		t.unit, t.tiles = unit{}, nil
	}
	if len(e.content) == 0 {
		return nil
	}
	sums, features := make([]torch.Tensor, len(e.content)), make([][]torch.Tensor, len(e.content))
	defer func() { torch.Close(sums...) }()
	err := e.farm.each(len(e.tiles), func(w *worker, i int) (made []torch.Tensor) {
		for k, a := range e.targets(w, i) {
			sized := wide(a)
			if alpha := e.opacityAt(e.content[k].layer, w, i); alpha.T != nil {
				sized = torch.Mul(sized, alpha)
			}
			made = append(made, squares(sized))
			if keep {
				made = append(made, a)
			}
		}
		return made
	}, func(_ int, made []torch.Tensor) {
		for k := range e.content {
			accumulate(&sums[k], &made[0])
			if made = made[1:]; keep {
				features[k], made[0] = append(features[k], made[0]), torch.Tensor{}
				made = made[1:]
			}
		}
	})
	for k := range e.content {
		e.content[k].tiles = features[k]
	}
	if err != nil {
		return err
	}
	return torch.Scoped(func() error {
		for k := range e.content {
			t := &e.content[k]
			t.unit = e.units(sums[k], t.values, 4, 4, e.alpha*t.weight/(2*t.values))
		}
		return nil
	})
}

// opacityAt is how opaque the content is at a layer's positions in tile i, [1,1,h,w]; none
// if it is wholly.
func (e *evaluator) opacityAt(layer string, w *worker, i int) torch.Tensor {
	whole := e.opaque[strideOf(layer)]
	if whole.T == nil {
		return whole
	}
	return torch.To(e.tiles[i].own.Positions(whole, strideOf(layer)).Of(whole), w.device())
}

// targets are the content terms' features at tile i's positions, on the worker's
// device.
func (e *evaluator) targets(w *worker, i int) (out []torch.Tensor) {
	var pass *vgg19.Pass
	for k := range e.content {
		t := &e.content[k]
		if t.tiles != nil {
			out = append(out, torch.To(t.tiles[i], w.device()))
			continue
		}
		if pass == nil {
			w.drop(0) // there is memory for one pass
			pass = w.network.Run(torch.To(e.contentOf(e.tiles[i]), w.device()), e.tiles[i].local(), e.contentLayers(), false)
			defer pass.Close()
		}
		out = append(out, pass.Feature(t.layer))
	}
	return out
}

// accumulate adds a part to a sum that is kept; the first is taken for the sum.
func accumulate(sum, part *torch.Tensor) {
	if sum.T == nil {
		*sum, *part = *part, torch.Tensor{}
	} else {
		torch.AddInPlace(*sum, *part, 1)
	}
}

// units is what the paper's costs of a target of n values are multiplied by, given
// the sums of its squares, one for each of its pictures: in Balanced they become
// relative to the target's own size, as J_l = ‖G_S−G_G‖²/‖G_S‖², in the preset
// Gatys they are multiplied by fixed. The slope, of differences that have so many
// dimensions, is that times by.
func (e *evaluator) units(sums torch.Tensor, n, fixed float64, dimensions int, by float64) unit {
	pictures := int(torch.Shape(sums)[0])
	var values []float64
	switch e.unit {
	case targetUnits:
		values = readAll(sums)
		for i, size := range values {
			values[i] = 4 * n / positive(size)
		}
	case meanSquareUnits:
		values = slices.Repeat([]float64{fixed}, pictures)
	default:
		values = slices.Repeat([]float64{1}, pictures)
	}
	slopes := slices.Clone(values)
	for i := range slopes {
		slopes[i] *= by
	}
	return unit{values, slopes, torch.Keep(perPicture(slopes, sums, dimensions))}
}

// addRegion gives style term i a region. It keeps the guide, which may be none,
// and copies the target.
func (e *evaluator) addRegion(i int, share float64, guide torch.Tensor, target statistics) {
	maps := float64(torch.Shape(target.gram)[1]) // C
	regions := &e.style[i].regions
	*regions = append(*regions, region{share: share, values: maps * maps, meanValues: maps})
	r := &(*regions)[len(*regions)-1] // what is kept is closed, whatever comes
	if guide.T != nil {
		r.guide = torch.Keep(guide)
	}
	fixed := 4 * 1000 / (maps * maps)
	r.target.gram = torch.Keep(torch.Clone(target.gram))
	by := func(target torch.Tensor) float64 { return e.beta * e.style[i].weight * share / (2 * each(target)) }
	r.unit = e.units(squares(target.gram), each(target.gram), fixed, 3, by(target.gram))
	if target.mean.T != nil {
		r.target.mean = torch.Keep(torch.Clone(target.mean))
		r.meanUnit = e.units(squares(target.mean), each(target.mean), fixed, 3, by(target.mean))
	}
}

// positive guards a divisor: a picture that a layer does not respond to has no
// size to measure by.
func positive(v float64) float64 {
	if v > 0 {
		return v
	}
	return 1
}

// readAll copies a tensor's values to the host.
func readAll(t torch.Tensor) []float64 {
	values := torch.Floats(t)
	out := make([]float64, len(values))
	for i, v := range values {
		out[i] = float64(v)
	}
	return out
}

func read(scalar torch.Tensor) float64 { return readAll(scalar)[0] }

// close releases the targets.
func (e *evaluator) close() {
	torch.Close(e.coefficients)
	torch.Close(slices.Collect(maps.Values(e.opaque))...)
	for _, t := range e.content {
		torch.Close(t.unit.device)
		torch.Close(t.tiles...)
	}
	for _, t := range e.style {
		for _, r := range t.regions {
			torch.Close(r.guide, r.target.gram, r.target.mean, r.unit.device, r.meanUnit.device)
		}
	}
}

// evaluate returns the costs of pictures x [N,3,H,W] and the gradient ∂J/∂x, a
// tensor of the caller's scope. All else that it makes is released.
func (e *evaluator) evaluate(x torch.Tensor) (costs []Costs, gradient torch.Tensor, err error) {
	values, gradient, err := e.queue(x)
	if err != nil {
		return nil, gradient, err
	}
	costs = e.costs(readAll(values), int(torch.Shape(x)[0]))
	torch.Close(values)
	return costs, gradient, nil
}

// queue is evaluate without waiting for the work to be done: values [N,terms] are
// the sums of squares that the terms' costs are made of, the variation and ‖∂J/∂x‖²,
// in the order in which costs takes them.
func (e *evaluator) queue(x torch.Tensor) (values, gradient torch.Tensor, err error) {
	err = e.fit(func() (err error) {
		values, gradient, err = e.try(x)
		return err
	})
	return values, gradient, err
}

// try is queue without another try if there is not enough memory.
func (e *evaluator) try(x torch.Tensor) (values, gradient torch.Tensor, err error) {
	defer func() {
		for _, w := range e.farm.workers {
			w.drop(0)
		}
	}()
	err = torch.Scoped(func() (err error) {
		torch.NoGrad(func() { values, gradient, err = e.compute(x) })
		if err == nil {
			torch.Keep(values)
			torch.Keep(gradient)
		}
		return err
	})
	if err != nil {
		return torch.Tensor{}, torch.Tensor{}, err
	}
	return torch.Rejoin(values), torch.Rejoin(gradient), nil
}

// recordable says whether an evaluation can be recorded as a graph: all of it on
// one device that is not the CPU, with nothing of the content pictures' to be fetched
// from the host, and without TorchScript, which minds it.
func (e *evaluator) recordable() bool {
	w := e.farm.workers[0]
	return len(e.farm.workers) == 1 && len(e.tiles) == 1 && (!e.farm.forget || len(e.content) == 0) && w.device() != torch.CPU && e.farm.home == w.device() && w.network.LayerByLayer()
}

// run runs the network over what tile i sees of the pictures, unless the worker has
// kept that pass. The caller closes or keeps it.
func (e *evaluator) run(w *worker, x torch.Tensor, i int) *vgg19.Pass {
	if pass := w.take(i); pass != nil {
		return pass
	}
	w.drop(max(0, e.farm.passes-1))
	t := e.tiles[i]
	return w.network.Run(torch.To(t.seen.Of(x), w.device()), t.local(), e.layers, true)
}

// slope is what a style region's cost is to the features: see carry.
type slope struct {
	D, shift torch.Tensor
	factor   float64 // of D, for carry to take along
}

func (e *evaluator) compute(x torch.Tensor) (values, gradient torch.Tensor, err error) {
	sums, err := e.sum(x)
	if err != nil {
		return values, gradient, err
	}
	var styleRoots []torch.Tensor // norms: all are squared at once
	var slopes [][]slope          // by style term and region
	for k, t := range e.style {
		slopes = append(slopes, nil)
		for i, r := range t.regions {
			now := sums[k][i].centred()
			differ := func(now, target torch.Tensor) torch.Tensor {
				difference := torch.Sub(now, target)
				styleRoots = append(styleRoots, torch.Norms(difference))
				return difference
			}
			s := slope{D: differ(now.gram, r.target.gram), factor: 1}
			if factor, ok := r.unit.number(); ok && now.mean.T == nil {
				s.factor = factor
			} else {
				r.unit.slope(s.D)
			}
			if now.mean.T != nil {
				shift := differ(now.mean, r.target.mean)
				r.meanUnit.slope(shift)
				s.shift = torch.Sub(shift, torch.Scale(torch.MatMul(s.D, now.mean), 2))
			}
			slopes[k] = append(slopes[k], s)
		}
	}
	contentRoots, gradient, err := e.propagate(x, slopes)
	if err != nil {
		return values, gradient, err
	}
	roots := slices.Concat(contentRoots, styleRoots)
	if e.gamma > 0 {
		roots = append(roots, torch.Pow(totalVariation(x, gradient, e.gamma), 0.5))
	}
	// Where the picture is no number its gradient may be one: not every library's ReLU
	// passes NaN on.
	roots = append(roots, torch.Norms(torch.AddScaled(gradient, x, 0)))
	values = torch.Stack(roots, 1)
	torch.MulInPlace(values, values)
	return values, gradient, nil
}

// sum is step 1: the sums of the style terms' regions, of the caller's scope.
func (e *evaluator) sum(x torch.Tensor) ([][]statistics, error) {
	sums := make([][]statistics, len(e.style))
	all := func(do func(t *styleTerm, r *region, sum *statistics)) {
		for k := range e.style {
			t := &e.style[k]
			for i := range t.regions {
				if len(sums[k]) <= i {
					sums[k] = append(sums[k], statistics{})
				}
				do(t, &t.regions[i], &sums[k][i])
			}
		}
	}
	all(func(*styleTerm, *region, *statistics) {})
	err := e.farm.each(len(e.tiles), func(w *worker, i int) (made []torch.Tensor) {
		pass := e.run(w, x, i)
		w.kept = append(w.kept, kept{i, pass})
		all(func(t *styleTerm, r *region, _ *statistics) {
			made = append(made, e.measure(w, pass, t.layer, r.guide, i)...)
		})
		return made
	}, func(_ int, made []torch.Tensor) {
		all(func(_ *styleTerm, _ *region, sum *statistics) {
			accumulate(&sum.gram, &made[0])
			if made = made[1:]; e.loss == MomentsLoss {
				accumulate(&sum.mean, &made[0])
				made = made[1:]
			}
		})
	})
	all(func(_ *styleTerm, _ *region, sum *statistics) {
		for _, t := range []torch.Tensor{sum.gram, sum.mean} {
			if t.T != nil {
				torch.Rejoin(t)
			}
		}
	})
	return sums, err
}

// measure returns the sums of a layer's positions in tile i: the Gram matrices and
// with moments the means.
func (e *evaluator) measure(w *worker, pass *vgg19.Pass, layer string, guide torch.Tensor, i int) (sums []torch.Tensor) {
	torch.Within(func() {
		f := matrix(pass.Feature(layer))
		s := measure(f, e.tiles[i].guide(guide, layer, w.device()), 1/e.positions(layer), e.loss)
		if sums = append(sums, torch.Keep(s.gram)); s.mean.T != nil {
			sums = append(sums, torch.Keep(s.mean))
		}
	})
	for _, s := range sums {
		torch.Rejoin(s)
	}
	return sums
}

// positions is n_H·n_W of a layer, for the whole picture.
func (e *evaluator) positions(layer string) float64 {
	stride := strideOf(layer)
	return float64((e.height / stride) * (e.width / stride))
}

// propagate is step 3: the norms of the content terms' differences, and the gradient of
// all terms.
func (e *evaluator) propagate(x torch.Tensor, slopes [][]slope) (roots []torch.Tensor, gradient torch.Tensor, err error) {
	sums := make([]torch.Tensor, len(e.content))
	one := len(e.tiles) == 1
	if !one {
		gradient = torch.Scale(x, 0)
	}
	err = e.farm.each(len(e.tiles), func(w *worker, i int) []torch.Tensor {
		// Those that have to be computed come first, and free what they need.
		targets := e.targets(w, i)
		pass := e.run(w, x, i) // which Backward closes
		norms := make([]torch.Tensor, len(e.content))
		g := pass.Backward(func(layer string, arriving torch.Tensor) torch.Tensor {
			return e.add(w, pass, layer, i, arriving, targets, norms, slopes)
		})
		if !one { // parts' squares can be added
			for _, n := range norms {
				torch.MulInPlace(n, n)
			}
		}
		return append([]torch.Tensor{g}, norms...)
	}, func(i int, made []torch.Tensor) {
		if one {
			gradient, made[0] = made[0], torch.Tensor{}
		} else {
			torch.AddInPlace(e.tiles[i].seen.View(gradient), made[0], 1)
		}
		for k := range sums {
			accumulate(&sums[k], &made[1+k])
		}
	})
	if one && gradient.T != nil {
		torch.Rejoin(gradient)
	}
	for _, s := range sums {
		switch {
		case s.T == nil:
		case one:
			roots = append(roots, torch.Rejoin(s))
		default:
			roots = append(roots, torch.Pow(torch.Rejoin(s), 0.5))
		}
	}
	return roots, gradient, err
}

// add adds what the layer's terms are to its features at tile i's positions to the
// gradient that has arrived there (none: it is the first). norms are those of the
// content terms' differences, which it fills in.
func (e *evaluator) add(w *worker, pass *vgg19.Pass, layer string, i int, arriving torch.Tensor, targets, norms []torch.Tensor, slopes [][]slope) torch.Tensor {
	var adders []func(maps, into torch.Tensor, fresh bool)
	for k, t := range e.content {
		if t.layer != layer {
			continue
		}
		adders = append(adders, func(maps, into torch.Tensor, fresh bool) {
			difference := into
			if !fresh {
				difference = torch.EmptyLike(maps)
			}
			torch.Subtract(difference, maps, targets[k])
			torch.Close(targets[k])
			alpha := e.opacityAt(layer, w, i) // of the cost, and once more of its derivative
			if alpha.T != nil {
				torch.MulInPlace(difference, alpha)
			}
			norms[k] = torch.Keep(torch.Norms(difference))
			if alpha.T != nil {
				torch.MulInPlace(difference, alpha)
			}
			factor, ok := t.unit.number()
			if fresh || !ok {
				t.unit.slope(difference)
				factor = 1
			}
			if !fresh {
				torch.AddInPlace(into, difference, factor)
			}
		})
	}
	for k, t := range e.style {
		if t.layer != layer {
			continue
		}
		for n, r := range t.regions {
			adders = append(adders, func(maps, into torch.Tensor, fresh bool) {
				D, shift := torch.To(slopes[k][n].D, w.device()), slopes[k][n].shift
				if shift.T != nil {
					shift = torch.To(shift, w.device())
				}
				guide := e.tiles[i].guide(r.guide, layer, w.device())
				carry(torch.Flatten(into, 2, 3), fresh, matrix(maps), guide, 1/e.positions(layer), slopes[k][n].factor, D, shift)
			})
		}
	}
	if len(adders) == 0 { // a layer has lost all its regions
		return arriving
	}
	sum := torch.Local(func() torch.Tensor {
		maps, into, fresh := pass.Feature(layer), arriving, arriving.T == nil
		if fresh {
			into = torch.EmptyLike(maps)
		}
		for _, adder := range adders {
			torch.Within(func() { adder(maps, into, fresh) })
			fresh = false
		}
		if into.T == arriving.T {
			into = torch.Slice(into, 0, 0, torch.Shape(into)[0]) // another handle, to be returned
		}
		return into
	})
	for k, t := range e.content {
		if t.layer == layer {
			torch.Rejoin(norms[k])
		}
	}
	return sum
}

// costs weighs the values of n pictures, on the host in float64.
func (e *evaluator) costs(values []float64, n int) []Costs {
	out := make([]Costs, n)
	for i := range out {
		of := values[i*len(values)/n:]
		out[i] = e.costsOf(i, func() (v float64) {
			v, of = of[0], of[1:]
			return v
		})
	}
	return out
}

// totals is the pictures' totals [N] by their values [N,terms], on the device. A
// picture whose gradient is no number has no total either.
func (e *evaluator) totals(values torch.Tensor) torch.Tensor {
	if e.coefficients.T == nil {
		// A total is linear in the terms: what it is where one alone is 1.
		shape := torch.Shape(values)
		var all []float32
		for i := range int(shape[0]) {
			for one := range int(shape[1]) {
				term := -1
				all = append(all, float32(e.costsOf(i, func() float64 {
					if term++; term == one {
						return 1
					}
					return 0
				}).Total))
			}
		}
		e.coefficients = torch.Keep(torch.Cast(torch.FromFloats(all, torch.DeviceOf(values), shape...), torch.TypeOf(values)))
	}
	return torch.Sums(torch.Mul(e.coefficients, values))
}

// costsOf weighs picture i's; next gives the terms' values one after the other.
func (e *evaluator) costsOf(i int, next func() float64) Costs {
	c := Costs{Style: map[string]float64{}}
	for _, t := range e.content {
		c.Content += t.weight * t.unit.values[i] * next() / (4 * t.values)
	}
	c.Total = e.alpha * c.Content
	for _, t := range e.style {
		v := 0.0
		for _, r := range t.regions {
			v += r.share * r.unit.values[i] * next() / (4 * r.values)
			if r.target.mean.T != nil {
				v += r.share * r.meanUnit.values[i] * next() / (4 * r.meanValues)
			}
		}
		c.Style[t.layer] = v
		c.Total += e.beta * t.weight * v
	}
	if e.gamma > 0 {
		c.TV = next()
		c.Total += e.gamma * c.TV
	}
	c.GradientL2 = math.Sqrt(next())
	return c
}

// check returns an error that names the first term that is no number.
func (c Costs) check(iteration int) error {
	bad := func(v float64) bool { return math.IsNaN(v) || math.IsInf(v, 0) }
	name := ""
	switch {
	case bad(c.Content):
		name = "the content cost"
	case bad(c.Total) || bad(c.GradientL2):
		name = "the gradient"
		if bad(c.TV) {
			name = "the total variation"
		}
		for layer, v := range c.Style {
			if bad(v) {
				name = "the style cost of " + layer
			}
		}
	}
	if name == "" {
		return nil
	}
	return fmt.Errorf("%w: %s is not a finite number at iteration %d; a lower learning rate may help", ErrDiverged, name, iteration)
}
