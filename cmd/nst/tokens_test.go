package main

import (
	"crypto/sha256"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/httpapi"
	"github.com/seed9bb5c928/nst/nst/jobs"
)

// A line of a token file is a name, a token or its hash, and what is granted.
func TestReadTokens(t *testing.T) {
	const secret = "0123456789abcdef"
	sum := "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	for line, want := range map[string]httpapi.Token{
		"ann: " + secret: {Owner: jobs.Owner{Name: "ann"}, Secret: secret},
		secret:           {Label: "line 2", Secret: secret, Admin: true},
		"bob:" + secret + "  priority=-1 at-once=2 waiting=20 pixels-a-day=50M": {Owner: jobs.Owner{Name: "bob",
			Priority: -1, AtOnce: 2, Waiting: 20, PixelsADay: 50_000_000}, Secret: secret},
		"carol: sha256:" + sum + " admin": {Owner: jobs.Owner{Name: "carol"}, SHA256: sha256.Sum256(nil), Admin: true},
		"sha256:" + sum:                   {Label: "line 2", SHA256: sha256.Sum256(nil), Admin: true},
	} {
		path := filepath.Join(t.TempDir(), "tokens")
		require.NoError(t, os.WriteFile(path, []byte("\ufeff# who may\n"+line+"\n"), 0o600))
		all, err := readTokens(path)
		require.NoError(t, err, line)
		assert.Equal(t, []httpapi.Token{want}, all, line)
	}
	for line, problem := range map[string]string{
		"ann: short":                            "has 5 characters",
		"ann:":                                  "the token is missing",
		": " + secret:                           "is not of 1 to 64 printable characters",
		"J\xfcrgen: " + secret:                  "printable characters in UTF-8",
		"a\tb\x01: " + secret:                   "printable characters in UTF-8",
		strings.Repeat("é", 65) + ": " + secret: "is not of 1 to 64",
		"ann: sha256:12":                        "come 64 hexadecimal digits",
		"ann: " + secret + " at-once=0":         `"at-once=0" is not known`,
		"ann: " + secret + " at-once=1.5":       "is not known",
		"ann: " + secret + " pixels-a-day":      "is not known",
		"ann: " + secret + " work-a-day=-1":     "is not known",
		"ann: " + secret + " max-seconds=0":     "is not known",
		"ann: " + secret + " root": "admin, priority=N, at-once=N, waiting=N, pixels-a-day=N, work-a-day=N (pixels " +
			"times iterations) and max-seconds=N are",
	} {
		path := filepath.Join(t.TempDir(), "tokens")
		require.NoError(t, os.WriteFile(path, []byte(line), 0o600))
		_, err := readTokens(path)
		assert.ErrorContains(t, err, problem, line)
		assert.ErrorContains(t, err, "line 1 of ", line)
	}
	path := filepath.Join(t.TempDir(), "tokens")
	for text, problem := range map[string]string{
		"ann: " + secret + "\nbob: " + secret:                 "the token in line 2 of ",
		"ann: sha256:" + sum + "\nbob: sha256:" + sum:         "is in it twice",
		"ann: " + secret + "\nann: " + secret + "2 admin":     "grants ann something else",
		"ann: " + secret + " at-once=1\nann: " + secret + "2": "line 2 of ",
		"# nobody": "there is no token in ",
	} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		_, err := readTokens(path)
		assert.ErrorContains(t, err, problem, text)
	}
	require.NoError(t, os.WriteFile(path, []byte("ann: "+secret+"\nann: "+secret+"2\n"), 0o600))
	all, err := readTokens(path)
	require.NoError(t, err, "a second token of the same, as when they are changed")
	assert.Len(t, all, 2)
}

func TestReadWorkers(t *testing.T) {
	const secret = "0123456789abcdef"
	path := filepath.Join(t.TempDir(), "workers")
	for text, want := range map[string][]jobs.WorkerToken{
		"w1: " + secret + "\nw-2.b: " + secret + "2": {{Name: "w1", Token: secret}, {Name: "w-2.b",
			Token: secret + "2"}},
		"# none": nil,
	} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		all, err := readWorkers(path)
		require.NoError(t, err)
		assert.Equal(t, want, all)
	}
	for _, text := range []string{"w 1: " + secret, "w1: " + secret + "/+", "w1: " + secret + " admin", secret,
		"w1: sha256:" + strings.Repeat("0", 64), "w1: " + strings.Repeat("x", 73)} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		_, err := readWorkers(path)
		assert.ErrorContains(t, err, "since they are part of a URL", text)
	}
}
