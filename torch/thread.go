package torch

// #include "csrc/nsttorch.h"
import "C"

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// Thread is one OS thread on which all of one device's work runs, so that
// libtorch's per-thread state (grad mode, OpenMP pool, current device) has one
// home however many goroutines send work. It is safe for concurrent use.
type Thread struct {
	device Device
	work   chan task
	closed chan struct{}
	id     atomic.Int64
	end    func()
}

type task struct {
	f    func() error
	done chan outcome
}

type outcome struct {
	err   error
	panic *ThreadPanic
}

// ErrThreadClosed is returned by Do after Close.
var ErrThreadClosed = errors.New("torch: the device's thread is closed")

// ThreadPanic is what a function that panicked on a Thread panics with in the
// goroutine that sent it.
type ThreadPanic struct {
	// Value is what the function panicked with.
	Value any
	// Stack is the stack of the device's thread at that moment.
	Stack []byte
}

// Error describes the panic and shows the device thread's stack.
func (p *ThreadPanic) Error() string {
	return fmt.Sprintf("panic on the device's thread: %v\n%s", p.Value, p.Stack)
}

// gettid is the id of the thread that the calling goroutine is on, which may be another's a moment
// later if the goroutine is not locked to it. A test has it take its time.
var gettid = syscall.Gettid

// StartThread starts the thread for a device. The caller closes it.
func StartThread(device Device) *Thread {
	t := &Thread{device: device, work: make(chan task), closed: make(chan struct{})}
	t.end = sync.OnceFunc(func() { close(t.closed) })
	go t.run()
	return t
}

// Device is the device that the thread was started for.
func (t *Thread) Device() Device { return t.device }

// Close ends the thread when the function that is running returns. Functions
// sent later fail with ErrThreadClosed. Closing again does nothing.
func (t *Thread) Close() { t.end() }

// LowerPriority has the thread, and those that libtorch starts for it from then on, get
// the processor only as far as others leave it (nice 10): to be called before the
// thread computes.
func (t *Thread) LowerPriority() error {
	return t.Do(context.Background(), func() error {
		if err := syscall.Setpriority(syscall.PRIO_PROCESS, syscall.Gettid(), 10); err != nil {
			return fmt.Errorf("the thread's priority: %w", err)
		}
		return nil
	})
}

// Current says whether it is called on the thread. It asks for the thread's id first: a goroutine
// that is held up between the two may have left the thread that it asked the system for, and run
// may have got it.
func (t *Thread) Current() bool {
	id := t.id.Load()
	return int64(gettid()) == id
}

// Do runs f on the thread, inside a scope (see Scoped), and returns its error.
// It waits for its turn until ctx is done; f itself is not interrupted and
// should look at ctx. Called from a function that is already on the thread, it
// runs f at once. A panic in f comes out here as a *ThreadPanic.
func (t *Thread) Do(ctx context.Context, f func() error) error {
	if t.Current() {
		return Scoped(f)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	sent := task{f: f, done: make(chan outcome, 1)}
	select {
	case t.work <- sent:
	case <-t.closed:
		return ErrThreadClosed
	case <-ctx.Done():
		return ctx.Err()
	}
	result := <-sent.done
	if result.panic != nil {
		panic(result.panic)
	}
	return result.err
}

// run locks its goroutine to a thread for ever: the thread ends with it, and its id may then be
// another's.
func (t *Thread) run() {
	runtime.LockOSThread()
	id := int64(gettid())
	t.id.Store(id)
	defer t.id.CompareAndSwap(id, 0)
	if strings.HasPrefix(string(t.device), "cuda") {
		name, free := cString(string(t.device))
		_ = failure("thread", C.nst_cuda_thread(name)) // what is sent says it again
		free()
	}
	for {
		select {
		case <-t.closed:
			return
		case next := <-t.work:
			t.perform(next)
		}
	}
}

func (t *Thread) perform(next task) {
	result := outcome{err: errors.New("torch: the function ended its goroutine")}
	finished := false
	defer func() {
		if r := recover(); r != nil {
			result = outcome{panic: &ThreadPanic{Value: r, Stack: debug.Stack()}}
		} else if !finished {
			// runtime.Goexit, as a failing test calls: this goroutine is
			// lost, so another goes on.
			go t.run()
		}
		next.done <- result
	}()
	result.err = Scoped(next.f)
	finished = true
}
