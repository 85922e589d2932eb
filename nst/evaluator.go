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
	unit   float64      // what the paper's cost is multiplied by: see Balanced
	target torch.Tensor // a_C
}

// styleTerm is one layer's part of the style cost: the regions' costs, each
// times the region's share of the picture, summed.
type styleTerm struct {
	layer   string
	weight  float64 // λ_l
	regions []region
}

// region is a part of the picture that has its own style. Without masks there
// is one, the whole picture.
type region struct {
	share          float64      // of the picture's pixels
	guide          torch.Tensor // of the layer's positions: see gram
	target         statistics
	unit, meanUnit float64 // what the paper's costs are multiplied by
}

// evaluator computes the objective and its gradient for a picture. It knows the
// pictures' targets; it owns them until close.
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
}

// newEvaluator returns an evaluator without targets.
func newEvaluator(network *vgg19.Network, s *settings) *evaluator {
	e := &evaluator{network: network, unit: s.unit, loss: s.StyleLoss, alpha: s.alpha, beta: s.beta, gamma: s.gamma}
	for _, l := range s.content {
		if s.alpha*l.weight > 0 {
			e.content = append(e.content, contentTerm{layer: l.layer, weight: l.weight, unit: 1})
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

// setContent keeps the content picture's features. Balanced costs are in units
// of their mean square: J = mean((a_C−a_G)²)/mean(a_C²).
func (e *evaluator) setContent(picture torch.Tensor) {
	if len(e.content) == 0 {
		return
	}
	torch.NoGrad(func() {
		for i, a := range e.network.Features(picture, e.contentLayers()) {
			t := &e.content[i]
			t.target = torch.Keep(a)
			switch e.unit {
			case targetUnits:
				t.unit = 4 / positive(read(sumOfSquares(wide(a)))/float64(torch.Count(a)))
			case meanSquareUnits:
				t.unit = 4
			}
		}
	})
}

// addRegion gives style term i a region. It keeps the guide, which may be none,
// and copies the target.
func (e *evaluator) addRegion(i int, share float64, guide torch.Tensor, target statistics) {
	r := region{share: share, unit: 1, meanUnit: 1}
	maps := float64(torch.Shape(target.gram)[0]) // C
	switch e.unit {
	case targetUnits: // J_l = ‖G_S−G_G‖²/‖G_S‖², and so for the means
		r.unit = 4 * maps * maps / positive(read(sumOfSquares(target.gram)))
		if target.mean.T != nil {
			r.meanUnit = 4 * maps / positive(read(sumOfSquares(target.mean)))
		}
	case meanSquareUnits:
		r.unit = 4 * 1000 / (maps * maps)
		r.meanUnit = r.unit
	}
	regions := &e.style[i].regions
	*regions = append(*regions, r)
	added := &(*regions)[len(*regions)-1] // what is kept is closed, whatever comes
	if guide.T != nil {
		added.guide = torch.Keep(guide)
	}
	added.target.gram = torch.Keep(torch.Clone(target.gram))
	if target.mean.T != nil {
		added.target.mean = torch.Keep(torch.Clone(target.mean))
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

func read(scalar torch.Tensor) float64 { return float64(torch.Floats(scalar)[0]) }

// close releases the targets.
func (e *evaluator) close() {
	for _, t := range e.content {
		torch.Close(t.target)
	}
	for _, t := range e.style {
		for _, r := range t.regions {
			torch.Close(r.guide, r.target.gram, r.target.mean)
		}
	}
}

// evaluate returns the costs of picture x [1,3,H,W], a leaf that requires a
// gradient, and the gradient ∂J/∂x, a tensor of the caller's scope. All else
// that it makes is released. Costs are read back once, after all work is
// queued.
func (e *evaluator) evaluate(x torch.Tensor) (costs Costs, gradient torch.Tensor) {
	torch.ClearGradient(x)
	features := map[string]torch.Tensor{}
	for i, a := range e.network.Features(x, e.layers) {
		features[e.layers[i]] = a
	}
	var values []torch.Tensor // one scalar for each term, the variation, ‖∂J/∂x‖²
	into := gradients{}       // ∂J/∂F by layer
	torch.NoGrad(func() {
		for _, t := range e.content {
			a := features[t.layer]
			values = append(values, ContentCost(t.target, a))
			g := torch.Scale(contentGradient(t.target, a), e.alpha*t.weight*t.unit)
			into.add(t.layer, torch.Cast(g, torch.TypeOf(a)))
		}
		for _, t := range e.style {
			a := features[t.layer]
			f := matrix(a)
			for _, r := range t.regions {
				weight := e.beta * t.weight * r.share
				now := measure(f, r.guide, e.loss)
				values = append(values, StyleCost(r.target.gram, now.gram))
				D := torch.Scale(styleGradient(r.target.gram, now.gram), weight*r.unit)
				var d torch.Tensor
				if now.mean.T != nil {
					values = append(values, meanCost(r.target.mean, now.mean))
					d = torch.Scale(meanGradient(r.target.mean, now.mean), weight*r.meanUnit)
				}
				g := torch.View(carry(f, r.guide, now.mean, D, d), torch.Shape(a)...)
				into.add(t.layer, torch.Cast(g, torch.TypeOf(a)))
			}
		}
	})
	var taps, seeds []torch.Tensor
	for _, layer := range e.layers {
		if seed, ok := into[layer]; ok { // a layer may have lost all its regions
			taps, seeds = append(taps, features[layer]), append(seeds, seed)
		}
	}
	torch.Backward(taps, seeds)
	gradient = torch.Gradient(x)
	torch.NoGrad(func() {
		if e.gamma > 0 {
			variation, slope := totalVariation(torch.Detach(x))
			values = append(values, variation)
			gradient = torch.Add(gradient, torch.Scale(slope, e.gamma))
		}
		values = append(values, sumOfSquares(gradient))
	})
	return e.costs(torch.Floats(torch.Stack(values, 0))), gradient
}

// gradients collects ∂J/∂F of layers that may have several terms.
type gradients map[string]torch.Tensor

func (g gradients) add(layer string, t torch.Tensor) {
	if before, ok := g[layer]; ok {
		t = torch.Add(before, t)
	}
	g[layer] = t
}

// costs weighs the terms' values, on the host in float64.
func (e *evaluator) costs(values []float32) Costs {
	c := Costs{Style: map[string]float64{}}
	next := func() (v float64) {
		v, values = float64(values[0]), values[1:]
		return v
	}
	for _, t := range e.content {
		c.Content += t.weight * t.unit * next()
	}
	c.Total = e.alpha * c.Content
	for _, t := range e.style {
		v := 0.0
		for _, r := range t.regions {
			v += r.share * r.unit * next()
			if r.target.mean.T != nil {
				v += r.share * r.meanUnit * next()
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
