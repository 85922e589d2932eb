// Package descent changes pictures, step by step, until an objective is as small as
// Adam or L-BFGS make it. It knows nothing of networks: an objective is whatever has
// values and a gradient.
package descent

import "github.com/seed9bb5c928/nst/torch"

// Objective is what is made small: for each of N pictures a total of its own. All that
// it does runs on the device, and need not be waited for.
type Objective interface {
	// Evaluate returns, for pictures x [N,3,H,W], values [N,terms], which Totals weighs,
	// and the gradient ∂J/∂x, as tensors of the caller's scope. It handles a
	// shortage of memory itself.
	Evaluate(x torch.Tensor) (values, gradient torch.Tensor, err error)
	// EvaluateOnce is Evaluate that a graph can record: without another try if there is
	// not enough memory.
	EvaluateOnce(x torch.Tensor) (values, gradient torch.Tensor, err error)
	// Recordable says whether a graph of EvaluateOnce is worth a try.
	Recordable() bool
	// Totals returns the totals [N] of values. If a value is NaN the total is NaN.
	Totals(values torch.Tensor) torch.Tensor
}
