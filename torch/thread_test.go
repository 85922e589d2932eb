package torch

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A thread's id is the system's to give again once it has ended: what is then called on
// another thread of that id is not on this one.
func TestThreadsIDEndsWithIt(t *testing.T) {
	thread := StartThread(CPU)
	ctx := context.Background()
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
