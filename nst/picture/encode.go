package picture

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/png"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/gen2brain/avif"
	"github.com/gen2brain/jpegn"
	"github.com/gen2brain/webp"
	"golang.org/x/image/tiff"
)

// ErrOutput is matched (errors.Is) by the errors of output files that cannot be
// written.
var ErrOutput = errors.New("unusable output file")

// Encoding says how a picture is written. The zero value is the default.
type Encoding struct {
	// Bits per channel: 8, which 0 means, or 16 for PNG and TIFF.
	Bits int
	// Quality is that of JPEG, WebP and AVIF, 1 to 100; 0 means 95, which keeps brush
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

// Format is a kind of file that pictures are written as.
type Format string

// The formats.
const (
	PNG  Format = "png"
	JPEG Format = "jpeg"
	WebP Format = "webp"
	TIFF Format = "tiff"
	AVIF Format = "avif"
)

// FormatOf is the format that the ending of path names (see Endings). The error matches
// ErrOutput.
func FormatOf(path string) (Format, error) {
	ending := strings.ToLower(filepath.Ext(path))
	if f, ok := endings[ending]; ok {
		return f, nil
	}
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return "", fmt.Errorf("%w: %s is a directory: give the file's name too, which ends in %s", ErrOutput, path,
			Endings)
	}
	if ending == "" {
		return "", fmt.Errorf("%w: %s has no ending: pictures are written as %s", ErrOutput, path, Endings)
	}
	return "", fmt.Errorf("%w: %s: pictures are written as %s, not %q", ErrOutput, path, Endings, ending)
}

// Alpha says whether files of the format have alpha.
func (f Format) Alpha() bool { return f != JPEG }

var endings = map[string]Format{".png": PNG, ".jpg": JPEG, ".jpeg": JPEG, ".webp": WebP, ".tif": TIFF, ".tiff": TIFF,
	".avif": AVIF}

// Endings lists the endings of the files that Save writes.
const Endings = ".png, .jpg, .jpeg, .webp, .tif, .tiff or .avif"

// subsampling keeps all of the chroma where the quality is high: strokes are coloured.
func subsampling(e Encoding) jpegn.Subsampling {
	if e.quality() >= 90 {
		return jpegn.Subsample444
	}
	return jpegn.Subsample420
}

// writer writes a format: its pixels, and then what goes around them.
type writer struct {
	sixteen  bool // it can have 16 bits
	lossy    bool // it has a quality
	maxSide  int
	maxBytes int64 // of the pixels, uncompressed; 0: any number
	encode   func(*bytes.Buffer, image.Image, Encoding) error
	tag      func(data []byte, e Encoding, width, height int) ([]byte, error)
}

var writers = map[Format]writer{
	PNG: {sixteen: true, maxSide: math.MaxInt32, tag: tagPNG,
		encode: func(w *bytes.Buffer, m image.Image, _ Encoding) error { return png.Encode(w, m) }},
	JPEG: {lossy: true, maxSide: 65535, tag: tagJPEG,
		encode: func(w *bytes.Buffer, m image.Image, e Encoding) error {
			return jpegn.Encode(w, m, &jpegn.EncodeOptions{Quality: e.quality(), Subsampling: subsampling(e)})
		}},
	WebP: {lossy: true, maxSide: 16383, tag: tagWebP,
		encode: func(w *bytes.Buffer, m image.Image, e Encoding) error {
			return webp.Encode(w, m, webp.Options{Quality: e.quality(), Lossless: e.quality() == 100, Exact: true,
				Method: webp.DefaultMethod})
		}},
	TIFF: {sixteen: true, maxSide: math.MaxInt32, maxBytes: math.MaxUint32 - 1<<20, tag: tagTIFF,
		encode: func(w *bytes.Buffer, m image.Image, _ Encoding) error {
			return tiff.Encode(w, m, &tiff.Options{Compression: tiff.Deflate, Predictor: true})
		}},
	AVIF: {lossy: true, maxSide: 65535, tag: tagAVIF,
		encode: func(w *bytes.Buffer, m image.Image, e Encoding) error {
			return avif.Encode(w, m, avif.Options{Quality: e.quality(), QualityAlpha: 100, Speed: 8,
				ChromaSubsampling: image.YCbCrSubsampleRatio444})
		}},
}

// Check says whether the format can be written so. The error matches ErrOutput.
func (f Format) Check(e Encoding) error {
	w, ok := writers[f]
	switch {
	case !ok:
		return fmt.Errorf("%w: pictures are written as png, jpeg, webp, tiff or avif, not %q", ErrOutput, string(f))
	case !slices.Contains([]int{0, 8, 16}, e.Bits):
		return fmt.Errorf("%w: pictures have 8 or 16 bits per channel, not %d", ErrOutput, e.Bits)
	case e.Bits == 16 && !w.sixteen:
		return fmt.Errorf("%w: %s has 8 bits per channel; png and tiff can have 16", ErrOutput, f)
	case e.Quality < 0 || e.Quality > 100:
		return fmt.Errorf("%w: the quality is 1 to 100, not %d", ErrOutput, e.Quality)
	case e.Quality != 0 && !w.lossy:
		return fmt.Errorf("%w: %s has no quality; jpeg, webp and avif have one", ErrOutput, f)
	}
	return nil
}

// CheckSize says whether the format takes a picture of width×height. The error matches
// ErrOutput.
func (f Format) CheckSize(e Encoding, width, height int) error {
	w := writers[f]
	if max(width, height) > w.maxSide {
		return fmt.Errorf("%w: %d×%d is too large for %s, which takes %d a side; png takes more", ErrOutput, width,
			height, f, w.maxSide)
	}
	if bytes := int64(width) * int64(height) * int64(max(e.Bits, 8)/2); w.maxBytes > 0 && bytes > w.maxBytes {
		return fmt.Errorf("%w: %d×%d takes %d bytes uncompressed, and %s %d at most; png takes more", ErrOutput, width,
			height, bytes, f, w.maxBytes)
	}
	return nil
}

// CheckOutput says, before any work is done, whether Save to path can succeed:
// the ending is known and can have that encoding, path is no directory, and its
// folder takes new files. The error matches ErrOutput.
func CheckOutput(path string, e Encoding) error {
	f, err := FormatOf(path)
	if err != nil {
		return err
	}
	if err := f.Check(e); err != nil {
		return fmt.Errorf("%w (%s)", err, path)
	}
	return CheckWritable(path)
}

// CheckWritable says whether a file can be written at path: path is no
// directory, and its folder takes new files. The error matches ErrOutput.
func CheckWritable(path string) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return fmt.Errorf("%w: %s exists and is no regular file", ErrOutput, path)
	}
	place, err := linked(path)
	if err != nil {
		return err
	}
	if len(filepath.Base(place)) > 255 {
		return fmt.Errorf("%w: %s: a name has at most 255 bytes", ErrOutput, path)
	}
	probe, err := os.CreateTemp(filepath.Dir(place), ".nst-*")
	if err != nil {
		return fmt.Errorf("%w: no file can be made in %s: %w", ErrOutput, filepath.Dir(place), withoutPath(err))
	}
	probe.Close()
	return os.Remove(probe.Name())
}

// Save writes the picture to a file, in the format that the ending of path names. The
// file appears whole or not at all: an older one of that name stays until the new one is
// complete. The error matches ErrOutput.
func (p *Picture) Save(path string, e Encoding) error {
	f, err := FormatOf(path)
	if err != nil {
		return err
	}
	return Replace(path, func(w io.Writer) error { return p.Encode(w, f, e) })
}

// Encode writes the picture in a format, with an sRGB profile, and with its alpha where
// the format has that; else over white. The error matches ErrOutput, or is w's.
func (p *Picture) Encode(w io.Writer, f Format, e Encoding) error {
	if err := f.Check(e); err != nil {
		return err
	}
	if err := f.CheckSize(e, p.Width, p.Height); err != nil {
		return err
	}
	if !f.Alpha() {
		p = p.OverWhite()
	}
	format := writers[f]
	var buffer bytes.Buffer
	err := guarded(func() error { return format.encode(&buffer, p.image(e.Bits), e) })
	data := buffer.Bytes()
	if err == nil {
		data, err = format.tag(data, e, p.Width, p.Height)
	}
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrOutput, f, err)
	}
	_, err = w.Write(data)
	return err
}

// WriteFile writes a file: see Replace.
func WriteFile(path string, data []byte) error {
	return Replace(path, func(w io.Writer) error {
		_, err := w.Write(data)
		return err
	})
}

// Replace writes a file that appears whole or not at all: see Pending. The error matches
// ErrOutput if no file can be made there; a write that fails is the disk's matter.
func Replace(path string, write func(io.Writer) error) error {
	p, err := Begin(path)
	if err != nil {
		return err
	}
	buffered := bufio.NewWriterSize(p, 1<<20)
	if err = write(buffered); err == nil {
		err = buffered.Flush()
	}
	if err != nil {
		_ = p.Abandon()
		return fmt.Errorf("%s cannot be written: %w", path, withoutPath(err))
	}
	return p.Commit()
}

// Pending is a file that is being written, under a name of its own. Committed, it takes the
// place of an older one, whole, and has that one's permissions; before, or abandoned, that one
// stays. Where its path is a symbolic link, it takes the place of the file that it names.
type Pending struct {
	*os.File
	path, place string
	mode        os.FileMode
	older       bool // there is one
}

// Begin begins a file, which the caller commits or abandons. The error matches ErrOutput.
func Begin(path string) (*Pending, error) {
	p := &Pending{path: path, mode: 0o644}
	var err error
	if p.place, err = linked(path); err != nil {
		return nil, err
	}
	if older, err := os.Stat(p.place); err == nil {
		p.mode, p.older = older.Mode().Perm(), true
	}
	// A name of its own, which is short: the file's may be as long as names can be.
	p.File, err = os.OpenFile(filepath.Join(filepath.Dir(p.place), fmt.Sprintf(".nst-%016x", rand.Uint64())),
		os.O_WRONLY|os.O_CREATE|os.O_EXCL, p.mode)
	if err != nil {
		return nil, fmt.Errorf("%w: %s cannot be written: %w", ErrOutput, path, withoutPath(err))
	}
	return p, nil
}

// Commit puts the file in its place, or if it cannot, abandons it.
func (p *Pending) Commit() error {
	err := p.settle()
	if err != nil {
		_ = p.Abandon()
		return fmt.Errorf("%s cannot be written: %w", p.path, withoutPath(err))
	}
	return nil
}

func (p *Pending) settle() error {
	if p.older { // whatever the umask
		if err := p.Chmod(p.mode); err != nil {
			return err
		}
	}
	if err := p.Sync(); err != nil {
		return err
	}
	if err := p.Close(); err != nil {
		return err
	}
	return os.Rename(p.Name(), p.place)
}

// Abandon removes the file. It is for one that is not committed.
func (p *Pending) Abandon() error {
	p.Close()
	return os.Remove(p.Name())
}

// linked is the file that a path names, behind symbolic links.
func linked(path string) (string, error) {
	for range 40 {
		to, err := os.Readlink(path)
		if err != nil {
			return path, nil
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		path = to
	}
	return "", fmt.Errorf("%w: %s leads through too many symbolic links", ErrOutput, path)
}

// withoutPath is the system's error of a file that is named already.
func withoutPath(err error) error {
	var p *os.PathError
	var l *os.LinkError
	switch {
	case errors.As(err, &p):
		return p.Err
	case errors.As(err, &l):
		return l.Err
	}
	return err
}
