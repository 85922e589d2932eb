package picture

import "math"

// Rotated returns p turned clockwise by an angle in degrees. By a multiple of 90 it is p's
// pixels in another order; else they are interpolated linearly, and the result is the
// largest part, with p's aspect, that has no corner outside of p.
func (p *Picture) Rotated(degrees float64) *Picture {
	degrees = turn(degrees)
	if degrees == 0 {
		return p
	}
	sin, cos := math.Sincos(degrees * math.Pi / 180)
	if math.Mod(degrees, 90) == 0 { // to the last bit
		sin, cos = math.Round(sin), math.Round(cos)
	}
	out := New(RotatedSize(p.Width, p.Height, degrees))
	fill := func(from, to []float32) {
		rows(out.Height, func(first, last int) {
			for y := first; y < last; y++ {
				for x := range out.Width {
					dx, dy := float64(x)-float64(out.Width-1)/2, float64(y)-float64(out.Height-1)/2
					fromX, fromY := cos*dx+sin*dy+float64(p.Width-1)/2, cos*dy-sin*dx+float64(p.Height-1)/2
					to[y*out.Width+x] = p.at(from, fromX, fromY)
				}
			}
		})
	}
	return p.planes(out, fill)
}

// planes calls do for each plane of p, and alpha if it has it, and that of out, which it
// returns.
func (p *Picture) planes(out *Picture, do func(from, to []float32)) *Picture {
	for c := range 3 {
		do(p.Pixels[c*p.Width*p.Height:], out.Pixels[c*out.Width*out.Height:])
	}
	if p.Alpha != nil {
		out.Alpha = make([]float32, out.Width*out.Height)
		do(p.Alpha, out.Alpha)
	}
	return out
}

// turn is an angle from 0 to below 360.
func turn(degrees float64) float64 { return math.Mod(math.Mod(degrees, 360)+360, 360) }

// RotatedSize is the size of what Rotated makes of a picture of width×height.
func RotatedSize(width, height int, degrees float64) (int, int) {
	switch turn(degrees) {
	case 0, 180:
		return width, height
	case 90, 270:
		return height, width
	}
	// a·the picture's size, of which the bounds are within the picture when it is turned
	sin, cos := math.Sincos(degrees * math.Pi / 180)
	s, c, w, h := math.Abs(sin), math.Abs(cos), float64(width), float64(height)
	a := min(w/(w*c+h*s), h/(w*s+h*c))
	return max(1, int(a*w)), max(1, int(a*h))
}

// Trimmed returns p without so many pixels at each of its edges, fewer than half of its
// shorter side.
func (p *Picture) Trimmed(edge int) *Picture {
	if edge == 0 {
		return p
	}
	out := New(p.Width-2*edge, p.Height-2*edge)
	return p.planes(out, func(from, to []float32) {
		for y := range out.Height {
			copy(to[y*out.Width:(y+1)*out.Width], from[(y+edge)*p.Width+edge:])
		}
	})
}

// at is a plane's value at x, y, by linear interpolation.
func (p *Picture) at(plane []float32, x, y float64) float32 {
	x, y = min(max(x, 0), float64(p.Width-1)), min(max(y, 0), float64(p.Height-1))
	left, top := math.Floor(x+1e-9), math.Floor(y+1e-9) // what is whole stays so
	right, bottom := min(left+1, float64(p.Width-1)), min(top+1, float64(p.Height-1))
	fx, fy := float32(max(0, x-left)), float32(max(0, y-top))
	value := func(x, y float64) float32 { return plane[int(y)*p.Width+int(x)] }
	row := func(y float64) float32 { return (1-fx)*value(left, y) + fx*value(right, y) }
	return (1-fy)*row(top) + fy*row(bottom)
}
