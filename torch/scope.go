package torch

// #include "csrc/nsttorch.h"
import "C"

import (
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"
)

// scope holds the tensors to release when its function returns. Scopes nest:
// each thread has a stack of them.
type scope struct {
	outer   *scope
	tensors []Tensor
}

// scopes maps an OS thread's id to its innermost scope. A scope locks its
// goroutine to the thread, so no two goroutines share an entry.
var scopes sync.Map

var live atomic.Int64

// Live returns how many tensors made by this package are open, in the whole
// process. Tests assert that it comes back to where it was.
func Live() int64 { return live.Load() }

// Scoped calls f and then releases, on this thread, every tensor that f made
// and did not Keep, however f ends. It returns f's error, or the *Error that a
// function of this package (or gotorch, which panics with a string) raised
// inside. Any other panic goes on to the caller.
//
// Scopes nest: the tensors of an inner one are released when it returns, which
// is how a loop stays flat in memory.
func Scoped(f func() error) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	thread := gettid()
	s := &scope{outer: on(thread)}
	scopes.Store(thread, s)
	defer func() {
		for _, t := range slices.Backward(s.tensors) {
			release(t)
		}
		if s.outer == nil {
			scopes.Delete(thread)
		} else {
			scopes.Store(thread, s.outer)
		}
		switch r := recover().(type) {
		case nil:
		case *Error:
			err = r
		case string:
			err = newError("gotorch", r)
		default:
			panic(r)
		}
	}()
	return f()
}

// Local returns the tensor that f returns, in the scope that Local is called
// in, and releases all else that f makes. It is numeric code: what f raises
// goes on to that scope.
func Local(f func() Tensor) (t Tensor) {
	Within(func() { t = Keep(f()) })
	return Rejoin(t)
}

// Within calls f and releases all that it makes and does not Keep. It is numeric
// code, like Local.
func Within(f func()) {
	if err := Scoped(func() error { f(); return nil }); err != nil {
		panic(err)
	}
}

// Rejoin gives a kept tensor to the innermost scope, and returns it.
func Rejoin(t Tensor) Tensor {
	live.Add(-1) // Join counts it again
	return Join(t)
}

// current is the calling goroutine's innermost scope. It stays on its thread meanwhile, which else
// could be that of another's scope by the time that it looks.
func current() *scope {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return on(gettid())
}

// on is a thread's innermost scope.
func on(thread int) *scope {
	if s, ok := scopes.Load(thread); ok {
		return s.(*scope)
	}
	return nil
}

// Join makes a tensor that a gotorch operation returned subject to this
// package's rules: its Go finalizer is cleared, and it belongs to the innermost
// scope, or, outside every scope, to the caller as if kept. It returns t.
// The functions of this package do it themselves.
func Join(t Tensor) Tensor {
	live.Add(1)
	if s := current(); s != nil {
		runtime.SetFinalizer(t.T, nil)
		s.tensors = append(s.tensors, t)
	} else {
		backstop(t)
	}
	return t
}

// Keep moves a tensor out of its scope to the caller, who must Close it; it
// returns t. A tensor that is in no scope is left as it is.
func Keep(t Tensor) Tensor {
	check("keep", t)
	for s := current(); s != nil; s = s.outer {
		for i, other := range slices.Backward(s.tensors) {
			if other.T == t.T {
				s.tensors = slices.Delete(s.tensors, i, i+1)
				backstop(t)
				return t
			}
		}
	}
	return t
}

// Close releases tensors now. Closing one again, or the zero Tensor, does
// nothing; using a closed one is an error, never a crash. Tensors that are
// still in a scope may be closed early.
func Close(tensors ...Tensor) {
	for _, t := range tensors {
		release(t)
	}
}

// backstop lets the collector release a kept tensor that its owner forgot.
func backstop(t Tensor) {
	runtime.SetFinalizer(t.T, nil)
	runtime.SetFinalizer(t.T, func(handle *unsafe.Pointer) { release(Tensor{T: handle}) })
}

// release frees the tensor's handle once; the handle is shared by all copies
// of t.
func release(t Tensor) {
	if t.T == nil || *t.T == nil {
		return
	}
	runtime.SetFinalizer(t.T, nil)
	C.nst_tensor_free(C.nst_tensor(*t.T))
	*t.T = nil
	live.Add(-1)
}
