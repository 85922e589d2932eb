package nst

import (
	"context"
	"errors"
	"math"
	"slices"

	"github.com/seed9bb5c928/nst/torch"
)

// ErrDiverged is matched (errors.Is) by the error of a run whose costs stopped
// being numbers.
var ErrDiverged = errors.New("the optimisation diverged")

// state is an optimisation of N pictures, each by itself, at one scale. Its
// tensors are of the scope that it began in.
type state struct {
	evaluator  *evaluator
	settings   *settings
	iterations int // of this scale
	steps      int // done
	before     int // done at the scales before

	x         torch.Tensor // the pictures, [N,3,H,W], after that many steps
	optimizer *torch.Optimizer
	scale     []float64    // what each gradient is multiplied by for the optimiser
	scales    torch.Tensor // the same on the device, [N,1,1,1]

	best      torch.Tensor // copies of the best pictures evaluated
	bestCosts []Costs
	average   torch.Tensor // of Adam's iterates; none before its first step
}

// newState begins with pictures x, which it will change.
func newState(e *evaluator, s *settings, x torch.Tensor, iterations, before int) *state {
	o := &state{evaluator: e, settings: s, iterations: iterations, before: before, x: x, best: torch.Clone(x)}
	for range torch.Shape(x)[0] {
		o.bestCosts = append(o.bestCosts, Costs{Total: math.Inf(1)})
	}
	return o
}

// close releases the state early.
func (o *state) close() {
	if o.optimizer != nil {
		o.optimizer.Close()
	}
	torch.Close(o.x, o.best, o.average, o.scales)
}

// finer begins the next scale, at which this state's last picture (Adam's average)
// is resized, and has the detail added that the smaller scale could not show
// (none: nothing is). Adam goes on with its moments resized; L-BFGS begins anew.
func (o *state) finer(e *evaluator, at scale, detail torch.Tensor) *state {
	height, width := int64(at.height), int64(at.width)
	x := torch.Local(func() torch.Tensor {
		last := o.x
		if o.average.T != nil {
			last = o.average
		}
		t := torch.Resize(last, height, width)
		if detail.T != nil {
			t = torch.Add(t, detail)
		}
		torch.ClampInPlace(t, 0, 1) // a cubic kernel overshoots at edges
		return t
	})
	next := newState(e, o.settings, x, at.iterations, o.before+o.steps)
	if o.settings.Optimizer != Adam || o.optimizer == nil {
		return next
	}
	// A cost is a mean over positions: its gradient by a pixel falls as the
	// picture grows, and is scaled to keep its size. By linear interpolation m²
	// stays within v wherever it was.
	growth := math.Exp2(math.Round(math.Log2(float64(torch.Count(x)) / float64(torch.Count(o.x)))))
	scale := slices.Clone(o.scale)
	for i := range scale {
		scale[i] *= growth
	}
	next.setScale(scale)
	moments, steps := o.optimizer.State()
	for i, m := range moments {
		moments[i] = torch.ResizeLinear(m, height, width)
		torch.Close(m)
	}
	next.optimizer = next.newOptimizer()
	next.optimizer.SetState(moments, steps)
	torch.Close(moments...)
	return next
}

// run optimises until the iterations are done or ctx is, which is no failure:
// the best picture is there. report is called before each step. Before another
// scale the last picture need not be evaluated.
func (o *state) run(ctx context.Context, report func([]Costs), last bool) error {
	for done := false; !done && (last || o.steps < o.iterations || ctx.Err() != nil); {
		var err error
		if done, err = o.iterate(ctx, report); err != nil {
			return err
		}
	}
	if !last || o.steps < o.iterations || o.average.T == nil {
		return nil
	}
	return torch.Scoped(func() error {
		costs, _ := o.evaluator.evaluate(o.average)
		for _, c := range costs {
			if c.check(0) != nil {
				return nil // the iterates are there
			}
		}
		return o.judge(o.average, costs)
	})
}

// iterate evaluates the pictures and makes a step, unless all are made or ctx is
// done.
func (o *state) iterate(ctx context.Context, report func([]Costs)) (done bool, err error) {
	err = torch.Scoped(func() error {
		costs, gradient := o.evaluator.evaluate(o.x)
		if err := o.judge(o.x, costs); err != nil {
			return err
		}
		if done = o.steps == o.iterations || ctx.Err() != nil; done {
			return nil
		}
		report(costs)
		o.step(costs, gradient)
		o.steps++
		return nil
	})
	if err == nil && !done {
		o.take()
	}
	return done, err
}

// judge keeps the pictures that are the best so far.
func (o *state) judge(x torch.Tensor, costs []Costs) error {
	for i, c := range costs {
		if err := c.check(o.before + o.steps); err != nil {
			return err
		}
		if c.Total < o.bestCosts[i].Total {
			o.bestCosts[i] = c
			torch.Copy(one(o.best, i), one(x, i))
		}
	}
	return nil
}

// one is picture i of several, a view [1,3,H,W].
func one(pictures torch.Tensor, i int) torch.Tensor {
	return torch.Slice(pictures, 0, int64(i), int64(i)+1)
}

// averageDecay is the decay of the exponential moving average of Adam's
// iterates, which go to and fro about where they are heading.
const averageDecay = 0.9

// take adds the picture to the average, in which the first has no more weight
// than its age gives it (as Adam corrects its own bias).
func (o *state) take() {
	if o.settings.Optimizer != Adam {
		return
	}
	if o.average.T == nil {
		o.average = torch.Local(func() torch.Tensor { return torch.Clone(o.x) })
		return
	}
	torch.NoGrad(func() {
		torch.LerpInPlace(o.average, o.x, (1-averageDecay)/(1-math.Pow(averageDecay, float64(o.steps))))
	})
}

// step changes the pictures by their gradients and keeps them in [0,1].
func (o *state) step(costs []Costs, gradient torch.Tensor) {
	if o.optimizer == nil {
		o.start(costs, gradient)
	}
	torch.MulInPlace(gradient, o.scales)
	if o.settings.Optimizer == LBFGS {
		o.retreat(costs, gradient)
	}
	o.optimizer.Step(gradient)
	if o.settings.Optimizer == Adam {
		torch.ClampInPlace(o.x, 0, 1)
	}
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
func (o *state) start(costs []Costs, gradient torch.Tensor) {
	wanted := map[Optimizer]float64{Adam: adamGradient, LBFGS: lbfgsGradient}[o.settings.Optimizer]
	scale := make([]float64, len(costs))
	for i, c := range costs {
		scale[i] = 1
		if rms := c.GradientL2 / math.Sqrt(each(gradient)); rms > 0 {
			scale[i] = math.Exp2(math.Round(math.Log2(wanted / rms)))
		}
	}
	o.setScale(scale)
	o.optimizer = o.newOptimizer()
}

// setScale keeps the scales until close.
func (o *state) setScale(scale []float64) {
	torch.Close(o.scales)
	o.scale, o.scales = scale, torch.Keep(perPicture(scale, o.x))
}

func (o *state) newOptimizer() *torch.Optimizer {
	if o.settings.Optimizer == Adam {
		return torch.NewAdam(o.x, o.settings.rate, 0.9, o.settings.beta2, 1e-8)
	}
	pair := 2 * int(torch.Count(o.x)) * 4
	history := min(lbfgsHistory, max(lbfgsLeast, lbfgsMemory/pair))
	return torch.NewLBFGS(o.x, o.settings.rate, history, lbfgsFirst, lbfgsRadius)
}

// L-BFGS runs without a line search, one evaluation a step, as in other
// style-transfer programs. What keeps it from running away is a trust region:
// lengths are root mean squares of the change of a pixel. (Half or twice as much
// makes no difference; 50 steps remembered save 2 % of the iterations, 10 cost 5 %.)
const (
	lbfgsHistory = 20        // steps remembered
	lbfgsMemory  = 512 << 20 // for fewer where they would take more
	lbfgsLeast   = 5
	lbfgsFirst   = 0.01 // length of the first step, along the gradient
	lbfgsRadius  = 0.05 // longest step at first
	lbfgsSetback = 2    // times the best cost: go back to the best picture
)

// retreat puts pictures whose costs have gone astray back to their best, where
// L-BFGS will begin anew with shorter steps. They make no step now: their
// gradients become 0.
func (o *state) retreat(costs []Costs, gradient torch.Tensor) {
	for i, c := range costs {
		if c.Total > lbfgsSetback*o.bestCosts[i].Total {
			torch.Copy(one(o.x, i), one(o.best, i))
			torch.ScaleInPlace(one(gradient, i), 0)
			o.optimizer.Restart(i)
		}
	}
}
