package torch_test

import (
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/seed9bb5c928/nst/torch"
)

func TestFlowOfUniformPictures(t *testing.T) {
	for name, size := range map[string][2]int{"1x1": {1, 1}, "1x9": {1, 9}, "9x1": {9, 1}, "3x500": {3, 500}, "40x60": {40, 60}} {
		t.Run(name, func(t *testing.T) {
			grey := make([]float32, 3*size[0]*size[1])
			for i := range grey {
				grey[i] = 0.5
			}
			assert.Equal(t, make([]float32, 2*size[0]*size[1]), torch.Flow(grey, grey, size[0], size[1]))
		})
	}
}

func TestWarpByWholePixels(t *testing.T) {
	const height, width = 5, 7
	planes := make([]float32, 2*height*width)
	for i := range planes {
		planes[i] = float32(i*i%97) / 97
	}
	flow := make([]float32, 2*height*width)
	for i := range height * width {
		flow[i], flow[height*width+i] = 2, -1
	}
	moved := torch.Warp(planes, flow, height, width)
	for p := range 2 {
		for y := range height {
			for x := range width {
				from := (p*height+max(0, y-1))*width + min(width-1, x+2)
				assert.Equal(t, planes[from], moved[(p*height+y)*width+x], "%d %d %d", p, y, x)
			}
		}
	}
}
