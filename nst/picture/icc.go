package picture

import (
	"encoding/binary"
	"math"
	"slices"
)

// ICC profiles (ICC.1:2022), from a device's values to the connection space, by relative
// colorimetry: curves and a matrix, and tables of colours. Everything is read where it lies,
// so that a profile takes no memory beyond its own bytes, and is looked at once.

const headerICC = 128 // bytes

// profileICC is a profile whose tags lie in it.
type profileICC struct {
	data []byte
	lab  bool // the connection space is CIELAB, else XYZ
}

// deviceOf reads a profile; nil if it is not one that can be used.
func deviceOf(data []byte) *device {
	if len(data) < headerICC+4 || len(data) > maxProfile {
		return nil
	}
	class, connection := string(data[12:16]), string(data[20:24])
	if slices.Contains([]string{"link", "abst", "nmcl"}, class) || connection != "XYZ " && connection != "Lab " {
		return nil // no device's
	}
	p := profileICC{data, connection == "Lab "}
	channels := map[string]int{"GRAY": 1, "RGB ": 3, "CMYK": 4}[string(data[16:20])]
	if channels == 0 {
		return nil
	}
	tags := p.tags("A2B1", "A2B0", "kTRC", "rTRC", "gTRC", "bTRC", "rXYZ", "gXYZ", "bXYZ")
	for _, name := range []string{"A2B1", "A2B0"} {
		if tag := tags[name]; tag != nil {
			return p.lookUp(tag, channels)
		}
	}
	switch {
	case channels == 1:
		return p.grey(tags["kTRC"])
	case channels == 3 && !p.lab:
		return matrixShaper(tags)
	}
	return nil
}

// tags are those of the names, the first of each, as far as they lie in the profile (7.3).
func (p profileICC) tags(names ...string) map[string][]byte {
	found := map[string][]byte{}
	const entry = 12
	table := p.data[headerICC+4:]
	count := min(uint64(binary.BigEndian.Uint32(p.data[headerICC:])), uint64(len(table)/entry))
	for i := range int(count) {
		e := table[entry*i:]
		if slices.Contains(names, string(e[:4])) && found[string(e[:4])] == nil {
			found[string(e[:4])] = part(p.data, binary.BigEndian.Uint32(e[4:]), binary.BigEndian.Uint32(e[8:]))
		}
	}
	return found
}

// part is a piece of data; nil if that ends before it.
func part(data []byte, at, size uint32) []byte {
	if uint64(at)+uint64(size) > uint64(len(data)) {
		return nil
	}
	return data[at : at+size]
}

// matrixShaper is the device of three curves and a matrix (F.3).
func matrixShaper(tags map[string][]byte) *device {
	var curves [3]table
	var columns matrix
	for i, c := range []string{"r", "g", "b"} {
		curve, _ := readCurve(tags[c+"TRC"])
		column := tags[c+"XYZ"]
		if curve == nil || len(column) < 20 {
			return nil
		}
		curves[i] = tabulated(curve)
		for k := range 3 {
			columns[i][k] = fixed(column[8+4*k:])
		}
	}
	return rgbDevice(columns.transposed(), curves[0], curves[1], curves[2])
}

// grey is the device whose curve is of light or, where the connection space is CIELAB, of
// lightness (8.3.4).
func (p profileICC) grey(tag []byte) *device {
	curve, _ := readCurve(tag)
	if curve == nil {
		return nil
	}
	t := tabulated(func(v float64) float64 {
		if p.lab {
			return fromLab(100*curve(v), 0, 0)[1]
		}
		return curve(v)
	})
	return &device{1, func(v *[4]float64) [3]float64 {
		y := t.at(v[0])
		return [3]float64{d50[0] * y, d50[1] * y, d50[2] * y}
	}}
}

// fixed is an s15Fixed16Number (4.6).
func fixed(b []byte) float64 { return float64(int32(binary.BigEndian.Uint32(b))) / 65536 }

// curve makes a value of one in [0,1].
type curve func(float64) float64

// readCurve reads a curveType or parametricCurveType (10.6, 10.18), and says how long it is;
// nil if it is neither.
func readCurve(tag []byte) (c curve, size int) {
	if len(tag) < 12 {
		return nil, 0
	}
	switch string(tag[:4]) {
	case "curv":
		count := uint64(binary.BigEndian.Uint32(tag[8:]))
		if 12+2*count > uint64(len(tag)) {
			return nil, 0
		}
		points := samplesICC{data: tag[12 : 12+2*count], wide: true}
		switch count {
		case 0:
			return func(v float64) float64 { return v }, 12
		case 1:
			exponent := float64(binary.BigEndian.Uint16(tag[12:])) / 256
			return func(v float64) float64 { return math.Pow(v, exponent) }, 14
		}
		return points.curve(0, int(count)), len(tag[:12+2*count])
	case "para":
		counts := []int{1, 3, 4, 5, 7}
		kind := int(binary.BigEndian.Uint16(tag[8:]))
		if kind >= len(counts) || len(tag) < 12+4*counts[kind] {
			return nil, 0
		}
		var v [7]float64
		for i := range counts[kind] {
			v[i] = fixed(tag[12+4*i:])
		}
		return parametric(kind, v), 12 + 4*counts[kind]
	}
	return nil, 0
}

// parametric is one of the functions of table 68: g, a, b, c, d, e, f are v's.
func parametric(kind int, v [7]float64) curve {
	g, a, b, c, d, e, f := v[0], v[1], v[2], v[3], v[4], v[5], v[6]
	switch kind {
	case 0:
		a, b, c, d, e, f = 1, 0, 0, 0, 0, 0
	case 1:
		c, d, e, f = 0, -b/a, 0, 0
	case 2:
		c, d, e, f = 0, -b/a, c, c
	case 3:
		e, f = 0, 0
	}
	return func(x float64) float64 {
		if x >= d {
			return math.Pow(max(a*x+b, 0), g) + e
		}
		return c*x + f
	}
}

// samplesICC are numbers of 8 or 16 bits, as parts of the largest one.
type samplesICC struct {
	data []byte
	wide bool
}

func (s samplesICC) at(i int) float64 {
	if s.wide {
		return float64(binary.BigEndian.Uint16(s.data[2*i:])) / 0xffff
	}
	return float64(s.data[i]) / 0xff
}

// curve goes through count samples, two or more, from the first-th on.
func (s samplesICC) curve(first, count int) curve {
	return func(v float64) float64 {
		at := clamped(v) * float64(count-1)
		i := min(int(at), count-2)
		low := s.at(first + i)
		return low + (at-float64(i))*(s.at(first+i+1)-low)
	}
}

// lookUp is the device of a table of colours: lut8Type, lut16Type or lutAToBType.
func (p profileICC) lookUp(tag []byte, channels int) *device {
	if len(tag) < 32 || int(tag[8]) != channels || tag[9] != 3 {
		return nil
	}
	var steps []step
	toLab := func(v *[4]float64) [3]float64 { return fromLab(100*v[0], 255*v[1]-128, 255*v[2]-128) }
	switch string(tag[:4]) {
	case "mft1":
		steps = lookUp8or16(tag, channels, false)
	case "mft2":
		steps = lookUp8or16(tag, channels, true)
		toLab = func(v *[4]float64) [3]float64 { // 0xff00 is 100 there (10.10)
			const scale = 65535. / 65280
			return fromLab(100*scale*v[0], 255*scale*v[1]-128, 255*scale*v[2]-128)
		}
	case "mAB ":
		steps = lookUpAToB(tag, channels)
	}
	if steps == nil {
		return nil
	}
	return &device{channels, func(v *[4]float64) [3]float64 {
		w := *v
		for _, s := range steps {
			s(&w)
		}
		if p.lab {
			return toLab(&w)
		}
		const scale = 1 + 32767./32768 // of a value of 1 (6.3.4.2)
		return [3]float64{scale * w[0], scale * w[1], scale * w[2]}
	}}
}

// step is a stage of what a table does to a colour.
type step func(v *[4]float64)

func curvesStep(curves []curve) step {
	return func(v *[4]float64) {
		for i, c := range curves {
			v[i] = c(v[i])
		}
	}
}

// lookUp8or16 reads a lut8Type (10.11) or a lut16Type (10.10): curves, a grid, curves. Its
// matrix is for XYZ's values, which no device has.
func lookUp8or16(tag []byte, channels int, wide bool) []step {
	if len(tag) < 52 {
		return nil
	}
	grid, before, after := int(tag[10]), 256, 256
	s := samplesICC{tag[48:], wide}
	if wide {
		before, after = int(binary.BigEndian.Uint16(tag[48:])), int(binary.BigEndian.Uint16(tag[50:]))
		s.data = tag[52:]
	}
	if before < 2 || after < 2 {
		return nil
	}
	sides := slices.Repeat([]int{grid}, channels)
	first := channels * before
	g, size := s.grid(first, sides)
	if g == nil || !s.has(first+size+3*after) {
		return nil
	}
	in, out := make([]curve, channels), make([]curve, 3)
	for i := range in {
		in[i] = s.curve(i*before, before)
	}
	for i := range out {
		out[i] = s.curve(first+size+i*after, after)
	}
	return []step{curvesStep(in), g, curvesStep(out)}
}

// lookUpAToB reads a lutAToBType (10.12): the A curves, a grid, the M curves, a matrix and
// the B curves, of which those that are not there change nothing.
func lookUpAToB(tag []byte, channels int) (steps []step) {
	at := func(i int) uint32 { return binary.BigEndian.Uint32(tag[12+4*i:]) } // B, matrix, M, grid, A
	sound := true
	rest := func(i int) []byte {
		if uint64(at(i)) >= uint64(len(tag)) {
			sound = false
			return nil
		}
		return tag[at(i):]
	}
	curves := func(i, count int) {
		if at(i) == 0 {
			return
		}
		all, block := make([]curve, count), rest(i)
		for k := range all {
			c, size := readCurve(block)
			if c == nil {
				sound = false
				return
			}
			all[k], block = c, block[min((size+3)&^3, len(block)):]
		}
		steps = append(steps, curvesStep(all))
	}
	curves(4, channels)
	if at(3) != 0 {
		block := rest(3)
		if len(block) < 20 || block[16] < 1 || block[16] > 2 {
			return nil
		}
		sides := make([]int, channels)
		for i := range sides {
			sides[i] = int(block[i])
		}
		g, _ := samplesICC{block[20:], block[16] == 2}.grid(0, sides)
		if g == nil {
			return nil
		}
		steps = append(steps, g)
	} else if channels != 3 {
		return nil
	}
	curves(2, 3)
	if at(1) != 0 {
		block := rest(1)
		if len(block) < 48 {
			return nil
		}
		var m matrix
		var offset [3]float64
		for i := range 9 {
			m[i/3][i%3] = fixed(block[4*i:])
		}
		for i := range offset {
			offset[i] = fixed(block[36+4*i:])
		}
		steps = append(steps, func(v *[4]float64) {
			w := m.times([3]float64(v[:3]))
			for i := range w {
				v[i] = clamped(w[i] + offset[i])
			}
		})
	}
	if curves(0, 3); !sound || steps == nil {
		return nil
	}
	return steps
}

// has says whether there are so many samples.
func (s samplesICC) has(count int) bool {
	if s.wide {
		count *= 2
	}
	return count <= len(s.data)
}

// grid interpolates in a grid of three values a point, of so many points a side, the last of
// which follow each other; size is how many samples that are. It is nil if there are fewer.
// Of up to three sides it goes through simplices, as colour management does (tetrahedra of
// three); of four, between two of those.
func (s samplesICC) grid(first int, sides []int) (g step, size int) {
	strides := make([]int, len(sides))
	size = 3
	for i := len(sides) - 1; i >= 0; i-- {
		if sides[i] < 2 {
			return nil, 0
		}
		strides[i] = size
		if size *= sides[i]; !s.has(first + size) {
			return nil, 0
		}
	}
	inks := len(sides) == 4
	return func(v *[4]float64) {
		var offset [4]int
		var fraction [4]float64
		at := first
		for i, side := range sides {
			place := clamped(v[i]) * float64(side-1)
			k := min(int(place), side-2)
			at += k * strides[i]
			offset[i], fraction[i] = strides[i], place-float64(k)
		}
		if !inks {
			s.simplex(at, offset[:len(sides)], fraction[:len(sides)], v)
			return
		}
		low, high := *v, *v
		s.simplex(at, offset[1:], fraction[1:], &low)
		s.simplex(at+offset[0], offset[1:], fraction[1:], &high)
		for i := range 3 {
			v[i] = low[i] + fraction[0]*(high[i]-low[i])
		}
	}, size
}

// simplex interpolates in a cell from its first corner to its last, along the sides on which
// the point lies farthest first. The slices are its own.
func (s samplesICC) simplex(corner int, offset []int, fraction []float64, out *[4]float64) {
	for i := 1; i < len(fraction); i++ { // sorts two or three
		for k := i; k > 0 && fraction[k] > fraction[k-1]; k-- {
			fraction[k], fraction[k-1] = fraction[k-1], fraction[k]
			offset[k], offset[k-1] = offset[k-1], offset[k]
		}
	}
	for c := range 3 {
		at, low := corner+c, s.at(corner+c)
		out[c] = low
		for i, step := range offset {
			at += step
			high := s.at(at)
			out[c] += fraction[i] * (high - low)
			low = high
		}
	}
}
