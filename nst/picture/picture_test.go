package picture_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/image/tiff"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
)

func encodePNG(t *testing.T, m image.Image) []byte {
	var b bytes.Buffer
	require.NoError(t, png.Encode(&b, m))
	return b.Bytes()
}

func encodeTIFF(t *testing.T, m image.Image) []byte {
	var b bytes.Buffer
	require.NoError(t, tiff.Encode(&b, m, nil))
	return b.Bytes()
}

// draw makes a 2×1 picture: a pixel of each colour.
func draw[M interface {
	image.Image
	Set(x, y int, c color.Color)
}](m M, colours ...color.Color) image.Image {
	for x, c := range colours {
		m.Set(x, 0, c)
	}
	return m
}

// Each kind of pixel becomes float32 in full depth; transparent parts lie over
// white.
func TestPixels(t *testing.T) {
	r := image.Rect(0, 0, 2, 1)
	for name, c := range map[string]struct {
		data []byte
		want []float32 // two reds, two greens, two blues
	}{
		"8 bits": {encodePNG(t, draw(image.NewNRGBA(r), color.NRGBA{255, 128, 0, 255},
			color.NRGBA{1, 2, 3, 255})), []float32{1, 1. / 255, 128. / 255, 2. / 255, 0, 3. / 255}},
		"16 bits": {encodePNG(t, draw(image.NewNRGBA64(r), color.NRGBA64{65535, 1, 257, 65535},
			color.NRGBA64{2, 3, 4,
				65535})), []float32{1, 2. / 65535, 1. / 65535, 3. / 65535, 257. / 65535, 4. / 65535}},
		"grey": {encodePNG(t, draw(image.NewGray(r), color.Gray{51}, color.Gray{255})),
			[]float32{0.2, 1, 0.2, 1, 0.2, 1}},
		"16-bit grey": {encodePNG(t, draw(image.NewGray16(r), color.Gray16{1}, color.Gray16{65535})),
			[]float32{1. / 65535, 1, 1. / 65535, 1, 1. / 65535, 1}},
		"palette": {encodePNG(t, draw(image.NewPaletted(r,
			color.Palette{color.NRGBA{255, 0, 0, 255}, color.NRGBA{0, 0, 255,
				255}}), color.NRGBA{0, 0, 255, 255}, color.NRGBA{255, 0, 0, 255})), []float32{0, 1, 0, 0, 1, 0}},
		"alpha": {encodePNG(t, draw(image.NewNRGBA(r), color.NRGBA{0, 0, 0, 0}, color.NRGBA{255, 0, 0, 51})),
			[]float32{1, 1, 1, 0.8, 1, 0.8}},
		"8-bit TIFF": {encodeTIFF(t, draw(image.NewNRGBA(r), color.NRGBA{255, 128, 0, 255},
			color.NRGBA{1, 2, 3, 255})), []float32{1, 1. / 255, 128. / 255, 2. / 255, 0, 3. / 255}},
		"16-bit TIFF": {encodeTIFF(t, draw(image.NewNRGBA64(r), color.NRGBA64{65535, 1, 257, 65535},
			color.NRGBA64{2, 3, 4,
				65535})), []float32{1, 2. / 65535, 1. / 65535, 3. / 65535, 257. / 65535, 4. / 65535}},
		"16-bit grey TIFF": {encodeTIFF(t, draw(image.NewGray16(r), color.Gray16{1}, color.Gray16{65535})),
			[]float32{1. / 65535, 1, 1. / 65535, 1, 1. / 65535, 1}},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := picture.Decode(bytes.NewReader(c.data))
			require.NoError(t, err)
			assert.Equal(t, 2, p.Width)
			assert.Equal(t, 1, p.Height)
			assert.InDeltaSlice(t, c.want, p.OverWhite().Pixels, 1e-5)
			assert.NoError(t, p.Check())
		})
	}
}

// However the camera was held, the picture is upright: see testdata/make.py.
func TestFilesAreUpright(t *testing.T) {
	files := map[string]float64{ // tolerance
		"orientation-6.png": 1e-6, "orientation-6.webp": 1e-6, "orientation-6.tif": 1e-6, "lzw.tif": 1e-6,
		"lossy.webp": 0.12, "cmyk.jpg": 0.03, "progressive.jpg": 0.03,
	}
	for o := range 8 {
		files[fmt.Sprintf("orientation-%d.jpg", o+1)] = 0.03
	}
	for name, tolerance := range files {
		t.Run(name, func(t *testing.T) {
			p, err := picture.Open(filepath.Join("testdata", name))
			require.NoError(t, err)
			require.Equal(t, [2]int{32, 24}, [2]int{p.Width, p.Height})
			for y := range 3 {
				for x := range 4 {
					i := (8*y+4)*32 + 8*x + 4
					for c, want := range []int{60*x + 10, 80*y + 20, 200 - 40*x} {
						assert.InDelta(t, float64(want)/255, p.Pixels[c*32*24+i], tolerance, "channel %d at %d,%d", c,
							x, y)
					}
				}
			}
		})
	}
	p, err := picture.Open("testdata/alpha.webp")
	require.NoError(t, err)
	assert.InDelta(t, (10*128+255*127)/255./255, p.OverWhite().Pixels[0], 1e-3, "over white")
}

// header is a PNG that claims a size and has no pixels.
func header(width, height uint32) []byte {
	chunk := binary.BigEndian.AppendUint32([]byte("IHDR"), width)
	chunk = binary.BigEndian.AppendUint32(chunk, height)
	chunk = append(chunk, 8, 2, 0, 0, 0)
	data := append([]byte("\x89PNG\r\n\x1a\n"), 0, 0, 0, 13)
	return binary.BigEndian.AppendUint32(append(data, chunk...), crc32.ChecksumIEEE(chunk))
}

func TestUnusablePictures(t *testing.T) {
	folder := t.TempDir()
	write := nsttest.Writer(t, folder)
	whole := encodePNG(t, image.NewNRGBA(image.Rect(0, 0, 64, 64)))
	var j bytes.Buffer
	require.NoError(t, jpeg.Encode(&j, image.NewNRGBA(image.Rect(0, 0, 640, 640)), nil))
	webp, err := os.ReadFile("testdata/orientation-6.webp")
	require.NoError(t, err)
	tif, err := os.ReadFile("testdata/orientation-6.tif")
	require.NoError(t, err)
	for name, c := range map[string]struct{ path, part string }{
		"missing":        {filepath.Join(folder, "none.png"), "cannot be opened: no such file"},
		"a directory":    {folder, "is a directory"},
		"a device":       {"/dev/zero", "is a device"},
		"empty":          {write("empty.png", nil), "is empty"},
		"text":           {write("text.jpg", []byte("hello")), "is not a picture of a known format"},
		"truncated PNG":  {write("half.png", whole[:len(whole)/2]), "is cut short"},
		"truncated JPEG": {write("half.jpg", j.Bytes()[:j.Len()/2]), "is cut short"},
		"truncated WebP": {write("half.webp", webp[:len(webp)/2]), "half.webp is"},
		"truncated TIFF": {write("half.tif", tif[:len(tif)/2]), "half.tif is"},
		"damaged": {write("bad.png", append(bytes.Clone(whole[:50]), bytes.Repeat([]byte{7}, 50)...)),
			"damaged or of"},
		"zero-sized": {write("zero.png", header(0, 5)), "damaged or of"},
		"huge":       {write("huge.png", header(60000, 60000)), "claims 60000×60000 pixels"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := picture.Open(c.path)
			require.ErrorIs(t, err, picture.ErrPicture)
			assert.ErrorContains(t, err, c.part)
			assert.ErrorContains(t, err, filepath.Base(c.path))
		})
	}
}

func TestCheck(t *testing.T) {
	assert.ErrorIs(t, (*picture.Picture)(nil).Check(), picture.ErrPicture)
	assert.Error(t, (&picture.Picture{Width: 2, Height: 2}).Check())
	p := picture.New(2, 2)
	assert.NoError(t, p.Check())
	p.Pixels[3] = 1.5
	assert.ErrorContains(t, p.Check(), "1.5")
	var zero float32
	p.Pixels[3] = zero / zero
	assert.Error(t, p.Check())
}

func TestSave(t *testing.T) {
	p := picture.New(30, 20)
	for i := range p.Pixels {
		p.Pixels[i] = float32(i%256) / 255
	}
	folder := t.TempDir()
	path := filepath.Join(folder, "out.png")
	require.NoError(t, os.WriteFile(path, []byte("older"), 0o640))
	require.NoError(t, p.Save(path, picture.Encoding{}))
	back, err := picture.Open(path)
	require.NoError(t, err)
	assert.Equal(t, p, back, "8 bits come back as they were")

	smooth := picture.New(64, 64)
	for i := range smooth.Pixels {
		smooth.Pixels[i] = float32(i%64) / 63
	}
	for _, name := range []string{"a.jpg", "a.JPEG"} {
		require.NoError(t, smooth.Save(filepath.Join(folder, name), picture.Encoding{}))
		back, err = picture.Open(filepath.Join(folder, name))
		require.NoError(t, err)
		assert.InDeltaSlice(t, smooth.Pixels, back.Pixels, 0.03)
	}
	entries, err := os.ReadDir(folder)
	require.NoError(t, err)
	assert.Len(t, entries, 3, "nothing is left beside them")
}

func TestUnusableOutputs(t *testing.T) {
	folder := t.TempDir()
	for name, c := range map[string]struct{ path, part string }{
		"no folder":         {filepath.Join(folder, "none", "a.png"), "no file can be made in"},
		"a directory":       {filepath.Join(folder, "d.png"), "is no regular file"},
		"no ending":         {filepath.Join(folder, "a"), "written as .png"},
		"other":             {filepath.Join(folder, "a.gif"), `not ".gif"`},
		"a device's folder": {"/proc/a.png", "no file can be made in /proc"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "a directory" {
				require.NoError(t, os.Mkdir(c.path, 0o700))
			}
			err := picture.CheckOutput(c.path, picture.Encoding{})
			require.ErrorIs(t, err, picture.ErrOutput)
			assert.ErrorContains(t, err, c.part)
		})
	}
	good := filepath.Join(folder, "good.png")
	require.NoError(t, picture.CheckOutput(good, picture.Encoding{}))
	assert.NoFileExists(t, good, "the check leaves nothing")
}

func TestFit(t *testing.T) {
	for _, c := range [][5]int{{1024, 768, 512, 512, 384}, {768, 1024, 512, 384, 512}, {100, 100, 512, 512, 512},
		{1000, 3, 100, 100, 1}, {451, 300, 256, 256, 170}} {
		w, h := picture.Fit(c[0], c[1], c[2])
		assert.Equal(t, [2]int{c[3], c[4]}, [2]int{w, h})
	}
}
