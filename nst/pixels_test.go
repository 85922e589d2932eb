package nst

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

func TestTensor(t *testing.T) {
	nsttest.NoLeaks(t)
	p := picture.New(40, 30)
	for i := range p.Pixels {
		p.Pixels[i] = float32(i%40) / 39 // a ramp from left to right
	}
	require.NoError(t, torch.Scoped(func() error {
		same := TensorOf(p, torch.CPU, 40, 30)
		assert.Equal(t, []int64{1, 3, 30, 40}, torch.Shape(same))
		assert.Equal(t, p, pictureOf(same))
		small := pictureOf(TensorOf(p, torch.CPU, 10, 5))
		require.NoError(t, small.Check())
		for x := range 10 {
			if x > 0 && x < 9 {
				assert.InDelta(t, (4*float64(x)+1.5)/39, small.Pixels[20+x], 0.01, "a ramp stays a ramp")
			}
		}
		require.NoError(t, pictureOf(torch.Full(1.5, torch.CPU, 1, 3, 2, 2)).Check(), "limited to [0,1]")
		return nil
	}))
	assert.Error(t, torch.Scoped(func() error { pictureOf(torch.Full(0, torch.CPU, 3, 2, 2)); return nil }))
}
