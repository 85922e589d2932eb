package picture

import (
	"bytes"
	_ "embed"
	"encoding/binary"
	"image"

	"github.com/kovidgoyal/imaging/prism/meta/autometa"
	"github.com/kovidgoyal/imaging/prism/meta/icc"
)

// srgbProfile is what files are written with. It was made by
// PIL.ImageCms.createProfile("sRGB") (lcms2).
//
//go:embed srgb.icc
var srgbProfile []byte

// profileOf returns the file's ICC profile; nil where it has none that can be
// read, or sRGB's.
func profileOf(data []byte, format string) (p *icc.Profile) {
	defer func() {
		if recover() != nil { // a broken profile is no reason to refuse a picture
			p = nil
		}
	}()
	var raw []byte
	if format == "tiff" {
		raw = fieldTIFF(data, tagProfile)
	} else if meta, _, err := autometa.Load(bytes.NewReader(data)); err == nil && meta != nil {
		raw, _ = meta.ICCProfileData()
	}
	if !soundProfile(raw) {
		return nil
	}
	p, err := icc.DecodeProfile(bytes.NewReader(raw))
	if err != nil || p == nil || p.IsSRGB() {
		return nil
	}
	return p
}

// soundProfile says whether a profile's table of tags lies in it (ICC.1:2022, 7.3),
// and so do the points that a "curv" in a tag says it has (10.6): the decoder takes
// memory for what these say before it looks.
func soundProfile(raw []byte) bool {
	const header, entry = 128, 12
	if len(raw) < header+4 {
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

// managed makes an upright picture of a decoded image in its profile's colours: what
// a colour-managed viewer shows on an sRGB screen.
func managed(m image.Image, profile *icc.Profile, o orientation) *Picture {
	if profile != nil {
		if cmyk, ok := m.(*image.CMYK); ok {
			if p := fromInks(cmyk, profile, o); p != nil {
				return p
			}
		} else if p := fromImage(m, o); p.toSRGB(profile) {
			return p
		}
	}
	return fromImage(m, o)
}

// toSRGB converts the picture's values, which are the profile's. It says
// whether the profile is of three colours and can be used.
func (p *Picture) toSRGB(profile *icc.Profile) (done bool) {
	const clamp, mapGamut, optimize = true, false, true
	pipeline, err := profile.CreateTransformerToSRGB(icc.RelativeColorimetricRenderingIntent, false, 3, clamp, mapGamut, optimize)
	if err != nil || profile.Header.DataColorSpace != icc.ColorSpaceRGB {
		return false
	}
	plane := p.Width * p.Height
	rows(p.Height, func(from, to int) {
		for i := from * p.Width; i < to*p.Width; i++ {
			r, g, b := pipeline.Transform(float64(p.Pixels[i]), float64(p.Pixels[plane+i]), float64(p.Pixels[2*plane+i]))
			for k, v := range [3]float64{r, g, b} {
				p.Pixels[k*plane+i] = unit(v)
			}
		}
	})
	return true
}

// fromInks makes a picture of cyan, magenta, yellow and black; nil if the
// profile is not of them.
func fromInks(m *image.CMYK, profile *icc.Profile, o orientation) *Picture {
	pipeline, err := profile.CreateTransformerToSRGB(icc.RelativeColorimetricRenderingIntent, false, 4, true, false, true)
	if err != nil || profile.Header.DataColorSpace != icc.ColorSpaceCMYK {
		return nil
	}
	corner := m.Bounds().Min
	return o.upright(m.Bounds().Size(), func() func(x, y int) [3]float32 {
		in, out := make([]float64, 4), make([]float64, 4)
		return func(x, y int) [3]float32 {
			at := m.PixOffset(corner.X+x, corner.Y+y)
			for k := range in {
				in[k] = float64(m.Pix[at+k]) / 255
			}
			pipeline.TransformGeneral(out, in)
			return [3]float32{unit(out[0]), unit(out[1]), unit(out[2])}
		}
	})
}

// unit limits a value to [0,1]; what is no number is 0.
func unit(v float64) float32 {
	if !(v > 0) {
		return 0
	}
	return float32(min(v, 1))
}
