// Package torch is the boundary with libtorch: the only package that uses cgo
// and the only importer of gotorch. Tensors are gotorch's type; what gotorch
// lacks (TorchScript, backward with given gradients, L-BFGS, devices other than
// CPU and CUDA) is in csrc, behind a plain C ABI.
//
// Four rules make long runs safe.
//
// Scopes. Inside [Scoped] every tensor that a function of this package makes
// is released when the scope's function returns. [Keep] moves a tensor out of
// its scope to the caller, who calls [Close]. [Live] counts the open ones.
//
// Errors. Inside a scope numeric code is written without error values, as
// gotorch's is: a failing function panics with an *[Error], and the scope turns
// it into the error it returns. Functions that are used outside scopes (loading,
// devices) return their error. Out of memory is [ErrOutOfMemory], whichever
// device it happens on.
//
// Threads. libtorch's grad mode, OpenMP pool and current device belong to the
// OS thread, so all work for one device runs on one [Thread].
//
// Names. Functions take gotorch's tensors and are named as libtorch's are.
// A gotorch operation that has no wrapper here joins the scope through [Join].
package torch
