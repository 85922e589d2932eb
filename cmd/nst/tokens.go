package main

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"regexp"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/dustin/go-humanize"

	"github.com/seed9bb5c928/nst/nst/httpapi"
	"github.com/seed9bb5c928/nst/nst/jobs"
)

// leastToken is how long a token has to be.
const leastToken = 16

// readTokens reads a file of tokens, one a line, as "name: token" or the token alone, and
// after the token what is granted; # begins a comment.
func readTokens(path string) (all []httpapi.Token, err error) {
	if all, err = tokensOf(path, "--token-file"); err == nil && len(all) == 0 {
		return nil, usage("--token-file: there is no token in %s", path)
	}
	return all, err
}

// tokensOf reads a file that a flag names; in it there may be none.
func tokensOf(path, flag string) (all []httpapi.Token, err error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, usage("%s: %w", flag, err)
	}
	data = bytes.TrimPrefix(data, []byte("\ufeff")) // some editors' mark of UTF-8
	lines := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; lines.Scan(); n++ {
		line := strings.TrimSpace(lines.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		t, err := readToken(line)
		if err != nil {
			return nil, usage("%s: line %d of %s: %w", flag, n, path, err)
		}
		if t.Name == "" {
			t.Label, t.Admin = fmt.Sprintf("line %d", n), true
		}
		for _, other := range all {
			switch {
			case t.Secret != "" && t.Secret == other.Secret || t.Secret == "" && t.SHA256 == other.SHA256:
				return nil, usage("%s: the token in line %d of %s is in it twice", flag, n, path)
			case t.Name != "" && t.Name == other.Name && (t.Owner != other.Owner || t.Admin != other.Admin):
				return nil, usage("%s: line %d of %s grants %s something else than a line before it", flag, n, path,
					t.Name)
			}
		}
		all = append(all, t)
	}
	if err := lines.Err(); err != nil {
		return nil, usage("%s: %w", flag, err)
	}
	return all, nil
}

var inURL = regexp.MustCompile(`^[A-Za-z0-9._-]{1,72}$`)

// nobody is a token that nobody knows: in the place of none, by which a service would ask for
// none.
func nobody() []httpapi.Token {
	return []httpapi.Token{{Owner: jobs.Owner{Name: "nobody"}, Secret: rand.Text()}}
}

// hashed comes before a token's SHA-256 that is there in its place.
const hashed = "sha256:"

// readToken reads a line: "ann: TOKEN priority=1 at-once=2 waiting=20 pixels-a-day=50M admin".
func readToken(line string) (t httpapi.Token, err error) {
	if name, rest, named := strings.Cut(line, ":"); named && !strings.HasPrefix(line, hashed) {
		t.Name, line = strings.TrimSpace(name), rest
		odd := func(r rune) bool { return !unicode.IsPrint(r) }
		if n := utf8.RuneCountInString(t.Name); n == 0 || n > 64 || !utf8.ValidString(t.Name) ||
			strings.ContainsFunc(t.Name, odd) {
			return t, fmt.Errorf("the name %.70q is not of 1 to 64 printable characters in UTF-8", t.Name)
		}
	}
	words := strings.Fields(line)
	if len(words) == 0 {
		return t, errors.New("the token is missing")
	}
	t.Secret = words[0]
	if hash, ok := strings.CutPrefix(t.Secret, hashed); ok {
		sum, err := hex.DecodeString(hash)
		if err != nil || len(sum) != len(t.SHA256) {
			return t, fmt.Errorf("after %s come 64 hexadecimal digits, as of: printf %%s TOKEN | sha256sum", hashed)
		}
		t.Secret = ""
		copy(t.SHA256[:], sum)
	} else if len(t.Secret) < leastToken {
		return t, fmt.Errorf("the token has %d characters; %d or more will do, such as of: openssl rand -hex 24",
			len(t.Secret), leastToken)
	}
	for _, word := range words[1:] {
		key, value, _ := strings.Cut(word, "=")
		number, unit, err := humanize.ParseSI(value)
		whole := err == nil && unit == "" && number == math.Trunc(number) && math.Abs(number) <= 1e15
		switch {
		case word == "admin":
			t.Admin = true
		case key == "priority" && whole:
			t.Priority = int(number)
		case key == "at-once" && whole && number >= 1:
			t.AtOnce = int(number)
		case key == "waiting" && whole && number >= 1:
			t.Waiting = int(number)
		case key == "pixels-a-day" && whole && number >= 1:
			t.PixelsADay = int64(number)
		case key == "work-a-day" && whole && number >= 1:
			t.WorkADay = int64(number)
		case key == "max-seconds" && whole && number >= 1:
			t.MaxSeconds = number
		default:
			return t, fmt.Errorf("%q is not known after a token: admin, priority=N, at-once=N, waiting=N, "+
				"pixels-a-day=N, work-a-day=N (pixels times iterations) and max-seconds=N are, N being a whole number "+
				"such as 50M", word)
		}
	}
	return t, nil
}

// readWorkers reads a file of the workers' tokens, one a line, as "name: token".
func readWorkers(path string) (all []jobs.WorkerToken, err error) {
	tokens, err := tokensOf(path, "--worker-tokens")
	if err != nil {
		return nil, err
	}
	for _, t := range tokens {
		if t.Owner != (jobs.Owner{Name: t.Name}) || t.Admin || !inURL.MatchString(t.Name) ||
			!inURL.MatchString(t.Secret) {
			return nil, usage("--worker-tokens: in %s a line is a worker's name and its token, as in w1: TOKEN, each "+
				"of at most 72 letters, digits and any of ._-, since they are part of a URL", path)
		}
		all = append(all, jobs.WorkerToken{Name: t.Name, Token: t.Secret})
	}
	return all, nil
}
