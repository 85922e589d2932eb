package descent

import "github.com/seed9bb5c928/nst/torch"

// Snapshot is a descent between two steps. Its tensors are the descent's own memory,
// and those of Optimizer of the caller's scope.
type Snapshot struct {
	Before, Steps              int // done at the sizes before, and at this one
	Pictures, Best, BestValues torch.Tensor
	Average                    torch.Tensor // none without Adam, or before a step
	// Of the optimiser; nil before there is one.
	GradientFactors []float64
	Optimizer       []torch.Tensor
	Numbers         []float64
}

// Snapshot shows the descent as it is. It must have been evaluated.
func (d *Descent) Snapshot() Snapshot {
	s := Snapshot{
		Before: d.before, Steps: d.steps,
		Pictures: d.x, Best: d.Best(), BestValues: d.bestValues, Average: d.average,
	}
	if d.optimizer != nil {
		s.GradientFactors = d.gradientFactors
		s.Optimizer, s.Numbers = d.optimizer.State()
	}
	return s
}

// Resume goes on from a snapshot: step for step as the descent that it is of. It owns
// the snapshot's tensors, except the optimiser's, which it copies.
func Resume(o Objective, settings Settings, iterations int, s Snapshot) *Descent {
	d, made := New(o, settings, s.Pictures, iterations, s.Before), false
	defer d.closeUnless(&made)
	d.steps = s.Steps
	d.best, d.bestValues = torch.Keep(s.Best), torch.Keep(s.BestValues)
	if s.Average.T != nil {
		d.average = torch.Keep(s.Average)
	}
	d.bestTotals = torch.Keep(o.Totals(d.bestValues))
	if s.GradientFactors != nil {
		d.resume(s.GradientFactors, s.Optimizer, s.Numbers)
	}
	made = true
	return d
}
