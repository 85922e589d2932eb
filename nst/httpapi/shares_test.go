package httpapi

import (
	"context"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// One client takes no more than its share, and who waits comes in when another leaves.
func TestShares(t *testing.T) {
	s := newShares(3, 2)
	none, cancel := context.WithCancel(context.Background())
	cancel()
	first, err := s.wait(none, "ann")
	require.NoError(t, err, "there is room")
	second, err := s.enter("ann")
	require.NoError(t, err)
	_, err = s.wait(none, "ann")
	assert.ErrorContains(t, err, "too much is under way")
	bobs, err := s.enter("bob")
	require.NoError(t, err, "there is room for others")
	_, err = s.enter("cat")
	assert.Error(t, err, "there is none in all")
	entered := make(chan error)
	go func() {
		_, err := s.wait(context.Background(), "ann")
		entered <- err
	}()
	bobs() // makes room for all, and not for ann
	second()
	second() // leaves once
	assert.NoError(t, <-entered)
	_, err = s.enter("ann")
	assert.Error(t, err)
	first()
	_, err = s.enter("ann")
	assert.NoError(t, err)
}

// A clip that is asked for again is not brought again, and its file is closed in the end.
func TestFilms(t *testing.T) {
	f := films{all: map[string]*film{}}
	brought := 0
	take := func(name string) *film {
		one, err := f.take(t.Context(), name, func(file *os.File) error {
			brought++
			_, err := file.WriteString(name)
			return err
		})
		require.NoError(t, err)
		return one
	}
	open := func(one *film) bool { _, err := one.Stat(); return err == nil }
	a, again := take("a"), take("a")
	assert.Same(t, a, again)
	assert.Equal(t, 1, brought)
	f.leave("a", a)
	f.drop("a", a, a.left)
	assert.True(t, open(a), "it has a user")
	f.leave("a", a)
	assert.True(t, open(a))
	before := a.left
	f.leave("a", take("a"))
	f.drop("a", a, before)
	assert.True(t, open(a), "it had a user since")
	f.drop("a", a, a.left)
	assert.False(t, open(a))
	assert.Empty(t, f.all)
	for i := range maxFilms {
		name := string(rune('b' + i))
		f.leave(name, take(name))
	}
	first := f.all["b"]
	over := take("z")
	f.leave("z", over)
	assert.True(t, open(over))
	assert.False(t, open(first), "one too many to keep")
	used := take("c")
	f.close()
	assert.True(t, open(used))
	f.leave("c", used)
	assert.False(t, open(used))
	_, err := f.take(t.Context(), "d", func(*os.File) error { return os.ErrInvalid })
	require.ErrorIs(t, err, os.ErrInvalid)

	// Those who ask at once wait for the same file; if its bringing fails, another brings it.
	var group sync.WaitGroup
	var bringing atomic.Int32
	for range 20 {
		group.Go(func() {
			one, err := f.take(t.Context(), "e", func(file *os.File) error {
				if bringing.Add(1) == 1 {
					time.Sleep(50 * time.Millisecond)
					return os.ErrClosed
				}
				return nil
			})
			if err == nil {
				assert.True(t, open(one))
				f.leave("e", one)
			}
		})
	}
	group.Wait()
	assert.EqualValues(t, 2, bringing.Load())
}
