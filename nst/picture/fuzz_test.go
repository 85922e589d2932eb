package picture_test

import (
	"bytes"
	"os"
	"testing"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
)

// FuzzDecode: whatever a file holds, its header is read or refused, and a picture
// that is decoded is whole and, unless it was turned upright, of the header's size.
func FuzzDecode(f *testing.F) {
	if data, err := os.ReadFile(nsttest.Demo(f, "style.png")); err == nil {
		f.Add(data[:2000])
	}
	small := picture.New(5, 3)
	for _, format := range []picture.Format{picture.PNG, picture.JPEG, picture.WebP, picture.TIFF, picture.AVIF} {
		var data bytes.Buffer
		if err := small.Encode(&data, format, picture.Encoding{Comment: "{}"}); err != nil {
			f.Fatal(err)
		}
		f.Add(data.Bytes())
	}
	for _, text := range []string{"GIF89a\x05\x00\x03\x00\x80\x00\x00", "BM", "II*\x00\x08\x00\x00\x00", "RIFF\x00\x00\x00\x00WEBPVP8 "} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		width, height, format, err := picture.Header(data)
		if err != nil {
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
