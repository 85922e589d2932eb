package httpapi

import (
	"context"
	"os"
	"testing"

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
		one, err := f.take(name, func(file *os.File) error {
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
	f.drop("a", a)
	assert.True(t, open(a), "it has a user")
	f.leave("a", a)
	assert.True(t, open(a))
	f.drop("a", a)
	assert.False(t, open(a))
	assert.Empty(t, f.all)
	for i := range maxFilms {
		name := string(rune('b' + i))
		f.leave(name, take(name))
	}
	over := take("z")
	f.leave("z", over)
	assert.False(t, open(over), "one too many to keep")
	used := take("b")
	f.close()
	assert.True(t, open(used))
	f.leave("b", used)
	assert.False(t, open(used))
	_, err := f.take("c", func(*os.File) error { return os.ErrInvalid })
	require.ErrorIs(t, err, os.ErrInvalid)
}
