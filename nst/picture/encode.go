package picture

import (
	"bufio"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"image/png"
	"io"
	"math"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
)

// ErrOutput is matched (errors.Is) by the errors of output files that cannot be
// written.
var ErrOutput = errors.New("unusable output file")

// jpegQuality keeps brush strokes free of blocks.
const jpegQuality = 95

// encoders are by file ending.
var encoders = map[string]func(io.Writer, *image.NRGBA) error{
	".png":  func(w io.Writer, m *image.NRGBA) error { return png.Encode(w, m) },
	".jpg":  encodeJPEG,
	".jpeg": encodeJPEG,
}

func encodeJPEG(w io.Writer, m *image.NRGBA) error {
	return jpeg.Encode(w, m, &jpeg.Options{Quality: jpegQuality})
}

func encoderFor(path string) (func(io.Writer, *image.NRGBA) error, error) {
	ending := strings.ToLower(filepath.Ext(path))
	if e, ok := encoders[ending]; ok {
		return e, nil
	}
	return nil, fmt.Errorf("%w: %s: pictures are written as .png, .jpg or .jpeg, not %q", ErrOutput, path, ending)
}

// CheckOutput says, before any work is done, whether Save to path can succeed:
// the ending is known, path is no directory, and its folder takes new files.
// The error matches ErrOutput.
func CheckOutput(path string) error {
	if _, err := encoderFor(path); err != nil {
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

// Save writes the picture in the format that path's ending names (.png, .jpg,
// .jpeg; 8 bits). The file appears whole or not at all: an older one of that
// name stays until the new one is complete.
func (p *Picture) Save(path string) error {
	encode, err := encoderFor(path)
	if err != nil {
		return err
	}
	f, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o644), renameio.WithExistingPermissions())
	if err != nil {
		return fmt.Errorf("%w: %w", ErrOutput, err)
	}
	defer f.Cleanup()
	buffered := bufio.NewWriter(f)
	if err := errors.Join(encode(buffered, p.image()), buffered.Flush()); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrOutput, path, err)
	}
	return f.CloseAtomicallyReplace()
}

// image rounds to 8 bits.
func (p *Picture) image() *image.NRGBA {
	m := image.NewNRGBA(image.Rect(0, 0, p.Width, p.Height))
	plane := p.Width * p.Height
	for i := range plane {
		for c := range 3 {
			m.Pix[4*i+c] = uint8(math.Round(float64(p.Pixels[c*plane+i]) * 255))
		}
		m.Pix[4*i+3] = 255
	}
	return m
}
