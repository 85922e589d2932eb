package picture_test

import (
	"bytes"
	"image"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/kovidgoyal/imaging/prism/meta/autometa"
	"github.com/lucasb-eyer/go-colorful"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	_ "golang.org/x/image/tiff"
	_ "golang.org/x/image/webp"

	"github.com/seed9bb5c928/nst/nst/picture"
)

func colourAt(p *picture.Picture, x, y int) colorful.Color {
	i, plane := y*p.Width+x, p.Width*p.Height
	return colorful.Color{R: float64(p.Pixels[i]), G: float64(p.Pixels[plane+i]), B: float64(p.Pixels[2*plane+i])}
}

// Pictures in wider spaces come out as lcms2 shows them in sRGB: see
// testdata/make_icc.py.
func TestProfiles(t *testing.T) {
	for file, reference := range map[string]string{
		"icc-p3.png": "icc-p3", "icc-adobe.png": "icc-adobe", "icc-prophoto.png": "icc-prophoto",
		"icc-p3.jpg": "icc-p3-jpg", "icc-p3.tif": "icc-p3", "icc-p3.webp": "icc-p3",
	} {
		t.Run(file, func(t *testing.T) {
			got, err := picture.Open(filepath.Join("testdata", file))
			require.NoError(t, err)
			want, err := picture.Open(filepath.Join("testdata", reference+".srgb.png"))
			require.NoError(t, err)
			worst, changed := 0.0, 0.0
			for y := 4; y < 64; y += 8 {
				for x := 4; x < 96; x += 8 {
					worst = max(worst, 100*colourAt(got, x, y).DistanceCIEDE2000(colourAt(want, x, y)))
					raw := plain(t, filepath.Join("testdata", file), x, y)
					changed = max(changed, 100*raw.DistanceCIEDE2000(colourAt(want, x, y)))
				}
			}
			assert.Less(t, worst, 1.0, "ΔE2000")
			assert.Greater(t, changed, 3.0, "without its profile the picture is another")
		})
	}
}

// plain is a file's pixel without regard to its profile.
func plain(t *testing.T, path string, x, y int) colorful.Color {
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	m, _, err := image.Decode(bytes.NewReader(data))
	require.NoError(t, err)
	c, _ := colorful.MakeColor(m.At(x, y))
	return c
}

// Every format keeps its pixels, says sRGB, and carries a comment that it gives
// back.
func TestFormats(t *testing.T) {
	p := picture.New(61, 43)
	for i := range p.Pixels {
		p.Pixels[i] = float32(0.5 + 0.45*math.Sin(float64(i%61)/9+float64(i/61%43)/7))
	}
	comment := `{"program":"nst","options":{"a":"` + strings.Repeat("x", 301) + `"}}`
	for name, c := range map[string]struct {
		encoding  picture.Encoding
		tolerance float64
	}{
		"a.png":  {picture.Encoding{}, 0.5 / 255},
		"b.png":  {picture.Encoding{Bits: 16}, 0.51 / 65535},
		"a.tif":  {picture.Encoding{}, 0.5 / 255},
		"b.tiff": {picture.Encoding{Bits: 16}, 0.51 / 65535},
		"a.jpg":  {picture.Encoding{Quality: 98}, 0.02},
		"b.JPG":  {picture.Encoding{}, 0.03},
		"a.webp": {picture.Encoding{Quality: 90}, 0.1},
		"b.webp": {picture.Encoding{Quality: 100}, 0.5 / 255},
		"a.avif": {picture.Encoding{}, 0.03},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), name)
			c.encoding.Comment = comment
			require.NoError(t, picture.CheckOutput(path, c.encoding))
			require.NoError(t, p.Save(path, c.encoding))
			back, err := picture.Open(path)
			require.NoError(t, err)
			require.Equal(t, [2]int{61, 43}, [2]int{back.Width, back.Height})
			assert.InDeltaSlice(t, p.Pixels, back.Pixels, c.tolerance+1e-7)
			got, err := picture.Comment(path)
			require.NoError(t, err)
			assert.Equal(t, comment, got)
			data, err := os.ReadFile(path)
			require.NoError(t, err)
			switch filepath.Ext(name) {
			case ".avif": // sRGB is what it is without a profile
			case ".tif", ".tiff", ".webp": // the library does not read them all
				assert.True(t, bytes.Contains(data, []byte("mntrRGB XYZ")))
			default:
				meta, _, err := autometa.Load(bytes.NewReader(data))
				require.NoError(t, err)
				profile, err := meta.ICCProfile()
				require.NoError(t, err)
				require.NotNil(t, profile)
				assert.True(t, profile.IsSRGB())
			}
		})
	}
	// 16 bits are 16: neighbouring levels that 8 bits would make one.
	fine := picture.New(4, 1)
	copy(fine.Pixels, []float32{1000. / 65535, 1001. / 65535, 1002. / 65535, 1003. / 65535})
	path := filepath.Join(t.TempDir(), "fine.png")
	require.NoError(t, fine.Save(path, picture.Encoding{Bits: 16}))
	back, err := picture.Open(path)
	require.NoError(t, err)
	assert.InDeltaSlice(t, fine.Pixels, back.Pixels, 1e-7)
	comment, err = picture.Comment("testdata/orientation-6.jpg")
	require.NoError(t, err)
	assert.Empty(t, comment)
	_, err = picture.Comment("testdata/make.py")
	assert.ErrorIs(t, err, picture.ErrPicture)
}

func TestUnusableEncodings(t *testing.T) {
	for part, c := range map[string]struct {
		name     string
		encoding picture.Encoding
	}{
		"not 12":            {"a.png", picture.Encoding{Bits: 12}},
		"jpeg has 8 bits":   {"a.jpg", picture.Encoding{Bits: 16}},
		"webp has 8 bits":   {"a.webp", picture.Encoding{Bits: 16}},
		"not 101":           {"a.jpg", picture.Encoding{Quality: 101}},
		"not -1":            {"a.jpg", picture.Encoding{Quality: -1}},
		"tiff has no quali": {"a.tif", picture.Encoding{Quality: 50}},
	} {
		err := picture.CheckOutput(filepath.Join(t.TempDir(), c.name), c.encoding)
		require.ErrorIs(t, err, picture.ErrOutput)
		assert.ErrorContains(t, err, part)
	}
	large := picture.New(16384, 1)
	path := filepath.Join(t.TempDir(), "large.webp")
	assert.ErrorContains(t, large.Save(path, picture.Encoding{}), "takes 16383 a side")
	assert.NoFileExists(t, path)
}

// flatPicture is of one colour.
func flatPicture(w, h int, r, g, b float32) *picture.Picture {
	p := picture.New(w, h)
	for i := range w * h {
		p.Pixels[i], p.Pixels[w*h+i], p.Pixels[2*w*h+i] = r, g, b
	}
	return p
}

// The lightness of one, the hue of the other.
func TestRecolor(t *testing.T) {
	grey, red := flatPicture(2, 2, 0.6, 0.6, 0.6), flatPicture(2, 2, 0.8, 0.3, 0.3)
	c := colourAt(picture.Recolor(grey, red), 1, 1)
	l, a, b := c.Lab()
	lGrey, _, _ := colourAt(grey, 0, 0).Lab()
	_, aRed, bRed := colourAt(red, 0, 0).Lab()
	assert.InDelta(t, lGrey, l, 1e-5)
	assert.InDelta(t, aRed, a, 1e-5)
	assert.InDelta(t, bRed, b, 1e-5)
	assert.InDeltaSlice(t, red.Pixels, picture.Recolor(red, red).Pixels, 1e-5, "a picture in its own colours")
	assert.InDeltaSlice(t, grey.Pixels, picture.Recolor(red, flatPicture(2, 2, 0.1, 0.1, 0.1)).Pixels, 0.2)

	// No sRGB colour is as light as white and as blue as blue: lightness and hue
	// stay, chroma goes.
	light := flatPicture(2, 2, 0.95, 0.95, 0.95)
	c = colourAt(picture.Recolor(light, flatPicture(2, 2, 0, 0, 1)), 0, 0)
	l, a, b = c.Lab()
	lLight, _, _ := colourAt(light, 0, 0).Lab()
	_, aBlue, bBlue := colourAt(flatPicture(2, 2, 0, 0, 1), 0, 0).Lab()
	assert.InDelta(t, lLight, l, 2e-3)
	assert.InDelta(t, math.Atan2(bBlue, aBlue), math.Atan2(b, a), 0.02)
	assert.Less(t, math.Hypot(a, b), 0.3)
	assert.True(t, c.Clamped().AlmostEqualRgb(c))
}

// moments are the mean and covariance of a picture's CIELAB colours.
func moments(p *picture.Picture) (mean [3]float64, covariance [3][3]float64) {
	n := float64(p.Width * p.Height)
	for pass := range 2 {
		for i := range p.Width * p.Height {
			l, a, b := colourAt(p, i%p.Width, i/p.Width).Lab()
			c := [3]float64{l, a, b}
			for r := range 3 {
				if pass == 0 {
					mean[r] += c[r] / n
					continue
				}
				for k := range 3 {
					covariance[r][k] += (c[r] - mean[r]) * (c[k] - mean[k]) / n
				}
			}
		}
	}
	return mean, covariance
}

// The style's colours get the content's mean and covariance.
func TestMatchColors(t *testing.T) {
	content, style := picture.New(40, 30), picture.New(50, 20)
	fill := func(p *picture.Picture, seed, centre, width [3]float64) { // three waves of their own
		n := p.Width * p.Height
		for i := range n {
			a, b := math.Sin(float64(i)*seed[0]), math.Sin(float64(i)*seed[1]+1)
			p.Pixels[i] = float32(centre[0] + width[0]*a)
			p.Pixels[n+i] = float32(centre[1] + width[1]*b)
			p.Pixels[2*n+i] = float32(centre[2] + width[2]*math.Sin(float64(i)*seed[2]+2))
		}
	}
	fill(content, [3]float64{0.7, 1.3, 2.9}, [3]float64{0.55, 0.45, 0.4}, [3]float64{0.06, 0.04, 0.05})
	fill(style, [3]float64{0.9, 2.1, 0.3}, [3]float64{0.3, 0.5, 0.7}, [3]float64{0.1, 0.2, 0.1})
	wantMean, wantCovariance := moments(content)
	mean, covariance := moments(picture.MatchColors(style, content))
	for r := range 3 {
		assert.InDelta(t, wantMean[r], mean[r], 1e-4)
		for k := range 3 {
			assert.InDelta(t, wantCovariance[r][k], covariance[r][k], 2e-5)
		}
	}
	assert.InDeltaSlice(t, style.Pixels, picture.MatchColors(style, style).Pixels, 1e-4, "a picture matched to itself")
	for _, v := range picture.MatchColors(flatPicture(8, 8, 1, 0, 0), content).Pixels { // nothing to stretch
		require.True(t, v >= 0 && v <= 1)
	}
}

// Settings come back from every format in every size.
func TestComments(t *testing.T) {
	folder := t.TempDir()
	for _, side := range []int{1, 16, 17, 18, 19, 33, 64} {
		for _, ending := range []string{".png", ".jpg", ".webp", ".tif", ".avif"} {
			p := picture.New(side, side+1)
			for i := range p.Pixels {
				p.Pixels[i] = float32(i*i%251) / 250
			}
			for _, comment := range []string{"{}", `{"program":"nst"}`} {
				path := filepath.Join(folder, "a"+ending)
				require.NoError(t, p.Save(path, picture.Encoding{Comment: comment}))
				got, err := picture.Comment(path)
				require.NoError(t, err)
				assert.Equal(t, comment, got, "%d, %s", side, ending)
			}
		}
	}
}
