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

// boxes calls each for the boxes of a body, until it returns an error. A box that ends
// beyond the body is a cutError.
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
			return cutError(body[4:8])
		}
		if err := each(string(body[4:8]), body[header:size]); err != nil {
			return err
		}
		body = body[size:]
	}
	return nil
}

// cutError is that of a box of the kind that is cut short.
type cutError string

func (c cutError) Error() string { return fmt.Sprintf("the box %q ends beyond the file", string(c)) }
func (c cutError) Unwrap() error { return io.ErrUnexpectedEOF }

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

// heif is what the boxes of a file say of its pictures, which are called items.
type heif struct {
	primary    uint64
	properties []property
	of         map[uint64][]int // properties of an item, counted from 1
	kinds      map[uint64]string
	auxiliary  map[uint64]uint64 // to the item that it goes with
}

type property struct {
	kind    string
	content []byte
}

// read reads a meta box.
func (h *heif) read(kind string, content []byte) error {
	b := &fields{data: content}
	switch kind {
	case "pitm":
		wide := 2
		if b.number(4)>>24 > 0 {
			wide = 4
		}
		h.primary = b.number(wide)
	case "iinf":
		skip := 6
		if b.number(4)>>24 > 0 {
			skip = 8
		}
		return boxes(content[min(skip, len(content)):], func(kind string, content []byte) error {
			e := &fields{data: content}
			if version := e.number(4) >> 24; version == 2 || version == 3 {
				id := e.number(int(version-1) * 2)
				if e.number(2); len(e.data) >= 4 {
					h.kinds[id] = string(e.data[:4])
				}
			}
			return nil
		})
	case "iref":
		wide := 2
		if b.number(4)>>24 > 0 {
			wide = 4
		}
		return boxes(b.data, func(kind string, content []byte) error {
			e := &fields{data: content}
			if from := e.number(wide); kind == "auxl" && e.number(2) > 0 {
				h.auxiliary[from] = e.number(wide)
			}
			return nil
		})
	case "iprp":
		return boxes(content, h.read)
	case "ipco":
		return boxes(content, func(kind string, content []byte) error {
			h.properties = append(h.properties, property{kind, content})
			return nil
		})
	case "ipma":
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
				h.of[id] = append(h.of[id], int(b.number(wideIndex)&(1<<(8*wideIndex-1)-1)))
			}
			if b.short {
				return io.ErrUnexpectedEOF
			}
		}
	}
	return nil
}

// each calls do for an item's properties.
func (h *heif) each(item uint64, do func(kind string, content []byte)) {
	for _, index := range h.of[item] {
		if index >= 1 && index <= len(h.properties) {
			do(h.properties[index-1].kind, h.properties[index-1].content)
		}
	}
}

// alpha says whether an item is the primary one's alpha.
func (h *heif) alpha() (has bool) {
	for item, to := range h.auxiliary {
		h.each(item, func(kind string, content []byte) {
			has = has || to == h.primary && kind == "auxC" &&
				(bytes.Contains(content, []byte(":alpha")) || bytes.Contains(content, []byte("auxid:1")))
		})
	}
	return has
}

// readHEIF reads the primary picture's properties. libheif turns and mirrors it, libavif
// leaves that to us; neither converts colours.
func readHEIF(data []byte, f *file) error {
	f.format = "heic"
	var meta []byte
	var cut cutError
	err := boxes(data, func(kind string, content []byte) error {
		if kind == "meta" && meta == nil && len(content) > 4 {
			meta = content[4:]
		}
		if text, ok := bytes.CutPrefix(content, []byte(uuidAVIF)); ok && kind == "uuid" {
			f.comment = string(text)
		}
		return nil
	})
	if meta == nil || errors.As(err, &cut) && (cut == "mdat" || cut == "meta") { // what cameras append may be no box
		return errors.Join(err, io.ErrUnexpectedEOF)
	}
	h := &heif{of: map[uint64][]int{}, kinds: map[uint64]string{}, auxiliary: map[uint64]uint64{}}
	if err := boxes(meta, h.read); err != nil {
		return err
	}
	turns, mirror := 0, -1
	clap := [2]int{}
	var colour []uint64 // primaries, transfer, matrix, range
	h.each(h.primary, func(kind string, content []byte) {
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
			switch bytes := b.number(4); {
			case bytes == 0x6e636c78: // nclx
				colour = []uint64{b.number(2), b.number(2), b.number(2), b.number(1) >> 7}
			case (bytes == 0x70726f66 || bytes == 0x72494343) && f.colours.profile == nil: // prof, rICC
				f.colours.profile = b.data
			}
		case "av1C":
			f.format = "avif"
		}
	})
	if h.kinds[h.primary] == "grid" && slices.Contains(brands(data), "avif") {
		f.format = "avif"
	}
	if err := sizeError(f.width, f.height); err != nil { // of what is decoded
		return err
	}
	// What is coded is what memory is taken for: of the picture, or of its tiles.
	var coded codedPicture
	for _, p := range h.properties {
		var one codedPicture
		switch p.kind {
		case "hvcC":
			one = codedHEVC(p.content)
		case "av1C":
			one = codedAV1(p.content, data)
		default:
			continue
		}
		if int64(one.width)*int64(one.height) > 2*int64(f.width)*int64(f.height)+1<<20 {
			return fmt.Errorf("it claims %d×%d pixels, and %d×%d are coded", f.width, f.height, one.width, one.height)
		}
		if p.kind == "hvcC" && !coded.known {
			coded = one
		}
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
	if f.colours.profile == nil && colour != nil {
		if f.colours, err = cicp(int(colour[0]), int(colour[1])); err != nil {
			return err
		}
	}
	if f.format == "avif" {
		f.bytes = 48
		f.orientation = turned(turns, mirror)
		f.decode = func() (image.Image, error) { return decodeAVIF(data, h.alpha()) }
		return nil
	}
	f.bytes = 20
	f.grey = coded.known && coded.chroma == 0
	if turns%2 == 1 {
		f.width, f.height = f.height, f.width
	}
	// The decoder's binding reckons with shorter rows than there are in narrow pictures,
	// and smooths what is low beyond repair.
	align := func(n int) int { return (n + 15) &^ 15 }
	half := (f.width + 1) / 2
	switch {
	case align(max(64, half+half%2)) != align(half) || f.width < 64 || f.height < 16:
		return refused(fmt.Sprintf("is a HEIC of %d×%d, which the decoder does not read rightly: "+
			"save it as JPEG or PNG", f.width, f.height))
	case h.alpha():
		return refused("is a HEIC with transparency, which is not read: save it as PNG")
	case coded.known && coded.depth > 8 && coded.chroma == 3:
		return refused(fmt.Sprintf("is a HEIC of %d bits in 4:4:4, which is not read: save it as PNG", coded.depth))
	}
	f.decode = func() (image.Image, error) { return decodeHEIC(data) }
	f.colours.ycbcr.nearest = true // as libheif shows it
	if colour == nil && coded.known && coded.described {
		colour = []uint64{1, 13, uint64(coded.matrix), uint64(coded.full)}
	}
	if colour != nil {
		f.colours.ycbcr, err = ycbcrOf(int(colour[2]), colour[3] == 1)
	}
	return err
}

// ycbcrOf is the matrix of that number (ITU-T H.273, 8.3), of the full range or not.
func ycbcrOf(number int, full bool) (ycbcr, error) {
	y := ycbcr{limited: !full, nearest: true}
	switch number {
	case 0, 8, 10, 11, 12, 13, 14:
		return y, refused("is in a colour space that is not read (not YCbCr of a constant matrix): save it as JPEG " +
			"or PNG")
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
// (irot) and then mirrored (imir): top and bottom change places with 0, left and right
// with 1.
func turned(turns, mirror int) orientation {
	return [3][4]orientation{{1, 8, 3, 6}, {4, 5, 2, 7}, {2, 7, 4, 5}}[mirror+1][turns]
}

// decodeAVIF fails where libavif's binding (v0.4.4) does not: it hands out memory that
// nothing was written to, which is transparent but for the allocator's traces.
func decodeAVIF(data []byte, alpha bool) (image.Image, error) {
	m, err := avif.Decode(bytes.NewReader(data))
	var pixels []uint8
	each := 4
	switch m := m.(type) {
	case *image.RGBA:
		pixels = m.Pix
	case *image.RGBA64:
		pixels, each = m.Pix, 8
	}
	transparent := 0
	for i := each - 1; i < len(pixels); i += each {
		if pixels[i] == 0 {
			transparent++
		}
	}
	if err == nil && (!alpha && transparent > 0 || transparent*100 >= len(pixels)/each*99) {
		err = io.ErrUnexpectedEOF
	}
	return m, err
}

func decodeHEIC(data []byte) (image.Image, error) {
	m, err := heic.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	switch m := m.(type) {
	case *image.YCbCr:
		mendFirst(m.Y, m.YStride)
		if m.SubsampleRatio != image.YCbCrSubsampleRatio444 {
			sharpenChroma(m)
		}
	case *image.Gray:
		mendFirst(m.Pix, m.Stride)
	}
	return m, nil
}

// mendFirst makes the first pixels of luma as those below. The decoder's binding (heic
// v0.4.5) hands out memory that is free already, to whose beginning the allocator has
// written.
func mendFirst(luma []uint8, stride int) {
	const written = 32
	if len(luma) >= 2*stride {
		copy(luma[:min(written, stride)], luma[stride:])
	}
}

// sharpenChroma undoes what the decoder (heic v0.4.5) does to chroma of fewer samples:
// it is interpolated to the full size and averaged back, that is smoothed with weights
// of 1/8, 6/8 and 1/8, across and down, except that what is at the edges is wrong. Each
// direction is a tridiagonal system without the edges, which are made as what is next to
// them.
func sharpenChroma(m *image.YCbCr) {
	width, height := (m.Rect.Dx()+1)/2, (m.Rect.Dy()+1)/2
	down := m.SubsampleRatio == image.YCbCrSubsampleRatio420
	if !down {
		height = m.Rect.Dy()
	}
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
		if down {
			rows(width, func(from, to int) {
				for x := from; x < to; x++ {
					unsmooth(values[x:], width)
				}
			})
		}
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
