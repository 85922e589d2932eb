package picture

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"slices"
)

// What files carry beside their pixels: the sRGB profile and a comment, the
// latter as a PNG text chunk or as EXIF's UserComment.

// keyword is the PNG text chunk's.
const keyword = "nst"

const program = "nst (github.com/seed9bb5c928/nst)"

const pngHeader = 8 + 25 // the signature and IHDR

// tagPNG puts chunks after IHDR (PNG, third edition, sections 11.3.2.3 and
// 11.3.3.2).
func tagPNG(data []byte, e Encoding, _, _ int) ([]byte, error) {
	profile := bytes.NewBufferString("sRGB\x00\x00")
	compressor := zlib.NewWriter(profile)
	if _, err := compressor.Write(srgbProfile); err != nil {
		return nil, err
	}
	if err := compressor.Close(); err != nil {
		return nil, err
	}
	chunks := chunkPNG("iCCP", profile.Bytes())
	if e.Comment != "" {
		chunks = append(chunks, chunkPNG("tEXt", []byte(keyword+"\x00"+e.Comment))...)
	}
	return slices.Insert(data, pngHeader, chunks...), nil
}

func chunkPNG(kind string, content []byte) []byte {
	out := binary.BigEndian.AppendUint32(nil, uint32(len(content)))
	out = append(append(out, kind...), content...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out[4:]))
}

// tagJPEG puts segments after the start of the image: EXIF as APP1 (EXIF 2.3,
// section 4.7.2), the profile as APP2 (ICC.1:2010, annex B.4).
func tagJPEG(data []byte, e Encoding, _, _ int) ([]byte, error) {
	segment := func(marker byte, content []byte) []byte {
		out := binary.BigEndian.AppendUint16([]byte{0xff, marker}, uint16(len(content)+2))
		return append(out, content...)
	}
	segments := segment(0xe1, append([]byte("Exif\x00\x00"), exif(e.Comment)...))
	segments = append(segments, segment(0xe2, append([]byte("ICC_PROFILE\x00\x01\x01"), srgbProfile...))...)
	return slices.Insert(data, 2, segments...), nil
}

// tagWebP makes the file an extended one, with chunks for the profile and EXIF
// (RFC 9649, section 2.7).
func tagWebP(data []byte, e Encoding, width, height int) ([]byte, error) {
	if !isWebP(data) {
		return nil, errors.New("the encoder wrote another kind of WebP than expected")
	}
	const hasProfile, hasAlpha, hasEXIF = 0x20, 0x10, 0x08
	flags, pixels := byte(hasProfile|hasEXIF), []byte(nil)
	riff(data[12:], func(kind string, content []byte) bool {
		switch kind {
		case "VP8L":
			if len(content) > 4 && content[4]&0x10 != 0 { // "alpha is used"
				flags |= hasAlpha
			}
			pixels = append(pixels, chunkRIFF(kind, content)...)
		case "ALPH", "VP8 ":
			if kind == "ALPH" {
				flags |= hasAlpha
			}
			pixels = append(pixels, chunkRIFF(kind, content)...)
		}
		return true
	})
	body := append([]byte("WEBP"), chunkRIFF("VP8X", extendedWebP(flags, width, height))...)
	body = append(body, chunkRIFF("ICCP", srgbProfile)...)
	body = append(body, pixels...)
	body = append(body, chunkRIFF("EXIF", exif(e.Comment))...)
	return chunkRIFF("RIFF", body), nil
}

// field is an entry of a TIFF directory.
type field struct {
	tag, kind uint16
	count     uint32
	value     []byte
}

func asciiField(tag uint16, text string) field {
	return field{tag, typeASCII, uint32(len(text) + 1), append([]byte(text), 0)}
}

// writeDirectory writes fields, and what raw entries there are, as a directory at an
// offset of the file: little-endian, its longer values behind it.
func writeDirectory(offset int, raw [][]byte, fields ...field) []byte {
	behind := offset + 2 + 12*(len(raw)+len(fields)) + 4
	var values []byte
	entries := slices.Clone(raw)
	for _, f := range fields {
		entry := binary.LittleEndian.AppendUint16(nil, f.tag)
		entry = binary.LittleEndian.AppendUint16(entry, f.kind)
		entry = binary.LittleEndian.AppendUint32(entry, f.count)
		if len(f.value) <= 4 {
			entry = append(entry, append(slices.Clone(f.value), make([]byte, 4-len(f.value))...)...)
		} else {
			entry = binary.LittleEndian.AppendUint32(entry, uint32(behind+len(values)))
			values = append(values, f.value...)
			values = append(values, make([]byte, len(values)%2)...)
		}
		entries = append(entries, entry)
	}
	slices.SortFunc(entries, func(a, b []byte) int {
		return int(binary.LittleEndian.Uint16(a)) - int(binary.LittleEndian.Uint16(b))
	})
	out := binary.LittleEndian.AppendUint16(nil, uint16(len(entries)))
	out = append(append(out, slices.Concat(entries...)...), 0, 0, 0, 0) // no directory follows
	return append(out, values...)
}

func pointer(tag uint16, offset int) field {
	return field{tag, typeLong, 1, binary.LittleEndian.AppendUint32(nil, uint32(offset))}
}

// comments is EXIF's own directory.
func comments(offset int, comment string) []byte {
	value := append([]byte("ASCII\x00\x00\x00"), comment...)
	return writeDirectory(offset, nil, field{tagUserComment, typeUndefined, uint32(len(value)), value})
}

// exif is an EXIF block, which is a TIFF file without a picture.
func exif(comment string) []byte {
	const start = 8
	software := asciiField(tagSoftware, program)
	size := len(writeDirectory(start, nil, software, pointer(tagEXIF, 0)))
	out := []byte{'I', 'I', 42, 0, start, 0, 0, 0}
	out = append(out, writeDirectory(start, nil, software, pointer(tagEXIF, start+size))...)
	return append(out, comments(start+size, comment)...)
}

// tagTIFF writes the directory anew, behind all else, with more fields.
func tagTIFF(data []byte, e Encoding, _, _ int) ([]byte, error) {
	if len(data) < 8 || string(data[:4]) != "II*\x00" {
		return nil, errors.New("the encoder wrote another kind of TIFF than expected")
	}
	old := data[binary.LittleEndian.Uint32(data[4:]):]
	var raw [][]byte
	for i := range int(binary.LittleEndian.Uint16(old)) {
		raw = append(raw, old[2+12*i:14+12*i])
	}
	data = append(data, make([]byte, len(data)%2)...)
	at := len(data)
	if uint64(at)+1<<17 > 1<<32 {
		return nil, errors.New("a TIFF file has at most 4 GB")
	}
	data = append(data, comments(at, e.Comment)...)
	data = append(data, make([]byte, len(data)%2)...)
	binary.LittleEndian.PutUint32(data[4:], uint32(len(data)))
	return append(data, writeDirectory(len(data), raw, asciiField(tagSoftware, program), pointer(tagEXIF, at),
		field{tagProfile, typeUndefined, uint32(len(srgbProfile)), srgbProfile})...), nil
}

// uuidAVIF marks the box with a comment, which other programs skip (ISO/IEC 14496-12,
// 11.1). AVIF's own place for EXIF is an item, whose directory the encoder has written.
const uuidAVIF = "nst settings\x9a\x41\xd7\x0e"

func tagAVIF(data []byte, e Encoding, _, _ int) ([]byte, error) {
	content := append([]byte("uuid"+uuidAVIF), e.Comment...)
	data = binary.BigEndian.AppendUint32(data, uint32(len(content)+4))
	return append(data, content...), nil
}
