package picture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/gif"
	"image/png"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"golang.org/x/image/bmp"
)

// What a file may claim. A larger one is refused before memory is asked for, and so is
// a result. MaxPixels is the largest number of pixels and MaxSide the longest side.
const (
	MaxPixels = 1 << 30
	MaxSide   = 1<<16 - 1

	maxFile    = 4 << 30   // bytes of a file
	maxComment = 128 << 10 // bytes: ours are of a few kilobytes
	maxProfile = 8 << 20   // bytes of an ICC profile, inflated: printers' are of 2 MB
)

// Open reads a picture file: see Decode. "-" is standard input.
func Open(path string) (*Picture, error) { return OpenWithin(path, 0) }

// OpenWithin is Open where decoding may take so many bytes of memory, the picture's own
// included: a file that would take more is refused before. 0 is no limit.
func OpenWithin(path string, memory int64) (*Picture, error) {
	data, err := ReadFile(path)
	if err != nil {
		return nil, err
	}
	p, err := decode(data, memory)
	if err != nil {
		return nil, fmt.Errorf("%w: %s %w", ErrPicture, Named(path), err)
	}
	return p, nil
}

// Named is how errors name a path.
func Named(path string) string {
	if path == "-" {
		return "standard input"
	}
	return path
}

// ReadFile reads a file that may be a picture; "-" is standard input. The error matches
// ErrPicture and says the name.
func ReadFile(path string) ([]byte, error) {
	file := os.Stdin
	if path != "-" {
		var err error
		if file, err = OpenFile(path); err != nil {
			return nil, err
		}
		defer file.Close()
	}
	data, err := readAll(file)
	if err != nil {
		return nil, fmt.Errorf("%w: %s %w", ErrPicture, Named(path), err)
	}
	return data, nil
}

// OpenFile opens a file that may be a picture: no device, no directory, and not too long. It
// may be a pipe. The error is ReadFile's.
func OpenFile(path string) (*os.File, error) {
	info, err := os.Stat(path)
	if err != nil {
		var p *os.PathError
		errors.As(err, &p)
		return nil, fmt.Errorf("%w: %s cannot be opened: %w", ErrPicture, path, p.Err)
	}
	switch {
	case info.IsDir():
		return nil, fmt.Errorf("%w: %s is a directory", ErrPicture, path)
	case info.Mode()&os.ModeDevice != 0: // some never end
		return nil, fmt.Errorf("%w: %s is a device", ErrPicture, path)
	case info.Size() > maxFile:
		return nil, fmt.Errorf("%w: %s %w", ErrPicture, path, errLongFile)
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrPicture, err)
	}
	return file, nil
}

var errLongFile = fmt.Errorf("is of more than %s", humanize.IBytes(maxFile))

// readAll reads what a picture file may hold. What it allocates beyond the data is
// bounded: a regular file's size is known.
func readAll(r io.Reader) ([]byte, error) {
	var buffer bytes.Buffer
	if file, ok := r.(*os.File); ok {
		if info, err := file.Stat(); err == nil && info.Mode().IsRegular() {
			buffer.Grow(int(min(info.Size(), maxFile)) + bytes.MinRead)
		}
	}
	n, err := buffer.ReadFrom(io.LimitReader(r, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("cannot be read: %w", err)
	}
	if n > maxFile {
		return nil, errLongFile
	}
	return buffer.Bytes(), nil
}

// Decode reads a PNG, JPEG, WebP, TIFF, GIF, BMP, HEIC, AVIF or JPEG XL: the first
// picture in it, upright by its orientation, in sRGB by its ICC profile or by what its
// format says of its colours (by relative colorimetry; colours beyond sRGB are clipped),
// with its alpha if some of it is transparent. The error matches ErrPicture and
// completes "PICTURE …".
func Decode(r io.Reader) (*Picture, error) { return DecodeWithin(r, 0) }

// DecodeWithin is Decode with OpenWithin's limit of memory.
func DecodeWithin(r io.Reader, memory int64) (*Picture, error) {
	data, err := readAll(r)
	if err != nil {
		return nil, unusable{err}
	}
	p, err := decode(data, memory)
	if err != nil {
		return nil, unusable{err}
	}
	return p, nil
}

// unusable is an error that matches ErrPicture and does not say so.
type unusable struct{ error }

func (u unusable) Is(target error) bool { return target == ErrPicture }
func (u unusable) Unwrap() error        { return u.error }

func decode(data []byte, memory int64) (*Picture, error) {
	f, err := inspect(data)
	if err != nil {
		return nil, err
	}
	m, err := f.pixels(f.memory(data), memory)
	if err != nil {
		return nil, err
	}
	var p *Picture
	if err := guarded(func() error { p = f.picture(m); return nil }); err != nil {
		return nil, damaged(err)
	}
	return p, nil
}

// pixels decodes a file, which needs so much memory, if it may take so much; 0: any.
func (f *file) pixels(need, memory int64) (m image.Image, err error) {
	if memory > 0 && need > memory {
		return nil, fmt.Errorf("is of %d×%d pixels, for which decoding takes %s of memory; %s may be used: a "+
			"higher limit will do if there is more, or a smaller copy of the file",
			f.width, f.height, humanize.IBytes(uint64(need)), humanize.IBytes(uint64(max(memory, 0))))
	}
	err = guarded(func() error {
		if m, err = f.decode(); err != nil {
			return err
		}
		if m.Bounds().Dx() != f.width || m.Bounds().Dy() != f.height {
			return fmt.Errorf("it is of %v pixels and not of %d×%d, as it claims", m.Bounds().Size(), f.width, f.height)
		}
		return nil
	})
	if err != nil {
		return nil, damaged(err)
	}
	return m, nil
}

// Info is what a picture file says before a pixel of it is decoded.
type Info struct {
	// Width and Height are of the picture that decoding makes, which is upright.
	Width, Height int
	// Format, by what is in the file: "png", "jpeg", "webp", "tiff", "gif", "bmp", "heic",
	// "avif" or "jxl".
	Format string
	// Comment is what Save wrote; empty in files from elsewhere.
	Comment string
	// Memory is how many bytes decoding takes, the file and the Picture included.
	Memory int64
	// Time is what decoding takes of a processor at most, by far: it is for limits.
	Time time.Duration
}

// Header is a file of which the header has been read: what it says, and what decodes the rest,
// once.
type Header struct {
	Info
	file *file
}

// Inspect reads a file's header. The error is Decode's.
func Inspect(data []byte) (Info, error) {
	h, err := ReadHeader(data)
	if err != nil {
		return Info{}, err
	}
	return h.Info, nil
}

// ReadHeader is Inspect of a file that may be decoded then: its data is to stay as it is.
func ReadHeader(data []byte) (*Header, error) {
	f, err := inspect(data)
	if err != nil {
		return nil, unusable{err}
	}
	i := Info{Width: f.width, Height: f.height, Format: f.format, Comment: f.comment, Memory: f.memory(data),
		Time: timeFor(int64(len(data)), int64(f.width)*int64(f.height))}
	if f.orientation >= 5 {
		i.Width, i.Height = i.Height, i.Width
	}
	return &Header{i, f}, nil
}

// timeFor is what a file of so many bytes and pixels may take: a second, in which WebAssembly
// is compiled too, and a microsecond for each. A photograph takes a fiftieth.
func timeFor(bytes, pixels int64) time.Duration {
	return time.Second + time.Duration(bytes+pixels)*time.Microsecond
}

// memory is what decoding takes: the file, what the decoder has and the Picture.
func (f *file) memory(data []byte) int64 {
	return int64(len(data)) + int64(f.width)*int64(f.height)*(f.bytes+16) + f.extra
}

// file is a picture file whose header has been read.
type file struct {
	format        string
	width, height int                         // as stored
	bytes         int64                       // a pixel that decoding takes in addition to the Picture
	extra         int64                       // bytes that it takes whatever the size, such as a tile's
	decode        func() (image.Image, error) // the pixels, as stored
	colours       colours                     // of the pixels
	grey          bool                        // it has lightness alone
	orientation   orientation
	comment       string // ours
	short         bool   // there are fewer bytes than the size wants
}

// kinds tells formats by their first bytes, and reads their headers.
var kinds = []kind{
	{"png", begins("\x89PNG\r\n\x1a\n"), readPNG},
	{"jpeg", begins("\xff\xd8"), readJPEG},
	{"webp", isWebP, readWebP},
	{"tiff", isTIFF, readTIFF},
	{"gif", isGIF, readGIF},
	{"bmp", begins("BM"), readBMP},
	{"heic", isHEIF, readHEIF},
	{"jxl", isJXL, readJXL},
}

type kind struct {
	format string
	is     func(data []byte) bool
	read   func(data []byte, f *file) error
}

func (k kind) name(data []byte) string {
	if k.format == "heic" && slices.Contains(brands(data), "avif") {
		return "avif"
	}
	return k.format
}

func isGIF(data []byte) bool { return begins("GIF87a")(data) || begins("GIF89a")(data) }

// FormatByStart tells a file's format, as Inspect does, by its first bytes alone, of which
// 64 will do; empty if it is none that is known.
func FormatByStart(data []byte) string {
	for _, kind := range kinds {
		if kind.is(data) {
			return kind.name(data)
		}
	}
	return ""
}

func begins(text string) func([]byte) bool {
	return func(data []byte) bool { return bytes.HasPrefix(data, []byte(text)) }
}

// inspect reads a file's header: what it claims is checked.
func inspect(data []byte) (*file, error) {
	if len(data) == 0 {
		return nil, errors.New("is empty")
	}
	for _, kind := range kinds {
		if !kind.is(data) {
			continue
		}
		f := &file{orientation: 1}
		if err := guarded(func() error { return kind.read(data, f) }); err != nil {
			return nil, damaged(err)
		}
		if err := sizeError(f.width, f.height); err != nil {
			return nil, err
		}
		if f.short {
			return nil, damaged(io.ErrUnexpectedEOF)
		}
		if len(f.comment) > maxComment {
			f.comment = ""
		}
		return f, nil
	}
	return nil, errors.New("is not a picture of a known format (PNG, JPEG, WebP, TIFF, GIF, BMP, HEIC, AVIF, JPEG XL)")
}

// guarded turns a decoder's panic on malformed data into an error.
func guarded(f func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the decoder failed: %v", r)
		}
	}()
	return f()
}

// refused is the error of a file that is sound, but of a kind that is not read.
type refused string

func (r refused) Error() string { return string(r) }

func damaged(err error) error {
	var kind refused
	switch {
	case errors.As(err, &kind):
		return kind
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("is cut short")
	}
	text, _, _ := strings.Cut(err.Error(), "\n") // what runs WebAssembly shows its stack
	return fmt.Errorf("is cut short, damaged or of an unsupported kind (%s)", text)
}

// readConfig takes the size from one of Go's decoders.
func (f *file) readConfig(format string, config func(io.Reader) (image.Config, error), data []byte) error {
	c, err := config(bytes.NewReader(data))
	f.format, f.width, f.height = format, c.Width, c.Height
	return err
}

// stored tells how many bytes there are of the pixels, of each of which a method makes
// ratio bytes at most, and how many are wanted. Where there are too few the file is cut
// short, and no memory is taken for what it claims.
func (f *file) stored(bytes, ratio, wanted int64) { f.short = bytes < (wanted-1<<20)/ratio }

// sizeError is that of a size that is out of range.
func sizeError(w, h int) error {
	switch {
	case w <= 0 || h <= 0:
		return refused(fmt.Sprintf("has no pixels: its header says %d×%d", w, h))
	case max(w, h) > MaxSide || int64(w)*int64(h) > MaxPixels:
		return refused(fmt.Sprintf("claims %d×%d pixels; at most %d million and %d a side are read", w, h,
			MaxPixels/1_000_000, MaxSide))
	}
	return nil
}

// readGIF reads its first frame, on its canvas; the rest is transparent.
func readGIF(data []byte, f *file) error {
	f.bytes = 5
	f.decode = func() (image.Image, error) {
		frame, err := gif.Decode(bytes.NewReader(data))
		if err != nil {
			return nil, err
		}
		return onCanvas(frame, frame.Bounds().Min, f.width, f.height), nil
	}
	err := f.readConfig("gif", gif.DecodeConfig, data)
	f.stored(int64(len(data)), 2732, int64(f.width)*int64(f.height)) // 4097 pixels by 12 bits
	return err
}

func readBMP(data []byte, f *file) error {
	f.bytes = 4
	f.decode = func() (image.Image, error) { return bmp.Decode(bytes.NewReader(data)) }
	if err := f.readConfig("bmp", bmp.DecodeConfig, data); err != nil {
		return err
	}
	f.stored(int64(len(data)), 1, (int64(f.width)*int64(binary.LittleEndian.Uint16(data[28:]))+31)/32*4*int64(f.height))
	return nil
}

func readPNG(data []byte, f *file) error {
	f.bytes = 8
	if err := f.readConfig("png", png.DecodeConfig, data); err != nil {
		return err
	}
	ended, err := f.chunksPNG(data)
	if !ended { // some writers forget
		data = append(bytes.Clone(data), chunkPNG("IEND", nil)...)
	}
	f.decode = func() (image.Image, error) { return png.Decode(bytes.NewReader(data)) }
	return err
}

// onCanvas puts a frame at a place of a canvas, which is transparent elsewhere.
func onCanvas(frame image.Image, at image.Point, width, height int) image.Image {
	if frame == nil || at == (image.Point{}) && frame.Bounds().Size() == image.Pt(width, height) {
		return frame
	}
	return canvas{frame, at, image.Pt(width, height)}
}

// canvas is a frame and transparency around it.
type canvas struct {
	image.Image
	at, size image.Point
}

func (c canvas) Bounds() image.Rectangle { return image.Rectangle{Max: c.size} }
