package picture_test

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/picture"
)

// Whatever a file holds, its header is read or refused, and a picture that is decoded is
// whole and, unless it was turned upright, of the header's size.

func FuzzPNG(f *testing.F)  { fuzz(f, "*.png") }
func FuzzJPEG(f *testing.F) { fuzz(f, "*.jpg") }
func FuzzWebP(f *testing.F) { fuzz(f, "*.webp") }
func FuzzTIFF(f *testing.F) { fuzz(f, "*.tif") }
func FuzzGIF(f *testing.F)  { fuzz(f, "*.gif") }
func FuzzBMP(f *testing.F)  { fuzz(f, "*.bmp") }
func FuzzHEIC(f *testing.F) { fuzz(f, "*.heic") }
func FuzzAVIF(f *testing.F) { fuzz(f, "*.avif") }
func FuzzJXL(f *testing.F)  { fuzz(f, "*.jxl") }

// fuzz begins with the files of testdata/kinds that a pattern names.
func fuzz(f *testing.F, pattern string) {
	paths, err := filepath.Glob(filepath.Join("testdata/kinds", pattern))
	require.NoError(f, err)
	require.NotEmpty(f, paths)
	for _, path := range paths {
		data, err := os.ReadFile(path)
		require.NoError(f, err)
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		width, height, format, err := picture.Header(data)
		if err != nil {
			require.ErrorIs(t, err, picture.ErrPicture)
			return
		}
		if width <= 0 || height <= 0 || format == "" {
			t.Fatalf("a header of %d×%d %q", width, height, format)
		}
		if width*height > 1<<16 {
			return // a bomb takes its time
		}
		p, err := picture.Decode(bytes.NewReader(data))
		if err != nil {
			require.ErrorIs(t, err, picture.ErrPicture)
			return
		}
		if err := p.Check(); err != nil {
			t.Fatal(err)
		}
		if p.Width*p.Height != width*height {
			t.Fatalf("%d×%d became %d×%d", width, height, p.Width, p.Height)
		}
	})
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
