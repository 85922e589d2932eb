package picture

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"fmt"
	"image"
	"math"
	"slices"

	"github.com/kovidgoyal/imaging/prism/meta/icc"
)

// srgbProfile is what files are written with. It was made by
// PIL.ImageCms.createProfile("sRGB") (lcms2).
//
//go:embed srgb.icc
var srgbProfile []byte

// colours say what a file's values mean. The zero value is sRGB.
type colours struct {
	profile []byte // an ICC profile; nil: none
	ycbcr   ycbcr
}

// ycbcr says how YCbCr is made of red, green and blue. The zero value is JPEG's way
// (ITU-T T.871, 7): BT.601's weights, and the full range.
type ycbcr struct {
	red, blue float32 // what they weigh in luma; 0: BT.601's
	nearest   bool    // chroma of fewer samples is repeated, not interpolated
	limited   bool    // black is 16 and white 235, as in WebP (RFC 6386, 9.2)
}

// toSRGB returns what converts rows of m's pixels to what a colour-managed viewer shows
// on an sRGB screen: a function for each goroutine, which is nil where nothing is to do.
// With inks it wants CMYK as it is. A profile that cannot be used, or is of other
// channels than the picture (grey, if it has lightness alone), is ignored, as viewers do.
func (c colours) toSRGB(m image.Image, grey bool) (convert func() func([]pixel), inks bool) {
	nothing := func() func([]pixel) { return nil }
	profile := c.parsed()
	if profile == nil {
		return nothing, false
	}
	const clamp, mapGamut, optimize = true, false, true
	channels := map[icc.ColorSpace]int{icc.ColorSpaceRGB: 3, icc.ColorSpaceGray: 1,
		icc.ColorSpaceCMYK: 4}[profile.Header.DataColorSpace]
	_, inks = m.(*image.CMYK)
	if channels == 0 || inks != (channels == 4) || !grey && string(c.profile[16:20]) == "GRAY" {
		return nothing, false
	}
	pipeline, err := profile.CreateTransformerToSRGB(icc.RelativeColorimetricRenderingIntent, false, channels, clamp,
		mapGamut, optimize)
	if err != nil {
		return nothing, false
	}
	transform := func(out, in []float64) {
		if channels == 3 {
			out[0], out[1], out[2] = pipeline.Transform(in[0], in[1], in[2])
		} else {
			pipeline.TransformGeneral(out, in)
		}
	}
	lightest := 0.0
	for _, v := range []float64{0, 0.5, 1} {
		shown := make([]float64, 4)
		transform(shown, []float64{v, v, v, v}[:channels])
		lightest = max(lightest, shown[0], shown[1], shown[2])
	}
	if !(lightest > 0.05) {
		return nothing, false // it makes all black: it is broken
	}
	return func() func([]pixel) {
		in, out := make([]float64, channels), make([]float64, 4)
		var last, made pixel // the same colour often follows
		known := false
		return func(row []pixel) {
			for x, v := range row {
				if !known || v != last {
					for k := range in {
						in[k] = float64(v[k])
					}
					transform(out, in)
					last, made, known = v, pixel{unit(out[0]), unit(out[1]), unit(out[2]), v[3]}, true
					if inks {
						made[3] = 1
					}
				}
				row[x] = made
			}
		}
	}, inks
}

// parsed returns the profile; nil where there is none that can be read, or sRGB's.
func (c colours) parsed() (p *icc.Profile) {
	defer func() {
		if recover() != nil { // a broken profile is no reason to refuse a picture
			p = nil
		}
	}()
	raw := c.profile
	if !soundProfile(raw) || slices.Contains([]string{"link", "abst", "nmcl"}, string(raw[12:16])) { // no device's
		return nil
	}
	if string(raw[16:20]) == "GRAY" {
		if made := greyAsRGB(raw); made != nil { // else it has a table
			raw = made
		}
	}
	p, err := icc.DecodeProfile(bytes.NewReader(withoutIdentities(raw)))
	if err != nil || p == nil || p.IsSRGB() {
		return nil
	}
	return p
}

// almostLinear is a curve that stands for one that changes nothing, of which the library
// panics (v1.8.19): a power of 1.0003 (ICC.1:2022, 10.18). It is off by 0.03 levels of 255.
var almostLinear = []byte("para\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x14")

// withoutIdentities returns a profile in which curves that change nothing are almostLinear.
func withoutIdentities(raw []byte) []byte {
	out := bytes.Clone(raw)
	for i := range int(binary.BigEndian.Uint32(raw[128:])) {
		entry := out[132+12*i:]
		from, size := binary.BigEndian.Uint32(entry[4:]), binary.BigEndian.Uint32(entry[8:])
		if !changesNothing(raw[from:from+size]) || !bytes.HasSuffix(entry[:4], []byte("TRC")) {
			continue
		}
		binary.BigEndian.PutUint32(entry[4:], uint32(len(out)))
		binary.BigEndian.PutUint32(entry[8:], uint32(len(almostLinear)))
		out = append(out, almostLinear...)
	}
	binary.BigEndian.PutUint32(out, uint32(len(out)))
	return out
}

// changesNothing says whether a curve's tag is the identity.
func changesNothing(tag []byte) bool {
	if len(tag) >= 16 && string(tag[:4]) == "para" {
		return binary.BigEndian.Uint16(tag[8:]) == 0 && binary.BigEndian.Uint32(tag[12:]) == 1<<16
	}
	if len(tag) < 12 || string(tag[:4]) != "curv" {
		return false
	}
	points := int(binary.BigEndian.Uint32(tag[8:]))
	switch {
	case points == 0:
		return true
	case len(tag) < 12+2*points:
		return false
	case points == 1:
		return binary.BigEndian.Uint16(tag[12:]) == 1<<8
	}
	for i := range points {
		if math.Abs(float64(binary.BigEndian.Uint16(tag[12+2*i:]))-65535*float64(i)/float64(points-1)) > 1 {
			return false
		}
	}
	return true
}

// unit limits a value to [0,1]; what is no number is 0.
func unit(v float64) float32 {
	if !(v > 0) {
		return 0
	}
	return float32(min(v, 1))
}

// soundProfile says whether a profile's table of tags lies in it (ICC.1:2022, 7.3),
// and so do the points that a "curv" in a tag says it has (10.6): the decoder takes
// memory for what these say before it looks.
func soundProfile(raw []byte) bool {
	const header, entry = 128, 12
	if len(raw) < header+4 || len(raw) > maxProfile {
		return false
	}
	word := func(at int) uint64 { return uint64(binary.BigEndian.Uint32(raw[at:])) }
	tags, size := word(header), uint64(len(raw))
	if header+4+tags*entry > size {
		return false
	}
	for i := range int(tags) {
		at := header + 4 + i*entry
		from, to := word(at+4), word(at+4)+word(at+8)
		if to > size {
			return false
		}
		if !soundTag(raw[from:to]) {
			return false
		}
	}
	return true
}

func soundTag(tag []byte) bool {
	for _, text := range []string{"desc", "text", "mluc"} { // may speak of curves
		if bytes.HasPrefix(tag, []byte(text)) {
			return true
		}
	}
	for {
		_, rest, found := bytes.Cut(tag, []byte("curv"))
		if !found {
			return true
		}
		if len(rest) < 8 || uint64(binary.BigEndian.Uint32(rest[4:]))*2+8 > uint64(len(rest)) {
			return false
		}
		tag = rest
	}
}

// primaries are the chromaticities x, y of red, green, blue and white.
type primaries [4][2]float64

var (
	d65 = [2]float64{0.3127, 0.3290}

	srgbPrimaries = primaries{{0.64, 0.33}, {0.30, 0.60}, {0.15, 0.06}, d65}
)

// matrixProfile makes a profile (ICC.1:2022, 8.3.3) of three colours, whose light is
// their values through a curve, a tag's content.
func matrixProfile(p primaries, curve []byte) []byte {
	fixed := func(v [3]float64) []byte { // s15Fixed16 numbers (4.6)
		out := []byte("XYZ \x00\x00\x00\x00")
		for _, x := range v {
			out = binary.BigEndian.AppendUint32(out, uint32(int32(math.Round(x*65536))))
		}
		return out
	}
	columns := p.xyz()
	tags := []struct {
		name    string
		content []byte
	}{{"rXYZ", fixed(columns[0])}, {"gXYZ", fixed(columns[1])}, {"bXYZ", fixed(columns[2])}, {"rTRC", curve}, {"gTRC",
		curve}, {"bTRC", curve},
		{"wtpt", fixed(d50)}, {"desc", append([]byte("desc\x00\x00\x00\x00\x00\x00\x00\x04nst"), make([]byte, 79)...)}}
	const header = 128
	table := binary.BigEndian.AppendUint32(nil, uint32(len(tags)))
	var body []byte
	for _, tag := range tags {
		table = append(table, tag.name...)
		table = binary.BigEndian.AppendUint32(table, uint32(header+4+12*len(tags)+len(body)))
		table = binary.BigEndian.AppendUint32(table, uint32(len(tag.content)))
		body = append(body, tag.content...)
		body = append(body, make([]byte, -len(body)&3)...)
	}
	out := make([]byte, header, header+len(table)+len(body))
	binary.BigEndian.PutUint32(out, uint32(cap(out)))
	binary.BigEndian.PutUint32(out[8:], 0x02100000)
	copy(out[12:], "mntrRGB XYZ ")
	copy(out[36:], "acsp")
	copy(out[68:], fixed(d50)[8:])
	return append(append(out, table...), body...)
}

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

// curve samples a transfer function, from a file's values to light, as a tag's content.
func curve(light func(float64) float64) []byte {
	const points = 4096
	out := binary.BigEndian.AppendUint32([]byte("curv\x00\x00\x00\x00"), points)
	for i := range points {
		out = binary.BigEndian.AppendUint16(out, uint16(math.Round(float64(unit(light(float64(i)/(points-1))))*65535)))
	}
	return out
}

// greyAsRGB makes a profile of three equal colours of a grey one (ICC.1:2022, 8.3.4):
// its curve is of light or, where profiles are connected in CIELAB, of lightness.
func greyAsRGB(raw []byte) []byte {
	for i := range int(binary.BigEndian.Uint32(raw[128:])) {
		entry := raw[132+12*i:]
		if string(entry[:4]) != "kTRC" {
			continue
		}
		from, size := binary.BigEndian.Uint32(entry[4:]), binary.BigEndian.Uint32(entry[8:])
		tag := raw[from : from+size]
		if string(raw[20:24]) == "Lab " {
			profile, err := icc.DecodeProfile(bytes.NewReader(withoutIdentities(matrixProfile(srgbPrimaries, tag))))
			if err != nil {
				return nil
			}
			pipeline, err := profile.CreateTransformerToPCS(icc.RelativeColorimetricRenderingIntent, 3, true)
			if err != nil {
				return nil
			}
			_, white, _ := pipeline.Transform(1, 1, 1)
			tag = curve(func(v float64) float64 {
				_, l, _ := pipeline.Transform(v, v, v)
				if l = l / white * 100; l > 8 { // CIE 15, 8.2.1.1
					return math.Pow((l+16)/116, 3)
				}
				return l * 27 / 24389
			})
		}
		return matrixProfile(srgbPrimaries, tag)
	}
	return nil
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
	return colours{profile: matrixProfile(p, curve(light))}, nil
}

// linear is the light of an sRGB-encoded value (IEC 61966-2-1).
func linear(v float64) float64 {
	if v <= 0.04045 {
		return v / 12.92
	}
	return math.Pow((v+0.055)/1.055, 2.4)
}
