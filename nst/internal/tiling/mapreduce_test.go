package tiling

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// number is a part of one tensor.
type number struct{ value torch.Tensor }

func (n *number) EachTensor(do func(*torch.Tensor)) { do(&n.value) }

// newPool has workers on the CPU, without a network.
func newPool(t *testing.T, workers int) (p *Pool, warnings *[]string) {
	warnings = new([]string)
	p = &Pool{Context: context.Background(), Primary: torch.CPU, Passes: 1,
		Warn: func(w string) { *warnings = append(*warnings, w) }}
	for range workers {
		w := &Worker{Thread: torch.StartThread(torch.CPU), Threads: 1}
		t.Cleanup(w.Thread.Close)
		p.Workers = append(p.Workers, w)
	}
	return p, warnings
}

// on runs f on the pool's first thread, where a pool is used.
func on(p *Pool, f func() error) error { return p.Workers[0].Thread.Do(context.Background(), f) }

// Tiles are reduced in their order, whoever made them, and nothing of them is left.
func TestMapReduceKeepsTheOrder(t *testing.T) {
	nsttest.NoLeaks(t)
	p, _ := newPool(t, 3)
	var order []int
	var values []float32
	require.NoError(t, on(p, func() error {
		return MapReduce(p, 40, func(_ *Worker, i int) *number {
			return &number{torch.Full(float64(i), torch.CPU, 1)}
		}, func(i int, n *number) {
			order, values = append(order, i), append(values, torch.Floats(n.value)...)
		})
	}))
	for i := range 40 {
		assert.Equal(t, i, order[i])
		assert.Equal(t, float32(i), values[i])
	}
}

// A worker that fails is left out, with a warning, and another makes its tile; the last
// one's failure, a shortage of memory, a panic and the context's end are the call's.
func TestMapReduceFailures(t *testing.T) {
	nsttest.NoLeaks(t)
	broken := &torch.Error{Op: "made up", Message: "broken"}
	fail := func(p *Pool, failing func(w *Worker, i int) error) ([]int, error) {
		var order []int
		err := on(p, func() error {
			return MapReduce(p, 12, func(w *Worker, i int) *number {
				if err := failing(w, i); err != nil {
					panic(err)
				}
				return &number{torch.Full(1, torch.CPU, 1)}
			}, func(i int, _ *number) { order = append(order, i) })
		})
		return order, err
	}
	t.Run("one of three", func(t *testing.T) {
		p, warnings := newPool(t, 3)
		var once atomic.Bool
		order, err := fail(p, func(*Worker, int) error {
			if once.CompareAndSwap(false, true) {
				return broken
			}
			return nil
		})
		require.NoError(t, err)
		assert.Len(t, order, 12)
		require.Len(t, *warnings, 1)
		assert.Contains(t, (*warnings)[0], "broken")
	})
	t.Run("all", func(t *testing.T) {
		p, warnings := newPool(t, 3)
		_, err := fail(p, func(*Worker, int) error { return broken })
		assert.ErrorIs(t, err, broken)
		assert.Len(t, *warnings, 2)
	})
	for _, bad := range []int{0, 5} {
		t.Run(fmt.Sprint("a panic at ", bad), func(t *testing.T) {
			p, _ := newPool(t, 2)
			_, err := fail(p, func(_ *Worker, i int) error {
				if i == bad {
					return errors.New("in a tile")
				}
				return nil
			})
			assert.ErrorAs(t, err, new(*torch.PanicError))
		})
	}
	t.Run("the context is done", func(t *testing.T) {
		p, _ := newPool(t, 2)
		ctx, cancel := context.WithCancel(context.Background())
		p.Context = ctx
		order, err := fail(p, func(_ *Worker, i int) error {
			if i == 3 {
				cancel()
			}
			return nil
		})
		assert.ErrorIs(t, err, context.Canceled)
		assert.Less(t, len(order), 12)
	})
}

// Without enough memory passes are not kept, then tiles are halved, down to the deepest
// layer's stride.
func TestWithinMemory(t *testing.T) {
	p, warnings := newPool(t, 1)
	p.Passes = 4
	deepest, err := vgg19.Lookup("relu4_1")
	require.NoError(t, err)
	var sides []int
	err = on(p, func() error {
		return p.WithinMemory(100, 60, deepest, func() error {
			sides = append(sides, p.Size.Side)
			return torch.ErrOutOfMemory
		})
	})
	assert.ErrorIs(t, err, torch.ErrOutOfMemory)
	assert.Equal(t, []int{0, 0, 0, 48, 24, 8}, sides)
	assert.Len(t, *warnings, 4)
	p.Fixed = true
	assert.ErrorIs(t, p.WithinMemory(100, 60, deepest, func() error { return torch.ErrOutOfMemory }),
		torch.ErrOutOfMemory)
}
