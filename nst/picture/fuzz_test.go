package picture_test

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"image"
	"image/color"
	"image/png"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/picture"
)

// Whatever a file holds, its header is read or refused, a picture that is decoded is whole and
// of the header's size, and both take no more time and memory than Info says.

func FuzzPNG(f *testing.F)  { fuzz(f, "*.png") }
func FuzzJPEG(f *testing.F) { fuzz(f, "*.jpg") }
func FuzzWebP(f *testing.F) { fuzz(f, "*.webp") }
func FuzzTIFF(f *testing.F) { fuzz(f, "*.tif") }
func FuzzGIF(f *testing.F)  { fuzz(f, "*.gif") }
func FuzzBMP(f *testing.F)  { fuzz(f, "*.bmp") }
func FuzzHEIC(f *testing.F) { fuzz(f, "*.heic") }
func FuzzAVIF(f *testing.F) { fuzz(f, "*.avif") }
func FuzzJXL(f *testing.F)  { fuzz(f, "*.jxl") }

// FuzzICC varies profiles of a PNG, of three colours and of grey.
func FuzzICC(f *testing.F) {
	for _, pattern := range []string{"testdata/*.png", "testdata/kinds/*.png", "testdata/hostile/*.png"} {
		for _, data := range files(f, pattern) {
			if profile := profileOf(data); len(profile) > 0 && len(profile) < 1<<16 {
				f.Add(profile, true)
				f.Add(profile, false)
			}
		}
	}
	f.Fuzz(func(t *testing.T, profile []byte, grey bool) { checkDecoding(t, withProfile(t, profile, grey)) })
}

// fuzz begins with the files that a pattern names.
func fuzz(f *testing.F, pattern string) {
	for _, folder := range []string{"testdata/kinds", "testdata/hostile"} {
		for _, data := range files(f, filepath.Join(folder, pattern)) {
			f.Add(data)
		}
	}
	f.Fuzz(checkDecoding)
}

// files are what a pattern names.
func files(t testing.TB, pattern string) (all [][]byte) {
	paths, err := filepath.Glob(pattern)
	require.NoError(t, err)
	for _, path := range paths {
		data, err := os.ReadFile(path)
		require.NoError(t, err)
		all = append(all, data)
	}
	return all
}

// profileOf is what iCCP holds; nil: there is none.
func profileOf(png []byte) []byte {
	_, rest, found := bytes.Cut(png, []byte("iCCP"))
	if !found {
		return nil
	}
	_, deflated, _ := bytes.Cut(rest, []byte{0})
	r, err := zlib.NewReader(bytes.NewReader(deflated[1:]))
	if err != nil {
		return nil
	}
	profile, _ := io.ReadAll(r)
	return profile
}

// withProfile is a PNG of 16×16 pixels.
func withProfile(t testing.TB, profile []byte, grey bool) []byte {
	var m interface {
		image.Image
		Set(x, y int, c color.Color)
	} = image.NewRGBA(image.Rect(0, 0, 16, 16))
	if grey {
		m = image.NewGray(m.Bounds())
	}
	for i := range 256 {
		m.Set(i%16, i/16, color.RGBA{uint8(i), uint8(7 * i), uint8(255 - i), 255})
	}
	var plain, deflated bytes.Buffer
	require.NoError(t, png.Encode(&plain, m))
	w := zlib.NewWriter(&deflated)
	_, err := w.Write(profile)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return slices.Insert(plain.Bytes(), 33, chunk("iCCP", append([]byte("x\x00\x00"), deflated.Bytes()...))...)
}

// compiled are the decoders that are compiled when they are used first, which takes a second.
var compiled = sync.OnceFunc(func() {
	for _, name := range []string{"heic.heic", "avif.avif", "jxl.jxl"} {
		_, _ = picture.Open(filepath.Join("testdata/kinds", name))
	}
})

// checkDecoding is the fuzz targets' and TestHostile's.
func checkDecoding(t *testing.T, data []byte) {
	compiled()
	const slack = 64 << 20
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	info, err := picture.Inspect(data)
	runtime.ReadMemStats(&after)
	if passed := time.Since(began); passed > time.Second+time.Duration(len(data))*time.Microsecond {
		t.Fatalf("the header takes %v", passed)
	}
	if taken := after.TotalAlloc - before.TotalAlloc; taken > slack+8*uint64(len(data)) {
		t.Fatalf("the header takes %d bytes", taken)
	}
	if err != nil {
		require.ErrorIs(t, err, picture.ErrPicture)
		return
	}
	if info.Width <= 0 || info.Height <= 0 || info.Format == "" {
		t.Fatalf("a header of %d×%d %q", info.Width, info.Height, info.Format)
	}
	if info.Width*info.Height > 1<<16 || info.Memory > 1<<30 {
		return // a large one takes its time
	}
	runtime.ReadMemStats(&before)
	began = time.Now()
	p, err := picture.Decode(bytes.NewReader(data))
	runtime.ReadMemStats(&after)
	if passed := time.Since(began); passed > info.Time {
		t.Fatalf("%v, and not %v, of %d bytes and %d×%d pixels", passed, info.Time, len(data), info.Width, info.Height)
	}
	if taken := after.TotalAlloc - before.TotalAlloc; taken > slack+4*uint64(info.Memory) {
		t.Fatalf("%d bytes, and not %d, of %d bytes and %d×%d pixels", taken, info.Memory, len(data), info.Width,
			info.Height)
	}
	if err != nil {
		require.ErrorIs(t, err, picture.ErrPicture)
		return
	}
	if err := p.Check(); err != nil {
		t.Fatal(err)
	}
	if p.Width != info.Width || p.Height != info.Height {
		t.Fatalf("%d×%d became %d×%d", info.Width, info.Height, p.Width, p.Height)
	}
}

// Files that hurt once take no more than they may: testdata/hostile has what made some version
// run out of memory, crash or compute for hours, and testdata/hostile-packed those that are large.
func TestHostile(t *testing.T) {
	all, packed := files(t, "testdata/hostile/*"), files(t, "testdata/hostile-packed/*.gz")
	require.GreaterOrEqual(t, len(all), 12)
	require.GreaterOrEqual(t, len(packed), 7)
	for _, one := range packed {
		r, err := gzip.NewReader(bytes.NewReader(one))
		require.NoError(t, err)
		data, err := io.ReadAll(r)
		require.NoError(t, err)
		all = append(all, data)
	}
	for _, data := range all {
		checkDecoding(t, data)
	}
}

// A JPEG of 24 megapixels, 4:2:0, as cameras write them.
func BenchmarkDecodeJPEG(b *testing.B) {
	p := picture.New(6000, 4000)
	random := rand.New(rand.NewPCG(1, 0))
	for i := range p.Pixels {
		p.Pixels[i] = float32(i%6000%257)/300 + random.Float32()/8
	}
	var data bytes.Buffer
	require.NoError(b, p.Encode(&data, picture.JPEG, picture.Encoding{Quality: 89}))
	if path := os.Getenv("NST_BENCH_JPEG"); path != "" { // to time others with
		require.NoError(b, os.WriteFile(path, data.Bytes(), 0o644))
	}
	b.SetBytes(int64(data.Len()))
	for b.Loop() {
		_, err := picture.Decode(bytes.NewReader(data.Bytes()))
		require.NoError(b, err)
	}
}
