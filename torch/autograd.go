package torch

// #include "csrc/nsttorch.h"
import "C"

import "runtime"

// NoGrad calls f with automatic differentiation off on this thread.
func NoGrad(f func()) { gradMode(0, f) }

// Grad calls f with automatic differentiation on, as it is at first.
func Grad(f func()) { gradMode(1, f) }

func gradMode(enabled C.int32_t, f func()) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, ours C.int32_t
	must("grad_mode", C.nst_grad_mode(enabled, &before))
	defer func() { must("grad_mode", C.nst_grad_mode(before, &ours)) }()
	f()
}

// RequireGrad makes t a leaf whose gradient Backward computes (or no longer).
func RequireGrad(t Tensor, required bool) {
	flag := C.int32_t(0)
	if required {
		flag = 1
	}
	change("requires_grad_", func() *C.char { return C.nst_requires_grad(handle(t), flag) }, t)
}

// Backward propagates gradients from tensors to the leaves below them, adding
// to what the leaves have, and frees the graph. gradients[i] is ∂J/∂tensors[i],
// of the same sizes; nil gradients mean 1 for tensors that are scalars.
func Backward(tensors, gradients []Tensor) {
	if len(tensors) == 0 || (gradients != nil && len(gradients) != len(tensors)) {
		panic(&Error{Op: "backward", Message: "it takes tensors and one gradient for each"})
	}
	roots, seeds := handles(tensors), handles(gradients)
	var first *C.nst_tensor
	if gradients != nil {
		first = &seeds[0]
	}
	check("backward", gradients...)
	change("backward", func() *C.char { return C.nst_backward(&roots[0], first, C.int64_t(len(roots))) }, tensors...)
	keepAlive(gradients)
}

func handles(tensors []Tensor) []C.nst_tensor {
	check("backward", tensors...)
	out := make([]C.nst_tensor, len(tensors))
	for i, t := range tensors {
		out[i] = handle(t)
	}
	return out
}

// Gradient returns the gradient that Backward stored in t (another handle to
// the same memory).
func Gradient(t Tensor) Tensor {
	return make1("gradient", func(out *C.nst_tensor) *C.char { return C.nst_gradient(handle(t), out) }, t)
}

// ClearGradient takes t's gradient away, so that the next Backward stores its
// own and adds to none.
func ClearGradient(t Tensor) {
	change("clear_gradient", func() *C.char { return C.nst_set_gradient(handle(t), nil) }, t)
}
