package torch

import (
	"context"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// holdUp has a goroutine that asks for its thread's id, the next one after each call of the
// function that is returned, be held up with the answer: others get the thread if they may.
func holdUp(t *testing.T) (next func()) {
	var armed atomic.Bool
	gettid = func() int {
		id := syscall.Gettid()
		if armed.Swap(false) {
			time.Sleep(time.Millisecond)
		}
		return id
	}
	t.Cleanup(func() { gettid = syscall.Gettid })
	return func() { armed.Store(true) }
}

// What is sent to a thread runs there, also where the sender has just left the thread on which
// it then runs.
func TestWorkIsDoneOnItsThread(t *testing.T) {
	next := holdUp(t)
	for range 300 {
		thread := StartThread(CPU)
		next()
		var first, second int
		require.NoError(t, thread.Do(context.Background(), func() error { first = syscall.Gettid(); return nil }))
		require.NoError(t, thread.Do(context.Background(), func() error { second = syscall.Gettid(); return nil }))
		thread.Close()
		require.Equal(t, second, first)
	}
}

// A tensor that is made outside every scope is in none, also where its maker has just left the
// thread on which another goroutine then opens one.
func TestScopesAreTheirGoroutines(t *testing.T) {
	next := holdUp(t)
	var others sync.WaitGroup
	defer others.Wait()
	done := make(chan struct{})
	defer close(done)
	for range 8 {
		others.Go(func() {
			for open := true; open; {
				_ = Scoped(func() error { time.Sleep(2 * time.Millisecond); return nil })
				select { // on whichever thread it wakes
				case _, open = <-done:
				case <-time.After(200 * time.Microsecond):
				}
			}
		})
	}
	for range 300 {
		next()
		x := Full(1, CPU, 2)
		time.Sleep(3 * time.Millisecond)
		require.NotNil(t, *x.T, "another's scope has released it")
		Close(x)
	}
}

// A thread's id is the system's to give again once it has ended: what is then called on
// another thread of that id is not on this one.
func TestThreadsIDEndsWithIt(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	thread := StartThread(CPU)
	defer thread.Close()
	nested := func() error {
		return thread.Do(ctx, func() error {
			assert.True(t, thread.Current())
			return thread.Do(ctx, func() error { return nil })
		})
	}
	require.NoError(t, nested())
	require.Error(t, thread.Do(ctx, func() error { runtime.Goexit(); return nil }))
	require.NoError(t, nested(), "the one that took its place is known")
	require.NotZero(t, thread.id.Load())
	thread.Close()
	require.Eventually(t, func() bool { return thread.id.Load() == 0 }, time.Minute, time.Millisecond)
}
