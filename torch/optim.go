package torch

// #include "csrc/nsttorch.h"
import "C"

import "runtime"

// Optimizer is one of libtorch's optimisers, of one tensor. Close it when it is
// no longer used; the collector does so in the end.
type Optimizer struct {
	handle  C.nst_optimizer
	cleanup runtime.Cleanup
}

func newOptimizer(op string, t Tensor, call func(out *C.nst_optimizer) *C.char) *Optimizer {
	var h C.nst_optimizer
	change(op, func() *C.char { return call(&h) }, t)
	o := &Optimizer{handle: h}
	o.cleanup = runtime.AddCleanup(o, func(h C.nst_optimizer) { C.nst_optimizer_free(h) }, h)
	return o
}

// NewAdam returns Adam (Kingma and Ba 2015) for t, whose memory it holds on to.
func NewAdam(t Tensor, rate, beta1, beta2, epsilon float64) *Optimizer {
	return newOptimizer("adam", t, func(out *C.nst_optimizer) *C.char {
		return C.nst_adam_new(handle(t), C.double(rate), C.double(beta1), C.double(beta2), C.double(epsilon), out)
	})
}

// NewLBFGS returns limited-memory BFGS for pictures [N,C,H,W], each by itself,
// whose values it keeps in [0,1]; history is how many steps it remembers, each of
// which takes twice t's memory. It takes one step from each gradient and searches
// no line: lengths are root mean squares of the change of a value, and the first
// step's is first, others' at most radius. wrap says how the pictures come round. It
// holds on to t's memory.
func NewLBFGS(t Tensor, rate float64, history int, first, radius float64, wrap Wrap) *Optimizer {
	return newOptimizer("lbfgs", t, func(out *C.nst_optimizer) *C.char {
		return C.nst_lbfgs_new(handle(t), C.double(rate), C.int64_t(history), C.double(first), C.double(radius),
			wrap.c(), out)
	})
}

// Step changes the tensor by its gradient, of the same shape.
func (o *Optimizer) Step(gradient Tensor) {
	change("step", func() *C.char { return C.nst_optimizer_step(o.handle, handle(gradient)) }, gradient)
	runtime.KeepAlive(o)
}

// Restart tells L-BFGS that the pictures of a mask [N] were moved elsewhere: it
// forgets what it knew of them, and halves their radius.
func (o *Optimizer) Restart(mask Tensor) {
	change("restart", func() *C.char { return C.nst_lbfgs_restart(o.handle, handle(mask)) }, mask)
	runtime.KeepAlive(o)
}

// maxState is more tensors than any state has.
const maxState = 1 << 10

// State is what the optimiser remembers: for Adam its number of steps and the
// tensors m and v, of the optimised tensor's sizes; for L-BFGS tensors and numbers of
// its own. Both are empty before the first step. The tensors are the optimiser's own
// memory, which the next step changes.
func (o *Optimizer) State() (tensors []Tensor, numbers []float64) {
	handles, values := make([]C.nst_tensor, maxState), make([]C.double, 8)
	tensorCount, numberCount := C.int64_t(len(handles)), C.int64_t(len(values))
	must("state", C.nst_optimizer_state(o.handle, &handles[0], &tensorCount, &values[0], &numberCount))
	runtime.KeepAlive(o)
	for _, h := range handles[:tensorCount] {
		tensors = append(tensors, adopt(h))
	}
	for _, v := range values[:numberCount] {
		numbers = append(numbers, float64(v))
	}
	return tensors, numbers
}

// SetState makes the optimiser remember what State returned of another of its
// kind, after a step: it copies the tensors, which must be on the optimised
// tensor's device.
func (o *Optimizer) SetState(tensors []Tensor, numbers []float64) {
	handles, values := make([]C.nst_tensor, len(tensors)+1), make([]C.double, len(numbers)+1)
	check("set_state", tensors...)
	for i, t := range tensors {
		handles[i] = handle(t)
	}
	for i, n := range numbers {
		values[i] = C.double(n)
	}
	change("set_state", func() *C.char {
		return C.nst_optimizer_set_state(o.handle, &handles[0], C.int64_t(len(tensors)), &values[0],
			C.int64_t(len(numbers)))
	}, tensors...)
	runtime.KeepAlive(o)
}

// SetRate changes the learning rate of the steps to come.
func (o *Optimizer) SetRate(rate float64) {
	must("set_rate", C.nst_optimizer_set_rate(o.handle, C.double(rate)))
	runtime.KeepAlive(o)
}

// Close frees the optimiser and its state. Closing it again does nothing.
func (o *Optimizer) Close() {
	if o.handle != nil {
		o.cleanup.Stop()
		C.nst_optimizer_free(o.handle)
		o.handle = nil
	}
}
