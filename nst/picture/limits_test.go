package picture_test

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"image"
	"image/color"
	"image/gif"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
)

// chunk is one of PNG's.
func chunk(kind string, content []byte) []byte {
	out := binary.BigEndian.AppendUint32(nil, uint32(len(content)))
	out = append(append(out, kind...), content...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out[4:]))
}

// deflated is so many zeros.
func deflated(t *testing.T, size int64) []byte {
	var b bytes.Buffer
	w := zlib.NewWriter(&b)
	_, err := io.CopyN(w, zeros{}, size)
	require.NoError(t, err)
	require.NoError(t, w.Close())
	return b.Bytes()
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) { clear(p); return len(p), nil }

// tags is a TIFF of a directory alone.
func tags(fields ...[4]uint32) []byte { // tag, type, count, value
	out := []byte("II*\x00\x08\x00\x00\x00")
	out = binary.LittleEndian.AppendUint16(out, uint16(len(fields)))
	for _, f := range fields {
		out = binary.LittleEndian.AppendUint16(out, uint16(f[0]))
		out = binary.LittleEndian.AppendUint16(out, uint16(f[1]))
		out = binary.LittleEndian.AppendUint32(out, f[2])
		out = binary.LittleEndian.AppendUint32(out, f[3])
	}
	return append(out, 0, 0, 0, 0)
}

// What a small file claims or inflates to costs no memory that a small picture does not.
func TestBombs(t *testing.T) {
	nsttest.Long(t)
	kind := func(name string) []byte {
		data, err := os.ReadFile(filepath.Join("testdata/kinds", name))
		require.NoError(t, err)
		_, err = picture.Decode(bytes.NewReader(data)) // decoders that are compiled at first are
		require.NoError(t, err)
		return data
	}
	whole := kind("png_srgb.png")
	frames := &gif.GIF{}
	for range 1000 {
		m := image.NewPaletted(image.Rect(0, 0, 8, 8), color.Palette{color.White, color.Black})
		frames.Image, frames.Delay = append(frames.Image, m), append(frames.Delay, 1)
	}
	var g bytes.Buffer
	require.NoError(t, gif.EncodeAll(&g, frames))
	many := bytes.Repeat(g.Bytes()[13+6:g.Len()-1], 100) // 10⁵ frames
	heic := kind("heic.heic")
	ispe := bytes.Index(heic, []byte("ispe"))
	huge := bytes.Clone(heic)
	binary.BigEndian.PutUint32(huge[ispe+8:], 1<<31)
	jxl := kind("jxl.jxl")
	cut := bytes.Clone(jxl[:len(jxl)/2])
	webp := bytes.Clone(kind("webp_lossless.webp"))
	vp8l := bytes.Index(webp, []byte("VP8L"))
	binary.LittleEndian.PutUint32(webp[vp8l+9:], 16382|16382<<14)
	kind("avif.avif")
	for name, c := range map[string]struct {
		data []byte
		part string // of the error; empty: it is a picture
	}{
		"PNG of 32767² pixels": {header(32767, 32767), "cut short"},
		"PNG whose profile is 256 MB": {append(append(bytes.Clone(whole[:33]),
			chunk("iCCP", append([]byte("x\x00\x00"), deflated(t,
				256<<20)...))...), whole[33:]...), "has an ICC profile of more than 8 MiB"},
		"GIF of 10⁵ frames": {append(append(bytes.Clone(g.Bytes()[:13+6]), many...), ';'), ""},
		"GIF of 32000² pixels": {append([]byte("GIF89a\x00\x7d\x00\x7d\x80\x00\x00"), g.Bytes()[13:]...),
			"cut short"},
		"BMP of 32000² pixels": {append([]byte("BM\x00\x00\x00\x00\x00\x00\x00\x00\x36\x00\x00\x00"+
			"\x28\x00\x00\x00\x00\x7d\x00\x00\x00\x7d\x00\x00\x01\x00\x18\x00"), make([]byte, 100)...), "cut short"},
		"TIFF of 32000² pixels": {tags([4]uint32{256, 4, 1, 32000}, [4]uint32{257, 4, 1, 32000},
			[4]uint32{258, 3, 1, 8}, [4]uint32{259, 3, 1, 8}, [4]uint32{262, 3, 1, 1}, [4]uint32{273, 4, 1,
				8}, [4]uint32{278, 4, 1, 32000}, [4]uint32{279, 4, 1, 50}), "cut short"},
		"TIFF of a wide tile": {tags([4]uint32{256, 4, 1, 100}, [4]uint32{257, 4, 1, 100},
			[4]uint32{258, 3, 1, 8}, [4]uint32{259, 3, 1, 8}, [4]uint32{262, 3, 1, 1}, [4]uint32{322, 4, 1,
				1 << 30}, [4]uint32{323, 4, 1, 1 << 30}, [4]uint32{324, 4, 1, 8}, [4]uint32{325, 4, 1, 50}),
			"tiles of"},
		"TIFF of 2³² tags": {append([]byte("II+\x00\x08\x00\x00\x00\x10\x00\x00\x00\x00\x00\x00\x00"),
			bytes.Repeat([]byte{0xff}, 64)...), "has no pixels"},
		"HEIC of 2³¹ pixels wide": {huge, "claims"},
		"JPEG XL cut short":       {cut, "cut short"},
		"JPEG of 30000² pixels": {[]byte("\xff\xd8\xff\xc0\x00\x0b\x08\x75\x30\x75\x30" +
			"\x01\x01\x11\x00\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00\x00\xff\xd9"), "cut short"},
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			_, err := picture.Decode(bytes.NewReader(c.data))
			runtime.ReadMemStats(&after)
			if c.part == "" {
				require.NoError(t, err)
			} else {
				require.ErrorIs(t, err, picture.ErrPicture)
				assert.ErrorContains(t, err, c.part)
			}
			assert.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(64<<20))
		})
	}
	_, err := picture.DecodeWithin(bytes.NewReader(webp), 1<<30)
	require.ErrorIs(t, err, picture.ErrPicture)
	assert.ErrorContains(t, err, "decoding takes 5.", "of 16383² pixels")
	_, err = picture.DecodeWithin(bytes.NewReader(whole), 1<<30)
	assert.NoError(t, err)
	_, err = picture.DecodeWithin(bytes.NewReader(whole), 1<<10)
	assert.ErrorContains(t, err, "1.0 KiB may be used")
}

// Where a picture is written: through symbolic links, with its permissions, under names
// as long as there are, and not at all if it fails.
func TestReplace(t *testing.T) {
	folder := t.TempDir()
	file := func(name string) string { return filepath.Join(folder, name) }
	p := picture.New(3, 2)
	require.NoError(t, os.WriteFile(file("real.png"), []byte("older"), 0o600))
	require.NoError(t, os.Symlink("real.png", file("link.png")))
	require.NoError(t, os.Symlink("new.png", file("dangling.png")))
	require.NoError(t, os.Symlink("loop.png", file("loop.png")))
	long := file(strings.Repeat("n", 251) + ".png")
	for _, path := range []string{file("link.png"), file("dangling.png"), long} {
		require.NoError(t, picture.CheckOutput(path, picture.Encoding{}))
		require.NoError(t, p.Save(path, picture.Encoding{}))
		back, err := picture.Open(path)
		require.NoError(t, err)
		assert.Equal(t, p, back)
	}
	for _, name := range []string{"link.png", "dangling.png"} {
		info, err := os.Lstat(file(name))
		require.NoError(t, err)
		assert.NotZero(t, info.Mode()&os.ModeSymlink, name)
	}
	info, err := os.Stat(file("real.png"))
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
	assert.ErrorIs(t, p.Save(file("loop.png"), picture.Encoding{}), picture.ErrOutput)
	assert.ErrorContains(t, picture.CheckWritable(file(strings.Repeat("n", 252)+".png")), "255 bytes")

	full := picture.Replace(file("real.png"), func(io.Writer) error { return syscall.ENOSPC })
	require.ErrorIs(t, full, syscall.ENOSPC)
	assert.NotErrorIs(t, full, picture.ErrOutput, "that the disk is full is no wrong usage")
	back, err := picture.Open(file("real.png"))
	require.NoError(t, err)
	assert.Equal(t, p, back)
	names, err := filepath.Glob(file(".nst-*"))
	require.NoError(t, err)
	assert.Empty(t, names)
}

// Alpha comes back as it was, and what has none goes over white.
func TestAlphaOfFiles(t *testing.T) {
	p := picture.New(40, 20)
	p.Alpha = make([]float32, 40*20)
	for i := range p.Alpha {
		p.Alpha[i] = float32(i%40) * 6 / 255
		for c := range 3 {
			p.Pixels[c*800+i] = float32((i*7+c*50)%256) / 255
			if p.Alpha[i] == 0 {
				p.Pixels[c*800+i] = 1
			}
		}
	}
	for _, f := range []picture.Format{picture.PNG, picture.WebP, picture.TIFF, picture.AVIF} {
		var b bytes.Buffer
		e := picture.Encoding{}
		if f == picture.WebP {
			e.Quality = 100
		}
		require.NoError(t, p.Encode(&b, f, e))
		back, err := picture.Decode(&b)
		require.NoError(t, err, f)
		assert.Equal(t, p.Alpha, back.Alpha, f)
		if f == picture.PNG || f == picture.WebP {
			assert.Equal(t, p.Pixels, back.Pixels, f)
		}
	}
	var b bytes.Buffer
	require.NoError(t, p.Encode(&b, picture.JPEG, picture.Encoding{}))
	back, err := picture.Decode(&b)
	require.NoError(t, err)
	assert.Nil(t, back.Alpha)
	assert.InDelta(t, 1, back.Pixels[0], 0.05)
	assert.Equal(t, p.Alpha, picture.FromImage(p.Image()).Alpha)
	assert.InDeltaSlice(t, p.Pixels, picture.FromImage(p.Image()).Pixels, 1e-4)
}

// A picture that is read and written again and again stays what it is.
func TestAgainAndAgain(t *testing.T) {
	first, err := picture.Open("testdata/kinds/jpeg_420.jpg")
	require.NoError(t, err)
	for f, drift := range map[picture.Format]float64{picture.PNG: 0, picture.TIFF: 0, picture.JPEG: 1, picture.WebP: 1,
		picture.AVIF: 1} {
		p := first
		var start *picture.Picture
		for range 10 {
			var b bytes.Buffer
			require.NoError(t, p.Encode(&b, f, picture.Encoding{Comment: fmt.Sprintf(`{"f":%q}`, f)}))
			if p, err = picture.Decode(&b); start == nil {
				start = p
			}
			require.NoError(t, err)
		}
		for c := range 3 {
			plane := p.Width * p.Height
			sum := 0.0
			for i := range plane {
				sum += float64(p.Pixels[c*plane+i] - start.Pixels[c*plane+i])
			}
			assert.LessOrEqual(t, max(sum, -sum)/float64(plane)*255, drift, "%s, channel %d", f, c)
		}
	}
}
