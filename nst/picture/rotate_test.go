package picture

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestRotated(t *testing.T) {
	p := New(3, 2)
	p.Alpha = make([]float32, 6)
	for i := range p.Pixels {
		p.Pixels[i] = float32(i) / 18
	}
	copy(p.Alpha, p.Pixels)
	quarter := p.Rotated(90)
	assert.Equal(t, [2]int{2, 3}, [2]int{quarter.Width, quarter.Height})
	// 0 1 2   3 0
	// 3 4 5 → 4 1
	//         5 2
	assert.InDeltaSlice(t, []float32{3. / 18, 0, 4. / 18, 1. / 18, 5. / 18, 2. / 18}, quarter.Pixels[:6], 1e-6)
	assert.Equal(t, quarter.Pixels[:6], quarter.Alpha)
	assert.InDeltaSlice(t, p.Pixels, quarter.Rotated(270).Pixels, 1e-6)
	assert.InDeltaSlice(t, p.Pixels, p.Rotated(180).Rotated(-180).Pixels, 1e-6)
	assert.Same(t, p, p.Rotated(720))

	trimmed := quarter.Rotated(0).Rotated(270).Trimmed(0)
	assert.InDeltaSlice(t, p.Pixels, trimmed.Pixels, 1e-6)
	wide := New(5, 4)
	wide.Alpha = make([]float32, 20)
	for i := range wide.Pixels {
		wide.Pixels[i] = float32(i)
	}
	copy(wide.Alpha, wide.Pixels[20:])
	inner := wide.Trimmed(1)
	assert.Equal(t, [2]int{3, 2}, [2]int{inner.Width, inner.Height})
	assert.Equal(t, []float32{6, 7, 8, 11, 12, 13}, inner.Pixels[:6])
	assert.Equal(t, []float32{26, 27, 28, 31, 32, 33}, inner.Alpha)

	// A ramp along x, turned, is a ramp along its own direction, without values from outside.
	ramp := New(80, 40)
	for i := range ramp.Pixels {
		ramp.Pixels[i] = 0.2 + 0.6*float32(i%80)/79
	}
	for _, degrees := range []float64{10, 45, 100, 300} {
		t.Run(fmt.Sprint(degrees), func(t *testing.T) {
			out := ramp.Rotated(degrees)
			assert.InDelta(t, 2, float64(out.Width)/float64(out.Height), 0.2, "its aspect")
			for _, v := range out.Pixels {
				assert.True(t, v >= 0.2-1e-6 && v <= 0.8+1e-6)
			}
			assert.Less(t, out.Width, 80)
		})
	}
}
