// Package picture is between image files and arrays of floats: it decodes, turns
// upright, converts to sRGB and encodes. It knows nothing of tensors and needs no
// libtorch.
//
// The decoders are Go: the standard library's, x/image's, jpegn for JPEG (three times
// as fast as the standard library's) and a reader of TIFF of our own, which puts
// together decoders that exist; HEVC, AV1 and JPEG XL are decoded by libde265, libavif
// and libjxl compiled to WebAssembly (wazero). libvips reads more kinds of TIFF and
// takes less memory, but it is one more library to install, wants cgo of everybody who
// imports this package, and decodes strangers' uploads in C. Here what is damaged or
// malicious ends in an error, as far as decoders allow: what strangers send is decoded
// by package decoder, in children of the program. Build with the tag nodynamic, as scripts/env says:
// without it, libraries that the system happens to have take the place of those.
package picture

import (
	"errors"
	"fmt"
	"image"
	"image/color"
	"math"

	"golang.org/x/image/draw"
)

// ErrPicture is matched (errors.Is) by the errors of pictures that cannot be
// used: no picture, a damaged one, one of a size out of range.
var ErrPicture = errors.New("unusable picture")

// Picture is an RGB picture in host memory. It is plain data: copy it, keep it,
// hand it to other goroutines.
type Picture struct {
	Width, Height int
	// Pixels are three planes, red, green and blue, each Height rows of Width
	// values: 3·Width·Height in all. Values are sRGB-encoded (as they are in
	// files) and in [0,1], and not multiplied by alpha; where that is 0 they are white.
	Pixels []float32
	// Alpha is how opaque the pixels are, Height rows of Width values in [0,1]; nil if
	// all of them are.
	Alpha []float32
}

// New returns a black picture.
func New(width, height int) *Picture {
	return &Picture{Width: width, Height: height, Pixels: make([]float32, 3*width*height)}
}

// Check says whether the picture is whole: its sizes are positive and fit its
// pixels, which are all in [0,1]. The error matches ErrPicture.
func (p *Picture) Check() error {
	if p == nil || p.Width <= 0 || p.Height <= 0 || len(p.Pixels) != 3*p.Width*p.Height ||
		(p.Alpha != nil && len(p.Alpha) != p.Width*p.Height) {
		return fmt.Errorf("%w: its width, height and pixels do not fit each other", ErrPicture)
	}
	for _, values := range [][]float32{p.Pixels, p.Alpha} {
		for i, v := range values {
			if !(v >= 0 && v <= 1) {
				return fmt.Errorf("%w: its value %d is %v; values are in [0,1]", ErrPicture, i, v)
			}
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

// OverWhite returns the picture over white, without alpha; itself if it has none.
func (p *Picture) OverWhite() *Picture {
	if p.Alpha == nil {
		return p
	}
	out := New(p.Width, p.Height)
	plane := p.Width * p.Height
	for i, v := range p.Pixels {
		out.Pixels[i] = 1 - p.Alpha[i%plane]*(1-v)
	}
	return out
}

// Shrunk returns the picture with its longest side made side, or itself if that is
// no longer. It is for looking at: 8 bits, by a widened Catmull-Rom kernel.
func (p *Picture) Shrunk(side int) *Picture {
	if max(p.Width, p.Height) <= side {
		return p
	}
	return p.scaled(Fit(p.Width, p.Height, side))
}

// Squared returns the picture squeezed into a square of side pixels, made as Shrunk's are.
func (p *Picture) Squared(side int) *Picture { return p.scaled(side, side) }

// scaled resizes by a Catmull-Rom kernel, which is widened where it shrinks.
func (p *Picture) scaled(width, height int) *Picture {
	out := image.NewNRGBA(image.Rect(0, 0, width, height))
	draw.CatmullRom.Scale(out, out.Rect, p.Image(), image.Rect(0, 0, p.Width, p.Height), draw.Src, nil)
	return FromImage(out)
}

// FromImage converts an image of Go's, whose colours are sRGB's.
func FromImage(m image.Image) *Picture {
	return (&file{orientation: 1, width: m.Bounds().Dx(), height: m.Bounds().Dy()}).picture(m)
}

// Image returns the picture as an image of Go's, an *image.NRGBA64: a copy.
func (p *Picture) Image() image.Image { return p.image(16) }

// image rounds to 8 or 16 bits.
func (p *Picture) image(bits int) image.Image {
	bounds := image.Rect(0, 0, p.Width, p.Height)
	plane := p.Width * p.Height
	alpha := func(int) float32 { return 1 }
	if p.Alpha != nil {
		alpha = func(i int) float32 { return p.Alpha[i] }
	}
	if bits == 16 {
		m := image.NewNRGBA64(bounds)
		level := func(v float32) uint16 { return uint16(math.Round(float64(v) * 0xffff)) }
		rows(p.Height, func(from, to int) {
			for i := from * p.Width; i < to*p.Width; i++ {
				m.SetNRGBA64(i%p.Width, i/p.Width, color.NRGBA64{level(p.Pixels[i]), level(p.Pixels[plane+i]),
					level(p.Pixels[2*plane+i]), level(alpha(i))})
			}
		})
		return m
	}
	m := image.NewNRGBA(bounds)
	level := func(v float32) uint8 { return uint8(v*255 + 0.5) }
	rows(p.Height, func(from, to int) {
		for i := from * p.Width; i < to*p.Width; i++ {
			copy(m.Pix[4*i:], []uint8{
				level(p.Pixels[i]), level(p.Pixels[plane+i]), level(p.Pixels[2*plane+i]), level(alpha(i)),
			})
		}
	})
	return m
}
