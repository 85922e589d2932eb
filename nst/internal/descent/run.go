package descent

import (
	"context"
	"errors"
	"time"

	"github.com/seed9bb5c928/nst/torch"
)

// Values are read back after as many steps as take about readSeconds, mostAhead at
// most: to wait for each step would leave a GPU idle.
const (
	readSeconds = 0.1
	mostAhead   = 32
)

// Reading is the values of the pictures before a step.
type Reading struct {
	// Steps is how many were done before, with those at the sizes before.
	Steps int
	// Values are [N,terms], one picture's after the other.
	Values []float64
	// Current says that the pictures are still these.
	Current bool
	// Last says that no step follows: all are done, or the context is.
	Last bool
}

// Run makes steps until the iterations are done or ctx is, which is no failure: the best
// pictures are there. read is called for each step, in order, and ends the run by an
// error. Where another size follows, the last pictures are not evaluated.
func (d *Descent) Run(ctx context.Context, another bool, read func(Reading) error) error {
	if another && d.steps == d.iterations {
		d.complete = true
		return nil
	}
	values := [][]float64{nil}
	err := torch.Scoped(d.evaluate)
	if err == nil {
		err = torch.Retry(d.device(), func() error { values[0] = torch.Float64s(d.values); return nil })
	}
	if err == nil && d.onFirst != nil {
		d.onFirst()
	}
	for err == nil {
		stop := d.steps == d.iterations || ctx.Err() != nil
		first := d.Steps() - len(values) + 1
		for i, v := range values {
			current := i == len(values)-1
			if err := read(Reading{Steps: first + i, Values: v, Current: current, Last: current && stop}); err != nil {
				return err
			}
		}
		if stop {
			break
		}
		if another && d.steps == d.iterations-1 {
			err := d.step()
			d.complete = err == nil
			return err
		}
		err = torch.Scoped(func() (err error) { values, err = d.toNextReading(ctx, another); return err })
	}
	if isEnd(ctx, err) && d.bestValues.T != nil {
		return nil // in the middle of an evaluation
	}
	d.complete = err == nil && d.steps == d.iterations
	if !d.complete || another || d.average.T == nil || d.steps == 0 {
		return err
	}
	return d.tryAverage(ctx)
}

// isEnd says whether an error is that the context is done.
func isEnd(ctx context.Context, err error) bool {
	return err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err())
}

// tryAverage evaluates the average of Adam's iterates, which may be the best picture.
func (d *Descent) tryAverage(ctx context.Context) error {
	d.dropGraph() // the average may need its memory
	if err := torch.EmptyCache(d.device()); err != nil {
		return err
	}
	return torch.Retry(d.device(), func() error {
		average := d.averaged()
		values, _, err := d.objective.Evaluate(average)
		if err == nil {
			d.updateBest(average, values)
		} else if isEnd(ctx, err) {
			d.complete, err = false, nil // the iterates are there
		}
		return err
	})
}

// toNextReading makes the steps to the next reading and returns the values after each.
// The CPU does a step as it is sent, so there they are read at once.
func (d *Descent) toNextReading(ctx context.Context, another bool) (values [][]float64, err error) {
	n := max(1, d.settings.ReadEvery)
	if d.settings.ReadEvery == 0 && d.pace > 0 && d.device() != torch.CPU {
		n = int(min(mostAhead, max(1, readSeconds/d.pace)))
	}
	if every := d.settings.StateEvery; every > 0 {
		n = min(n, every-d.Steps()%every) // to the next multiple
	}
	left := d.iterations - d.steps
	if another {
		left-- // the last step is made without an evaluation
	}
	n = min(n, left)
	begin := time.Now()
	var all []torch.Tensor
	for i := 0; i < n && (i == 0 || ctx.Err() == nil); i++ {
		if err := d.StepAndEvaluate(); err != nil {
			return nil, err
		}
		if n == 1 {
			all = append(all, d.values)
			continue
		}
		var kept torch.Tensor
		err := torch.Retry(d.device(), func() error { kept = torch.Keep(torch.Clone(d.values)); return nil })
		if err != nil {
			return nil, err
		}
		all = append(all, torch.Rejoin(kept))
	}
	var read []float64
	err = torch.Retry(d.device(), func() error { read = torch.Float64s(torch.Stack(all, 0)); return nil })
	if err != nil {
		return nil, err
	}
	for i := range all {
		of := len(read) / len(all)
		values = append(values, read[i*of:(i+1)*of])
	}
	if d.steps > 2 { // the first ones ready the device
		d.pace = time.Since(begin).Seconds() / float64(len(all))
	}
	return values, nil
}

// StepAndEvaluate makes a step and evaluates the pictures after it; before the first
// evaluation it makes that alone. It does not wait for the device. All of it is recorded
// as a graph once the first step has readied the optimiser and the device, where the
// device has graphs and the objective can be recorded.
func (d *Descent) StepAndEvaluate() error {
	if d.values.T == nil {
		return d.evaluate()
	}
	if d.graph == nil && !d.noGraphs && d.warm && d.objective.Recordable() {
		if err := d.record(); err != nil {
			return err
		}
	}
	if d.graph != nil {
		err := torch.Scoped(func() error { d.graph.Replay(); return nil })
		if err == nil {
			d.steps++
			d.replayed++
			return nil
		}
		if !errors.Is(err, torch.ErrOutOfMemory) {
			return err
		}
		if err := d.unrecorded(err); err != nil {
			return err
		}
	}
	if err := d.step(); err != nil {
		return err
	}
	d.warm = true
	return d.evaluate()
}

// evaluate finds the values and the gradient of x.
func (d *Descent) evaluate() error {
	torch.Close(d.values, d.gradient)
	d.values, d.gradient = torch.Tensor{}, torch.Tensor{}
	values, gradient, err := d.objective.Evaluate(d.x)
	if err != nil {
		return err
	}
	d.values, d.gradient = torch.Keep(values), torch.Keep(gradient)
	return torch.Retry(d.device(), func() error { d.updateBest(d.x, d.values); return nil })
}

// unrecorded goes on without a graph, since it cannot be recorded or sent.
func (d *Descent) unrecorded(why error) error {
	d.dropGraph()
	if d.settings.OnUnrecorded != nil {
		d.settings.OnUnrecorded(why)
	}
	return torch.EmptyCache(d.device()) // the graph's memory
}

// record records a step and an evaluation. What it fails with is no error of the run, which then
// sends its work piece by piece, unless the device is lost.
func (d *Descent) record() error {
	if err := torch.EmptyCache(d.device()); err != nil { // a graph's memory is its own
		return err
	}
	var failed error
	graph, err := torch.Record(d.device(), func() {
		d.sendStep()
		values, gradient, err := d.objective.EvaluateOnce(d.x)
		if failed = err; err == nil {
			torch.Copy(d.values, values)
			torch.Copy(d.gradient, gradient)
			d.updateBest(d.x, d.values)
		}
	})
	if err := errors.Join(err, failed); err != nil {
		graph.Close()
		if errors.Is(err, torch.ErrDeviceLost) {
			return err
		}
		return d.unrecorded(err)
	}
	d.graph = graph
	return nil
}
