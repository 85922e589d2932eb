package main

import (
	"crypto/sha256"
	"os"
	"path/filepath"
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
		secret:           {Owner: jobs.Owner{Name: "line 2"}, Secret: secret, Admin: true},
		"bob:" + secret + "  priority=-1 at-once=2 waiting=20 pixels-a-day=50M": {Owner: jobs.Owner{Name: "bob",
			Priority: -1, AtOnce: 2, Waiting: 20, PixelsADay: 50_000_000}, Secret: secret},
		"carol: sha256:" + sum + " admin": {Owner: jobs.Owner{Name: "carol"}, SHA256: sha256.Sum256(nil), Admin: true},
		"sha256:" + sum:                   {Owner: jobs.Owner{Name: "line 2"}, SHA256: sha256.Sum256(nil), Admin: true},
	} {
		path := filepath.Join(t.TempDir(), "tokens")
		require.NoError(t, os.WriteFile(path, []byte("# who may\n"+line+"\n"), 0o600))
		all, err := readTokens(path)
		require.NoError(t, err, line)
		assert.Equal(t, []httpapi.Token{want}, all, line)
	}
	for line, problem := range map[string]string{
		"ann: short":                       "has 5 characters",
		"ann:":                             "the token is missing",
		": " + secret:                      "has not 1 to 64 characters",
		"ann: sha256:12":                   "come 64 hexadecimal digits",
		"ann: " + secret + " at-once=0":    `"at-once=0" is not known`,
		"ann: " + secret + " at-once=1.5":  "is not known",
		"ann: " + secret + " pixels-a-day": "is not known",
		"ann: " + secret + " root":         "admin, priority=N, at-once=N, waiting=N and pixels-a-day=N are",
	} {
		path := filepath.Join(t.TempDir(), "tokens")
		require.NoError(t, os.WriteFile(path, []byte(line), 0o600))
		_, err := readTokens(path)
		assert.ErrorContains(t, err, problem, line)
		assert.ErrorContains(t, err, "line 1 of ", line)
	}
}
