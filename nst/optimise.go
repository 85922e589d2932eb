package nst

import (
	"context"
	"errors"
	"math"
	"slices"
	"time"

	"github.com/seed9bb5c928/nst/torch"
)

// ErrDiverged is matched (errors.Is) by the error of a run whose costs stopped
// being numbers.
var ErrDiverged = errors.New("the optimisation diverged")

// state is an optimisation of N pictures, each by itself, at one scale; close
// frees its tensors. What an iteration does it does on the device, which need not
// be waited for: which pictures are the best is decided there, and costs are read
// when they are wanted.
type state struct {
	evaluator  *evaluator
	settings   *settings
	iterations int // of this scale
	steps      int // done
	before     int // done at the scales before
	memory     lbfgsMemory

	x                torch.Tensor // the pictures, [N,3,H,W], after that many steps
	values, gradient torch.Tensor // of x, once it is evaluated: see evaluator.queue

	optimizer *torch.Optimizer
	scale     []float64    // what each gradient is multiplied by for the optimiser
	scales    torch.Tensor // the same on the device, [N,1,1,1]

	best       torch.Tensor // the best pictures evaluated; none before a step: x is
	bestValues torch.Tensor // theirs; none before an evaluation
	bestTotals torch.Tensor // [N]
	average    torch.Tensor // see averaged; none without Adam

	graph      *torch.Graph    // of advance
	noGraphs   bool            // it cannot be recorded
	warm       bool            // a step was made piece by piece: kernels are loaded, libraries ready
	replayed   int             // steps, from the graph
	unrecorded func(why error) // is told that the device cannot record one; may be nil
	evaluated  func()          // is called after the first evaluation, when it is done; may be nil
	pace       float64         // seconds of a step, about; 0: not known
}

// newState begins with pictures x, which it owns and will change.
func newState(e *evaluator, s *settings, x torch.Tensor, iterations, before int, memory lbfgsMemory) *state {
	return &state{evaluator: e, settings: s, iterations: iterations, before: before, memory: memory, x: torch.Keep(x)}
}

// close releases the state.
func (o *state) close() {
	o.graph.Close()
	if o.optimizer != nil {
		o.optimizer.Close()
	}
	torch.Close(o.x, o.values, o.gradient, o.best, o.bestValues, o.bestTotals, o.average, o.scales)
}

// finer begins the next scale, at which this state's last picture (Adam's average)
// is resized, and has the detail added that the smaller scale could not show
// (none: nothing is). Adam goes on with its moments resized; L-BFGS begins anew.
func (o *state) finer(e *evaluator, at scale, detail torch.Tensor) *state {
	height, width := int64(at.height), int64(at.width)
	x := torch.Local(func() torch.Tensor {
		last := o.x
		if o.average.T != nil {
			last = o.averaged()
		}
		t := torch.Resize(last, height, width)
		if detail.T != nil {
			t = torch.Add(t, detail)
		}
		torch.ClampInPlace(t, 0, 1) // a cubic kernel overshoots at edges
		return t
	})
	next := newState(e, o.settings, x, at.iterations, o.before+o.steps, o.memory)
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

// report is called before each step (of the first so many, done), with the costs
// of the pictures before it. With current, those are still the state's.
type report func(steps int, costs []Costs, current bool)

// run optimises until the iterations are done or ctx is, which is no failure:
// the best picture is there. Before another scale the last picture need not be
// evaluated.
func (o *state) run(ctx context.Context, report report, last bool) error {
	if !last && o.steps == o.iterations {
		return nil
	}
	costs := [][]Costs{nil}
	err := torch.Scoped(func() error {
		if err := o.evaluate(); err != nil {
			return err
		}
		costs[0] = o.read(o.values)
		if o.evaluated != nil {
			o.evaluated()
		}
		return nil
	})
	for err == nil {
		stop := o.steps == o.iterations || ctx.Err() != nil
		first := o.steps - len(costs) + 1
		for i, c := range costs {
			if err := check(c, o.before+first+i); err != nil {
				return err
			}
			if current := i == len(costs)-1; !current || !stop {
				report(o.before+first+i, c, current)
			}
		}
		if stop {
			break
		}
		if !last && o.steps == o.iterations-1 {
			return torch.Scoped(func() error { o.step(); o.steps++; return nil })
		}
		err = torch.Scoped(func() (err error) { costs, err = o.proceed(ctx, last); return err })
	}
	if err != nil && ctx.Err() != nil && o.bestValues.T != nil {
		return nil // in the middle of an evaluation
	}
	if err != nil || !last || o.steps < o.iterations || o.average.T == nil || o.steps == 0 {
		return err
	}
	o.graph.Close() // the average may need its memory
	o.graph, o.noGraphs = nil, true
	if err := torch.EmptyCache(o.device()); err != nil {
		return err
	}
	return torch.Scoped(func() error {
		average := o.averaged()
		values, _, err := o.evaluator.queue(average)
		if err == nil {
			o.judge(average, values) // an average that is no number is not less than the best
		} else if ctx.Err() != nil {
			err = nil // the iterates are there
		}
		return err
	})
}

// check is Costs.check of several pictures.
func check(costs []Costs, iteration int) error {
	for _, c := range costs {
		if err := c.check(iteration); err != nil {
			return err
		}
	}
	return nil
}

// read copies the pictures' costs to the host.
func (o *state) read(values torch.Tensor) []Costs {
	return o.evaluator.costs(readAll(values), int(torch.Shape(o.x)[0]))
}

// Costs are read back after as many steps as take about readSeconds, mostAhead at
// most: to wait for each step would leave a GPU idle.
const (
	readSeconds = 0.1
	mostAhead   = 32
)

// proceed makes the steps to the next reading and returns each one's costs. The
// CPU does a step as it is sent, so there its costs are read at once.
func (o *state) proceed(ctx context.Context, last bool) (costs [][]Costs, err error) {
	n := 1
	if o.pace > 0 && o.device() != torch.CPU {
		n = int(min(mostAhead, max(1, readSeconds/o.pace)))
		if every := o.settings.StateEvery; every > 0 {
			n = min(n, every-(o.before+o.steps)%every) // to the next multiple
		}
	}
	left := o.iterations - o.steps
	if !last {
		left-- // the last step is made without an evaluation
	}
	n = min(n, left)
	begin := time.Now()
	var all []torch.Tensor
	for i := 0; i < n && (i == 0 || ctx.Err() == nil); i++ {
		if err := o.advance(); err != nil {
			return nil, err
		}
		all = append(all, o.values)
		if n > 1 {
			all[i] = torch.Clone(o.values)
		}
	}
	pictures := int(torch.Shape(o.x)[0])
	values := readAll(torch.Stack(all, 0))
	for i := range all {
		of := len(values) / len(all)
		costs = append(costs, o.evaluator.costs(values[i*of:(i+1)*of], pictures))
	}
	if o.steps > 2 { // the first ones ready the device
		o.pace = time.Since(begin).Seconds() / float64(len(all))
	}
	return costs, nil
}

func (o *state) device() torch.Device { return torch.DeviceOf(o.x) }

// advance makes a step and evaluates the pictures after it. All of it is recorded
// as a graph once the first step has readied the optimiser and the device, where
// the device has graphs and one tile is all.
func (o *state) advance() error {
	if o.graph == nil && !o.noGraphs && o.warm && o.evaluator.recordable() {
		o.record()
	}
	if o.graph != nil {
		o.graph.Replay()
		o.steps++
		o.replayed++
		return nil
	}
	o.step()
	o.steps++
	o.warm = true
	return o.evaluate()
}

// record records advance. What it fails with is no error of the run, which then
// sends its work piece by piece, but a warning.
func (o *state) record() {
	if torch.EmptyCache(o.device()) != nil { // a graph's memory is its own
		return
	}
	var failed error
	graph, err := torch.Record(o.device(), func() {
		o.step()
		values, gradient, err := o.evaluator.try(o.x)
		if failed = err; err == nil {
			torch.Copy(o.values, values)
			torch.Copy(o.gradient, gradient)
			o.judge(o.x, o.values)
		}
	})
	if err := errors.Join(err, failed); err != nil {
		graph.Close()
		o.noGraphs = true
		if o.unrecorded != nil {
			o.unrecorded(err)
		}
		return
	}
	o.graph = graph
}

// evaluate finds the values and the gradient of x.
func (o *state) evaluate() error {
	torch.Close(o.values, o.gradient)
	values, gradient, err := o.evaluator.queue(o.x)
	if err != nil {
		return err
	}
	o.values, o.gradient = torch.Keep(values), torch.Keep(gradient)
	o.judge(o.x, o.values)
	return nil
}

// judge keeps the pictures of x that are the best so far.
func (o *state) judge(x, values torch.Tensor) {
	totals := o.evaluator.totals(values)
	if o.bestValues.T == nil {
		o.bestValues, o.bestTotals = torch.Keep(torch.Clone(values)), torch.Keep(torch.Clone(totals))
		return
	}
	better := torch.Less(totals, o.bestTotals)
	torch.Choose(o.bestTotals, better, totals)
	torch.Choose(o.bestValues, better, values)
	torch.Choose(o.best, better, x)
}

// bestPictures are those with the lowest totals so far.
func (o *state) bestPictures() torch.Tensor {
	if o.best.T == nil {
		return o.x
	}
	return o.best
}

// bestCosts are theirs.
func (o *state) bestCosts() []Costs { return o.read(o.bestValues) }

// one is picture i of several, a view [1,3,H,W].
func one(pictures torch.Tensor, i int) torch.Tensor {
	return torch.Slice(pictures, 0, int64(i), int64(i)+1)
}

// averageDecay is the decay d of the exponential moving average of Adam's
// iterates, which go to and fro about where they are heading.
const averageDecay = 0.9

// averaged is the average (1−d)/(1−dⁿ)·Σ d^(n−i)·x_i of the iterates x_1…x_n, in
// which the first have no more weight than their age gives them (as Adam corrects
// its own bias). The state keeps the sum, with the factor 1−d.
func (o *state) averaged() torch.Tensor {
	return torch.Scale(o.average, 1/(1-math.Pow(averageDecay, float64(o.steps))))
}

// step changes the pictures by their gradients, which it uses up, and keeps them
// in [0,1].
func (o *state) step() {
	if o.optimizer == nil {
		o.start()
	}
	if o.best.T == nil {
		o.best = torch.Keep(torch.Clone(o.x))
	}
	torch.MulInPlace(o.gradient, o.scales)
	if o.settings.Optimizer == LBFGS {
		o.retreat()
	}
	o.optimizer.Step(o.gradient)
	if o.settings.Optimizer == Adam {
		torch.ClampInPlace(o.x, 0, 1)
		if o.average.T == nil {
			o.average = torch.Keep(torch.Scale(o.x, 0))
		}
		torch.NoGrad(func() { torch.LerpInPlace(o.average, o.x, 1-averageDecay) })
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
func (o *state) start() {
	wanted := map[Optimizer]float64{Adam: adamGradient, LBFGS: lbfgsGradient}[o.settings.Optimizer]
	costs := o.read(o.values)
	scale := make([]float64, len(costs))
	for i, c := range costs {
		scale[i] = 1
		if rms := c.GradientL2 / math.Sqrt(each(o.x)); rms > 0 {
			scale[i] = math.Exp2(math.Round(math.Log2(wanted / rms)))
		}
	}
	o.setScale(scale)
	o.optimizer = o.newOptimizer()
}

// setScale keeps the scales until close.
func (o *state) setScale(scale []float64) {
	torch.Close(o.scales)
	o.scale, o.scales = scale, torch.Keep(perPicture(scale, o.x, 4))
}

func (o *state) newOptimizer() *torch.Optimizer {
	if o.settings.Optimizer == Adam {
		return torch.NewAdam(o.x, o.settings.rate, 0.9, o.settings.beta2, 1e-8)
	}
	return torch.NewLBFGS(o.x, o.settings.rate, o.memory.steps(int64(torch.Count(o.x))*4), lbfgsFirst, lbfgsRadius)
}

// L-BFGS runs without a line search, one evaluation a step, as in other
// style-transfer programs. What keeps it from running away is a trust region:
// lengths are root mean squares of the change of a pixel. (Half or twice as much
// makes no difference; 50 steps remembered save 2 % of the iterations, 10 cost 5 %.)
const (
	lbfgsHistory = 20   // steps remembered
	lbfgsFirst   = 0.01 // length of the first step, along the gradient
	lbfgsRadius  = 0.05 // longest step at first
	lbfgsSetback = 2    // times the best cost: go back to the best picture
)

// lbfgsMemory is what remembered steps may take, in bytes, but for the least number
// of them; of each, two pictures are kept.
type lbfgsMemory struct {
	bytes int64
	least int64
}

// steps is how many are remembered of a picture of so many bytes.
func (m lbfgsMemory) steps(picture int64) int {
	return int(min(lbfgsHistory, max(m.least, m.bytes/(2*picture))))
}

// retreat puts pictures whose costs have gone astray back to their best, where
// L-BFGS will begin anew with shorter steps. They make no step now: their
// gradients become 0.
func (o *state) retreat() {
	astray := torch.Less(torch.Scale(o.bestTotals, lbfgsSetback), o.evaluator.totals(o.values))
	torch.Choose(o.x, astray, o.best)
	torch.Choose(o.gradient, astray, torch.Scale(one(o.bestTotals, 0), 0))
	o.optimizer.Restart(astray)
}
