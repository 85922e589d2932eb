package nsttest_test

import (
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
)

// files are the repository's files that a pattern matches, by their paths in it.
func files(t *testing.T, patterns ...string) []string {
	t.Helper()
	list := exec.Command(
		"git",
		append([]string{"ls-files", "--cached", "--others", "--exclude-standard"}, patterns...)...)
	list.Dir = nsttest.Root(t)
	out, err := list.Output()
	require.NoError(t, err)
	found := strings.Fields(string(out))
	require.NotEmpty(t, found)
	return slices.DeleteFunc(found, func(path string) bool {
		_, err := os.Stat(filepath.Join(list.Dir, path))
		return err != nil // deleted, and not yet committed
	})
}

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(nsttest.Root(t), path))
	require.NoError(t, err)
	return string(data)
}

var (
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#+ (.+)$`)
	noSlug  = regexp.MustCompile(`[^\p{L}\p{N}\- _]`)
)

// anchors are the places of a page that a link can name.
func anchors(page string) []string {
	var out []string
	for _, h := range heading.FindAllStringSubmatch(page, -1) {
		out = append(out, strings.ReplaceAll(strings.ToLower(noSlug.ReplaceAllString(h[1], "")), " ", "-"))
	}
	return out
}

// Links between pages lead somewhere.
func TestLinks(t *testing.T) {
	for _, page := range files(t, "*.md") {
		for _, found := range link.FindAllStringSubmatch(read(t, page), -1) {
			target, anchor, _ := strings.Cut(found[1], "#")
			if strings.Contains(target, "://") {
				continue
			}
			path := page
			if target != "" {
				path = filepath.Join(filepath.Dir(page), target)
			}
			_, err := os.Stat(filepath.Join(nsttest.Root(t), path))
			if assert.NoError(t, err, "%s: %s", page, found[1]) && anchor != "" {
				assert.Contains(t, anchors(read(t, path)), anchor, "%s: %s", page, found[1])
			}
		}
	}
}

// The first page is short, and no line is longer than 120 columns but those of tables and of
// addresses in pages. (revive looks at Go's.)
func TestLinesAreShort(t *testing.T) {
	assert.LessOrEqual(t, len(read(t, "README.md")), 8<<10)
	for _, path := range files(t, "*.md", "*.cc", "*.c", "*.h", "*.S", "*.cmake", "CMakeLists.txt", "scripts/*") {
		if strings.Contains(path, "/testdata/") {
			continue
		}
		for i, line := range strings.Split(read(t, path), "\n") {
			columns := utf8.RuneCountInString(line)
			exempt := strings.HasPrefix(line, "|") || strings.Contains(line, "](http")
			assert.True(t, columns <= 120 || exempt, "%s:%d has %d columns", path, i+1, columns)
		}
	}
}

// The map in nst/README.md is the code's.
func TestMap(t *testing.T) {
	page := read(t, "nst/README.md")
	_, rest, ok := strings.Cut(page, "## The map")
	require.True(t, ok)
	parts := strings.SplitN(rest, "```", 3)
	require.Len(t, parts, 3)
	var want []string
	imports := imported(t)
	for _, name := range slices.Sorted(maps.Keys(imports)) {
		line := strings.TrimPrefix(name, "/") + ":"
		for _, i := range imports[name] {
			line += " " + strings.TrimPrefix(i, "/")
		}
		want = append(want, line)
	}
	assert.Equal(t, strings.Join(want, "\n"), strings.TrimSpace(strings.ReplaceAll(parts[1], "\n  ", " ")))
}

var step = regexp.MustCompile("`([\\w/]+\\.go): (\\w+)`")

// Every step of the walk in nst/README.md is a function in that file.
func TestWalk(t *testing.T) {
	steps := step.FindAllStringSubmatch(strings.ReplaceAll(read(t, "nst/README.md"), "\n", " "), -1)
	assert.Greater(t, len(steps), 20)
	for _, s := range steps {
		assert.Regexp(t, `(?m)^func (\([^)]*\) )?`+s[2]+`[\[(]`, read(t, s[1]), "%s in %s", s[2], s[1])
	}
}
