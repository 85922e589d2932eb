package tiling

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// Tiles cover a picture once, are no larger than they may be, and see their halo.
func TestCut(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 0))
	for range 80 {
		deepest := vgg19.Layers[random.IntN(len(vgg19.Layers))]
		stride := deepest.Stride
		width, height := stride+random.IntN(500), stride+random.IntN(500)
		size := Size{Side: random.IntN(2) * (1 + random.IntN(300)),
			Band: random.IntN(2) * stride * (1 + random.IntN(10))}
		wrap := torch.Wrap{X: random.IntN(2) == 0, Y: random.IntN(2) == 0}
		covered := make([]int, width*height)
		for _, part := range Cut(width, height, size, deepest, wrap) {
			own, seen := part.Own, part.Seen
			for y := own.Top; y < own.Bottom; y++ {
				for x := own.Left; x < own.Right; x++ {
					covered[y*width+x]++
				}
			}
			if size.Side > 0 {
				most := max(size.Side, stride) + stride - 1
				assert.LessOrEqual(t, own.Bottom-own.Top, most)
				assert.LessOrEqual(t, own.Right-own.Left, most)
			}
			for _, edge := range []int{own.Top, own.Left} {
				assert.Zero(t, edge%stride)
			}
			want := vgg19.Window{Top: own.Top - deepest.Halo, Left: own.Left - deepest.Halo,
				Bottom: own.Bottom + deepest.Halo, Right: own.Right + deepest.Halo}
			if !wrap.X {
				want.Left, want.Right = max(0, want.Left), min(width, want.Right)
			}
			if !wrap.Y {
				want.Top, want.Bottom = max(0, want.Top), min(height, want.Bottom)
			}
			assert.Equal(t, want, seen)
		}
		for _, n := range covered {
			require.Equal(t, 1, n)
		}
	}
}
