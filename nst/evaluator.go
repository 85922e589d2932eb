package nst

import (
	"fmt"
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
	weight float64      // λ_l
	unit   unit         // what the paper's costs are multiplied by: see Balanced
	target torch.Tensor // a_C
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
	guide          torch.Tensor // of the layer's positions: see gram
	target         statistics
	unit, meanUnit unit // what the paper's costs are multiplied by
}

// unit is a factor for each picture, on the host and on the device.
type unit struct {
	values []float64
	device torch.Tensor // [N,1,…], as many dimensions as what it multiplies has
}

// perPicture is a number for each picture, to multiply something that is like
// like: [N,1,…].
func perPicture(values []float64, like torch.Tensor) torch.Tensor {
	sizes, single := []int64{int64(len(values))}, make([]float32, len(values))
	for i, v := range values {
		single[i] = float32(v)
	}
	for range torch.Shape(like)[1:] {
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
// positions, so steps 1 and 3 need not see the whole picture at once.
type evaluator struct {
	network     *vgg19.Network
	unit        units
	loss        StyleLoss
	alpha, beta float64
	gamma       float64 // of the total variation
	content     []contentTerm
	style       []styleTerm
	layers      []string // of all terms, each once

	coefficients torch.Tensor // [N,terms]; none before they are needed
}

// newEvaluator returns an evaluator without targets.
func newEvaluator(network *vgg19.Network, s *settings) *evaluator {
	e := &evaluator{network: network, unit: s.unit, loss: s.StyleLoss, alpha: s.alpha, beta: s.beta, gamma: s.gamma}
	for _, l := range s.content {
		if s.alpha*l.weight > 0 {
			e.content = append(e.content, contentTerm{layer: l.layer, weight: l.weight})
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
	return e
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

// setContent keeps the content pictures' features. Balanced costs are in units
// of their mean square: J = mean((a_C−a_G)²)/mean(a_C²).
func (e *evaluator) setContent(pictures torch.Tensor) {
	if len(e.content) == 0 {
		return
	}
	torch.NoGrad(func() {
		pass := e.network.Run(pictures, e.contentLayers(), false)
		for i := range e.content {
			t := &e.content[i]
			a := pass.Feature(t.layer)
			t.target = torch.Keep(a)
			t.unit = e.units(wide(a), 4)
		}
	})
}

// units is what the paper's costs of a target, one for each of its pictures, are
// multiplied by: in Balanced they become relative to the target's own size, as
// J_l = ‖G_S−G_G‖²/‖G_S‖², in the preset Gatys they are multiplied by fixed.
func (e *evaluator) units(target torch.Tensor, fixed float64) unit {
	var values []float64
	switch e.unit {
	case targetUnits:
		values = readAll(squares(target))
		for i, size := range values {
			values[i] = 4 * each(target) / positive(size)
		}
	case meanSquareUnits:
		values = slices.Repeat([]float64{fixed}, int(torch.Shape(target)[0]))
	default:
		values = slices.Repeat([]float64{1}, int(torch.Shape(target)[0]))
	}
	return unit{values, torch.Keep(perPicture(values, target))}
}

// addRegion gives style term i a region. It keeps the guide, which may be none,
// and copies the target.
func (e *evaluator) addRegion(i int, share float64, guide torch.Tensor, target statistics) {
	maps := float64(torch.Shape(target.gram)[1]) // C
	regions := &e.style[i].regions
	*regions = append(*regions, region{share: share})
	r := &(*regions)[len(*regions)-1] // what is kept is closed, whatever comes
	if guide.T != nil {
		r.guide = torch.Keep(guide)
	}
	fixed := 4 * 1000 / (maps * maps)
	r.target.gram = torch.Keep(torch.Clone(target.gram))
	r.unit = e.units(target.gram, fixed)
	if target.mean.T != nil {
		r.target.mean = torch.Keep(torch.Clone(target.mean))
		r.meanUnit = e.units(target.mean, fixed)
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
	for _, t := range e.content {
		torch.Close(t.target, t.unit.device)
	}
	for _, t := range e.style {
		for _, r := range t.regions {
			torch.Close(r.guide, r.target.gram, r.target.mean, r.unit.device, r.meanUnit.device)
		}
	}
}

// evaluate returns the costs of pictures x [N,3,H,W] and the gradient ∂J/∂x, a
// tensor of the caller's scope. All else that it makes is released.
func (e *evaluator) evaluate(x torch.Tensor) (costs []Costs, gradient torch.Tensor) {
	values, gradient := e.queue(x)
	costs = e.costs(readAll(values), int(torch.Shape(x)[0]))
	torch.Close(values)
	return costs, gradient
}

// queue is evaluate without waiting for the work to be done: values [N,terms] are
// the terms' costs, the variation and ‖∂J/∂x‖², in the order in which costs takes
// them.
func (e *evaluator) queue(x torch.Tensor) (values, gradient torch.Tensor) {
	values = torch.Local(func() (v torch.Tensor) {
		torch.NoGrad(func() { v, gradient = e.compute(x) })
		gradient = torch.Keep(gradient)
		return v
	})
	return values, torch.Rejoin(gradient)
}

func (e *evaluator) compute(x torch.Tensor) (values, gradient torch.Tensor) {
	pass := e.network.Run(x, e.layers, true)
	var terms []torch.Tensor
	add := map[string][]func(into torch.Tensor, fresh bool){} // what adds to ∂J/∂F, by layer
	for _, t := range e.content {
		difference := torch.Sub(wide(pass.Feature(t.layer)), wide(t.target))
		terms = append(terms, quarterMeanSquare(difference))
		weight := e.alpha * t.weight / (2 * each(difference))
		add[t.layer] = append(add[t.layer], func(into torch.Tensor, fresh bool) {
			torch.MulInPlace(difference, t.unit.device)
			if fresh {
				torch.Copy(into, torch.Scale(difference, weight))
			} else {
				torch.AddInPlace(into, difference, weight)
			}
			torch.Close(difference)
		})
	}
	for _, t := range e.style {
		for _, r := range t.regions {
			f := matrix(pass.Feature(t.layer))
			now := measure(f, r.guide, e.loss)
			slope := func(now, target torch.Tensor, unit unit) torch.Tensor {
				difference := torch.Sub(now, target)
				terms = append(terms, quarterMeanSquare(difference))
				return torch.Scale(torch.Mul(difference, unit.device), e.beta*t.weight*r.share/(2*each(difference)))
			}
			D, d := slope(now.gram, r.target.gram, r.unit), torch.Tensor{}
			if now.mean.T != nil {
				d = slope(now.mean, r.target.mean, r.meanUnit)
			}
			add[t.layer] = append(add[t.layer], func(into torch.Tensor, fresh bool) {
				carry(torch.Flatten(into, 2, 3), fresh, f, r.guide, now.mean, D, d)
				torch.Close(f)
			})
		}
	}
	gradient = pass.Backward(func(layer string, arriving torch.Tensor) torch.Tensor {
		adders := add[layer] // none where a layer has lost all its regions
		if len(adders) == 0 {
			return arriving
		}
		a := pass.Feature(layer)
		into, fresh := torch.Tensor{}, arriving.T == nil
		if fresh {
			into = torch.EmptyLike(wide(a))
		} else {
			into = wide(arriving)
		}
		for _, adder := range adders {
			adder(into, fresh)
			fresh = false
		}
		return torch.Cast(into, torch.TypeOf(a))
	})
	if e.gamma > 0 {
		variation, slope := totalVariation(x)
		terms = append(terms, variation)
		torch.AddInPlace(gradient, slope, e.gamma)
	}
	terms = append(terms, squares(gradient))
	return torch.Stack(terms, 1), gradient
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
		c.Content += t.weight * t.unit.values[i] * next()
	}
	c.Total = e.alpha * c.Content
	for _, t := range e.style {
		v := 0.0
		for _, r := range t.regions {
			v += r.share * r.unit.values[i] * next()
			if r.target.mean.T != nil {
				v += r.share * r.meanUnit.values[i] * next()
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
