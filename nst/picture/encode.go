package picture

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"image/png"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"

	libwebp "github.com/gen2brain/webp"
	"github.com/google/renameio/v2"
	"golang.org/x/image/tiff"
)

// ErrOutput is matched (errors.Is) by the errors of output files that cannot be
// written.
var ErrOutput = errors.New("unusable output file")

// Encoding says how Save writes a picture. The zero value is the default.
type Encoding struct {
	// Bits per channel: 8, which 0 means, or 16 for .png and .tif.
	Bits int
	// Quality is that of .jpg and .webp, 1 to 100; 0 means 95, which keeps brush
	// strokes free of blocks. WebP of 100 is lossless.
	Quality int
	// Comment goes into the file's metadata, for Comment to read: printable
	// ASCII, of at most 60,000 bytes.
	Comment string
}

// quality is Quality or its default.
func (e Encoding) quality() int {
	if e.Quality == 0 {
		return 95
	}
	return e.Quality
}

// format is a kind of file: how its pixels and then its metadata are written.
type format struct {
	sixteen  bool // it can have 16 bits
	lossy    bool // it has a quality
	maxSide  int
	maxBytes int64 // of the pixels, uncompressed; 0: any number
	encode   func(*bytes.Buffer, image.Image, Encoding) error
	tag      func(data []byte, e Encoding, width, height int) ([]byte, error)
}

var (
	pngFormat = format{sixteen: true, maxSide: math.MaxInt32, tag: tagPNG,
		encode: func(w *bytes.Buffer, m image.Image, _ Encoding) error { return png.Encode(w, m) }}
	jpegFormat = format{lossy: true, maxSide: 65535, tag: tagJPEG,
		encode: func(w *bytes.Buffer, m image.Image, e Encoding) error {
			return jpeg.Encode(w, m, &jpeg.Options{Quality: e.quality()})
		}}
	webpFormat = format{lossy: true, maxSide: 16383, tag: tagWebP,
		encode: func(w *bytes.Buffer, m image.Image, e Encoding) error {
			return libwebp.Encode(w, m, libwebp.Options{Quality: e.quality(), Lossless: e.quality() == 100, Method: libwebp.DefaultMethod})
		}}
	tiffFormat = format{sixteen: true, maxSide: math.MaxInt32, maxBytes: math.MaxUint32 - 1<<20, tag: tagTIFF,
		encode: func(w *bytes.Buffer, m image.Image, _ Encoding) error {
			return tiff.Encode(w, m, &tiff.Options{Compression: tiff.Deflate, Predictor: true})
		}}
)

// formats are by file ending.
var formats = map[string]format{".png": pngFormat, ".jpg": jpegFormat, ".jpeg": jpegFormat, ".webp": webpFormat, ".tif": tiffFormat, ".tiff": tiffFormat}

// Endings lists the endings of the files that Save writes.
const Endings = ".png, .jpg, .jpeg, .webp, .tif or .tiff"

func formatOf(path string, e Encoding) (format, error) {
	ending := strings.ToLower(filepath.Ext(path))
	f, ok := formats[ending]
	refuse := func(what string, args ...any) (format, error) {
		return f, fmt.Errorf("%w: %s: %s", ErrOutput, path, fmt.Sprintf(what, args...))
	}
	switch {
	case !ok:
		return refuse("pictures are written as %s, not %q", Endings, ending)
	case !slices.Contains([]int{0, 8, 16}, e.Bits):
		return refuse("pictures have 8 or 16 bits per channel, not %d", e.Bits)
	case e.Bits == 16 && !f.sixteen:
		return refuse("%s has 8 bits per channel; .png and .tif can have 16", ending)
	case e.Quality < 0 || e.Quality > 100:
		return refuse("the quality is 1 to 100, not %d", e.Quality)
	case e.Quality != 0 && !f.lossy:
		return refuse("%s has no quality; .jpg and .webp have one", ending)
	}
	return f, nil
}

// CheckOutput says, before any work is done, whether Save to path can succeed:
// the ending is known and can have that encoding, path is no directory, and its
// folder takes new files. The error matches ErrOutput.
func CheckOutput(path string, e Encoding) error {
	if _, err := formatOf(path, e); err != nil {
		return err
	}
	return CheckWritable(path)
}

// CheckWritable says whether a file can be written at path: path is no
// directory, and its folder takes new files. The error matches ErrOutput.
func CheckWritable(path string) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %s exists and is no regular file", ErrOutput, path)
	}
	probe, err := os.CreateTemp(filepath.Dir(path), ".nst-*")
	if err != nil {
		var p *os.PathError
		errors.As(err, &p)
		return fmt.Errorf("%w: no file can be made in %s: %w", ErrOutput, filepath.Dir(path), p.Err)
	}
	probe.Close()
	return os.Remove(probe.Name())
}

// CheckSize says whether the format that path's ending names takes a picture of
// width×height. The error matches ErrOutput.
func CheckSize(path string, e Encoding, width, height int) error {
	f, err := formatOf(path, e)
	if err != nil {
		return err
	}
	return f.check(path, e, width, height)
}

func (f format) check(path string, e Encoding, width, height int) error {
	if max(width, height) > f.maxSide {
		return fmt.Errorf("%w: %s: %d×%d is too large for that format, which takes %d a side; .png takes more", ErrOutput, path, width, height, f.maxSide)
	}
	if bytes := int64(width) * int64(height) * int64(max(e.Bits, 8)/2); f.maxBytes > 0 && bytes > f.maxBytes {
		return fmt.Errorf("%w: %s: %d×%d takes %d bytes uncompressed, and that format %d at most; .png takes more", ErrOutput, path, width, height, bytes, f.maxBytes)
	}
	return nil
}

// Save writes the picture to a file, as Encode makes it. The file appears whole or
// not at all: an older one of that name stays until the new one is complete.
func (p *Picture) Save(path string, e Encoding) error {
	data, err := p.Encode(path, e)
	if err != nil {
		return err
	}
	return WriteFile(path, data)
}

// Encode returns the picture in the format that the ending of path names (see
// Endings), with an sRGB profile. The error matches ErrOutput.
func (p *Picture) Encode(path string, e Encoding) ([]byte, error) {
	f, err := formatOf(path, e)
	if err == nil {
		err = f.check(path, e, p.Width, p.Height)
	}
	if err != nil {
		return nil, err
	}
	var buffer bytes.Buffer
	err = f.encode(&buffer, p.image(e.Bits), e)
	data := buffer.Bytes()
	if err == nil {
		data, err = f.tag(data, e, p.Width, p.Height)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrOutput, path, err)
	}
	return data, nil
}

// WriteFile writes a file that appears whole or not at all. The error matches
// ErrOutput.
func WriteFile(path string, data []byte) error {
	if err := renameio.WriteFile(path, data, 0o644, renameio.WithExistingPermissions()); err != nil {
		return fmt.Errorf("%w: %w", ErrOutput, err)
	}
	return nil
}

// image rounds to 8 or 16 bits.
func (p *Picture) image(bits int) image.Image {
	r := image.Rect(0, 0, p.Width, p.Height)
	plane := p.Width * p.Height
	if bits == 16 {
		m := image.NewNRGBA64(r)
		level := func(v float32) uint16 { return uint16(math.Round(float64(v) * 0xffff)) }
		for i := range plane {
			m.SetNRGBA64(i%p.Width, i/p.Width, color.NRGBA64{level(p.Pixels[i]), level(p.Pixels[plane+i]), level(p.Pixels[2*plane+i]), 0xffff})
		}
		return m
	}
	m := image.NewNRGBA(r)
	for i := range plane {
		for c := range 3 {
			m.Pix[4*i+c] = uint8(math.Round(float64(p.Pixels[c*plane+i]) * 255))
		}
		m.Pix[4*i+3] = 255
	}
	return m
}
