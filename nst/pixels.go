package nst

import (
	"fmt"

	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
)

// Between pictures and tensors. All are numeric code in torch's sense.

// tensorOf returns a picture, resized, as a tensor [1,3,height,width] on device.
func tensorOf(p *picture.Picture, device torch.Device, width, height int, wrap torch.Wrap) torch.Tensor {
	return torch.FromFloats(resized(p, width, height, wrap).Pixels, device, 1, 3, int64(height), int64(width))
}

// partOf returns width×height pixels of a picture from column left and row top as a
// tensor [1,3,height,width] on the CPU. Beyond its edges the picture comes round.
func partOf(p *picture.Picture, left, top, width, height int) torch.Tensor {
	return torch.FromPart(p.Pixels, p.Height, p.Width, top, left, height, width)
}

// pictureOf returns a tensor [1,3,H,W] as a picture, its values limited to [0,1].
func pictureOf(t torch.Tensor) *picture.Picture {
	shape := torch.Shape(t)
	if len(shape) != 4 || shape[0] != 1 || shape[1] != 3 {
		panic(&torch.Error{Op: "picture", Message: fmt.Sprintf("a tensor of shape %v is no picture [1,3,H,W]", shape)})
	}
	p := &picture.Picture{Width: int(shape[3]), Height: int(shape[2]), Pixels: torch.Floats(t)}
	clamp(p.Pixels)
	return p
}

// resized returns a picture at another size; itself, if it has that size. The bicubic
// kernel is widened when it shrinks, so that nothing aliases, and works on the
// sRGB-encoded values, as other programs do.
func resized(p *picture.Picture, width, height int, wrap torch.Wrap) *picture.Picture {
	if width == p.Width && height == p.Height {
		return p
	}
	return &picture.Picture{Width: width, Height: height,
		Pixels: resizedPlanes(p.Pixels, p, width, height, wrap),
		Alpha:  resizedPlanes(p.Alpha, p, width, height, wrap)}
}

// resizedPlanes resizes planes of p's size, if there are any.
func resizedPlanes(planes []float32, p *picture.Picture, width, height int, wrap torch.Wrap) []float32 {
	if planes == nil || (width == p.Width && height == p.Height) {
		return planes
	}
	out := torch.ResizeFloats(planes, p.Height, p.Width, height, width, wrap)
	clamp(out) // a cubic kernel overshoots at edges
	return out
}

func clamp(values []float32) {
	for i, v := range values {
		values[i] = min(max(v, 0), 1)
	}
}
