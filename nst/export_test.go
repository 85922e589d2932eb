package nst

import (
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

// What the tests of package nst_test see of it.

// StyleCacheMisses is how often an engine computed a style's targets.
func StyleCacheMisses(e *Engine) int { return e.styles.misses }

// TensorOf is tensorOf of a picture that does not come round.
func TensorOf(p *picture.Picture, device torch.Device, width, height int) torch.Tensor {
	return tensorOf(p, device, width, height, torch.Wrap{})
}

var (
	// PictureOf is pictureOf.
	PictureOf = pictureOf
	// NoiseOf is noise.
	NoiseOf = noise
)
