package report

import (
	"bytes"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"fmt"
	"html/template"
	"math/rand/v2"
	"path/filepath"

	"github.com/seed9bb5c928/nst/nst/picture"
)

//go:embed compare.html
var compareSource string

var compareTemplate = template.Must(template.New("compare").Parse(compareSource))

// Named is a picture and the path of its file.
type Named struct {
	Path    string
	Picture *picture.Picture
}

// MostCompared is how many pictures a page of Compare can show: each has a letter.
const MostCompared = 26

// comparedSide is the longest side at which pictures are compared.
const comparedSide = 1024

// round is what the page knows, and saves with the votes, of what is compared.
type round struct {
	ID       string     `json:"id"` // of the pictures and their order
	Seed     uint64     `json:"seed"`
	Pictures []compared `json:"pictures"` // in the order in which they are shown
}

type compared struct {
	Letter string `json:"letter"`
	File   string `json:"file"`   // its name, without folders if that tells it apart
	SHA256 string `json:"sha256"` // of the page's own copy
}

// Compare returns a self-contained page on which people vote for the better of 2 to
// MostCompared pictures, without seeing whose they are. The order is drawn by the seed. inputs
// are shown with their names. The page counts the votes, and saves them as JSON.
func Compare(inputs, pictures []Named, seed uint64) ([]byte, error) {
	view := struct {
		Inputs, Pictures []shown
		Round            round
	}{Round: round{Seed: seed}}
	for _, in := range inputs {
		s, err := show(filepath.Base(in.Path), in.Picture, inputSide)
		if err != nil {
			return nil, err
		}
		view.Inputs = append(view.Inputs, s)
	}
	id, names := sha256.New(), map[string]int{}
	for _, p := range pictures {
		names[filepath.Base(p.Path)]++
	}
	for i, k := range rand.New(rand.NewPCG(seed, 0)).Perm(len(pictures)) {
		letter := string(rune('A' + i))
		s, err := show(letter, pictures[k].Picture, comparedSide)
		if err != nil {
			return nil, err
		}
		hash := sha256.Sum256([]byte(s.Source))
		fmt.Fprintf(id, "%s %x\n", pictures[k].Path, hash)
		view.Pictures = append(view.Pictures, s)
		name := filepath.Base(pictures[k].Path)
		if names[name] > 1 {
			name = pictures[k].Path
		}
		view.Round.Pictures = append(view.Round.Pictures, compared{letter, name, hex.EncodeToString(hash[:])})
	}
	view.Round.ID = hex.EncodeToString(id.Sum(nil)[:8])
	var out bytes.Buffer
	err := compareTemplate.Execute(&out, view)
	return out.Bytes(), err
}
