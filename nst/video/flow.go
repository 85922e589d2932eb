package video

import (
	"context"

	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

// Numbered is one of a clip's pictures with its place among them, from 0.
type Numbered struct {
	Index   int
	Picture *picture.Picture
}

// Flow finds the optical flow between two frames of one size: two planes, u to the right and
// v down, so that what is at (x,y) of from is at (x+u, y+v) of to.
type Flow func(ctx context.Context, from, to Numbered) ([]float32, error)

// OwnFlow is torch.Flow.
func OwnFlow(_ context.Context, from, to Numbered) (flow []float32, err error) {
	p := from.Picture
	err = torch.Scoped(func() error {
		flow = torch.Flow(p.Pixels, to.Picture.Pixels, p.Height, p.Width)
		return nil
	})
	return flow, err
}
