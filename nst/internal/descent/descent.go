package descent

import (
	"errors"
	"math"

	"github.com/seed9bb5c928/nst/torch"
)

// Descent is an optimisation of N pictures, each by itself, at one size. What a step
// does it does on the device, which need not be waited for: which pictures are the best
// is decided there, and values are read when they are wanted. It is used on the device's
// thread; Close frees its tensors.
type Descent struct {
	objective  Objective
	settings   Settings
	iterations int
	before     int // steps done at the sizes before
	steps      int // done at this one

	x                torch.Tensor // the pictures, [N,3,H,W], after that many steps
	values, gradient torch.Tensor // of x, once it is evaluated

	optimizer       *torch.Optimizer
	gradientFactors []float64    // what each gradient is multiplied by for the optimiser
	factors         torch.Tensor // the same on the device, [N,1,1,1]

	best       torch.Tensor // the best pictures evaluated; none before a step: x is
	bestValues torch.Tensor // theirs; none before an evaluation
	bestTotals torch.Tensor // [N]
	average    torch.Tensor // see averaged; none without Adam

	graph    *torch.Graph // of stepAndEvaluate
	noGraphs bool         // it cannot be recorded
	warm     bool         // a step was made piece by piece: kernels are loaded, libraries ready
	replayed int          // steps, from the graph
	pace     float64      // seconds of a step, about; 0: not known
	onFirst  func()       // see OnFirst
	complete bool         // see Complete
}

// New begins with pictures x, which it owns and will change. before is how many steps
// were done at the sizes before.
func New(o Objective, s Settings, x torch.Tensor, iterations, before int) *Descent {
	return &Descent{objective: o, settings: s, iterations: iterations, before: before, x: torch.Keep(x)}
}

// Close releases the tensors.
func (d *Descent) Close() {
	d.graph.Close()
	if d.optimizer != nil {
		d.optimizer.Close()
	}
	torch.Close(d.x, d.values, d.gradient, d.best, d.bestValues, d.bestTotals, d.average, d.factors)
}

// Release frees what only further steps at this size need, and what must not outlive the
// objective: the graph, the gradient, and L-BFGS's memory. The descent can still be
// looked at, and upsampled.
func (d *Descent) Release() {
	d.dropGraph()
	torch.Close(d.values, d.gradient)
	d.values, d.gradient = torch.Tensor{}, torch.Tensor{}
	if d.settings.Method == LBFGS && d.optimizer != nil {
		d.optimizer.Close()
		d.optimizer, d.gradientFactors = nil, nil
	}
}

// dropGraph frees the graph, and has no other recorded.
func (d *Descent) dropGraph() {
	d.graph.Close()
	d.graph, d.noGraphs = nil, true
}

// closeUnless closes a descent that could not be made: for a defer.
func (d *Descent) closeUnless(made *bool) {
	if !*made {
		d.Close()
	}
}

// OnFirst has do called after the first evaluation, when it is done.
func (d *Descent) OnFirst(do func()) { d.onFirst = do }

// Steps is how many are done, with those at the sizes before.
func (d *Descent) Steps() int { return d.before + d.steps }

// Complete says whether Run made all steps, and evaluated what it was to.
func (d *Descent) Complete() bool { return d.complete }

// Done is how many steps are done at this size.
func (d *Descent) Done() int { return d.steps }

// Replayed is how many of the steps were replayed from a graph.
func (d *Descent) Replayed() int { return d.replayed }

// Pictures are the pictures now, the descent's own memory.
func (d *Descent) Pictures() torch.Tensor { return d.x }

// Best are the pictures with the lowest totals so far, the descent's own memory.
func (d *Descent) Best() torch.Tensor {
	if d.best.T == nil {
		return d.x
	}
	return d.best
}

// BestValues are the values [N,terms] of the best, read to the host; nil before an
// evaluation.
func (d *Descent) BestValues() []float64 {
	if d.bestValues.T == nil {
		return nil
	}
	return torch.Float64s(d.bestValues)
}

func (d *Descent) device() torch.Device { return torch.DeviceOf(d.x) }

// Upsample begins a descent at another size with this one's last pictures (Adam's
// average), resized, to which detail is added that the smaller size could not show
// (none: nothing is). Adam goes on with its moments resized; L-BFGS begins anew.
func (d *Descent) Upsample(o Objective, s Settings, height, width int64, iterations int, detail torch.Tensor) *Descent {
	x := torch.Local(func() torch.Tensor {
		last := d.x
		if d.average.T != nil {
			last = d.averaged()
		}
		t := s.smoothed(torch.Resize(last, height, width, s.Wrap))
		if detail.T != nil {
			t = torch.Add(t, detail)
		}
		torch.ClampInPlace(t, 0, 1) // a cubic kernel overshoots at edges
		return t
	})
	next, made := New(o, s, x, iterations, d.Steps()), false
	defer next.closeUnless(&made)
	if s.Method != Adam || d.optimizer == nil {
		made = true
		return next
	}
	// A cost is a mean over positions: its gradient by a pixel falls as the picture
	// grows, and is scaled to keep its size. By linear interpolation m² stays within v
	// wherever it was.
	growth := math.Exp2(math.Round(math.Log2(float64(torch.Count(x)) / float64(torch.Count(d.x)))))
	var factors []float64
	for _, factor := range d.gradientFactors {
		factors = append(factors, factor*growth)
	}
	moments, numbers := d.optimizer.State()
	for i, m := range moments {
		moments[i] = torch.ResizeLinear(m, height, width, s.Wrap)
		torch.Close(m)
	}
	next.resume(factors, moments, numbers)
	torch.Close(moments...)
	made = true
	return next
}

// smoothed is pictures, of which, if they are to be smoothed, each pixel is ½ itself and ¼
// each of its neighbours in the directions in which they come round.
func (s Settings) smoothed(t torch.Tensor) torch.Tensor {
	shape := torch.Shape(t)
	along := func(t torch.Tensor, down, right int64) torch.Tensor {
		before := torch.Crop(t, -down, -right, shape[2], shape[3])
		both := torch.Add(before, torch.Crop(t, down, right, shape[2], shape[3]))
		return torch.Add(torch.Scale(t, 0.5), torch.Scale(both, 0.25))
	}
	if s.Smooth && s.Wrap.Y {
		t = along(t, 1, 0)
	}
	if s.Smooth && s.Wrap.X {
		t = along(t, 0, 1)
	}
	return t
}

// step makes a step. Where memory runs short in its midst the pictures may have moved, and what
// L-BFGS remembers may be of two steps: it begins anew, and the pictures are evaluated again.
func (d *Descent) step() error {
	err := torch.Scoped(func() error { d.sendStep(); return nil })
	if errors.Is(err, torch.ErrOutOfMemory) {
		if d.settings.Method == LBFGS && d.optimizer != nil {
			d.optimizer.Close()
			d.optimizer, d.gradientFactors = nil, nil
		}
		if err = torch.EmptyCache(d.device()); err == nil {
			err = d.evaluate()
		}
		if err == nil {
			err = torch.Scoped(func() error { d.sendStep(); return nil })
		}
	}
	if err == nil {
		d.steps++
	}
	return err
}

// sendStep changes the pictures by their gradients, which it uses up, and keeps them in [0,1].
func (d *Descent) sendStep() {
	if d.optimizer == nil {
		d.start()
	}
	if d.best.T == nil {
		d.best = torch.Keep(torch.Clone(d.x))
	}
	torch.MulInPlace(d.gradient, d.factors)
	if d.settings.Method == LBFGS {
		d.rollBack()
	}
	d.optimizer.Step(d.gradient)
	if d.settings.Method == Adam {
		torch.ClampInPlace(d.x, 0, 1)
		if d.average.T == nil {
			d.average = torch.Keep(torch.Scale(d.x, 0))
		}
		torch.NoGrad(func() { torch.LerpInPlace(d.average, d.x, 1-averageDecay) })
	}
}

// start makes the optimiser. It is handed gradients of a sane size whatever the
// objective's weights; scaled by powers of two, so that no bit is lost.
func (d *Descent) start() {
	norms := torch.Local(func() torch.Tensor { return torch.Norms(d.gradient) })
	n := float64(torch.Count(d.x) / torch.Shape(d.x)[0])
	var factors []float64
	for _, norm := range torch.Float64s(norms) {
		factor := 1.0
		if rms := norm / math.Sqrt(n); rms > 0 {
			factor = math.Exp2(math.Round(math.Log2(gradientSize[d.settings.Method] / rms)))
		}
		factors = append(factors, factor)
	}
	d.setGradientFactors(factors)
	d.optimizer = d.settings.newOptimizer(d.x)
}

// resume makes the optimiser as another of its kind was.
func (d *Descent) resume(gradientFactors []float64, state []torch.Tensor, numbers []float64) {
	d.setGradientFactors(gradientFactors)
	d.optimizer = d.settings.newOptimizer(d.x)
	d.optimizer.SetState(state, numbers)
}

func (d *Descent) setGradientFactors(factors []float64) {
	torch.Close(d.factors)
	d.gradientFactors, d.factors = factors, torch.Keep(torch.PerPicture(factors, d.x, 4))
}

// rollBack puts pictures whose totals have gone astray back to their best, where L-BFGS
// will begin anew with shorter steps. They make no step now: their gradients become 0.
func (d *Descent) rollBack() {
	astray := torch.Lt(torch.Scale(d.bestTotals, rollBackFrom), d.objective.Totals(d.values))
	torch.WhereInPlace(d.x, astray, d.best)
	torch.WhereInPlace(d.gradient, astray, torch.Scale(torch.Slice(d.bestTotals, 0, 0, 1), 0))
	d.optimizer.Restart(astray)
}

// updateBest keeps the pictures of x that are the best so far. A total that is no number
// is not less than another.
func (d *Descent) updateBest(x, values torch.Tensor) {
	totals := d.objective.Totals(values)
	if d.bestValues.T == nil {
		values, totals = torch.Clone(values), torch.Clone(totals)
		d.bestValues, d.bestTotals = torch.Keep(values), torch.Keep(totals)
		return
	}
	better := torch.Lt(totals, d.bestTotals)
	if d.best.T != nil { // else x is the best
		torch.WhereInPlace(d.best, better, x)
	}
	torch.WhereInPlace(d.bestValues, better, values)
	torch.WhereInPlace(d.bestTotals, better, totals) // last: this can be done twice
}

// averaged is the average (1−d)/(1−dⁿ)·Σ d^(n−i)·x_i of the iterates x_1…x_n, in which
// the first have no more weight than their age gives them (as Adam corrects its own
// bias). What is kept is the sum, with the factor 1−d.
func (d *Descent) averaged() torch.Tensor {
	return torch.Scale(d.average, 1/(1-math.Pow(averageDecay, float64(d.steps))))
}
