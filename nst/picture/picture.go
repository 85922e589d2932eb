// Package picture is between image files and tensors: it decodes, orients,
// resizes and encodes.
package picture

import (
	"errors"
	"fmt"
	"math"

	"github.com/seed9bb5c928/nst/torch"
)

// ErrPicture is matched (errors.Is) by the errors of pictures that cannot be
// used: no picture, a damaged one, one of a size out of range.
var ErrPicture = errors.New("unusable picture")

// MaxPixels is the largest number of pixels that a file may claim, and MaxSide the
// longest side: a larger one is refused before it is decoded, and so is a result.
const (
	MaxPixels = 1 << 30
	MaxSide   = 1<<16 - 1
)

// Picture is an RGB picture in host memory. It is plain data: copy it, keep it,
// hand it to other goroutines.
type Picture struct {
	Width, Height int
	// Pixels are three planes, red, green and blue, each Height rows of Width
	// values: 3·Width·Height in all. Values are sRGB-encoded (as they are in
	// files) and in [0,1].
	Pixels []float32
}

// New returns a black picture.
func New(width, height int) *Picture {
	return &Picture{width, height, make([]float32, 3*width*height)}
}

// Check says whether the picture is whole: its sizes are positive and fit its
// pixels, which are all in [0,1]. The error matches ErrPicture.
func (p *Picture) Check() error {
	if p == nil || p.Width <= 0 || p.Height <= 0 || len(p.Pixels) != 3*p.Width*p.Height {
		return fmt.Errorf("%w: its width, height and pixels do not fit each other", ErrPicture)
	}
	for i, v := range p.Pixels {
		if !(v >= 0 && v <= 1) {
			return fmt.Errorf("%w: its value %d is %v; values are in [0,1]", ErrPicture, i, v)
		}
	}
	return nil
}

// Fit returns the sizes of a picture scaled so that its longest side is
// longest; at least one pixel.
func Fit(width, height, longest int) (int, int) {
	scale := float64(longest) / float64(max(width, height))
	side := func(n int) int { return max(1, int(math.Round(float64(n)*scale))) }
	return side(width), side(height)
}

// Tensor returns the picture, Resized, as a tensor [1,3,height,width] on device. It
// is numeric code in torch's sense: called in a scope, it panics with a *torch.Error.
func (p *Picture) Tensor(device torch.Device, width, height int) torch.Tensor {
	return torch.FromFloats(p.Resized(width, height).Pixels, device, 1, 3, int64(height), int64(width))
}

// Resized returns the picture at another size; itself, if it has that size. The
// bicubic kernel is widened when it shrinks, so that nothing aliases, and works on
// the sRGB-encoded values, as other programs do. It is numeric code, like Tensor.
func (p *Picture) Resized(width, height int) *Picture {
	if width == p.Width && height == p.Height {
		return p
	}
	out := &Picture{width, height, torch.ResizeFloats(p.Pixels, p.Height, p.Width, height, width)}
	out.clamp() // a cubic kernel overshoots at edges
	return out
}

func (p *Picture) clamp() {
	for i, v := range p.Pixels {
		p.Pixels[i] = min(max(v, 0), 1)
	}
}

// Shrunk returns the picture with its longest side made side, or itself if that is
// no longer. The error is torch's.
func (p *Picture) Shrunk(side int) (out *Picture, err error) {
	if max(p.Width, p.Height) <= side {
		return p, nil
	}
	err = torch.Scoped(func() error { out = p.Resized(Fit(p.Width, p.Height, side)); return nil })
	return out, err
}

// Part returns width×height pixels of the picture from column left and row top as
// a tensor [1,3,height,width] on the CPU. It is numeric code, like Tensor.
func (p *Picture) Part(left, top, width, height int) torch.Tensor {
	return torch.FromPart(p.Pixels, p.Height, p.Width, top, left, height, width)
}

// FromTensor returns a tensor [1,3,H,W] as a picture, its values limited to
// [0,1]. It is numeric code, like Tensor.
func FromTensor(t torch.Tensor) *Picture {
	shape := torch.Shape(t)
	if len(shape) != 4 || shape[0] != 1 || shape[1] != 3 {
		panic(&torch.Error{Op: "picture", Message: fmt.Sprintf("a tensor of shape %v is no picture [1,3,H,W]", shape)})
	}
	p := &Picture{int(shape[3]), int(shape[2]), torch.Floats(t)}
	p.clamp()
	return p
}
