package picture

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"image"
	"io"
	"unsafe"
)

// Raw is a decoded picture as its file stores it, which is often a tenth of the Picture that
// is made of it: so a process that decodes hands it to another.
type Raw struct {
	file   file
	image  image.Image // nil: the Picture is made already, as its colours were to be converted
	made   *Picture
	planes [][]byte // of either
	layout layout
}

// Raw is DecodeWithin of the file, without the last step, which is Raw's Picture.
func (h *Header) Raw(memory int64) (*Raw, error) {
	r, err := h.raw(memory)
	if err != nil {
		return nil, unusable{err}
	}
	return r, nil
}

func (h *Header) raw(memory int64) (*Raw, error) {
	f := h.file
	m, err := f.pixels(h.Memory, memory)
	if err != nil {
		return nil, err
	}
	r := &Raw{file: *f, image: m}
	if convert, _ := f.colours.toSRGB(m, f.grey); convert() != nil || !r.lay(m) {
		if err := guarded(func() error { r.made = f.picture(m); return nil }); err != nil {
			return nil, damaged(err)
		}
		r.image = nil
		r.layPicture()
	}
	return r, nil
}

// Picture finishes the picture.
func (r *Raw) Picture() *Picture {
	if r.made != nil {
		return r.made
	}
	return r.file.picture(r.image)
}

// layout says what a Raw's planes are.
type layout struct {
	Kind          string
	Width, Height int // as stored
	Orientation   orientation
	Grey          bool
	YCbCr         struct {
		Red, Blue        float32
		Nearest, Limited bool
	}
	Size    image.Point // of the frame on a canvas of Width×Height
	At      image.Point // where that lies
	Strides [2]int
	Ratio   image.YCbCrSubsampleRatio
	Palette []pixel
	Planes  []int // bytes
}

// indexed is a picture of a palette's colours.
type indexed struct {
	*image.Paletted // without its own palette
	palette         []pixel
}

// lay describes an image, and says whether its type is one of those that can be.
func (r *Raw) lay(m image.Image) bool {
	l := &r.layout
	l.Width, l.Height, l.Orientation, l.Grey = r.file.width, r.file.height, r.file.orientation, r.file.grey
	y := r.file.colours.ycbcr
	l.YCbCr.Red, l.YCbCr.Blue, l.YCbCr.Nearest, l.YCbCr.Limited = y.red, y.blue, y.nearest, y.limited
	if c, ok := m.(canvas); ok {
		m, l.At = c.Image, c.at
	}
	corner := m.Bounds().Min
	l.Size = m.Bounds().Size()
	one := func(kind string, pixels []byte, offset, stride int) {
		l.Kind, l.Strides[0], r.planes = kind, stride, [][]byte{pixels[offset:]}
	}
	planar := func(kind string, m *image.YCbCr) bool {
		l.Kind, l.Strides, l.Ratio = kind, [2]int{m.YStride, m.CStride}, m.SubsampleRatio
		r.planes = [][]byte{m.Y, m.Cb, m.Cr}
		return corner == image.Point{} // as all decoders have it
	}
	at := func(offset func(x, y int) int) int { return offset(corner.X, corner.Y) }
	switch m := m.(type) {
	case *image.YCbCr:
		return planar("ycbcr", m)
	case *image.NYCbCrA:
		if planar("nycbcra", &m.YCbCr); m.AStride != m.YStride {
			return false
		}
		r.planes = append(r.planes, m.A)
		return corner == image.Point{}
	case *image.Gray:
		one("gray", m.Pix, at(m.PixOffset), m.Stride)
	case *image.Gray16:
		one("gray16", m.Pix, at(m.PixOffset), m.Stride)
	case *image.NRGBA:
		one("nrgba", m.Pix, at(m.PixOffset), m.Stride)
	case *image.NRGBA64:
		one("nrgba64", m.Pix, at(m.PixOffset), m.Stride)
	case *image.RGBA:
		one("rgba", m.Pix, at(m.PixOffset), m.Stride)
	case *image.RGBA64:
		one("rgba64", m.Pix, at(m.PixOffset), m.Stride)
	case *image.CMYK:
		one("cmyk", m.Pix, at(m.PixOffset), m.Stride)
	case *image.Paletted:
		one("indexed", m.Pix, at(m.PixOffset), m.Stride)
		for _, c := range m.Palette {
			l.Palette = append(l.Palette, pixelOf(c))
		}
	default:
		return false
	}
	return true
}

// layPicture describes what is finished.
func (r *Raw) layPicture() {
	p := r.made
	r.layout = layout{Kind: "picture", Width: p.Width, Height: p.Height, Orientation: 1}
	r.planes = [][]byte{bytesOf(p.Pixels)}
	if p.Alpha != nil {
		r.planes = append(r.planes, bytesOf(p.Alpha))
	}
}

// bytesOf are numbers as they lie in memory.
func bytesOf(values []float32) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(values))), 4*len(values))
}

// WriteTo writes it for ReadRaw of the same program on the same machine.
func (r *Raw) WriteTo(w io.Writer) (n int64, err error) {
	r.layout.Planes = nil
	for _, plane := range r.planes {
		r.layout.Planes = append(r.layout.Planes, len(plane))
	}
	header, err := json.Marshal(r.layout)
	if err != nil {
		return 0, err
	}
	for _, part := range append([][]byte{append(header, '\n')}, r.planes...) {
		k, err := w.Write(part)
		if n += int64(k); err != nil {
			return n, err
		}
	}
	return n, nil
}

// ReadRaw reads what WriteTo wrote, of a picture that takes so much memory at most. What does
// not fit together is an error, and so is what is larger.
func ReadRaw(from *bufio.Reader, memory int64) (*Raw, error) {
	header, err := from.ReadSlice('\n') // a palette's at most
	if err != nil {
		return nil, err
	}
	r := &Raw{}
	if err := json.Unmarshal(header, &r.layout); err != nil {
		return nil, err
	}
	l := &r.layout
	if err := sizeError(l.Width, l.Height); err != nil {
		return nil, err
	}
	if l.Kind == "picture" {
		return r, r.readPicture(from, memory)
	}
	total := int64(0)
	for _, bytes := range l.Planes {
		if bytes < 0 || int64(bytes) > memory {
			return nil, errPlanes
		}
		if total += int64(bytes); total > memory {
			return nil, errPlanes
		}
	}
	for _, bytes := range l.Planes {
		plane := make([]byte, bytes)
		if _, err := io.ReadFull(from, plane); err != nil {
			return nil, err
		}
		r.planes = append(r.planes, plane)
	}
	r.file = file{width: l.Width, height: l.Height, orientation: l.Orientation, grey: l.Grey}
	r.file.colours.ycbcr = ycbcr{l.YCbCr.Red, l.YCbCr.Blue, l.YCbCr.Nearest, l.YCbCr.Limited}
	if r.image, err = l.image(r.planes); err != nil {
		return nil, err
	}
	r.image = onCanvas(r.image, l.At, l.Width, l.Height)
	return r, nil
}

var errPlanes = errors.New("what was decoded does not fit its size")

// readPicture reads what layPicture describes.
func (r *Raw) readPicture(from io.Reader, memory int64) error {
	l := r.layout
	plane := l.Width * l.Height
	if n := len(l.Planes); n < 1 || n > 2 || l.Planes[0] != 12*plane || n == 2 && l.Planes[1] != 4*plane ||
		int64(16*plane) > memory {
		return errPlanes
	}
	r.made = New(l.Width, l.Height)
	if _, err := io.ReadFull(from, bytesOf(r.made.Pixels)); err != nil {
		return err
	}
	if len(l.Planes) == 2 {
		r.made.Alpha = make([]float32, plane)
		_, err := io.ReadFull(from, bytesOf(r.made.Alpha))
		return err
	}
	return nil
}

// image is what the planes are, if there is enough of them.
func (l *layout) image(planes [][]byte) (image.Image, error) {
	rect := image.Rectangle{Max: l.Size}
	if l.Size.X <= 0 || l.Size.Y <= 0 || l.Size.X > l.Width || l.Size.Y > l.Height || l.At.X < 0 || l.At.Y < 0 ||
		l.Strides[0] < 0 || l.Strides[1] < 0 || l.Orientation < 1 || l.Orientation > 8 {
		return nil, errPlanes
	}
	if l.Kind == "ycbcr" || l.Kind == "nycbcra" {
		if len(planes) != map[string]int{"ycbcr": 3, "nycbcra": 4}[l.Kind] {
			return nil, errPlanes
		}
		m := image.YCbCr{Y: planes[0], Cb: planes[1], Cr: planes[2], YStride: l.Strides[0], CStride: l.Strides[1],
			SubsampleRatio: l.Ratio, Rect: rect}
		last := l.Size.Sub(image.Pt(1, 1))
		if len(m.Y) <= m.YOffset(last.X, last.Y) || m.COffset(last.X, last.Y) >= min(len(m.Cb), len(m.Cr)) ||
			m.YStride < l.Size.X {
			return nil, errPlanes
		}
		if l.Kind == "ycbcr" {
			return &m, nil
		}
		if len(planes[3]) < len(m.Y) {
			return nil, errPlanes
		}
		return &image.NYCbCrA{YCbCr: m, A: planes[3], AStride: m.YStride}, nil
	}
	each := map[string]int{"gray": 1, "gray16": 2, "nrgba": 4, "nrgba64": 8, "rgba": 4, "rgba64": 8, "cmyk": 4,
		"indexed": 1}[l.Kind]
	stride := l.Strides[0]
	if each == 0 || len(planes) != 1 || stride < each*l.Size.X || len(planes[0]) < stride*(l.Size.Y-1)+each*l.Size.X {
		return nil, fmt.Errorf("%w (%s)", errPlanes, l.Kind)
	}
	pixels := planes[0]
	switch l.Kind {
	case "gray":
		return &image.Gray{Pix: pixels, Stride: stride, Rect: rect}, nil
	case "gray16":
		return &image.Gray16{Pix: pixels, Stride: stride, Rect: rect}, nil
	case "nrgba":
		return &image.NRGBA{Pix: pixels, Stride: stride, Rect: rect}, nil
	case "nrgba64":
		return &image.NRGBA64{Pix: pixels, Stride: stride, Rect: rect}, nil
	case "rgba":
		return &image.RGBA{Pix: pixels, Stride: stride, Rect: rect}, nil
	case "rgba64":
		return &image.RGBA64{Pix: pixels, Stride: stride, Rect: rect}, nil
	case "cmyk":
		return &image.CMYK{Pix: pixels, Stride: stride, Rect: rect}, nil
	}
	return indexed{&image.Paletted{Pix: pixels, Stride: stride, Rect: rect}, l.Palette}, nil
}
