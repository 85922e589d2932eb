package nst

import (
	"bytes"
	"fmt"
	"strconv"

	"github.com/dustin/go-humanize"
)

// Tile is how a picture is divided to be evaluated: TileAuto, TileOff, or the side
// of a tile in pixels, such as "512". However it is divided, the costs and the
// gradient are those of the whole picture. Smaller tiles take more time and can do
// with less memory, as long as they are not mostly halo. What memory there is, or
// MemoryLimit allows, is used to keep what was computed of tiles until it is needed
// again.
type Tile string

const (
	// TileAuto takes the whole picture if it fits the memory, else the largest
	// tiles that do. Memory that runs out all the same halves them.
	TileAuto Tile = "auto"
	// TileOff takes the whole picture, whatever comes.
	TileOff Tile = "off"
)

// Bytes is an amount of memory. As text it is such as "2G" or "1500M": K, M, G and
// T are powers of 1024.
type Bytes int64

// MarshalText writes a number that UnmarshalText reads.
func (b Bytes) MarshalText() ([]byte, error) { return strconv.AppendInt(nil, int64(b), 10), nil }

// UnmarshalText reads "2G", "2GiB" or "2147483648".
func (b *Bytes) UnmarshalText(text []byte) error {
	t := string(text)
	if n := len(t); n > 1 && (t[n-1]|0x20) != 'b' && (t[n-1] < '0' || t[n-1] > '9') {
		t += "iB"
	}
	v, err := humanize.ParseBytes(t)
	if err != nil || v > 1<<50 {
		return fmt.Errorf("%q is no amount of memory; 2G or 1500M is", text)
	}
	*b = Bytes(v)
	return nil
}

// UnmarshalJSON reads a number of bytes, or UnmarshalText's text.
func (b *Bytes) UnmarshalJSON(data []byte) error {
	if string(data) == "null" {
		return nil
	}
	return b.UnmarshalText(bytes.Trim(data, `"`))
}

// side is the side that Tile names; 0 for the words.
func (t Tile) side() int {
	n, _ := strconv.Atoi(string(t))
	return n
}

func (s *settings) checkTile() error {
	if s.Tile = either(s.Tile, TileAuto); s.Tile != TileAuto && s.Tile != TileOff {
		if n, err := strconv.Atoi(string(s.Tile)); err != nil || n < 16 {
			return invalid("Tile", "is %q; auto, off or a side of 16 pixels and more will do", s.Tile)
		}
	}
	if s.MemoryLimit < 0 {
		return invalid("MemoryLimit", "is %d; a number of bytes, or 0, will do", s.MemoryLimit)
	}
	return nil
}
