package picture

import (
	_ "embed"
	"fmt"
	"image"
	"math"
	"sync"
)

// srgbProfile is what files are written with. It was made by
// PIL.ImageCms.createProfile("sRGB") (lcms2).
//
//go:embed srgb.icc
var srgbProfile []byte

// colours say what a file's values mean. The zero value is sRGB.
type colours struct {
	profile []byte    // an ICC profile; nil: none
	named   *rgbSpace // what goes for the colours without a profile; nil: sRGB
	ycbcr   ycbcr
}

// ycbcr says how YCbCr is made of red, green and blue. The zero value is JPEG's way
// (ITU-T T.871, 7): BT.601's weights, and the full range.
type ycbcr struct {
	red, blue float32 // what they weigh in luma; 0: BT.601's
	nearest   bool    // chroma of fewer samples is repeated, not interpolated
	limited   bool    // black is 16 and white 235, as in WebP (RFC 6386, 9.2)
}

// device makes light of a picture's values, of which there are so many a pixel: XYZ, where
// white is d50. It is safe for concurrent use.
type device struct {
	channels int
	light    func(v *[4]float64) [3]float64
}

// rgbSpace is one of three primaries, whose light is a value's through a function.
type rgbSpace struct {
	primaries primaries
	light     func(float64) float64
}

// device tabulates the function.
func (s rgbSpace) device() *device {
	light := tabulated(s.light)
	return rgbDevice(matrix(s.primaries.xyz()).transposed(), light, light, light)
}

// rgbDevice is that of a matrix and three curves.
func rgbDevice(toXYZ matrix, red, green, blue table) *device {
	return &device{3, func(v *[4]float64) [3]float64 {
		return toXYZ.times([3]float64{red.at(v[0]), green.at(v[1]), blue.at(v[2])})
	}}
}

// table has a function's values at as many places of [0,1], the same way apart.
type table []float32

// tabulated takes values at each of 8 bits' levels and at fifteen places between two of them.
func tabulated(f func(float64) float64) table {
	const points = 16*255 + 1
	t := make(table, points)
	for i := range t {
		t[i] = float32(f(float64(i) / (points - 1)))
	}
	return t
}

// at interpolates between two values.
func (t table) at(v float64) float64 {
	at := clamped(v) * float64(len(t)-1)
	i := min(int(at), len(t)-2)
	return float64(t[i]) + (at-float64(i))*float64(t[i+1]-t[i])
}

// device is what the file says of its colours; nil: sRGB, or what cannot be used.
func (c colours) device() *device {
	if c.profile != nil {
		return deviceOf(c.profile)
	}
	if c.named != nil {
		return c.named.device()
	}
	return nil
}

// toSRGB returns what converts rows of m's pixels to what a colour-managed viewer shows
// on an sRGB screen: a function for each goroutine, which is nil where nothing is to do.
// With inks it wants CMYK as it is. A profile that cannot be used, or is of other
// channels than the picture (grey, if it has lightness alone), is ignored, as viewers do.
func (c colours) toSRGB(m image.Image, grey bool) (convert func() func([]pixel), inks bool) {
	nothing := func() func([]pixel) { return nil }
	_, inks = m.(*image.CMYK)
	d := c.device()
	if d == nil || inks != (d.channels == 4) || !grey && d.channels == 1 || d.isSRGB() || !d.shows() {
		return nothing, false
	}
	return func() func([]pixel) {
		var last, made pixel // the same colour often follows
		known := false
		return func(row []pixel) {
			for x, v := range row {
				if !known || v != last {
					last, made, known = v, d.sRGB(v), true
					if made[3] = v[3]; inks {
						made[3] = 1
					}
				}
				row[x] = made
			}
		}
	}, inks
}

// sRGB is a pixel's colour on an sRGB screen, by relative colorimetry; what lies beyond is
// clipped.
func (d *device) sRGB(v pixel) (out pixel) {
	shown := lightOfSRGB().times(d.light(&[4]float64{float64(v[0]), float64(v[1]), float64(v[2]), float64(v[3])}))
	encode := encoded()
	for i, light := range shown {
		out[i] = unit(encode.at(light))
	}
	return out
}

// isSRGB says whether nothing changes by more than a third of a level of 255.
func (d *device) isSRGB() bool {
	const steps = 8
	for i := range steps * steps * steps {
		level := func(i int) float32 { return float32(i%steps) / (steps - 1) }
		v := pixel{level(i), level(i / steps), level(i / steps / steps)}
		if d.channels != 3 {
			return false
		}
		for k, shown := range d.sRGB(v) {
			if k < 3 && !(math.Abs(float64(shown-v[k])) < 1./3/255) {
				return false
			}
		}
	}
	return true
}

// shows says whether something is lighter than black: else the profile is broken.
func (d *device) shows() bool {
	for _, v := range []float32{0, 0.5, 1} {
		if s := d.sRGB(pixel{v, v, v, v}); max(s[0], s[1], s[2]) > 0.05 {
			return true
		}
	}
	return false
}

// lightOfSRGB makes red, green and blue light of XYZ.
var lightOfSRGB = sync.OnceValue(func() matrix { return inverse(matrix(srgbPrimaries.xyz()).transposed()) })

// encoded is sRGB's value of light (IEC 61966-2-1). Between its 8192 places it is off by
// 5e-6 at most.
var encoded = sync.OnceValue(func() table {
	t := make(table, 8192)
	for i := range t {
		v := float64(i) / float64(len(t)-1)
		if t[i] = float32(12.92 * v); v > 0.0031308 {
			t[i] = float32(1.055*math.Pow(v, 1/2.4) - 0.055)
		}
	}
	return t
})

// fromLab makes XYZ of CIELAB (CIE 15, 8.2.1), both of d50's white.
func fromLab(l, a, b float64) [3]float64 {
	part := func(v float64) float64 {
		if v > 6./29 {
			return v * v * v
		}
		return (v - 16./116) * 108 / 841
	}
	y := (l + 16) / 116
	return [3]float64{d50[0] * part(y+a/500), d50[1] * part(y), d50[2] * part(y-b/200)}
}

// clamped limits a value to [0,1]; what is no number is 0.
func clamped(v float64) float64 {
	if !(v > 0) {
		return 0
	}
	return min(v, 1)
}

// unit is clamped.
func unit(v float64) float32 { return float32(clamped(v)) }

// primaries are the chromaticities x, y of red, green, blue and white.
type primaries [4][2]float64

var (
	d65 = [2]float64{0.3127, 0.3290}

	srgbPrimaries = primaries{{0.64, 0.33}, {0.30, 0.60}, {0.15, 0.06}, d65}
)

// d50 is the white of profiles, as ICC.1:2022, 7.2.16 rounds it.
var d50 = [3]float64{0.9642, 1, 0.8249}

// xyz returns the colours of the primaries at full light, adapted to D50 by Bradford's
// matrix (ICC.1:2022, annex E): their sum is d50.
func (p primaries) xyz() (columns [3][3]float64) {
	var xyz [4][3]float64
	for i, c := range p {
		if !(c[1] > 0) {
			panic(fmt.Sprintf("a chromaticity y of %v", c[1]))
		}
		xyz[i] = [3]float64{c[0] / c[1], 1, (1 - c[0] - c[1]) / c[1]}
	}
	weights := inverse(matrix{xyz[0], xyz[1], xyz[2]}.transposed()).times(xyz[3])
	cone := matrix{{0.8951, 0.2664, -0.1614}, {-0.7502, 1.7135, 0.0367}, {0.0389, -0.0685, 1.0296}}
	from, to := cone.times(xyz[3]), cone.times(d50)
	back := inverse(cone)
	for i := range columns {
		for k := range 3 {
			columns[i][k] = xyz[i][k] * weights[i]
		}
		adapted := cone.times(columns[i])
		for k := range adapted {
			adapted[k] *= to[k] / from[k]
		}
		columns[i] = back.times(adapted)
	}
	return columns
}

// matrix is of three rows.
type matrix [3][3]float64

func (m matrix) times(v [3]float64) (out [3]float64) {
	for i := range 3 {
		out[i] = m[i][0]*v[0] + m[i][1]*v[1] + m[i][2]*v[2]
	}
	return out
}

func (m matrix) transposed() (out matrix) {
	for i := range 3 {
		for k := range 3 {
			out[k][i] = m[i][k]
		}
	}
	return out
}

func inverse(m matrix) (out matrix) {
	cofactor := func(i, k int) float64 {
		a, b, c, d := (i+1)%3, (i+2)%3, (k+1)%3, (k+2)%3
		return m[a][c]*m[b][d] - m[a][d]*m[b][c]
	}
	determinant := m[0][0]*cofactor(0, 0) + m[0][1]*cofactor(0, 1) + m[0][2]*cofactor(0, 2)
	for i := range 3 {
		for k := range 3 {
			out[k][i] = cofactor(i, k) / determinant
		}
	}
	return out
}

// cicp are colours by the numbers of ITU-T H.273 (8.1 and 8.2), as PNG, HEIC, AVIF and
// JPEG XL have them. What they do not know is taken for sRGB's.
func cicp(colourPrimaries, transfer int) (colours, error) {
	known := map[int]primaries{
		4:  {{0.67, 0.33}, {0.21, 0.71}, {0.14, 0.08}, {0.310, 0.316}},
		5:  {{0.64, 0.33}, {0.29, 0.60}, {0.15, 0.06}, d65},
		6:  {{0.630, 0.340}, {0.310, 0.595}, {0.155, 0.070}, d65},
		7:  {{0.630, 0.340}, {0.310, 0.595}, {0.155, 0.070}, d65},
		9:  {{0.708, 0.292}, {0.170, 0.797}, {0.131, 0.046}, d65},
		11: {{0.680, 0.320}, {0.265, 0.690}, {0.150, 0.060}, {0.314, 0.351}},
		12: {{0.680, 0.320}, {0.265, 0.690}, {0.150, 0.060}, d65},
		22: {{0.630, 0.340}, {0.295, 0.605}, {0.155, 0.077}, d65},
	}
	p, other := known[colourPrimaries]
	if !other {
		p = srgbPrimaries
	}
	var light func(float64) float64
	switch transfer {
	case 4:
		light = func(v float64) float64 { return math.Pow(v, 2.2) }
	case 5:
		light = func(v float64) float64 { return math.Pow(v, 2.8) }
	case 8:
		light = func(v float64) float64 { return v }
	case 16, 18:
		return colours{}, refused("is of a high dynamic range (PQ or HLG), which sRGB cannot show: convert it to " +
			"sRGB first")
	case 17: // SMPTE 428: 48 cd/m² is white
		light = func(v float64) float64 { return math.Pow(v, 2.6) * 52.37 / 48 }
	default: // sRGB's, and BT.709's, which viewers show by the same curve
		if !other {
			return colours{}, nil
		}
		light = linear
	}
	return colours{named: &rgbSpace{p, light}}, nil
}

// linear is the light of an sRGB-encoded value (IEC 61966-2-1).
func linear(v float64) float64 {
	if v <= 0.04045 {
		return v / 12.92
	}
	return math.Pow((v+0.055)/1.055, 2.4)
}
