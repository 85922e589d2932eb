package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
	"github.com/seed9bb5c928/nst/nst/picture"
)

func TestTexture(t *testing.T) {
	nsttest.NoLeaks(t)
	folder := t.TempDir()
	out, page := filepath.Join(folder, "out.png"), filepath.Join(folder, "out.html")
	status, stdout, stderr := runNST(t, "texture", nsttest.Style(t), "-o", out, "--size", "50", "--wrap",
		"x", "--iterations", "3", "--report", page, "--json")
	require.Equal(t, exitDone, status, stderr)
	p, err := picture.Open(out)
	require.NoError(t, err)
	assert.Equal(t, [2]int{48, 50}, [2]int{p.Width, p.Height}, "a multiple of 16 where it comes round")
	assert.Contains(t, stdout, `"width":48`)
	html, err := os.ReadFile(page)
	require.NoError(t, err)
	assert.NotContains(t, string(html), "Content", "a texture has none")

	// Its settings make another picture.
	comment, err := picture.Comment(out)
	require.NoError(t, err)
	assert.Contains(t, comment, `"wrap":"x"`)
	assert.Contains(t, comment, `"init":"faint"`)
}

func TestCompare(t *testing.T) {
	folder := t.TempDir()
	page := filepath.Join(folder, "vote.html")
	a, b := nsttest.Content(t), nsttest.Style(t)
	order := func(seed string) (files []string, html string) {
		status, _, stderr := runNST(t, "compare", a, b, "--html", page, "--seed", seed, "--input", a)
		require.Equal(t, exitDone, status, stderr)
		text, err := os.ReadFile(page)
		require.NoError(t, err)
		found := regexp.MustCompile(`(?m)^const round = (.*);$`).FindSubmatch(text)
		require.NotNil(t, found)
		var round struct {
			Pictures []struct{ Letter, File, SHA256 string }
		}
		require.NoError(t, json.Unmarshal(found[1], &round))
		for i, p := range round.Pictures {
			assert.Equal(t, string(rune('A'+i)), p.Letter)
			assert.Len(t, p.SHA256, 64)
			files = append(files, p.File)
		}
		return files, string(text)
	}
	first, html := order("0")
	assert.ElementsMatch(t, []string{filepath.Base(a), filepath.Base(b)}, first)
	again, _ := order("0")
	assert.Equal(t, first, again, "the order is the seed's")
	orders := map[string]bool{}
	for _, seed := range []string{"1", "2", "3", "4", "5", "6"} {
		files, _ := order(seed)
		orders[files[0]] = true
	}
	assert.Len(t, orders, 2, "another seed has another order")
	assert.Contains(t, html, "<figcaption>"+filepath.Base(a)+"</figcaption>", "an input has its name")
	assert.NotContains(t, regexp.MustCompile(`(?s)<h2>Pictures</h2>.*?<p id="said"`).FindString(html),
		filepath.Base(b),
		"what is voted on has none")
}
