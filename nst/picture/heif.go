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
	file       []byte
	primary    uint64
	properties []*property
	of         map[uint64][]int // properties of an item, counted from 1
	kinds      map[uint64]string
	places     map[uint64][]byte // of the items' bytes, as iloc says
	auxiliary  map[uint64]uint64 // to the item that it goes with
	tiles      map[uint64][]uint64
	data, iloc []byte // what these boxes hold
	seen       map[string]bool
}

// property is a box of ipco's, which many items may share.
type property struct {
	kind    string
	content []byte
	alpha   bool         // of auxC: it says so
	config  *codedConfig // of hvcC and av1C; nil: it was not needed yet
}

// What an item may have: honest ones have a tenth of that.
const (
	maxProperties = 64
	maxExtents    = 1024
)

// errTwice is the error of what a file says twice: one of two could be decoded, and the other
// looked at.
func errTwice(what string) error { return fmt.Errorf("there are two of %q", what) }

// readItems reads the boxes of a whole file.
func readItems(data []byte, f *file) (*heif, error) {
	var meta []byte
	var cut cutError
	err := boxes(data, func(kind string, content []byte) error {
		switch kind {
		case "meta":
			if meta != nil {
				return errTwice(kind)
			}
			meta = content[min(4, len(content)):]
		case "uuid":
			if text, ok := bytes.CutPrefix(content, []byte(uuidAVIF)); ok {
				f.comment = string(text)
			}
		}
		return nil
	})
	if err != nil && !errors.As(err, &cut) {
		return nil, err
	}
	if len(meta) == 0 || err != nil && (cut == "mdat" || cut == "meta") { // what cameras append may be no box
		return nil, errors.Join(err, io.ErrUnexpectedEOF)
	}
	h := &heif{file: data, of: map[uint64][]int{}, kinds: map[uint64]string{}, places: map[uint64][]byte{},
		auxiliary: map[uint64]uint64{}, tiles: map[uint64][]uint64{}, seen: map[string]bool{}}
	if err := boxes(meta, h.read); err != nil {
		return nil, err
	}
	return h, h.readPlaces(&fields{data: h.iloc})
}

// read reads a box of meta's.
func (h *heif) read(kind string, content []byte) error {
	if kind == "pitm" || kind == "iinf" || kind == "iref" || kind == "iprp" || kind == "iloc" || kind == "idat" {
		if h.seen[kind] {
			return errTwice(kind)
		}
		h.seen[kind] = true
	}
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
		return boxes(content[min(skip, len(content)):], func(_ string, content []byte) error {
			e := &fields{data: content}
			if version := e.number(4) >> 24; version == 2 || version == 3 {
				id := e.number(int(version-1) * 2)
				if e.number(2); len(e.data) >= 4 {
					if h.kinds[id] != "" {
						return errTwice("infe")
					}
					h.kinds[id] = string(e.data[:4])
				}
			}
			return nil
		})
	case "iref":
		return h.readReferences(b)
	case "iloc":
		h.iloc = content // which may speak of idat
	case "idat":
		h.data = content
	case "iprp":
		return boxes(content, func(kind string, content []byte) error {
			switch kind {
			case "ipco":
				if h.properties != nil {
					return errTwice(kind)
				}
				return boxes(content, h.addProperty)
			case "ipma":
				return h.associate(&fields{data: content})
			}
			return nil
		})
	}
	return nil
}

func (h *heif) addProperty(kind string, content []byte) error {
	alpha := kind == "auxC" && (bytes.Contains(content, []byte(":alpha")) || bytes.Contains(content, []byte("auxid:1")))
	h.properties = append(h.properties, &property{kind: kind, content: content, alpha: alpha})
	return nil
}

// readReferences reads iref: what goes with what, and of what tiles a picture is made.
func (h *heif) readReferences(b *fields) error {
	wide := 2
	if b.number(4)>>24 > 0 {
		wide = 4
	}
	return boxes(b.data, func(kind string, content []byte) error {
		e := &fields{data: content}
		from, count := e.number(wide), e.number(2)
		switch {
		case kind == "auxl" && count > 0:
			h.auxiliary[from] = e.number(wide)
		case kind == "dimg" && h.tiles[from] != nil:
			return errTwice(kind)
		case kind == "dimg":
			for range count {
				h.tiles[from] = append(h.tiles[from], e.number(wide))
			}
			if e.short {
				return io.ErrUnexpectedEOF
			}
		}
		return nil
	})
}

// associate reads ipma: which properties an item has.
func (h *heif) associate(b *fields) error {
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
		if len(h.of[id]) > maxProperties {
			return fmt.Errorf("an item of %d properties", len(h.of[id]))
		}
	}
	return nil
}

// readPlaces reads iloc (ISO/IEC 14496-12, 8.11.3). All items together may have twice as many
// bytes as the file: those that more would share are looked at once for each.
func (h *heif) readPlaces(b *fields) error {
	version := b.number(4) >> 24
	sizes := b.number(2)
	offset, length, base, index := int(sizes>>12), int(sizes>>8&15), int(sizes>>4&15), int(sizes&15)
	wide := 2
	if version == 2 {
		wide = 4
	}
	if version == 0 {
		index = 0
	}
	left := 2 * len(h.file)
	for range b.number(wide) {
		id, method := b.number(wide), uint64(0)
		if version > 0 {
			method = b.number(2) & 15
		}
		b.number(2)
		start, count := b.number(base), b.number(2)
		source := h.file
		if method == 1 {
			source = h.data
		}
		if method > 1 {
			return refused("is a HEIF picture made of parts of another: save it as JPEG or PNG")
		}
		if count > maxExtents {
			return fmt.Errorf("an item in %d parts", count)
		}
		var parts [][]byte
		missing := false
		for range count {
			b.number(index)
			at, size := start+b.number(offset), b.number(length)
			if b.short {
				return io.ErrUnexpectedEOF
			}
			if length == 0 && at <= uint64(len(source)) { // to its end
				size = uint64(len(source)) - at
			}
			if at > uint64(len(source)) || size > uint64(len(source))-at {
				missing = true // it is cut short, or of another file
				continue
			}
			if left -= int(size) + 1; left < 0 {
				return errors.New("its items have more bytes than it has")
			}
			parts = append(parts, source[at:at+size])
		}
		item := []byte(nil)
		if len(parts) == 1 {
			item = parts[0]
		} else if len(parts) > 1 {
			item = bytes.Join(parts, nil)
		}
		if _, twice := h.places[id]; twice {
			return errTwice("iloc's item")
		}
		if h.places[id] = item; missing {
			h.places[id] = nil
		}
	}
	if b.short {
		return io.ErrUnexpectedEOF
	}
	return nil
}

// one returns an item's property of a kind, of which it may have one; an empty one, if it has none.
func (h *heif) one(item uint64, kind string) (found *property, err error) {
	h.each(item, func(p *property) {
		if p.kind == kind && found != nil && p != found {
			err = errTwice(kind)
		}
		if p.kind == kind {
			found = p
		}
	})
	if found == nil {
		found = &property{kind: kind}
	}
	return found, err
}

// size is what ispe says of an item.
func (h *heif) size(item uint64) (width, height int, err error) {
	ispe, err := h.one(item, "ispe")
	b := &fields{data: ispe.content}
	b.number(4)
	return int(b.number(4)), int(b.number(4)), err
}

// coded reads what an item's codec says of it, and checks that it is no larger than the item
// claims to be. The decoder takes all parameter sets that it meets, also among the pixels.
func (h *heif) coded(item uint64) (c codedPicture, err error) {
	codec, known := codecs[h.kinds[item]]
	if !known {
		return c, refused(fmt.Sprintf("holds a picture of kind %.4q, which is not read: save it as JPEG or PNG",
			h.kinds[item]))
	}
	p, err := h.one(item, codec.property)
	if err != nil {
		return c, err
	}
	if p.config == nil {
		config := codec.config(p.content)
		p.config = &config
	}
	if c, err = codec.picture(*p.config, h.places[item]); err != nil {
		return c, err
	}
	width, height, err := h.size(item)
	if err != nil {
		return c, err
	}
	if err := sizeError(width, height); err != nil {
		return c, err
	}
	if int64(c.width)*int64(c.height) > 2*int64(width)*int64(height)+1<<16 {
		return c, fmt.Errorf("it claims %d×%d pixels, and %d×%d are coded", width, height, c.width, c.height)
	}
	return c, nil
}

// checkGrid checks a picture's tiles, and returns what the codec says of the first. All are of
// one size and no more than the picture needs, beyond which they reach by so many pixels.
func (h *heif) checkGrid(item uint64, width, height int) (c codedPicture, beyond int64, err error) {
	b := &fields{data: h.places[item]}
	wide := 2
	if b.number(1); b.number(1)&1 != 0 {
		wide = 4
	}
	rows, columns := int(b.number(1))+1, int(b.number(1))+1
	outWidth, outHeight := int(b.number(wide)), int(b.number(wide))
	tiles := h.tiles[item]
	if b.short || outWidth != width || outHeight != height || len(tiles) != rows*columns {
		return c, 0, fmt.Errorf("a grid of %d×%d pixels and %d tiles in a picture of %d×%d", outWidth, outHeight,
			len(tiles), width, height)
	}
	tileWidth, tileHeight, err := h.size(tiles[0])
	if err != nil {
		return c, 0, err
	}
	if (columns-1)*tileWidth >= width || (rows-1)*tileHeight >= height {
		return c, 0, fmt.Errorf("%d×%d tiles of %d×%d in a picture of %d×%d", columns, rows, tileWidth, tileHeight,
			width, height)
	}
	checked := map[uint64]bool{}
	for _, tile := range tiles {
		if checked[tile] {
			continue
		}
		checked[tile] = true
		one, err := h.coded(tile)
		if err != nil {
			return c, 0, err
		}
		if w, t, _ := h.size(tile); w != tileWidth || t != tileHeight {
			return c, 0, fmt.Errorf("tiles of %d×%d and of %d×%d", tileWidth, tileHeight, w, t)
		}
		if tile == tiles[0] {
			c = one
		}
	}
	return c, int64(columns*tileWidth)*int64(rows*tileHeight) - int64(width)*int64(height), nil
}

// each calls do for an item's properties.
func (h *heif) each(item uint64, do func(*property)) {
	for _, index := range h.of[item] {
		if index >= 1 && index <= len(h.properties) {
			do(h.properties[index-1])
		}
	}
}

// alphas are the items that are the primary one's alpha, or that of its tiles.
func (h *heif) alphas() (all []uint64) {
	colour := map[uint64]bool{h.primary: true}
	for _, tile := range h.tiles[h.primary] {
		colour[tile] = true
	}
	for item, to := range h.auxiliary {
		alpha := false
		h.each(item, func(p *property) { alpha = alpha || p.alpha })
		if alpha && colour[to] {
			all = append(all, item)
		}
	}
	return all
}

// readHEIF reads the primary picture's properties. libheif turns and mirrors it, libavif
// leaves that to us; neither converts colours.
func readHEIF(data []byte, f *file) error {
	f.format = "heic"
	h, err := readItems(data, f)
	if err != nil {
		return err
	}
	turns, mirror := 0, -1
	clap := [2]int{}
	var colour []uint64 // primaries, transfer, matrix, range
	h.each(h.primary, func(p *property) {
		b := &fields{data: p.content}
		switch p.kind {
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
	if f.width, f.height, err = h.size(h.primary); err != nil {
		return err
	}
	if err := sizeError(f.width, f.height); err != nil { // of what is decoded
		return err
	}
	beyond := int64(0)
	check := func(item uint64) (c codedPicture, err error) {
		if h.kinds[item] != "grid" {
			return h.coded(item)
		}
		c, more, err := h.checkGrid(item, f.width, f.height)
		beyond += more
		return c, err
	}
	coded, err := check(h.primary)
	if err != nil {
		return err
	}
	alphas := h.alphas()
	for _, alpha := range alphas {
		if _, err := check(alpha); err != nil {
			return err
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
		f.bytes, f.extra = 48, 48*beyond+wasmMemory
		f.orientation = turned(turns, mirror)
		f.decode = func() (image.Image, error) { return decodeAVIF(withoutFilms(data), len(alphas) > 0) }
		return nil
	}
	f.bytes, f.extra = 20, 20*beyond+wasmMemory
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
	case len(alphas) > 0:
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

// wasmMemory is what the decoders that are WebAssembly take: their code, compiled, and what
// they begin with.
const wasmMemory = 64 << 20

// withoutFilms makes the boxes of an AVIF's film free space, and its brand that of a picture:
// the decoder would show the film's first picture, and not the one that was looked at.
func withoutFilms(data []byte) []byte {
	out := bytes.Clone(data)
	end := min(uint64(binary.BigEndian.Uint32(out)), uint64(len(out)))
	for at := uint64(8); at+4 <= end; at += 4 {
		if string(out[at:at+4]) == "avis" {
			copy(out[at:], "avif")
		}
	}
	_ = boxes(out, func(kind string, content []byte) error {
		if kind == "moov" {
			at := cap(out) - cap(content) // where the content, a part of out, begins
			at -= 4
			if string(out[at:at+4]) != kind { // a size of 64 bits is between
				at -= 8
			}
			copy(out[at:], "free")
		}
		return nil
	})
	return out
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
