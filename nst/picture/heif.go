package picture

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"io"
	"slices"

	"github.com/gen2brain/avif"
	"github.com/gen2brain/heic"
)

// HEIC and AVIF: HEIF files (ISO/IEC 23008-12), made of boxes (ISO/IEC 14496-12).

// isHEIF tells files of boxes that say that they are pictures.
func isHEIF(data []byte) bool { return len(brands(data)) > 0 }

// brands are the kinds of picture that a file says it is.
func brands(data []byte) (out []string) {
	if len(data) < 16 || string(data[4:8]) != "ftyp" {
		return nil
	}
	end := min(uint64(binary.BigEndian.Uint32(data)), uint64(len(data)))
	for at := uint64(8); at+4 <= end; at += 4 {
		switch brand := string(data[at : at+4]); brand {
		case "heic", "heix", "heim", "heis", "hevc", "hevx", "avif", "avis", "mif1", "msf1", "miaf":
			out = append(out, brand)
		}
	}
	return out
}

// boxes calls each for the boxes of a body, until it returns an error.
func boxes(body []byte, each func(kind string, content []byte) error) error {
	for len(body) >= 8 {
		size, header := uint64(binary.BigEndian.Uint32(body)), uint64(8)
		switch {
		case size == 1 && len(body) >= 16:
			size, header = binary.BigEndian.Uint64(body[8:]), 16
		case size == 0:
			size = uint64(len(body))
		}
		if size < header || size > uint64(len(body)) {
			return io.ErrUnexpectedEOF
		}
		if err := each(string(body[4:8]), body[header:size]); err != nil {
			return err
		}
		body = body[size:]
	}
	return nil
}

// fields reads numbers from a box, which may end early.
type fields struct {
	data  []byte
	short bool
}

func (f *fields) number(bytes int) (n uint64) {
	if len(f.data) < bytes {
		f.data, f.short = nil, true
		return 0
	}
	for _, b := range f.data[:bytes] {
		n = n<<8 | uint64(b)
	}
	f.data = f.data[bytes:]
	return n
}

// readHEIF reads the primary picture's properties. libheif turns and mirrors it, libavif
// leaves that to us; neither converts colours.
func readHEIF(data []byte, f *file) error {
	f.format = "heic"
	var meta []byte
	err := boxes(data, func(kind string, content []byte) error {
		if kind == "meta" && meta == nil && len(content) > 4 {
			meta = content[4:]
		}
		if text, ok := bytes.CutPrefix(content, []byte(uuidAVIF)); ok && kind == "uuid" {
			f.comment = string(text)
		}
		return nil
	})
	if meta == nil {
		return errors.Join(err, io.ErrUnexpectedEOF)
	}
	var primary uint64
	var properties [][2]any // kind and content
	belong := map[uint64][]int{}
	kinds := map[uint64]string{}
	err = boxes(meta, func(kind string, content []byte) error {
		b := &fields{data: content}
		switch kind {
		case "pitm":
			wide := 2
			if b.number(4)>>24 > 0 {
				wide = 4
			}
			primary = b.number(wide)
		case "iinf":
			skip := 6
			if b.number(4)>>24 > 0 {
				skip = 8
			}
			return boxes(content[min(skip, len(content)):], func(kind string, content []byte) error {
				e := &fields{data: content}
				switch version := e.number(4) >> 24; version {
				case 2, 3:
					id := e.number(int(version-1) * 2)
					e.number(2)
					if len(e.data) >= 4 {
						kinds[id] = string(e.data[:4])
					}
				}
				return nil
			})
		case "iprp":
			return boxes(content, func(kind string, content []byte) error {
				switch kind {
				case "ipco":
					return boxes(content, func(kind string, content []byte) error {
						properties = append(properties, [2]any{kind, content})
						return nil
					})
				case "ipma":
					b := &fields{data: content}
					head := b.number(4)
					wideID, wideIndex := 2, 1
					if head>>24 > 0 {
						wideID = 4
					}
					if head&1 != 0 {
						wideIndex = 2
					}
					for range b.number(4) {
						id := b.number(wideID)
						for range b.number(1) {
							belong[id] = append(belong[id], int(b.number(wideIndex)&(1<<(8*wideIndex-1)-1)))
						}
						if b.short {
							return io.ErrUnexpectedEOF
						}
					}
				}
				return nil
			})
		}
		return nil
	})
	if err != nil {
		return err
	}
	turns, mirror := 0, -1
	clap := [2]int{}
	matrix := []uint64(nil) // primaries, transfer, matrix, range
	for _, index := range belong[primary] {
		if index < 1 || index > len(properties) {
			continue
		}
		kind, content := properties[index-1][0].(string), properties[index-1][1].([]byte)
		b := &fields{data: content}
		switch kind {
		case "ispe":
			b.number(4)
			f.width, f.height = int(b.number(4)), int(b.number(4))
		case "clap": // cut, around the middle
			clap = [2]int{int(b.number(4)) / max(1, int(b.number(4))), int(b.number(4)) / max(1, int(b.number(4)))}
		case "irot":
			turns = int(b.number(1) & 3)
		case "imir":
			mirror = int(b.number(1) & 1)
		case "colr":
			switch kind := b.number(4); {
			case kind == 0x6e636c78: // nclx
				matrix = []uint64{b.number(2), b.number(2), b.number(2), b.number(1) >> 7}
			case f.colours.profile == nil: // prof or rICC
				f.colours.profile = b.data
			}
		case "av1C":
			f.format = "avif"
		}
	}
	if kinds[primary] == "grid" && slices.Contains(brands(data), "avif") {
		f.format = "avif"
	}
	if f.colours.profile == nil && matrix != nil {
		if f.colours, err = cicp(int(matrix[0]), int(matrix[1])); err != nil {
			return err
		}
	}
	if err := sizeError(f.width, f.height); err != nil { // of what is decoded
		return err
	}
	if clap[0] > f.width || clap[1] > f.height || clap[0] < 0 || clap[1] < 0 {
		return errors.New("the part to be cut out is larger than the picture") // the decoder would try for minutes
	}
	if clap[0] > 0 && clap[1] > 0 && (clap[0] < f.width || clap[1] < f.height) {
		if f.format == "avif" {
			return refused("is an AVIF of which a part is to be cut off (clap), which is not done: save it as PNG")
		}
		f.width, f.height = clap[0], clap[1]
	}
	if f.format == "avif" {
		f.bytes = 16
		f.orientation = turned(turns, mirror)
		f.decode = func() (image.Image, error) { return avif.Decode(bytes.NewReader(data)) }
		return nil
	}
	f.bytes = 20
	// The decoder's binding reckons with shorter rows than there are in narrow pictures.
	if align := func(n int) int { return (n + 15) &^ 15 }; align(max(64, (f.width+1)/2+(f.width+1)/2%2)) != align((f.width+1)/2) || f.width < 64 {
		return refused(fmt.Sprintf("is a HEIC of a width of %d, which the decoder does not read rightly: save it as JPEG or PNG", f.width))
	}
	if turns%2 == 1 {
		f.width, f.height = f.height, f.width
	}
	f.decode = func() (image.Image, error) {
		m, err := heic.Decode(bytes.NewReader(data))
		if y, ok := m.(*image.YCbCr); ok && err == nil {
			mendFirst(y)
			if y.SubsampleRatio == image.YCbCrSubsampleRatio420 {
				sharpenChroma(y)
			}
		}
		return m, err
	}
	f.colours.ycbcr.nearest = true // as libheif shows it
	if matrix != nil {
		f.colours.ycbcr, err = ycbcrOf(int(matrix[2]), matrix[3] == 1)
	}
	return err
}

// ycbcrOf is the matrix of that number (ITU-T H.273, 8.3), of the full range or not.
func ycbcrOf(number int, full bool) (ycbcr, error) {
	y := ycbcr{limited: !full, nearest: true}
	switch number {
	case 0, 8, 10, 11, 12, 13, 14:
		return y, refused("is in a colour space that is not read (not YCbCr of a constant matrix): save it as JPEG or PNG")
	case 1:
		y.red, y.blue = 0.2126, 0.0722
	case 4:
		y.red, y.blue = 0.30, 0.11
	case 7:
		y.red, y.blue = 0.212, 0.087
	case 9:
		y.red, y.blue = 0.2627, 0.0593
	}
	return y, nil
}

// turned is the orientation of a picture that is turned so often by 90° anticlockwise
// (irot) and then mirrored (imir): about the vertical axis with 0, the horizontal with 1.
func turned(turns, mirror int) orientation {
	return [3][4]orientation{{1, 8, 3, 6}, {2, 7, 4, 5}, {4, 5, 2, 7}}[mirror+1][turns]
}

// mendFirst makes the first pixels of luma as those below. The decoder's binding (heic
// v0.4.5) hands out memory that is free already, to whose beginning the allocator has
// written.
func mendFirst(m *image.YCbCr) {
	const written = 32
	if len(m.Y) >= 2*m.YStride {
		copy(m.Y[:min(written, m.YStride)], m.Y[m.YStride:])
	}
}

// sharpenChroma undoes what the decoder (heic v0.4.5) does to chroma of fewer samples:
// it is interpolated to the full size and averaged back, that is smoothed with weights
// of 1/8, 6/8 and 1/8, across and down, except that what is at the edges is wrong. Each
// direction is a tridiagonal system without the edges, which are made as what is next to
// them.
func sharpenChroma(m *image.YCbCr) {
	width, height := (m.Rect.Dx()+1)/2, (m.Rect.Dy()+1)/2
	for _, plane := range [][]uint8{m.Cb, m.Cr} {
		values := make([]float32, width*height)
		for y := range height {
			for x, v := range plane[y*m.CStride:][:width] {
				values[y*width+x] = float32(v)
			}
		}
		rows(height, func(from, to int) {
			for y := from; y < to; y++ {
				unsmooth(values[y*width:(y+1)*width], 1)
			}
		})
		rows(width, func(from, to int) {
			for x := from; x < to; x++ {
				unsmooth(values[x:], width)
			}
		})
		for y := range height {
			for x := range width {
				plane[y*m.CStride+x] = uint8(min(max(values[y*width+x], 0), 255) + 0.5)
			}
		}
	}
}

// unsmooth solves (v[i−1] + 6·v[i] + v[i+1])/8 = given for every step-th value, by
// Thomas's algorithm.
func unsmooth(values []float32, step int) {
	n := (len(values)+step-1)/step - 2
	if n < 1 {
		return
	}
	v := func(i int) *float32 { return &values[(i+1)*step] }
	above, pivot := make([]float32, n), float32(7) // the first is its own neighbour
	for i := range n {
		given := 8 * *v(i)
		if i > 0 {
			pivot = 6 - above[i-1]
			given -= *v(i - 1)
		}
		if i == n-1 {
			pivot++ // and so is the last
		}
		above[i] = 1 / pivot
		*v(i) = given / pivot
	}
	for i := n - 2; i >= 0; i-- {
		*v(i) -= above[i] * *v(i + 1)
	}
	*v(-1), *v(n) = *v(0), *v(n - 1)
}
