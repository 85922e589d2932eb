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
	// Total is J = α·J_content + β·Σ λ_l·J_l + γ·TV.
	Total float64 `json:"total"`
	// GradientL2 is the Euclidean norm of ∂J/∂pixels.
	GradientL2 float64 `json:"gradient_l2"`
}

// term is one layer's part of the objective.
type term struct {
	layer  string
	weight float64 // λ_l
	unit   float64 // what the paper's cost is multiplied by: see Balanced
	target torch.Tensor
}

// evaluator computes the objective and its gradient for a picture. It knows the
// pictures' targets; it owns them until close.
//
// An evaluation has three steps: (1) run the network and sum the Gram matrices,
// (2) from the sums, the costs and D_l = ∂J/∂G_l, (3) feed ∂J/∂F_l in at the
// layers and back-propagate to the pixels. Gram matrices are sums over
// positions, so steps 1 and 3 need not see the whole picture at once.
type evaluator struct {
	network        *vgg19.Network
	unit           units
	alpha, beta    float64
	gamma          float64 // of the total variation
	content, style []term
	layers         []string // of all terms, each once
}

// newEvaluator returns an evaluator without targets.
func newEvaluator(network *vgg19.Network, s *settings) *evaluator {
	e := &evaluator{network: network, unit: s.unit, alpha: s.alpha, beta: s.beta, gamma: s.gamma}
	if s.alpha > 0 {
		e.content = terms(s.content)
	}
	if s.beta > 0 {
		e.style = terms(s.style)
	}
	for _, t := range slices.Concat(e.content, e.style) {
		if !slices.Contains(e.layers, t.layer) {
			e.layers = append(e.layers, t.layer)
		}
	}
	return e
}

func terms(layers []weightedLayer) []term {
	var out []term
	for _, l := range layers {
		if l.weight > 0 {
			out = append(out, term{layer: l.layer, weight: l.weight, unit: 1})
		}
	}
	return out
}

func names(terms []term) []string {
	var out []string
	for _, t := range terms {
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
		for i, a := range e.network.Features(picture, names(e.content)) {
			t := &e.content[i]
			t.target = torch.Keep(a)
			switch e.unit {
			case targetUnits:
				t.unit = 4 / positive(read(sumOfSquares(a))/float64(torch.Count(a)))
			case meanSquareUnits:
				t.unit = 4
			}
		}
	})
}

// addStyle adds share of a style picture's Gram matrices to the targets.
func (e *evaluator) addStyle(picture torch.Tensor, share float64) {
	if len(e.style) == 0 {
		return
	}
	torch.NoGrad(func() {
		for i, a := range e.network.Features(picture, names(e.style)) {
			t := &e.style[i]
			g := torch.Scale(GramMatrix(a), share)
			if t.target.T != nil {
				g = torch.Add(t.target, g)
				torch.Close(t.target)
			}
			t.target = torch.Keep(g)
			// Balanced costs are in units of the target's squared norm:
			// J_l = ‖G_S−G_G‖²/‖G_S‖².
			switch maps := float64(torch.Count(g)); e.unit { // C²
			case targetUnits:
				t.unit = 4 * maps / positive(read(sumOfSquares(g)))
			case meanSquareUnits:
				t.unit = 4 * 1000 / maps
			}
		}
	})
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
	for _, t := range slices.Concat(e.content, e.style) {
		torch.Close(t.target)
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
			into.add(t.layer, torch.Scale(contentGradient(t.target, a), e.alpha*t.weight*t.unit))
		}
		for _, t := range e.style {
			a := features[t.layer]
			g := GramMatrix(a)
			values = append(values, StyleCost(t.target, g))
			d := torch.Scale(styleGradient(t.target, g), e.beta*t.weight*t.unit)
			into.add(t.layer, gramGradient(d, a, float64(torch.Count(a)/torch.Shape(a)[1])))
		}
	})
	var taps, seeds []torch.Tensor
	for _, layer := range e.layers {
		taps, seeds = append(taps, features[layer]), append(seeds, into[layer])
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
		v := t.unit * next()
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
