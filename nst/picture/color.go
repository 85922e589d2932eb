package picture

import (
	"math"

	"github.com/lucasb-eyer/go-colorful"
	"gonum.org/v1/gonum/mat"
)

// lab is a colour in CIELAB (D65): lightness L* and the chroma axes a*, b*, all
// over 100. It is made of linear light, and equal steps in it look alike.
type lab [3]float64

func (p *Picture) lab(i int) lab {
	plane := p.Width * p.Height
	l, a, b := colorful.Color{R: float64(p.Pixels[i]), G: float64(p.Pixels[plane+i]),
		B: float64(p.Pixels[2*plane+i])}.Lab()
	return lab{l, a, b}
}

// setLab stores a colour. One that sRGB cannot show keeps its lightness and
// hue, and as much of its chroma as sRGB has there.
func (p *Picture) setLab(i int, c lab) {
	l := min(max(c[0], 0), 1)
	shown := func(chroma float64) (colorful.Color, bool) {
		s := colorful.Lab(l, c[1]*chroma, c[2]*chroma)
		return s, min(s.R, s.G, s.B) >= -1e-6 && max(s.R, s.G, s.B) <= 1+1e-6
	}
	out, ok := shown(1)
	if !ok {
		low, high := 0.0, 1.0
		for range 12 {
			middle := (low + high) / 2
			if _, ok := shown(middle); ok {
				low = middle
			} else {
				high = middle
			}
		}
		out, _ = shown(low)
	}
	plane := p.Width * p.Height
	for k, v := range []float64{out.R, out.G, out.B} {
		p.Pixels[k*plane+i] = float32(min(max(v, 0), 1))
	}
}

// Recolor returns p with the colours of another picture of the same sizes: in
// CIELAB, L* of p and a*, b* of colours. (Gatys et al. 2017, arXiv:1611.07865,
// section 5, "luminance-only transfer", there in YIQ. L* is a function of the
// luminance in linear light, which stays p's.) Where sRGB has no such colour,
// chroma gives way.
func Recolor(p, colours *Picture) *Picture {
	out := New(p.Width, p.Height)
	out.Alpha = p.Alpha
	rows(p.Height, func(from, to int) {
		for i := from * p.Width; i < to*p.Width; i++ {
			c := colours.lab(i)
			c[0] = p.lab(i)[0]
			out.setLab(i, c)
		}
	})
	return out
}

// Luminance returns p in grey, with its L*.
func Luminance(p *Picture) *Picture {
	out := New(p.Width, p.Height)
	out.Alpha = p.Alpha
	rows(p.Height, func(from, to int) {
		for i := from * p.Width; i < to*p.Width; i++ {
			out.setLab(i, lab{p.lab(i)[0]})
		}
	})
	return out
}

// MatchColors returns p with its colours' mean and covariance made those of
// another picture, in CIELAB, by the affine map that changes them least:
//
//	x' = μ_to + A·(x − μ_p),  A = Σ_p^-½ (Σ_p^½ Σ_to Σ_p^½)^½ Σ_p^-½
//
// (Pitié and Kokaram 2007, "The linear Monge-Kantorovitch linear colour
// mapping"; what it is for is in Gatys et al. 2017, arXiv:1611.07865, section
// 5, "color histogram matching".) Where sRGB has no such colour, chroma gives
// way.
func MatchColors(p, to *Picture) *Picture {
	meanP, covarianceP := p.colours()
	meanTo, covarianceTo := to.colours()
	root, inverse := power(covarianceP, 0.5, flat*flat), power(covarianceP, -0.5, flat*flat)
	var middle, a mat.Dense
	middle.Product(root, covarianceTo, root)
	a.Product(inverse, power(symmetric(&middle), 0.5, 0), inverse)
	out := New(p.Width, p.Height)
	out.Alpha = p.Alpha
	rows(p.Height, func(from, to int) {
		for i := from * p.Width; i < to*p.Width; i++ {
			x, c := p.lab(i), lab(meanTo)
			for r := range 3 {
				for k := range 3 {
					c[r] += a.At(r, k) * (x[k] - meanP[k])
				}
			}
			out.setLab(i, c)
		}
	})
	return out
}

// colours returns the mean and the covariance of a picture's colours, each of which
// counts by its alpha.
func (p *Picture) colours() (mean lab, covariance *mat.SymDense) {
	n, weight := 0.0, 1.0
	var square [3][3]float64
	for i := range p.Width * p.Height {
		if p.Alpha != nil {
			if weight = float64(p.Alpha[i]); weight == 0 {
				continue
			}
		}
		c := p.lab(i)
		n += weight
		for r := range 3 {
			mean[r] += weight * c[r]
			for k := range 3 {
				square[r][k] += weight * c[r] * c[k]
			}
		}
	}
	n = max(n, math.SmallestNonzeroFloat64)
	covariance = mat.NewSymDense(3, nil)
	for r := range 3 {
		mean[r] /= n
	}
	for r := range 3 {
		for k := r; k < 3; k++ {
			covariance.SetSym(r, k, square[r][k]/n-mean[r]*mean[k])
		}
	}
	return mean, covariance
}

// flat is the least deviation (of L*/100) that is taken for colour: a picture
// of one colour has none to stretch.
const flat = 1e-3

// power is a power of a symmetric matrix whose eigenvalues are raised to a
// least one.
func power(m *mat.SymDense, exponent, least float64) *mat.SymDense {
	var eigen mat.EigenSym
	if !eigen.Factorize(m, true) {
		// of values that are no numbers; a checked picture has none
		return mat.NewSymDense(3, []float64{1, 0, 0, 0, 1, 0, 0, 0, 1})
	}
	var vectors, out mat.Dense
	eigen.VectorsTo(&vectors)
	values := eigen.Values(nil)
	for i, v := range values {
		values[i] = math.Pow(max(v, least), exponent)
	}
	out.Product(&vectors, mat.NewDiagDense(3, values), vectors.T())
	return symmetric(&out)
}

func symmetric(m *mat.Dense) *mat.SymDense {
	out := mat.NewSymDense(3, nil)
	for r := range 3 {
		for k := r; k < 3; k++ {
			out.SetSym(r, k, (m.At(r, k)+m.At(k, r))/2)
		}
	}
	return out
}
