package httpapi

import (
	"context"
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
