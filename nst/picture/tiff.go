package picture

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/jpeg"
	"io"
	"math"
	"math/bits"
	"slices"
	"strings"

	"github.com/gen2brain/jpegn"
	"github.com/klauspost/compress/zstd"
	"golang.org/x/image/ccitt"
	"golang.org/x/image/tiff/lzw"
)

// TIFF 6.0, BigTIFF, and EXIF, which is written as TIFF.

// TIFF's tags that are read or written (TIFF 6.0; EXIF 2.3, section 4.6).
const (
	tagSubfile      = 254
	tagWidth        = 256
	tagHeight       = 257
	tagBits         = 258
	tagCompression  = 259
	tagPhotometric  = 262
	tagFillOrder    = 266
	tagStrips       = 273
	tagOrientation  = 274
	tagSamples      = 277
	tagRowsPerStrip = 278
	tagStripBytes   = 279
	tagPlanar       = 284
	tagT4Options    = 292
	tagSoftware     = 305
	tagPredictor    = 317
	tagColours      = 320
	tagTileWidth    = 322
	tagTileHeight   = 323
	tagTiles        = 324
	tagTileBytes    = 325
	tagExtra        = 338
	tagSampleFormat = 339
	tagJPEGTables   = 347
	tagXMP          = 700
	tagEXIF         = 0x8769
	tagProfile      = 0x8773
	tagUserComment  = 0x9286
)

// tagsRead are the tags that are kept of a directory.
var tagsRead = []uint16{tagSubfile, tagWidth, tagHeight, tagBits, tagCompression, tagPhotometric, tagFillOrder,
	tagStrips, tagOrientation, tagSamples, tagRowsPerStrip, tagStripBytes, tagPlanar, tagT4Options, tagPredictor,
	tagColours, tagTileWidth, tagTileHeight, tagTiles, tagTileBytes, tagExtra, tagSampleFormat, tagJPEGTables, tagXMP,
	tagEXIF, tagProfile, tagUserComment}

// TIFF's types of values.
const (
	typeASCII, typeLong, typeUndefined = 2, 4, 7
)

// sizes of TIFF's types of values, and of BigTIFF's.
var typeSizes = [...]uint64{1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8,
	17: 8, 18: 8}

// directory is one of a TIFF file: a picture's tags.
type directory struct {
	order  binary.ByteOrder
	values map[uint16]value
	next   uint64 // where the next one is; 0: none
}

// value is a tag's: bytes of the file.
type value struct {
	kind uint16
	data []byte
}

// isTIFF tells the byte orders and versions.
func isTIFF(data []byte) bool {
	return begins("II*\x00")(data) || begins("MM\x00*")(data) || begins("II+\x00")(data) || begins("MM\x00+")(data)
}

// readDirectory reads the directory at an offset; at 0, the first.
func readDirectory(data []byte, at uint64) (d directory, err error) {
	short := io.ErrUnexpectedEOF
	if len(data) < 8 {
		return d, short
	}
	var order binary.ByteOrder = binary.LittleEndian
	if data[0] == 'M' {
		order = binary.BigEndian
	}
	big := order.Uint16(data[2:]) == 43
	d = directory{order: order, values: map[uint16]value{}}
	word, entry, header := uint64(4), uint64(12), uint64(2)
	if big {
		if word, entry, header = 8, 20, 8; len(data) < 16 {
			return d, short
		}
	}
	number := func(at uint64) uint64 {
		if big {
			return order.Uint64(data[at:])
		}
		return uint64(order.Uint32(data[at:]))
	}
	if at == 0 {
		at = number(word)
	}
	size := uint64(len(data))
	if at > size || size-at < header {
		return d, short
	}
	count := uint64(order.Uint16(data[at:]))
	if big {
		count = order.Uint64(data[at:])
	}
	at += header
	for range min(count, (size-at)/entry) { // what there is of them
		tag, kind := order.Uint16(data[at:]), order.Uint16(data[at+2:])
		if !slices.Contains(tagsRead, tag) {
			at += entry
			continue
		}
		place := at + 4 + word
		items := number(at + 4)
		at += entry
		if int(kind) >= len(typeSizes) || typeSizes[kind] == 0 || items > size {
			continue // of an unknown type, or longer than the file
		}
		length := items * typeSizes[kind]
		if length > word {
			place = number(place)
		}
		if place > size || size-place < length {
			continue
		}
		if _, twice := d.values[tag]; !twice {
			d.values[tag] = value{kind, data[place : place+length]}
		}
	}
	if size-at >= word {
		d.next = number(at)
	}
	return d, nil
}

// numbers are a tag's first ones, which are whole: as many as are wanted, or there are.
func (d directory) numbers(tag uint16, most int) (out []uint64) {
	v := d.values[tag]
	width := 0
	switch v.kind {
	case 1, 7:
		width = 1
	case 3:
		width = 2
	case 4, 13:
		width = 4
	case 16, 18:
		width = 8
	default:
		return nil
	}
	for at := 0; at+width <= len(v.data) && len(out) < most; at += width {
		switch width {
		case 1:
			out = append(out, uint64(v.data[at]))
		case 2:
			out = append(out, uint64(d.order.Uint16(v.data[at:])))
		case 4:
			out = append(out, uint64(d.order.Uint32(v.data[at:])))
		case 8:
			out = append(out, d.order.Uint64(v.data[at:]))
		}
	}
	return out
}

// number is a tag's first; otherwise where it has none. Larger ones than any picture
// needs are made that large.
func (d directory) number(tag uint16, otherwise int) int {
	if n := d.numbers(tag, 1); len(n) > 0 {
		return int(min(n[0], math.MaxInt32))
	}
	return otherwise
}

// orientationEXIF is a block's; 0 where it has none.
func orientationEXIF(exif []byte) orientation {
	if !isTIFF(exif) {
		return 0
	}
	d, err := readDirectory(exif, 0)
	if o := d.number(tagOrientation, 0); err == nil && o >= 1 && o <= 8 {
		return orientation(o)
	}
	return 0
}

// commentEXIF is the user's comment of a block, in ASCII.
func commentEXIF(exif []byte) string {
	if !isTIFF(exif) {
		return ""
	}
	d, err := readDirectory(exif, 0)
	if err != nil {
		return ""
	}
	at := d.number(tagEXIF, 0)
	if at == 0 {
		return ""
	}
	if d, err = readDirectory(exif, uint64(at)); err != nil {
		return ""
	}
	text, _ := bytes.CutPrefix(d.values[tagUserComment].data, []byte("ASCII\x00\x00\x00"))
	return strings.TrimRight(string(text), "\x00 ")
}

// samples says how a TIFF's pixels are stored.
type samples struct {
	width, height int
	bits          int // of a sample
	perPixel      int
	format        int // 1: whole numbers, 3: floats
	photometric   int
	compression   int
	predictor     int
	planar        bool // each sample has a plane of its own
	alpha         int  // the sample that it is; 0: none
	multiplied    bool // by alpha
	fillOrder     int
	t4            int
	tables        []byte   // JPEG's
	colours       []uint64 // a palette: all red, all green, all blue, of 16 bits
	order         binary.ByteOrder
	beyond        bool // a float was out of [0,1]

	chunkWidth, chunkHeight int // of a strip or tile
	offsets, counts         []uint64

	// What decompresses one after the other; nil: it was not needed yet.
	inflater io.ReadCloser
	zstd     *zstd.Decoder
}

// readTIFF reads the header of the first whole picture: raw files of cameras begin with
// a small preview.
func readTIFF(data []byte, f *file) error {
	f.format = "tiff"
	d, err := readDirectory(data, 0)
	if err != nil {
		return err
	}
	seen := map[uint64]bool{0: true}
	for range 100 {
		if d.number(tagSubfile, 0)&1 == 0 || seen[d.next] {
			break
		}
		seen[d.next] = true
		if d, err = readDirectory(data, d.next); err != nil {
			return err
		}
	}
	if d.number(tagSubfile, 0)&1 != 0 {
		return refused("holds a preview alone: is it a camera's raw file? Develop it first")
	}
	s := samples{
		width: d.number(tagWidth, 0), height: d.number(tagHeight, 0), perPixel: d.number(tagSamples, 1),
		format: d.number(tagSampleFormat, 1), photometric: d.number(tagPhotometric,
			1), compression: d.number(tagCompression, 1),
		predictor: d.number(tagPredictor, 1), fillOrder: d.number(tagFillOrder, 1), t4: d.number(tagT4Options, 0),
		tables: d.values[tagJPEGTables].data, order: d.order,
	}
	f.width, f.height = s.width, s.height
	f.colours.profile = d.values[tagProfile].data
	f.tagged(nil, d.values[tagXMP].data)
	f.comment = commentEXIF(data)
	if o := d.number(tagOrientation, 0); o >= 1 && o <= 8 { // not that of a preview
		f.orientation = orientation(o)
	}
	f.grey = s.photometric < 2
	depths := d.numbers(tagBits, maxSamples)
	s.bits = d.number(tagBits, 1)
	for _, b := range depths {
		if int(b) != s.bits {
			return refused("is a TIFF whose samples are of different depths: save it with 8 or 16 bits")
		}
	}
	s.planar = d.number(tagPlanar, 1) == 2 && s.perPixel > 1
	colourSamples := map[int]int{0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3, 9: 3}[s.photometric]
	switch {
	case s.perPixel < 1 || s.perPixel > maxSamples || colourSamples > s.perPixel:
		return fmt.Errorf("%d samples a pixel", s.perPixel)
	case colourSamples == 0:
		return refused(fmt.Sprintf("is a TIFF of photometric interpretation %d (a camera's raw file?): save it as RGB",
			s.photometric))
	case s.photometric == 6 && s.compression != 7:
		return refused("is a TIFF in YCbCr: save it as RGB")
	case s.compression == 6:
		return refused("is a TIFF with JPEG compression of the old kind: save it with another")
	case s.photometric == 5 && d.number(tagExtra, 0) > 0:
		return refused("is a CMYK TIFF with transparency: save it as RGB, or without")
	case s.predictor == 2 && s.bits == 64:
		return refused("is a TIFF of 64 bits with a predictor: save it with 8 or 16 bits")
	case s.compression == 7 && s.bits != 8:
		return refused("is a TIFF with JPEG compression of 12 bits: save it with another")
	case s.format == 3 && s.bits != 16 && s.bits != 32 && s.bits != 64, s.format != 3 && s.format != 1 && s.format != 4,
		s.format != 3 && (s.bits < 1 || s.bits > 16) && s.bits != 32,
		s.photometric >= 8 && s.bits > 16, s.photometric == 3 && s.bits > 16:
		return refused(fmt.Sprintf("is a TIFF of %d bits a sample in format %d: save it with 8 or 16 bits", s.bits,
			s.format))
	case len(s.tables) > maxTables:
		return refused("is a TIFF with JPEG tables of more bytes than there can be: save it anew")
	}
	if s.photometric == 3 {
		if s.colours = d.numbers(tagColours, 3<<s.bits); len(s.colours) < 3<<s.bits {
			return errors.New("a palette that is too short")
		}
	}
	extra := d.numbers(tagExtra, maxSamples)
	for i, kind := range extra {
		if at := colourSamples + i; (kind == 1 || kind == 2) && at < s.perPixel {
			s.alpha, s.multiplied = at, kind == 1
			break
		}
	}
	if len(extra) == 0 && s.perPixel == colourSamples+1 && s.photometric < 3 {
		s.alpha = colourSamples // what the last one is, is not said
	}
	s.chunkWidth, s.chunkHeight = s.width, min(d.number(tagRowsPerStrip, s.height), s.height)
	if s.chunkHeight == 0 {
		s.chunkHeight = s.height
	}
	places, lengths := uint16(tagStrips), uint16(tagStripBytes)
	if w, h := d.number(tagTileWidth, 0), d.number(tagTileHeight, 0); w > 0 && h > 0 {
		s.chunkWidth, s.chunkHeight = w, h
		if d.values[tagTiles].data != nil {
			places = tagTiles
		}
		if d.values[tagTileBytes].data != nil {
			lengths = tagTileBytes
		}
	}
	if err := sizeError(s.width, s.height); err != nil {
		return err
	}
	if !s.fitting() {
		return refused(fmt.Sprintf("is a TIFF of %d×%d pixels in tiles of %d×%d: save it anew", s.width, s.height,
			s.chunkWidth, s.chunkHeight))
	}
	chunks := s.chunks()
	s.offsets, s.counts = d.numbers(places, chunks), d.numbers(lengths, chunks)
	stored := int64(0)
	for _, count := range s.counts {
		stored += int64(min(count, uint64(len(data))))
	}
	// Tiles that are alike may share their bytes, but not more than what they are decompressed to.
	if stored > 2*int64(len(data))+int64(chunks)*s.chunkBytes() {
		return errors.New("its strips or tiles share more bytes than they can use")
	}
	ratio, bounded := map[int]int64{1: 1, 5: 4097, 8: 1032, 32946: 1032, 32773: 64}[s.compression]
	if bounded && len(s.counts) > 0 {
		f.stored(stored, ratio, int64(s.height)*((int64(s.width)*int64(s.perPixel*s.bits)+7)/8))
	}
	// A plane's strip or tile, raw and decompressed, and another one as a JPEG; a row's numbers.
	f.bytes = int64(max(4, s.perPixel*max(s.bits, 8)/8)) * 2
	f.extra = 3*int64(s.perPixel)*s.planeBytes() + 4*int64(s.perPixel)*int64(s.chunkWidth) + 16*int64(chunks) + 1<<20
	f.decode = func() (image.Image, error) { return s.decode(data) }
	return nil
}

// decode puts the strips or tiles together, in the smallest of Go's images that holds
// them.
func (s *samples) decode(data []byte) (image.Image, error) {
	across, down := s.across(), s.down()
	planes, perChunk := 1, s.perPixel
	if s.planar {
		planes, perChunk = s.perPixel, 1
	}
	if len(s.offsets) < s.chunks() {
		return nil, io.ErrUnexpectedEOF
	}
	if len(s.counts) < len(s.offsets) { // of one uncompressed strip, it may be missing
		s.counts = append(s.counts, make([]uint64, len(s.offsets)-len(s.counts))...)
		for i, offset := range s.offsets {
			if s.counts[i] == 0 && offset < uint64(len(data)) {
				s.counts[i] = uint64(len(data)) - offset
			}
		}
	}
	defer func() {
		if s.zstd != nil {
			s.zstd.Close()
		}
	}()
	set, m := s.target()
	values := make([]float32, s.perPixel*s.chunkWidth)
	planesOf := make([][]byte, planes)
	for i := range across * down {
		left, top := i%across*s.chunkWidth, i/across*s.chunkHeight
		lines := s.chunkHeight
		if s.chunkWidth == s.width { // strips end with the picture
			lines = min(lines, s.height-top)
		}
		for plane := range planes {
			at := plane*across*down + i
			offset, count := s.offsets[at], s.counts[at]
			if offset > uint64(len(data)) || count > uint64(len(data))-offset {
				return nil, io.ErrUnexpectedEOF
			}
			chunk, err := s.expand(data[offset:offset+count], lines, perChunk)
			if err != nil {
				return nil, err
			}
			planesOf[plane] = chunk
		}
		rowBytes := s.rowBytes(perChunk)
		for y := range min(lines, s.height-top) {
			for plane, chunk := range planesOf {
				s.unpack(chunk[y*rowBytes:(y+1)*rowBytes], values[plane:], perChunk, planes)
			}
			for x := range min(s.chunkWidth, s.width-left) {
				set(left+x, top+y, values[s.perPixel*x:s.perPixel*(x+1)])
			}
		}
	}
	if s.beyond {
		return nil, refused("is a TIFF of floats beyond 0 and 1 (a high dynamic range?): map them to that range first")
	}
	return m, nil
}

const (
	maxSamples = 64       // a pixel
	maxTables  = 4 << 10  // bytes that a JPEG's tables may have: they are read for each tile
	maxBeyond  = 64 << 20 // bytes that all strips or tiles may have in addition to four times the picture's
)

// across and down are how many strips or tiles there are beside and below each other.
func (s *samples) across() int { return (s.width + s.chunkWidth - 1) / s.chunkWidth }
func (s *samples) down() int   { return (s.height + s.chunkHeight - 1) / s.chunkHeight }

// chunks is how many strips or tiles there are.
func (s *samples) chunks() int {
	if s.planar {
		return s.across() * s.down() * s.perPixel
	}
	return s.across() * s.down()
}

// fitting says whether strips or tiles are no larger than the picture needs, and tiles as
// large as TIFF wants them.
func (s *samples) fitting() bool {
	const least = 16
	const most = 1 << 20 // pixels across or down
	if s.chunkHeight <= 0 || max(s.chunkWidth, s.chunkHeight) > most {
		return false
	}
	picture := int64(s.width) * int64(s.height) * int64(s.perPixel) * int64(max(s.bits, 8)) / 8
	if int64(s.chunks())*s.chunkBytes() > 4*picture+maxBeyond {
		return false
	}
	if s.chunkWidth == s.width {
		return true // strips, of which the last may end with the picture
	}
	return s.chunkWidth >= least && s.chunkHeight >= least
}

// planeBytes is what one sample of all pixels of a strip or tile takes, decompressed.
func (s *samples) planeBytes() int64 {
	return int64(s.chunkWidth) * int64(s.chunkHeight) * int64(max(s.bits, 8)) / 8
}

// chunkBytes is what a strip or tile takes, decompressed.
func (s *samples) chunkBytes() int64 {
	if s.planar {
		return s.planeBytes()
	}
	return int64(s.perPixel) * s.planeBytes()
}

// rowBytes is how long a row of a strip or tile is.
func (s *samples) rowBytes(perChunk int) int { return (s.chunkWidth*perChunk*s.bits + 7) / 8 }

// expand decompresses a strip or tile, and undoes its predictor.
func (s *samples) expand(raw []byte, lines, perChunk int) ([]byte, error) {
	want := lines * s.rowBytes(perChunk)
	if s.fillOrder == 2 && s.compression != 7 {
		turned := make([]byte, len(raw))
		for i, b := range raw {
			turned[i] = bits.Reverse8(b)
		}
		raw = turned
	}
	var r io.Reader = bytes.NewReader(raw)
	var err error
	switch s.compression {
	case 1:
	case 2, 3, 4:
		kind, align := ccitt.Group3, s.compression == 2
		if s.compression == 4 {
			kind = ccitt.Group4
		}
		if s.bits != 1 || perChunk != 1 || s.compression == 2 || (s.compression == 3 && s.t4&5 != 0) {
			return nil, refused("is a TIFF with a fax compression that is not read (group 3 in two dimensions or " +
				"with padded lines): save it with another")
		}
		// Black is 1 in a fax, and the first in TIFF if photometric says so.
		r = ccitt.NewReader(r, ccitt.MSB, kind, s.chunkWidth, lines, &ccitt.Options{Invert: true, Align: align})
	case 5:
		r = lzw.NewReader(r, lzw.MSB, 8)
	case 7:
		return s.expandJPEG(raw, lines, perChunk)
	case 8, 32946:
		if s.inflater == nil {
			s.inflater, err = zlib.NewReader(r)
		} else {
			err = s.inflater.(zlib.Resetter).Reset(r, nil)
		}
		if err != nil {
			return nil, err
		}
		r = s.inflater
	case 32773:
		r = &packBits{data: raw}
	case 50000:
		if s.zstd == nil {
			s.zstd, err = zstd.NewReader(r, zstd.WithDecoderConcurrency(1),
				zstd.WithDecoderMaxMemory(uint64(want)+1<<20))
		} else {
			err = s.zstd.Reset(r)
		}
		if err != nil {
			return nil, err
		}
		r = s.zstd
	default:
		return nil, refused(fmt.Sprintf("is a TIFF with compression %d: save it with another, such as LZW or ZIP",
			s.compression))
	}
	// What is claimed may be much more than there is: memory grows with what comes.
	var out bytes.Buffer
	out.Grow(min(want, 1<<20) + bytes.MinRead)
	if n, err := out.ReadFrom(io.LimitReader(r, int64(want))); err != nil {
		return nil, err
	} else if n < int64(want) {
		return nil, io.ErrUnexpectedEOF
	}
	if s.compression == 5 || s.compression == 8 || s.compression == 32946 || s.compression == 50000 { // as libtiff does
		s.unpredict(out.Bytes(), lines, perChunk)
	}
	return out.Bytes(), nil
}

// unpredict undoes horizontal differences (TIFF 6.0, section 14) and those of floats
// (TIFF technical note 3).
func (s *samples) unpredict(chunk []byte, lines, perChunk int) {
	rowBytes := s.rowBytes(perChunk)
	for y := range lines {
		row := chunk[y*rowBytes : (y+1)*rowBytes]
		switch {
		case s.predictor == 2 && s.bits == 8:
			for i := perChunk; i < len(row); i++ {
				row[i] += row[i-perChunk]
			}
		case s.predictor == 2 && s.bits == 16:
			for i := 2 * perChunk; i+1 < len(row); i += 2 {
				s.order.PutUint16(row[i:], s.order.Uint16(row[i:])+s.order.Uint16(row[i-2*perChunk:]))
			}
		case s.predictor == 2 && s.bits == 32:
			for i := 4 * perChunk; i+3 < len(row); i += 4 {
				s.order.PutUint32(row[i:], s.order.Uint32(row[i:])+s.order.Uint32(row[i-4*perChunk:]))
			}
		case s.predictor == 3:
			for i := perChunk; i < len(row); i++ {
				row[i] += row[i-perChunk]
			}
			width := s.bits / 8
			planes, count := bytes.Clone(row), len(row)/width
			for i := range count { // the highest bytes come first, whatever the byte order
				for b := range width {
					to := i*width + b
					if s.order == binary.LittleEndian {
						to = i*width + width - 1 - b
					}
					row[to] = planes[b*count+i]
				}
			}
		}
	}
}

// expandJPEG decodes a strip or tile that is a JPEG, whose tables may be the file's.
func (s *samples) expandJPEG(raw []byte, lines, perChunk int) ([]byte, error) {
	if len(raw) < 4 {
		return nil, io.ErrUnexpectedEOF
	}
	if len(s.tables) > 4 { // between the start and the end of an image
		raw = append(bytes.Clone(s.tables[:len(s.tables)-2]), raw[2:]...)
	}
	// TIFF says what the components are, by photometric interpretation: what the JPEG
	// says becomes a comment.
	transform := byte(0)
	if s.photometric == 6 {
		transform = 1
	}
	raw = withAdobe(withoutMarkers(raw), transform)
	if err := readJPEG(raw, &file{}); err != nil {
		return nil, err
	}
	config, err := jpegn.DecodeConfig(bytes.NewReader(raw))
	if err != nil {
		return nil, err
	}
	if config.Width != s.chunkWidth || config.Height < lines || config.Height > max(lines, s.chunkHeight)+16 {
		return nil, fmt.Errorf("a JPEG of %d×%d in a tile of %d×%d", config.Width, config.Height, s.chunkWidth, lines)
	}
	var m image.Image
	if perChunk == 4 { // the decoder takes four components for inks, and Adobe's are inverted
		m, err = inverted(jpeg.Decode(bytes.NewReader(raw)))
	} else {
		m, err = jpegn.Decode(bytes.NewReader(raw))
	}
	if err != nil {
		return nil, err
	}
	if m.Bounds().Dx() != s.chunkWidth || m.Bounds().Dy() < lines || perChunk > 4 {
		return nil, errors.New("a JPEG of another size than it said")
	}
	read, row := reader(m, ycbcr{}, true), make([]pixel, s.chunkWidth)
	out := make([]byte, 0, lines*s.rowBytes(perChunk))
	for y := range lines {
		read(y, row)
		for _, v := range row {
			for k := range perChunk {
				out = append(out, uint8(v[k]*255+0.5))
			}
		}
	}
	return out, nil
}

// withoutMarkers makes JFIF's and Adobe's segments of a JPEG comments.
func withoutMarkers(data []byte) []byte {
	out := bytes.Clone(data)
	for at := 2; at+4 <= len(out) && out[at] == 0xff && out[at+1] != 0xda; at += 2 +
		int(binary.BigEndian.Uint16(out[at+2:])) {
		if out[at+1] == 0xe0 || out[at+1] == 0xee {
			out[at+1] = 0xfe
		}
	}
	return out
}

// unpack reads a row's samples, perChunk a pixel, into every stride-th of out: whole
// numbers as parts of the largest one, floats as they are.
func (s *samples) unpack(row []byte, out []float32, perChunk, stride int) {
	count := s.chunkWidth * perChunk
	top := float32(uint64(1)<<s.bits - 1)
	switch {
	case s.format == 3:
		for i := range count {
			var v float64
			switch s.bits {
			case 16:
				v = half(s.order.Uint16(row[2*i:]))
			case 32:
				v = float64(math.Float32frombits(s.order.Uint32(row[4*i:])))
			case 64:
				v = math.Float64frombits(s.order.Uint64(row[8*i:]))
			}
			out[i*stride] = float32(v)
		}
		return
	}
	switch s.bits {
	case 8:
		for i := range count {
			out[i*stride] = float32(row[i]) / top
		}
	case 16:
		for i := range count {
			out[i*stride] = float32(s.order.Uint16(row[2*i:])) / top
		}
	case 32:
		for i := range count {
			out[i*stride] = float32(float64(s.order.Uint32(row[4*i:])) / math.MaxUint32)
		}
	default: // whatever lies across bytes
		for i := range count {
			at, n := i*s.bits, uint32(0)
			for b := range 3 {
				n <<= 8
				if at/8+b < len(row) {
					n |= uint32(row[at/8+b])
				}
			}
			out[i*stride] = float32(n>>(24-s.bits-at%8)&(1<<s.bits-1)) / top
		}
	}
}

// half is a float of 16 bits (IEEE 754).
func half(b uint16) float64 {
	sign, exponent, fraction := 1-2*float64(b>>15), int(b>>10&31), float64(b&1023)
	switch exponent {
	case 0:
		return sign * math.Ldexp(fraction, -24)
	case 31:
		return math.NaN()
	}
	return sign * math.Ldexp(1024+fraction, exponent-25)
}

// target returns an image, and what sets a pixel of it from its samples.
func (s *samples) target() (set func(x, y int, v []float32), m image.Image) {
	bounds := image.Rect(0, 0, s.width, s.height)
	if s.photometric == 5 {
		m := image.NewCMYK(bounds)
		return func(x, y int, v []float32) {
			at := m.PixOffset(x, y)
			for k := range 4 {
				m.Pix[at+k] = uint8(v[k]*255 + 0.5)
			}
		}, m
	}
	var colour func(v []float32) (r, g, b float32)
	switch s.photometric {
	case 0:
		colour = func(v []float32) (r, g, b float32) { return 1 - v[0], 1 - v[0], 1 - v[0] }
	case 1:
		colour = func(v []float32) (r, g, b float32) { return v[0], v[0], v[0] }
	case 3:
		entries, top := 1<<s.bits, float32(uint64(1)<<s.bits-1)
		shift := 8
		if slices.Max(s.colours) < 256 { // some writers' entries have 8 bits
			shift = 0
		}
		colour = func(v []float32) (r, g, b float32) {
			i := int(v[0]*top + 0.5)
			part := func(k int) float32 { return byteOf(uint8(s.colours[k*entries+i] >> shift)) }
			return part(0), part(1), part(2)
		}
	case 8, 9: // CIELAB of D50's white
		top := 255.0
		if s.bits == 16 {
			top = 65535.0 / 256
		}
		axis := func(v float32) float64 {
			a := float64(v) * top
			if s.photometric == 9 {
				return a - 128
			}
			if a >= 128 {
				a -= 256
			}
			return a
		}
		colour = func(v []float32) (r, g, b float32) {
			light := lightOfSRGB().times(fromLab(float64(v[0])*100, axis(v[1]), axis(v[2])))
			encode := encoded()
			return unit(encode.at(light[0])), unit(encode.at(light[1])), unit(encode.at(light[2]))
		}
	default:
		colour = func(v []float32) (r, g, b float32) { return v[0], v[1], v[2] }
	}
	alpha := func([]float32) float32 { return 1 }
	if s.alpha > 0 {
		alpha = func(v []float32) float32 { return v[s.alpha] }
	}
	grey, deep := s.photometric < 2 && s.alpha == 0, s.bits > 8 || s.photometric >= 8 || s.format == 3
	if grey && !deep {
		m := image.NewGray(bounds)
		return func(x, y int, v []float32) {
			r, _, _ := colour(v)
			m.Pix[y*m.Stride+x] = uint8(r*255 + 0.5)
		}, m
	}
	if !deep {
		m := image.NewNRGBA(bounds)
		return func(x, y int, v []float32) {
			r, g, b := colour(v)
			for k, c := range [4]float32{r, g, b, alpha(v)} {
				m.Pix[y*m.Stride+4*x+k] = uint8(c*255 + 0.5)
			}
		}, s.associated(&image.RGBA{Pix: m.Pix, Stride: m.Stride, Rect: m.Rect}, m)
	}
	m64 := image.NewNRGBA64(bounds)
	return func(x, y int, v []float32) {
		r, g, b := colour(v)
		for k, c := range [4]float32{r, g, b, alpha(v)} {
			if !(c >= -0.01 && c <= 1.01) {
				s.beyond = true
			}
			binary.BigEndian.PutUint16(m64.Pix[y*m64.Stride+8*x+2*k:], uint16(unit(float64(c))*0xffff+0.5))
		}
	}, s.associated(&image.RGBA64{Pix: m64.Pix, Stride: m64.Stride, Rect: m64.Rect}, m64)
}

// associated chooses the image whose colours are multiplied by alpha, if the file's are.
func (s *samples) associated(multiplied, straight image.Image) image.Image {
	if s.multiplied {
		return multiplied
	}
	return straight
}

// packBits reads Apple's run lengths (TIFF 6.0, section 9).
type packBits struct {
	data  []byte
	count int  // bytes left of a run
	run   bool // of the same byte
}

func (p *packBits) Read(out []byte) (n int, err error) {
	for n < len(out) {
		for p.count == 0 {
			if len(p.data) < 2 {
				if n > 0 {
					return n, nil
				}
				return 0, io.EOF
			}
			switch c := int(int8(p.data[0])); {
			case c >= 0:
				p.count, p.run = c+1, false
			case c > -128:
				p.count, p.run = 1-c, true
			}
			p.data = p.data[1:]
		}
		if p.run {
			out[n] = p.data[0]
		} else {
			if len(p.data) == 0 {
				return n, io.ErrUnexpectedEOF
			}
			out[n] = p.data[0]
			p.data = p.data[1:]
		}
		n++
		if p.count--; p.count == 0 && p.run {
			p.data = p.data[1:]
		}
	}
	return n, nil
}
