package nst

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"maps"
	"math"
	"slices"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/seed9bb5c928/nst/nst/internal/objective"
	"github.com/seed9bb5c928/nst/nst/internal/tiling"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// fingerprint tells pictures apart: SHA-256 of the sizes and values.
type fingerprint [sha256.Size]byte

func fingerprintOf(p *picture.Picture) (f fingerprint) {
	if p == nil {
		return f
	}
	h := sha256.New()
	buffer := binary.LittleEndian.AppendUint64(nil, uint64(p.Width))
	buffer = binary.LittleEndian.AppendUint64(buffer, uint64(p.Height))
	for _, values := range [][]float32{p.Pixels, p.Alpha} {
		for _, v := range values {
			buffer = binary.LittleEndian.AppendUint32(buffer, math.Float32bits(v))
			if len(buffer) >= 1<<16 {
				h.Write(buffer)
				buffer = buffer[:0]
			}
		}
	}
	h.Write(buffer)
	h.Sum(f[:0])
	return f
}

// styleKey is what the statistics of a style picture depend on, within an
// engine, which has one network.
type styleKey struct {
	picture, mask fingerprint
	inside        torch.Wrap
	width, height int
	layers        string
	loss          objective.Loss
	pooling       vgg19.Pooling
	padding       vgg19.Padding
	precision     Precision
	primary       torch.Device
}

// styleCache keeps the targets of the styles used last. It is used on the
// engine's thread alone, and owns the tensors.
type styleCache struct {
	lru    *simplelru.LRU[styleKey, objective.StyleTargets]
	misses int // for tests
}

// cachedStyles is how many are kept. VGG-19's five style layers take 2.4 MB for
// each style picture and scale.
const cachedStyles = 64

func newStyleCache() *styleCache {
	lru, err := simplelru.NewLRU(cachedStyles, func(_ styleKey, t objective.StyleTargets) { t.Close() })
	if err != nil {
		panic(err) // of sizes below 1
	}
	return &styleCache{lru: lru}
}

// get returns the targets, made by compute if they are not there.
func (c *styleCache) get(key styleKey, compute func() (objective.StyleTargets, error)) (objective.StyleTargets, error) {
	if t, ok := c.lru.Get(key); ok {
		return t, nil
	}
	c.misses++
	t, err := compute()
	if err != nil {
		return nil, err
	}
	c.lru.Add(key, t)
	return t, nil
}

// reserve has the cache keep at least so many.
func (c *styleCache) reserve(n int) { c.lru.Resize(max(cachedStyles, n)) }

func (c *styleCache) close() { c.lru.Purge() }

// weightedTargets are one style's targets, which the cache owns, its share of the blend,
// and the layers that it is for.
type weightedTargets struct {
	objective.StyleTargets
	share float64
	isFor func(vgg19.Layer) bool
}

// blend blends what the styles have of a layer and region; nil if none has any.
func blend(styles []weightedTargets, l vgg19.Layer, level objective.Level) objective.Statistics {
	var parts []objective.Weighted
	for _, s := range styles {
		if part, ok := s.StyleTargets[l][level]; ok && s.isFor(l) {
			parts = append(parts, objective.Weighted{Statistics: part, Weight: s.share})
		}
	}
	if len(parts) == 0 {
		return nil
	}
	return objective.Blend(parts)
}

// targets finds the targets of the item's styles at a scale.
func (m *item) targets(cache *styleCache, pool *tiling.Pool, spec *objective.Spec, at scale) (out []weightedTargets,
	err error) {
	for i, one := range m.styles {
		if one.share == 0 {
			continue
		}
		t, err := m.styleTargets(cache, pool, spec, i, at)
		if err != nil {
			return nil, err
		}
		isFor := func(l vgg19.Layer) bool { return m.settings.isFor(one.of, l) }
		out = append(out, weightedTargets{t, one.share, isFor})
	}
	return out, nil
}

// styleTargets returns the statistics of style picture i at a scale, which belong to the
// cache.
func (m *item) styleTargets(cache *styleCache, pool *tiling.Pool, spec *objective.Spec, i int,
	at scale) (objective.StyleTargets, error) {
	s, one := m.settings, m.styles[i]
	width, height := s.styleSize(one.shape, at.factor)
	layers := spec.StyleLayers()
	key := styleKey{
		picture: one.id, inside: s.Wrap.Directions(), width: width, height: height, layers: fmt.Sprint(layers),
		loss: spec.StyleLoss, pooling: s.pooling(), padding: s.Padding, precision: s.Precision, primary: pool.Primary,
	}
	if s.StyleMasks != nil {
		key.mask = fingerprintOf(s.StyleMasks[i])
	}
	return cache.get(key, func() (found objective.StyleTargets, err error) {
		err = m.measured(pool, spec, i, at, func(width, height int, source objective.Source,
			guides objective.Guides) (err error) {
			found, err = objective.MeasureStyle(pool, spec, width, height, source, guides)
			return err
		})
		return found, err
	})
}

// measured calls measure with style picture i at a scale, and its regions.
func (m *item) measured(pool *tiling.Pool, spec *objective.Spec, i int, at scale,
	measure func(width, height int, source objective.Source, guides objective.Guides) error) error {
	s, one := m.settings, m.styles[i]
	width, height := s.styleSize(one.shape, at.factor)
	defer s.collect()
	return torch.Scoped(func() error {
		var guides objective.Guides
		if one.mask != nil {
			torch.NoGrad(func() {
				scalar := s.Precision.scalar()
				guides = one.mask.guides(spec.GuideLayers(), pool.Primary, scalar, width, height, torch.Wrap{})
			})
		}
		p := resized(one.picture, width, height, torch.Wrap{})
		return measure(width, height, func(t tiling.Tile) torch.Tensor { return s.part(p, t) }, guides)
	})
}

// weightedCandidates are one given style picture's candidates, at all the angles at which it
// is used, and its share of the blend.
type weightedCandidates struct {
	objective.LevelCandidates
	share float64
}

// candidates finds those of the item's styles at a scale. The caller closes them.
func (m *item) candidates(pool *tiling.Pool, spec *objective.Spec, at scale) (out []weightedCandidates, err error) {
	angles := map[int][]objective.LevelCandidates{} // by the picture that was given
	shares := map[int]float64{}
	defer func() {
		for _, all := range angles { // what has been united is closed already
			for _, c := range all {
				if err != nil || len(all) > 1 {
					c.Close()
				}
			}
		}
	}()
	for i, one := range m.styles {
		if one.share == 0 {
			continue
		}
		err := m.measured(pool, spec, i, at, func(width, height int, source objective.Source,
			guides objective.Guides) error {
			found, err := objective.MeasureCandidates(pool, spec, width, height, source, guides)
			angles[one.of] = append(angles[one.of], found)
			return err
		})
		if err != nil {
			return nil, err
		}
		shares[one.of] += one.share
	}
	err = torch.Scoped(func() error {
		for _, of := range slices.Sorted(maps.Keys(angles)) {
			out = append(out, weightedCandidates{objective.Unite(angles[of]), shares[of]})
		}
		return nil
	})
	return out, err
}
