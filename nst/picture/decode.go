package picture

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"io"
	"os"

	_ "image/gif"
	_ "image/jpeg"
	_ "image/png"

	"github.com/bep/imagemeta"
	_ "golang.org/x/image/bmp"
	_ "golang.org/x/image/tiff"
	"golang.org/x/image/webp"
)

// Open reads a picture file: see Decode.
func Open(path string) (*Picture, error) {
	info, err := os.Stat(path)
	if err != nil {
		var p *os.PathError
		errors.As(err, &p)
		return nil, fmt.Errorf("%w: %s cannot be opened: %w", ErrPicture, path, p.Err)
	}
	if info.IsDir() {
		return nil, fmt.Errorf("%w: %s is a directory", ErrPicture, path)
	}
	if info.Mode()&os.ModeDevice != 0 { // some never end
		return nil, fmt.Errorf("%w: %s is a device", ErrPicture, path)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPicture, err)
	}
	p, err := Decode(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %s %w", ErrPicture, path, err)
	}
	return p, nil
}

// Decode reads a PNG, JPEG, WebP, TIFF, GIF or BMP: 8 or 16 bits, grey, palette
// or colour, upright by its EXIF orientation, in sRGB by its ICC profile (by
// relative colorimetry; colours beyond sRGB are clipped), transparent parts over
// white. The error completes "PICTURE …".
func Decode(data []byte) (*Picture, error) {
	_, _, format, err := Header(data)
	if err != nil {
		return nil, err
	}
	decoded, err := decodeGuarded(data)
	if err != nil {
		return nil, damaged(err)
	}
	return managed(decoded, profileOf(data, format), orientationOf(data, format)), nil
}

// Header returns the size that a picture file claims to have, and its format, by
// what is in it: "png", "jpeg", "webp", "tiff", "gif" or "bmp". No pixel is
// decoded. The errors are Decode's.
func Header(data []byte) (width, height int, format string, err error) {
	if len(data) == 0 {
		return 0, 0, "", errors.New("is empty")
	}
	header, format, err := decodeConfig(data)
	if errors.Is(err, image.ErrFormat) {
		return 0, 0, "", errors.New("is not a picture of a known format (PNG, JPEG, WebP, TIFF, GIF, BMP)")
	}
	if err != nil {
		return 0, 0, "", damaged(err)
	}
	if header.Width <= 0 || header.Height <= 0 {
		return 0, 0, "", fmt.Errorf("has no pixels: its header says %d×%d", header.Width, header.Height)
	}
	if max(header.Width, header.Height) > MaxSide || int64(header.Width)*int64(header.Height) > MaxPixels {
		return 0, 0, "", fmt.Errorf("claims %d×%d pixels; at most %d million and %d a side are read", header.Width, header.Height, MaxPixels/1_000_000, MaxSide)
	}
	return header.Width, header.Height, format, nil
}

// isWebP tells WebP, which two of our dependencies register a decoder for.
func isWebP(data []byte) bool {
	return len(data) > 12 && string(data[:4]) == "RIFF" && string(data[8:12]) == "WEBP"
}

func decodeConfig(data []byte) (c image.Config, format string, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the decoder failed: %v", r)
		}
	}()
	if isWebP(data) {
		c, err := webp.DecodeConfig(bytes.NewReader(data))
		return c, "webp", err
	}
	return image.DecodeConfig(bytes.NewReader(data))
}

func damaged(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return errors.New("is cut short")
	}
	return fmt.Errorf("is cut short, damaged or of an unsupported kind (%w)", err)
}

// decodeGuarded turns a decoder's panic on malformed data into an error.
func decodeGuarded(data []byte) (m image.Image, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the decoder failed: %v", r)
		}
	}()
	if isWebP(data) {
		m, err = webp.Decode(bytes.NewReader(data))
	} else {
		m, _, err = image.Decode(bytes.NewReader(data))
	}
	if err == nil && m.Bounds().Empty() {
		err = errors.New("it has no pixels")
	}
	return m, err
}

// fromImage converts to float32 planes, upright, transparent parts over white. Go's
// colours are 16 bits and premultiplied with alpha.
func fromImage(m image.Image, o orientation) *Picture {
	corner := m.Bounds().Min
	at := func(x, y int) (r, g, b, a uint32) { return m.At(x, y).RGBA() }
	if fast, ok := m.(image.RGBA64Image); ok {
		at = func(x, y int) (r, g, b, a uint32) {
			c := fast.RGBA64At(x, y)
			return uint32(c.R), uint32(c.G), uint32(c.B), uint32(c.A)
		}
	}
	return o.upright(m.Bounds().Size(), func() func(x, y int) [3]float32 {
		return func(x, y int) [3]float32 {
			r, g, b, a := at(corner.X+x, corner.Y+y)
			white := 0xffff - a
			return [3]float32{float32(r+white) / 0xffff, float32(g+white) / 0xffff, float32(b+white) / 0xffff}
		}
	})
}

// orientationOf returns the EXIF orientation; upright where the file has none that
// can be read.
func orientationOf(data []byte, format string) (o orientation) {
	o = 1
	readEXIF(data, format, "Orientation", func(value any) {
		if v, ok := value.(uint16); ok && v >= 1 && v <= 8 {
			o = orientation(v)
		}
	})
	return o
}

// readEXIF hands over the value of an EXIF tag, if it is there.
func readEXIF(data []byte, format, name string, take func(any)) {
	formats := map[string]imagemeta.ImageFormat{"jpeg": imagemeta.JPEG, "png": imagemeta.PNG, "webp": imagemeta.WebP, "tiff": imagemeta.TIFF}
	known, ok := formats[format]
	if !ok {
		return
	}
	_, _ = imagemeta.Decode(imagemeta.Options{ // a picture with broken metadata is still a picture
		R: bytes.NewReader(data), ImageFormat: known, Sources: imagemeta.EXIF,
		ShouldHandleTag: func(tag imagemeta.TagInfo) bool {
			return tag.Tag == name && (name != "Orientation" || tag.Namespace == "IFD0")
		},
		HandleTag: func(tag imagemeta.TagInfo) error {
			take(tag.Value)
			return nil
		},
	})
}

// orientation is how the camera was held, 1 to 8 (EXIF 2.3, tag 0x0112); 1 is upright.
type orientation int

// upright makes the upright picture of a stored one of the size: each part of its
// rows with a function of its own that returns the stored picture's colours.
func (o orientation) upright(size image.Point, reader func() func(x, y int) [3]float32) *Picture {
	w, h := size.X, size.Y
	p := New(w, h)
	if o >= 5 { // the stored rows are the upright picture's columns
		p.Width, p.Height = h, w
	}
	plane := w * h
	rows(p.Height, func(from, to int) {
		at := reader()
		for y := from; y < to; y++ {
			for x := range p.Width {
				sx, sy := x, y
				switch o {
				case 2:
					sx = w - 1 - x
				case 3:
					sx, sy = w-1-x, h-1-y
				case 4:
					sy = h - 1 - y
				case 5:
					sx, sy = y, x
				case 6:
					sx, sy = y, h-1-x
				case 7:
					sx, sy = w-1-y, h-1-x
				case 8:
					sx, sy = w-1-y, x
				}
				for c, v := range at(sx, sy) {
					p.Pixels[c*plane+y*p.Width+x] = v
				}
			}
		}
	})
	return p
}
