package nst

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

// ErrDiverged is matched (errors.Is) by the error of a run whose costs stopped
// being numbers.
var ErrDiverged = errors.New("the optimisation diverged")

// Progress is what Stylize reports before each step, and once after the last.
type Progress struct {
	// Scale is the longest side of the picture being optimised.
	Scale int `json:"scale"`
	// Iteration counts the steps done; Iterations is how many there will be.
	Iteration  int `json:"iteration"`
	Iterations int `json:"-"`
	// Costs are the picture's, before the step.
	Costs
	// Seconds is the time since the optimisation began.
	Seconds float64 `json:"seconds"`
	// Picture returns a copy of the picture. It may be called only until the
	// callback returns.
	Picture func() *picture.Picture `json:"-"`
}

// state is an optimisation of one picture at one scale.
type state struct {
	evaluator *evaluator
	settings  *settings
	x         torch.Tensor // the picture, [1,3,H,W]
	optimizer *torch.Optimizer
	scale     float64 // what the gradient is multiplied by for the optimiser

	first  bool    // L-BFGS has made no step
	radius float64 // how long L-BFGS's steps may be

	best      torch.Tensor // a copy of the best picture evaluated
	bestCosts Costs
}

// newState begins with picture x, which it will change. Its tensors are of the
// caller's scope.
func newState(e *evaluator, s *settings, x torch.Tensor) *state {
	best := torch.Clone(x)
	torch.RequireGrad(x, true)
	return &state{evaluator: e, settings: s, x: x, best: best, bestCosts: Costs{Total: math.Inf(1)}}
}

func (o *state) close() {
	if o.optimizer != nil {
		o.optimizer.Close()
	}
}

// run optimises until the iterations are done or ctx is. It returns the number
// of steps taken; ctx's error is no failure, the best picture is there.
func (o *state) run(ctx context.Context, report func(Progress)) (steps int, err error) {
	began := time.Now()
	for {
		done := false
		err := torch.Scoped(func() error {
			costs, gradient := o.evaluator.evaluate(o.x)
			if err := costs.check(steps); err != nil {
				return err
			}
			if costs.Total < o.bestCosts.Total {
				o.bestCosts = costs
				torch.Copy(o.best, o.x)
			}
			shape := torch.Shape(o.x)
			report(Progress{
				Scale: int(max(shape[2], shape[3])), Iteration: steps, Iterations: o.settings.iterations,
				Costs: costs, Seconds: time.Since(began).Seconds(),
				Picture: func() *picture.Picture { return picture.FromTensor(torch.Detach(o.x)) },
			})
			done = steps == o.settings.iterations || ctx.Err() != nil
			if !done {
				o.step(costs, gradient)
			}
			return nil
		})
		if err != nil || done {
			return steps, err
		}
		steps++
	}
}

// step changes the picture by its gradient and keeps it in [0,1].
func (o *state) step(costs Costs, gradient torch.Tensor) {
	if o.optimizer == nil {
		o.start(costs, gradient)
	}
	if o.settings.Optimizer == LBFGS && costs.Total > lbfgsSetback*o.bestCosts.Total {
		o.retreat()
		return
	}
	torch.ScaleInPlace(gradient, o.scale)
	torch.SetGradient(o.x, gradient)
	if o.settings.Optimizer == LBFGS {
		torch.NoGrad(func() { o.stepLBFGS(costs) })
		return
	}
	o.optimizer.Step(costs.Total * o.scale)
	torch.ClampInPlace(o.x, 0, 1)
}

// adamGradient and lbfgsGradient are the root mean square that the first
// gradient is scaled to. Adam's is so large that ε is nothing to the smallest
// component (pixels with a gradient of 1e-4 of the mean are common), and so
// small that its square is far from float32's limit.
const (
	adamGradient  = 1 << 20
	lbfgsGradient = 1
)

// start makes the optimiser. It is handed a cost of sane scale whatever the
// preset; a power of two, so that no bit is lost.
func (o *state) start(costs Costs, gradient torch.Tensor) {
	wanted := map[Optimizer]float64{Adam: adamGradient, LBFGS: lbfgsGradient}[o.settings.Optimizer]
	o.scale = 1
	if rms := costs.GradientL2 / math.Sqrt(float64(torch.Count(gradient))); rms > 0 {
		o.scale = math.Exp2(math.Round(math.Log2(wanted / rms)))
	}
	if o.settings.Optimizer == Adam {
		o.optimizer = torch.NewAdam(o.x, o.settings.rate, 0.9, 0.999, 1e-8)
		return
	}
	o.optimizer = torch.NewLBFGS(o.x, o.settings.rate, lbfgsHistory)
	o.first = true
	if o.radius == 0 {
		o.radius = lbfgsRadius
	}
}

// L-BFGS runs without a line search, one evaluation a step, as in other
// style-transfer programs. What keeps it from running away is a trust region:
// lengths are root mean squares of the change of a pixel.
const (
	lbfgsHistory = 50   // steps remembered
	lbfgsFirst   = 0.01 // length of the first step, along the gradient
	lbfgsRadius  = 0.05 // longest step at first
	lbfgsSetback = 2    // times the best cost: go back to the best picture
)

// stepLBFGS makes the optimiser's step no longer than the trust region allows,
// keeps the picture in [0,1], and tells the optimiser how the picture really
// moved, so that its curvature estimates stay true.
func (o *state) stepLBFGS(costs Costs) {
	before := torch.Clone(torch.Detach(o.x))
	o.optimizer.Step(costs.Total * o.scale)
	moved := torch.Sub(torch.Detach(o.x), before)
	length := math.Sqrt(read(sumOfSquares(moved)) / float64(torch.Count(moved)))
	limit := min(length, o.radius)
	if o.first {
		limit = min(lbfgsFirst*o.settings.rate, o.radius)
		o.first = false
	}
	if length > 0 && limit != length {
		torch.Copy(o.x, torch.Add(before, torch.Scale(moved, limit/length)))
	}
	torch.ClampInPlace(o.x, 0, 1)
	o.optimizer.Moved(torch.Sub(torch.Detach(o.x), before))
}

// retreat goes back to the best picture and begins L-BFGS anew with shorter
// steps.
func (o *state) retreat() {
	o.optimizer.Close()
	o.optimizer = nil
	o.radius /= 2
	torch.Copy(o.x, o.best)
}
